//! Micro F1 of any number of labels per example, as scikit-learn's `f1_score(average="micro")` on indicators.

use super::counts::{SetCounts, micro_f1};
use super::{Metric, MetricError, Scored, check_lengths};

/// Micro F1 of sets of labels. It is 0 where there is neither a label nor a prediction, as scikit-learn's
/// `zero_division=0`.
#[derive(Clone, Debug)]
pub struct MultiLabelF1(Vec<SetCounts>);

impl MultiLabelF1 {
    /// From the labels of each example and those that were predicted, as ids of classes. The same label twice counts
    /// once.
    ///
    /// # Errors
    /// There is no example, or not one prediction for each.
    pub fn new(truth: &[Vec<u32>], predicted: &[Vec<u32>]) -> Result<Self, MetricError> {
        check_lengths(Metric::MultiLabelF1, truth.len(), predicted.len())?;
        Ok(Self(truth.iter().zip(predicted).map(|(truth, predicted)| SetCounts::new(truth, predicted)).collect()))
    }
}

impl Scored for MultiLabelF1 {
    fn metric(&self) -> Metric {
        Metric::MultiLabelF1
    }

    fn examples(&self) -> usize {
        self.0.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        micro_f1(&self.0, draws)
    }
}
