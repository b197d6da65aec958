//! Agreement of labels: for data without labels, how often a model answers as its baseline does.

use super::mean::{hit, mean};
use super::{Metric, MetricError, Scored, check_lengths};

/// Share of examples whose label is the baseline's.
#[derive(Clone, Debug)]
pub struct LabelAgreement(Vec<f64>);

impl LabelAgreement {
    /// From the labels of both, of whatever type: class ids, sets of them, texts.
    ///
    /// # Errors
    /// There is no example, or not one label of each.
    pub fn new<L: PartialEq>(baseline: &[L], labels: &[L]) -> Result<Self, MetricError> {
        check_lengths(Metric::LabelAgreement, baseline.len(), labels.len())?;
        Ok(Self(baseline.iter().zip(labels).map(|(baseline, label)| hit(baseline == label)).collect()))
    }
}

impl Scored for LabelAgreement {
    fn metric(&self) -> Metric {
        Metric::LabelAgreement
    }

    fn examples(&self) -> usize {
        self.0.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        mean(&self.0, draws)
    }
}
