//! `begin_suppress_tokens`: tokens that don't come first.

use super::{Processor, forbid};

pub(super) struct BeginSuppress {
    /// Tokens of prompt and answer before the first that is free.
    pub(super) at: usize,
    pub(super) tokens: Vec<u32>,
}

impl Processor for BeginSuppress {
    fn process(&self, ids: &[u32], scores: &mut [f32]) {
        if ids.len() == self.at {
            forbid(&self.tokens, scores);
        }
    }
}
