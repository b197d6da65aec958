//! `renormalize_logits`: scores become log-probabilities.

use super::{Processor, Warper};
use crate::{Candidates, numbers};

pub(super) struct Renormalize;

impl Processor for Renormalize {
    fn process(&self, _ids: &[u32], scores: &mut [f32]) {
        // Scores that have no probabilities are refused by what chooses a token.
        if let Ok(whole) = numbers::log_sum_exp(scores) {
            scores.iter_mut().for_each(|score| *score = (f64::from(*score) - whole) as f32);
        }
    }
}

impl Warper for Renormalize {
    fn warp(&self, candidates: &mut Candidates<'_>) {
        let best = candidates.best();
        let whole = f64::from(best) + candidates.mass(best).ln();
        if whole.is_finite() {
            candidates.map(|score| (f64::from(score) - whole) as f32);
        }
    }
}
