//! Accuracy: the share of examples with the right label.

use super::mean::{hit, mean};
use super::{Metric, MetricError, Scored, check_lengths};

/// Accuracy of one label per example.
#[derive(Clone, Debug)]
pub struct Accuracy(Vec<f64>);

impl Accuracy {
    /// From the right labels and the predicted ones, as ids of classes.
    ///
    /// # Errors
    /// There is no example, or not one prediction for each.
    pub fn new(truth: &[u32], predicted: &[u32]) -> Result<Self, MetricError> {
        check_lengths(Metric::Accuracy, truth.len(), predicted.len())?;
        Ok(Self(truth.iter().zip(predicted).map(|(truth, predicted)| hit(truth == predicted)).collect()))
    }
}

impl Scored for Accuracy {
    fn metric(&self) -> Metric {
        Metric::Accuracy
    }

    fn examples(&self) -> usize {
        self.0.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        mean(&self.0, draws)
    }
}
