//! `min_p`: tokens with at least this part of the likeliest one's probability.

use super::Warper;
use crate::{Candidates, numbers};

pub(super) struct MinP {
    pub(super) part: f32,
    pub(super) least: usize,
}

impl Warper for MinP {
    fn warp(&self, candidates: &mut Candidates<'_>) {
        if self.part > 0.0 {
            let best = candidates.best();
            let floor = best + self.part.ln() - 0.01;
            candidates.keep_by_score(self.least, floor, |score| numbers::exp(score - best) >= self.part);
        }
    }
}
