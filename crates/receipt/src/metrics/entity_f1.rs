//! Entity F1: an entity counts if its span and its label are right, as in seqeval's default mode.

use super::counts::{SetCounts, micro_f1};
use super::{Metric, MetricError, Scored, check_lengths};
use crate::data::Span;

/// Micro F1 of entities. It is 0 where there is neither an entity nor a prediction, as in seqeval.
#[derive(Clone, Debug)]
pub struct EntityF1(Vec<SetCounts>);

impl EntityF1 {
    /// From the entities of each text and those that were found. The same entity twice counts once.
    ///
    /// # Errors
    /// There is no text, or not one list of findings for each.
    pub fn new(truth: &[Vec<Span>], found: &[Vec<Span>]) -> Result<Self, MetricError> {
        check_lengths(Metric::EntityF1, truth.len(), found.len())?;
        Ok(Self(truth.iter().zip(found).map(|(truth, found)| SetCounts::new(truth, found)).collect()))
    }
}

impl Scored for EntityF1 {
    fn metric(&self) -> Metric {
        Metric::EntityF1
    }

    fn examples(&self) -> usize {
        self.0.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        micro_f1(&self.0, draws)
    }
}
