//! `forced_eos_token_id`: what is last when the longest length is reached.

use super::{Processor, force};

pub(super) struct ForcedEos {
    /// Most tokens of prompt and answer.
    pub(super) longest: usize,
    pub(super) tokens: Vec<u32>,
}

impl Processor for ForcedEos {
    fn process(&self, ids: &[u32], scores: &mut [f32]) {
        if ids.len().saturating_add(1) == self.longest {
            force(&self.tokens, scores);
        }
    }
}
