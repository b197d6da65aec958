//! `suppress_tokens`: tokens that never come.

use super::{Processor, forbid};

pub(super) struct Suppress(pub(super) Vec<u32>);

impl Processor for Suppress {
    fn process(&self, _ids: &[u32], scores: &mut [f32]) {
        forbid(&self.0, scores);
    }
}
