//! `eta_cutoff`: tokens of at least this probability, or of less where the entropy is high.

use super::Warper;
use super::epsilon_cutoff::cut;
use super::typical::entropy;
use crate::Candidates;

pub(super) struct EtaCutoff {
    pub(super) epsilon: f32,
    pub(super) least: usize,
}

impl Warper for EtaCutoff {
    fn warp(&self, candidates: &mut Candidates<'_>) {
        let epsilon = f64::from(self.epsilon);
        let eta = epsilon.min(epsilon.sqrt() * (-entropy(&candidates.sorted())).exp());
        cut(candidates, eta, self.least);
    }
}
