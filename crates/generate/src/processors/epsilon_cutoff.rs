//! `epsilon_cutoff`: tokens of at least this probability.

use super::Warper;
use crate::{Candidates, numbers};

pub(super) struct EpsilonCutoff {
    pub(super) epsilon: f32,
    pub(super) least: usize,
}

impl Warper for EpsilonCutoff {
    fn warp(&self, candidates: &mut Candidates<'_>) {
        cut(candidates, f64::from(self.epsilon), self.least);
    }
}

/// Leaves tokens of at least this probability, and those as likely as the `least`-th.
pub(super) fn cut(candidates: &mut Candidates<'_>, probability: f64, least: usize) {
    let best = candidates.best();
    let limit = probability * candidates.mass(best);
    let spared = candidates.largest(least).last().map_or(f32::NEG_INFINITY, |last| last.score);
    let floor = spared.min(best + limit.ln() as f32) - 0.01;
    candidates.keep_by_score(0, floor, |score| score >= spared || f64::from(numbers::exp(score - best)) >= limit);
}
