//! Matthews correlation coefficient, for any number of classes (Gorodkin 2004), as scikit-learn computes it.

use super::labels::{ClassCounts, Labels};
use super::{Metric, MetricError, Scored};

/// Matthews correlation of one label per example. It is 0 where the truth or the prediction is one class only, as in
/// scikit-learn.
#[derive(Clone, Debug)]
pub struct Matthews(Labels);

impl Matthews {
    /// From the right labels and the predicted ones, as ids of classes.
    ///
    /// # Errors
    /// There is no example, or not one prediction for each.
    pub fn new(truth: &[u32], predicted: &[u32]) -> Result<Self, MetricError> {
        Labels::new(Metric::MatthewsCorrelation, truth, predicted).map(Self)
    }
}

impl Scored for Matthews {
    fn metric(&self) -> Metric {
        Metric::MatthewsCorrelation
    }

    fn examples(&self) -> usize {
        self.0.examples()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        let counts = self.0.counts(draws);
        let sum = |term: fn(&ClassCounts) -> i128| counts.iter().map(term).sum::<i128>();
        let drawn = sum(|class| i128::from(class.truth));
        if drawn == 0 {
            return None;
        }
        let hits = sum(|class| i128::from(class.hits));
        let covariance = hits * drawn - sum(|class| i128::from(class.truth) * i128::from(class.predicted));
        let of_truth = drawn * drawn - sum(|class| i128::from(class.truth).pow(2));
        let of_predicted = drawn * drawn - sum(|class| i128::from(class.predicted).pow(2));
        if of_truth == 0 || of_predicted == 0 {
            return Some(0.0);
        }
        Some(covariance as f64 / ((of_truth as f64).sqrt() * (of_predicted as f64).sqrt()))
    }
}
