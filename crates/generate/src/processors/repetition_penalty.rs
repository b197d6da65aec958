//! `repetition_penalty`: logits of tokens that are there already lose, by a factor.

use super::Processor;

pub(super) struct RepetitionPenalty(pub(super) f32);

impl Processor for RepetitionPenalty {
    fn process(&self, ids: &[u32], scores: &mut [f32]) {
        penalise(ids, self.0, scores);
    }
}

/// Divides positive logits of the tokens by the penalty, and multiplies negative ones, each token once.
pub(super) fn penalise(ids: &[u32], penalty: f32, scores: &mut [f32]) {
    let mut seen = vec![0_u64; scores.len().div_ceil(64)];
    for token in ids {
        let (word, bit) = (*token as usize / 64, 1 << (token % 64));
        let first = seen.get_mut(word).is_some_and(|word| {
            let first = *word & bit == 0;
            *word |= bit;
            first
        });
        if let Some(score) = scores.get_mut(*token as usize).filter(|_| first) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}
