//! `temperature`: logits are divided by it.

use super::Warper;
use crate::Candidates;

pub(super) struct Temperature(pub(super) f32);

impl Warper for Temperature {
    fn warp(&self, candidates: &mut Candidates<'_>) {
        candidates.map(|score| score / self.0);
    }
}
