//! `top_p`: the likeliest tokens that together have this probability.

use super::Warper;
use crate::Candidates;

pub(super) struct TopP {
    pub(super) mass: f32,
    pub(super) least: usize,
}

impl Warper for TopP {
    fn warp(&self, candidates: &mut Candidates<'_>) {
        candidates.keep_mass(f64::from(self.mass), self.least);
    }
}
