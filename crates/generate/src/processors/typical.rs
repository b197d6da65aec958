//! `typical_p`: the tokens whose surprise is nearest to the expected one and that together have this probability.

use super::Warper;
use crate::candidates::{Candidate, likelier_first};
use crate::{Candidates, numbers};

pub(super) struct Typical {
    pub(super) mass: f32,
    pub(super) least: usize,
}

impl Warper for Typical {
    fn warp(&self, candidates: &mut Candidates<'_>) {
        let sorted = candidates.sorted();
        let whole = log_sum_exp(&sorted);
        let expected = entropy(&sorted);
        let surprise = |candidate: &Candidate| whole - f64::from(candidate.score);
        let mut typical: Vec<(f32, Candidate)> =
            sorted.iter().map(|candidate| ((surprise(candidate) - expected).abs() as f32, *candidate)).collect();
        typical.sort_by(|left, right| left.0.total_cmp(&right.0).then(left.1.token.cmp(&right.1.token)));
        let mut mass = 0.0;
        let mut limit = f32::INFINITY;
        for (distance, candidate) in &typical {
            mass += (-surprise(candidate)).exp();
            if mass >= f64::from(self.mass) {
                limit = *distance;
                break;
            }
        }
        let kept =
            typical.iter().enumerate().filter(|(index, (distance, _))| *index < self.least || *distance <= limit);
        let mut few: Vec<Candidate> = kept.map(|(_, (_, candidate))| *candidate).collect();
        few.sort_unstable_by(likelier_first);
        *candidates = Candidates::Few(few);
    }
}

fn log_sum_exp(sorted: &[Candidate]) -> f64 {
    let best = sorted.first().map_or(0.0, |candidate| candidate.score);
    f64::from(best) + sorted.iter().map(|candidate| f64::from(numbers::exp(candidate.score - best))).sum::<f64>().ln()
}

/// The expected surprise of a draw, in nats.
pub(super) fn entropy(sorted: &[Candidate]) -> f64 {
    let whole = log_sum_exp(sorted);
    sorted.iter().map(|candidate| whole - f64::from(candidate.score)).map(|surprise| surprise * (-surprise).exp()).sum()
}
