//! F1 of one label per example, as scikit-learn's `f1_score` defines its averages.

use super::labels::{ClassCounts, Labels};
use super::{Metric, MetricError, Scored};

/// How the classes' F1 become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// The F1 of one class.
    Binary {
        /// The label of that class; 1 for GLUE's tasks.
        positive: u32,
    },
    /// The mean over the classes that occur, as a truth or as a prediction.
    Macro,
    /// Of all decisions together; with one label per example this is the accuracy.
    Micro,
    /// The mean over the classes, weighted by their number of examples.
    Weighted,
}

/// F1 of one label per example. A class without examples and predictions has an F1 of 0, as scikit-learn's
/// `zero_division=0`.
#[derive(Clone, Debug)]
pub struct F1 {
    labels: Labels,
    average: Average,
}

impl F1 {
    /// From the right labels and the predicted ones, as ids of classes.
    ///
    /// # Errors
    /// There is no example, or not one prediction for each.
    pub fn new(truth: &[u32], predicted: &[u32], average: Average) -> Result<Self, MetricError> {
        Ok(Self { labels: Labels::new(average.metric(), truth, predicted)?, average })
    }
}

impl Average {
    fn metric(self) -> Metric {
        match self {
            Average::Binary { .. } => Metric::F1,
            Average::Macro => Metric::F1Macro,
            Average::Micro => Metric::F1Micro,
            Average::Weighted => Metric::F1Weighted,
        }
    }
}

impl Scored for F1 {
    fn metric(&self) -> Metric {
        self.average.metric()
    }

    fn examples(&self) -> usize {
        self.labels.examples()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        let counts = self.labels.counts(draws);
        let drawn: u64 = counts.iter().map(|class| class.truth).sum();
        if drawn == 0 {
            return None;
        }
        let value = match self.average {
            Average::Binary { positive } => self.labels.class(positive).map_or(0.0, |class| counts[class].f1()),
            Average::Macro => {
                let present: Vec<f64> =
                    counts.iter().filter(|class| class.truth + class.predicted > 0).map(|class| class.f1()).collect();
                present.iter().sum::<f64>() / present.len() as f64
            }
            Average::Micro => {
                let hits = counts.iter().map(|class| class.hits).sum();
                ClassCounts { hits, truth: drawn, predicted: drawn }.f1()
            }
            Average::Weighted => counts.iter().map(|class| class.f1() * class.truth as f64).sum::<f64>() / drawn as f64,
        };
        Some(value)
    }
}
