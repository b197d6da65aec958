//! `remove_invalid_values`: every logit becomes a finite number.

use super::Processor;

pub(super) struct RemoveInvalid;

impl Processor for RemoveInvalid {
    fn process(&self, _ids: &[u32], scores: &mut [f32]) {
        for score in scores {
            *score = if score.is_nan() { 0.0 } else { score.clamp(f32::MIN, f32::MAX) };
        }
    }
}
