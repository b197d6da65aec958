//! The receipt of an optimisation: what it cost in accuracy, what it gained in speed and memory.
//!
//! [`Findings`] are the same on every machine (same source, data, options and version) and go into the artefact;
//! [`Measured`] belongs to the machine it was measured on and goes into `report.json` only. [`Receipt`] holds both and
//! has three faces: [`Receipt::to_json`], [`Receipt::table`] for terminals and [`Receipt::to_html`], one file that
//! loads nothing.

mod figures;
mod html;
mod json;
mod measured;
mod table;

use serde::{Deserialize, Serialize};

use crate::Rung;
use crate::rung::RUNGS;
use crate::search;
use json::finite;

pub use json::ReceiptError;
pub use measured::{Machine, Measured, Shape, Size, Sizes, Timing, Variant};

/// The version of the format that this code writes and reads.
pub const FORMAT: u32 = 1;

/// With fewer examples than this behind a verdict, a warning is due.
pub const FEW_EXAMPLES: usize = 500;

/// Everything that is known of one optimisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// What is the same on every machine.
    pub findings: Findings,
    /// What was measured on this one.
    pub measured: Measured,
}

/// What an optimisation did and what it costs in accuracy. Same inputs, same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of Centuple.
    pub version: String,
    /// What was optimised.
    pub model: Source,
    /// The task that the model was judged by.
    pub task: String,
    /// Asked for and chosen.
    pub precision: Precision,
    /// Seed of the bootstrap and of the split of the data.
    pub seed: u64,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// The examples; none where the model was optimised without.
    pub dataset: Option<Dataset>,
    /// The end metric on the examples of the verdict.
    pub accuracy: Option<Accuracy>,
    /// Most points that the metric was allowed to lose.
    #[serde(serialize_with = "json::finite_option")]
    pub max_drop: Option<f64>,
    /// Whether it kept to that.
    pub verdict: Verdict,
    /// What a reader should know before trusting the verdict, one sentence each.
    pub warnings: Vec<String>,
    /// Every linear layer, in the order of the model.
    pub layers: Vec<Layer>,
    /// The trade-off curve: what the search tried, in that order.
    pub search: Vec<SearchPoint>,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its folder or hub id.
    pub id: String,
    /// SHA-256 of its weights, in hexadecimal digits.
    pub sha256: String,
}

/// A precision by its name, as `--precision` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precision {
    /// What the user asked for.
    pub asked: String,
    /// What it became.
    pub chosen: String,
}

/// The examples that the model was judged by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// The file's name.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// Examples that the search saw.
    pub search_examples: usize,
    /// Examples behind the verdict; the search saw none of them.
    pub verdict_examples: usize,
    /// Whether they have labels. Without, a model can only be compared with itself.
    pub labelled: bool,
}

impl Dataset {
    /// A warning where a verdict rests on fewer than [`FEW_EXAMPLES`] examples.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let count = self.verdict_examples;
        let few = format!("the verdict rests on {count} examples; with fewer than {FEW_EXAMPLES} the interval is wide");
        (count < FEW_EXAMPLES).then_some(few)
    }
}

/// An end metric before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// The metric's name and unit, for example `Spearman x100`.
    pub metric: String,
    /// In f32.
    pub baseline: Estimate,
    /// Optimised.
    pub optimised: Estimate,
    /// The difference example by example.
    pub paired: Paired,
}

/// A figure with its 95 % interval, in points of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// On all examples.
    #[serde(serialize_with = "finite")]
    pub value: f64,
    /// Lower end of the interval.
    #[serde(serialize_with = "finite")]
    pub low: f64,
    /// Upper end of the interval.
    #[serde(serialize_with = "finite")]
    pub high: f64,
}

/// Optimised minus f32 with its 95 % interval, in points of the metric: negative is a loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// On all examples.
    #[serde(serialize_with = "finite")]
    pub difference: f64,
    /// Lower end of the interval.
    #[serde(serialize_with = "finite")]
    pub low: f64,
    /// Upper end of the interval.
    #[serde(serialize_with = "finite")]
    pub high: f64,
}

/// Whether an optimised model kept to its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It did.
    Met,
    /// It lost more than it was allowed to.
    Over,
    /// There are no labels to judge by.
    Unlabelled,
}

/// A linear layer of the optimised model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// The name of its weight.
    pub name: String,
    /// Outputs and inputs.
    pub shape: [usize; 2],
    /// How it computes.
    pub rung: Rung,
    /// Power of its output in f32 over the power of the error, in decibels; none where there is no error.
    #[serde(serialize_with = "json::finite_option")]
    pub sqnr_db: Option<f64>,
    /// Mean cosine of its output and that in f32.
    #[serde(serialize_with = "finite")]
    pub cosine: f64,
    /// Mean of 1 − cosine of the model's output when this layer alone is quantised.
    #[serde(serialize_with = "finite")]
    pub damage: f64,
    /// The rung that it started at, where the search gave it a slower one.
    pub promoted_from: Option<Rung>,
}

/// A point of the trade-off curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchPoint {
    /// How many layers were on each rung, in the order of [`Rung::ALL`].
    #[serde(deserialize_with = "json::rungs")]
    pub rungs: [usize; RUNGS],
    /// Time of the linear layers relative to f32, by the search's static table.
    #[serde(serialize_with = "finite")]
    pub cost: f64,
    /// Points that the metric lost on the search examples.
    #[serde(serialize_with = "finite")]
    pub drop: f64,
    /// Mean of 1 − cosine of the outputs.
    #[serde(serialize_with = "finite")]
    pub error: f64,
    /// Whether this is what the model became.
    pub chosen: bool,
}

impl SearchPoint {
    /// The points of a search; none is chosen where it was refused.
    #[must_use]
    pub fn all(outcome: &search::Outcome) -> Vec<SearchPoint> {
        let (points, chosen) = match outcome {
            search::Outcome::Met { chosen, points } => (points, Some(*chosen)),
            search::Outcome::Refused { points, .. } => (points, None),
        };
        let count = |point: &search::Point, rung| point.assignment.iter().filter(|other| **other == rung).count();
        let summary = |(place, point): (usize, &search::Point)| SearchPoint {
            rungs: Rung::ALL.map(|rung| count(point, rung)),
            cost: point.cost,
            drop: point.drop,
            error: point.error,
            chosen: chosen == Some(place),
        };
        points.iter().enumerate().map(summary).collect()
    }
}
