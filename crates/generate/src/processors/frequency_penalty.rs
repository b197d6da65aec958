//! `presence_penalty` and `frequency_penalty`: taken from the logits of tokens that were generated, once and each time.

use std::collections::HashMap;

use super::Processor;

pub(super) struct FrequencyPenalty {
    pub(super) presence: f32,
    pub(super) frequency: f32,
    /// Tokens of the prompt, which don't count.
    pub(super) prompt: usize,
}

impl Processor for FrequencyPenalty {
    fn process(&self, ids: &[u32], scores: &mut [f32]) {
        let mut counts = HashMap::<u32, u32>::new();
        for token in ids.iter().skip(self.prompt) {
            *counts.entry(*token).or_default() += 1;
        }
        for (token, count) in counts {
            if let Some(score) = scores.get_mut(token as usize) {
                *score -= self.frequency * count as f32 + self.presence;
            }
        }
    }
}
