//! `logit_bias`: a number added to the logit of a token.

use std::collections::BTreeMap;

use super::Processor;

pub(super) struct LogitBias(pub(super) BTreeMap<u32, f32>);

impl Processor for LogitBias {
    fn process(&self, _ids: &[u32], scores: &mut [f32]) {
        for (token, bias) in &self.0 {
            if let Some(score) = scores.get_mut(*token as usize) {
                *score += bias;
            }
        }
    }
}
