//! `exponential_decay_length_penalty`: from some length on the end becomes likelier with each token.

use super::Processor;

pub(super) struct ExponentialDecay {
    /// Tokens of prompt and answer up to which nothing happens.
    pub(super) start: usize,
    pub(super) factor: f32,
    pub(super) eos: Vec<u32>,
}

impl Processor for ExponentialDecay {
    fn process(&self, ids: &[u32], scores: &mut [f32]) {
        let beyond = ids.len().saturating_sub(self.start);
        if beyond == 0 {
            return;
        }
        let growth = (f64::from(self.factor).powf(beyond as f64) - 1.0) as f32;
        for token in &self.eos {
            // One that is forbidden stays so.
            if let Some(score) = scores.get_mut(*token as usize).filter(|score| score.is_finite()) {
                *score += score.abs() * growth;
            }
        }
    }
}
