//! What was measured on one machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::json::finite;

/// Speed and memory on one machine. Never part of an artefact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Times of batches.
    pub timings: Vec<Timing>,
    /// Bytes.
    pub sizes: Sizes,
    /// Where this was measured.
    pub machine: Option<Machine>,
}

/// Which of the two models a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The checkpoint in f32.
    F32,
    /// What the optimisation made of it.
    Optimised,
}

/// The time of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The batch.
    pub shape: Shape,
    /// The model.
    pub variant: Variant,
    /// Median of the runs, in milliseconds.
    #[serde(serialize_with = "finite")]
    pub median_ms: f64,
    /// At the median.
    #[serde(serialize_with = "finite")]
    pub tokens_per_second: f64,
    /// Worker threads.
    pub threads: usize,
    /// The instruction set's name.
    pub isa: String,
}

/// A batch of sequences of equal length, written `8x128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shape {
    /// How many sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub tokens: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}x{}", self.sequences, self.tokens))
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let parsed = text.split_once('x').and_then(|(sequences, tokens)| {
            Some(Shape { sequences: sequences.parse().ok()?, tokens: tokens.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("`{text}` is no shape such as 8x128"))
    }
}

impl TryFrom<String> for Shape {
    type Error = String;

    fn try_from(text: String) -> Result<Shape, String> {
        text.parse()
    }
}

impl From<Shape> for String {
    fn from(shape: Shape) -> String {
        shape.to_string()
    }
}

/// What the two models take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Weight files on disk.
    pub file: Option<Size>,
    /// Weights in memory.
    pub weights: Option<Size>,
    /// Resident memory of the process.
    pub resident: Option<Size>,
}

/// Bytes of the two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// In f32.
    pub f32: u64,
    /// Optimised.
    pub optimised: u64,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The operating system and its version.
    pub system: String,
}

impl Measured {
    /// Times of the same batch, threads and instruction set in both models, in the order of the batches.
    pub(super) fn pairs(&self) -> Vec<TimingPair<'_>> {
        let of = |variant| self.timings.iter().filter(move |timing| timing.variant == variant);
        let mut pairs: Vec<TimingPair> = of(Variant::F32)
            .filter_map(|float| {
                let same = |other: &&Timing| {
                    (other.shape, other.threads, &other.isa) == (float.shape, float.threads, &float.isa)
                };
                Some(TimingPair { float, optimised: of(Variant::Optimised).find(same)? })
            })
            .collect();
        pairs.sort_by_key(|pair| (pair.float.threads, &pair.float.isa, pair.float.shape));
        pairs
    }
}

/// One batch in both models.
#[derive(Clone, Copy)]
pub(super) struct TimingPair<'a> {
    pub(super) float: &'a Timing,
    pub(super) optimised: &'a Timing,
}

impl TimingPair<'_> {
    /// How many times faster the optimised model is.
    pub(super) fn ratio(&self) -> f64 {
        self.float.median_ms / self.optimised.median_ms
    }
}

impl Sizes {
    /// Those that are known, with their names.
    pub(super) fn rows(&self) -> Vec<(&'static str, Size)> {
        let all =
            [("weights on disk", self.file), ("weights in memory", self.weights), ("resident memory", self.resident)];
        all.into_iter().filter_map(|(name, size)| Some((name, size?))).collect()
    }
}

impl Size {
    /// How many times smaller the optimised model is.
    pub(super) fn ratio(self) -> f64 {
        self.f32 as f64 / self.optimised as f64
    }
}
