//! `min_length` and `min_new_tokens`: no end before there are so many tokens.

use super::{Processor, forbid};

pub(super) struct MinLength {
    /// Least tokens of prompt and answer.
    pub(super) shortest: usize,
    pub(super) eos: Vec<u32>,
}

impl Processor for MinLength {
    fn process(&self, ids: &[u32], scores: &mut [f32]) {
        if ids.len() < self.shortest {
            forbid(&self.eos, scores);
        }
    }
}
