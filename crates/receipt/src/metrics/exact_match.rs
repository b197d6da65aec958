//! Exact match: the share of answers that equal a right one, as SQuAD 1.1 compares.

use super::mean::{hit, mean};
use super::{Metric, MetricError, Scored, squad, token_f1};

/// Share of answers that equal one of the right ones.
#[derive(Clone, Debug)]
pub struct ExactMatch(Vec<f64>);

impl ExactMatch {
    /// From the right answers of each question and the answer that was given.
    ///
    /// # Errors
    /// There is no question, not one answer for each, or a question without a right answer.
    pub fn new<A: AsRef<str>, P: AsRef<str>>(answers: &[Vec<A>], given: &[P]) -> Result<Self, MetricError> {
        token_f1::best(Metric::ExactMatch, answers, given, |a, b| hit(squad::equal(a, b))).map(Self)
    }
}

impl Scored for ExactMatch {
    fn metric(&self) -> Metric {
        Metric::ExactMatch
    }

    fn examples(&self) -> usize {
        self.0.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        mean(&self.0, draws)
    }
}
