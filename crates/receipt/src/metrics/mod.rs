//! Metrics as the field reports them, in f64, in a form that can be resampled.
//!
//! Each metric is a type that is made from a model's answers once and keeps what each example contributes. Its
//! [`Scored::value`] is the metric over a *draw*: how often each example counts. All ones is the metric itself; a
//! bootstrap draws other numbers.
//!
//! A value is a plain number (an accuracy is between 0 and 1); [`Metric::points`] makes of it what papers print.

mod accuracy;
mod agreement;
mod cosine;
mod counts;
mod entity_f1;
mod exact_match;
mod f1;
mod labels;
mod matthews;
mod mean;
mod multi_label_f1;
mod pearson;
mod perplexity;
mod spearman;
mod squad;
mod token_f1;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use accuracy::Accuracy;
pub use agreement::LabelAgreement;
pub use cosine::{MeanCosine, WorstCosine, cosine};
pub use entity_f1::EntityF1;
pub use exact_match::ExactMatch;
pub use f1::{Average, F1};
pub use matthews::Matthews;
pub use multi_label_f1::MultiLabelF1;
pub use pearson::Pearson;
pub use perplexity::{LogPerplexity, Perplexity};
pub use spearman::Spearman;
pub use token_f1::TokenF1;

/// What each example contributes to a metric.
pub trait Scored {
    /// The metric.
    fn metric(&self) -> Metric;

    /// The number of examples; at least one.
    fn examples(&self) -> usize;

    /// The metric over a sample in which example `i` stands `draws[i]` times.
    ///
    /// `None` where the metric is not defined: nothing is drawn, or a correlation of values that are all equal.
    ///
    /// # Panics
    /// `draws` has another length than [`Scored::examples`].
    fn value(&self, draws: &[u32]) -> Option<f64>;

    /// The metric over every example once.
    fn point(&self) -> Option<f64> {
        self.value(&vec![1; self.examples()])
    }
}

/// A metric by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of right labels.
    Accuracy,
    /// F1 of the positive class.
    F1,
    /// Mean of the classes' F1.
    F1Macro,
    /// F1 of all decisions together.
    F1Micro,
    /// Mean of the classes' F1, weighted by how many examples a class has.
    F1Weighted,
    /// Matthews correlation coefficient.
    MatthewsCorrelation,
    /// Spearman's rank correlation.
    Spearman,
    /// Pearson's correlation.
    Pearson,
    /// Share of answers that equal a right one, as SQuAD 1.1 compares.
    ExactMatch,
    /// Mean overlap of words with the best right answer, as SQuAD 1.1 counts.
    TokenF1,
    /// Micro F1 of entities, as seqeval counts.
    EntityF1,
    /// Micro F1 of sets of labels.
    MultiLabelF1,
    /// Perplexity.
    Perplexity,
    /// The natural logarithm of perplexity; a hundredth of it is one percent of perplexity.
    LogPerplexity,
    /// Share of examples whose label is the baseline's.
    LabelAgreement,
    /// Mean cosine to the baseline's vectors.
    MeanCosine,
    /// Smallest cosine to a vector of the baseline.
    WorstCosine,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Metric; 17] = [
        Metric::Accuracy,
        Metric::F1,
        Metric::F1Macro,
        Metric::F1Micro,
        Metric::F1Weighted,
        Metric::MatthewsCorrelation,
        Metric::Spearman,
        Metric::Pearson,
        Metric::ExactMatch,
        Metric::TokenF1,
        Metric::EntityF1,
        Metric::MultiLabelF1,
        Metric::Perplexity,
        Metric::LogPerplexity,
        Metric::LabelAgreement,
        Metric::MeanCosine,
        Metric::WorstCosine,
    ];

    /// The name as reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::F1 => "F1",
            Metric::F1Macro => "macro F1",
            Metric::F1Micro => "micro F1",
            Metric::F1Weighted => "weighted F1",
            Metric::MatthewsCorrelation => "Matthews correlation",
            Metric::Spearman => "Spearman correlation",
            Metric::Pearson => "Pearson correlation",
            Metric::ExactMatch => "exact match",
            Metric::TokenF1 => "token F1",
            Metric::EntityF1 => "entity F1",
            Metric::MultiLabelF1 => "multi-label micro F1",
            Metric::Perplexity => "perplexity",
            Metric::LogPerplexity => "log-perplexity",
            Metric::LabelAgreement => "equal labels",
            Metric::MeanCosine => "mean cosine",
            Metric::WorstCosine => "worst cosine",
        }
    }

    /// How many points a value of 1 is: 100 for all but perplexity, which is reported as it is.
    pub fn unit(self) -> f64 {
        match self {
            Metric::Perplexity => 1.0,
            Metric::Accuracy
            | Metric::F1
            | Metric::F1Macro
            | Metric::F1Micro
            | Metric::F1Weighted
            | Metric::MatthewsCorrelation
            | Metric::Spearman
            | Metric::Pearson
            | Metric::ExactMatch
            | Metric::TokenF1
            | Metric::EntityF1
            | Metric::MultiLabelF1
            | Metric::LogPerplexity
            | Metric::LabelAgreement
            | Metric::MeanCosine
            | Metric::WorstCosine => 100.0,
        }
    }

    /// A value, or a difference of values, in points.
    pub fn points(self, value: f64) -> f64 {
        value * self.unit()
    }

    /// Whether a larger value is a better one.
    pub fn higher_is_better(self) -> bool {
        !matches!(self, Metric::Perplexity | Metric::LogPerplexity)
    }

    /// How many points a `candidate` loses against a `baseline`; negative where it gains.
    pub fn drop(self, baseline: f64, candidate: f64) -> f64 {
        let loss = if self.higher_is_better() { baseline - candidate } else { candidate - baseline };
        self.points(loss)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why answers can't be scored.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// There are no examples.
    #[error("{metric} needs at least one example")]
    Empty {
        /// The metric.
        metric: Metric,
    },
    /// There are more answers than examples, or fewer.
    #[error("{metric} was given {expected} examples and {found} answers; give one answer per example")]
    Lengths {
        /// The metric.
        metric: Metric,
        /// The number of examples.
        expected: usize,
        /// The number of answers.
        found: usize,
    },
    /// A number is NaN or infinite.
    #[error(
        "{metric}: a number of example {example} is not finite; \
         the model's weights are damaged or its precision is too low"
    )]
    NotFinite {
        /// The metric.
        metric: Metric,
        /// Index of the example.
        example: usize,
    },
    /// An example has no right answer.
    #[error("{metric}: example {example} has no right answer; leave it out")]
    NoAnswer {
        /// The metric.
        metric: Metric,
        /// Index of the example.
        example: usize,
    },
}

/// Checks that there is one answer for each example, and an example.
fn check_lengths(metric: Metric, expected: usize, found: usize) -> Result<(), MetricError> {
    match (expected, found) {
        (0, 0) => Err(MetricError::Empty { metric }),
        (expected, found) if expected != found => Err(MetricError::Lengths { metric, expected, found }),
        (_, _) => Ok(()),
    }
}

/// Checks that all numbers are finite.
fn check_finite(metric: Metric, numbers: &[f64]) -> Result<(), MetricError> {
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(example) => Err(MetricError::NotFinite { metric, example }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let mut names = Metric::ALL.map(Metric::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Metric::ALL.len());
    }

    #[test]
    fn a_drop_is_what_gets_worse() {
        assert_eq!(Metric::Accuracy.drop(0.75, 0.5), 25.0);
        assert_eq!(Metric::Perplexity.drop(8.0, 8.5), 0.5);
    }

    #[test]
    fn answers_must_fit_examples() {
        assert_eq!(Accuracy::new(&[], &[]).err(), Some(MetricError::Empty { metric: Metric::Accuracy }));
        let error = Pearson::new(&[1.0, 2.0], &[1.0]).expect_err("one is missing");
        assert!(error.to_string().contains("2 examples and 1 answers"), "{error}");
        let error = Spearman::new(&[1.0, 2.0], &[1.0, f64::NAN]).expect_err("NaN is no score");
        assert_eq!(error, MetricError::NotFinite { metric: Metric::Spearman, example: 1 });
    }
}
