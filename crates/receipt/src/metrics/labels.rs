//! One label per example, with classes numbered from 0.

use super::{Metric, MetricError, check_lengths};

/// The right and the predicted class of each example.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    pairs: Vec<(usize, usize)>,
    /// The labels that occur, sorted; a class is an index into them.
    classes: Vec<u32>,
}

/// What a draw holds of one class.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClassCounts {
    /// Examples that were rightly given the class.
    pub(super) hits: u64,
    /// Examples of the class.
    pub(super) truth: u64,
    /// Examples that were given the class.
    pub(super) predicted: u64,
}

impl ClassCounts {
    /// F1: `2·hits / (truth + predicted)`, and 0 for a class that nothing has, as scikit-learn's `zero_division=0`.
    pub(super) fn f1(self) -> f64 {
        let sum = self.truth + self.predicted;
        if sum == 0 { 0.0 } else { 2.0 * self.hits as f64 / sum as f64 }
    }
}

impl Labels {
    pub(super) fn new(metric: Metric, truth: &[u32], predicted: &[u32]) -> Result<Self, MetricError> {
        check_lengths(metric, truth.len(), predicted.len())?;
        let mut classes = [truth, predicted].concat();
        classes.sort_unstable();
        classes.dedup();
        let class = |label: &u32| classes.binary_search(label).expect("every label is among the classes");
        let pairs = truth.iter().zip(predicted).map(|(truth, predicted)| (class(truth), class(predicted))).collect();
        Ok(Self { pairs, classes })
    }

    pub(super) fn examples(&self) -> usize {
        self.pairs.len()
    }

    /// The class of a label, if it occurs.
    pub(super) fn class(&self, label: u32) -> Option<usize> {
        self.classes.binary_search(&label).ok()
    }

    /// The counts of each class in a draw.
    pub(super) fn counts(&self, draws: &[u32]) -> Vec<ClassCounts> {
        assert_eq!(self.pairs.len(), draws.len(), "a draw counts every example");
        let mut counts = vec![ClassCounts::default(); self.classes.len()];
        for (&(truth, predicted), &draw) in self.pairs.iter().zip(draws) {
            let draw = u64::from(draw);
            counts[truth].truth += draw;
            counts[predicted].predicted += draw;
            counts[truth].hits += if truth == predicted { draw } else { 0 };
        }
        counts
    }
}
