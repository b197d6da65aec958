//! The precisions that a linear layer can have.

use serde::{Deserialize, Serialize};

/// How many rungs there are.
pub const RUNGS: usize = 5;

/// How a linear layer computes, the fastest first.
///
/// The names say weights and activations in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rung {
    /// 4-bit weights in groups that have a scale each, 8-bit activations by the same groups.
    #[serde(rename = "w4a8")]
    Int4,
    /// 7-bit activations: byte products may be summed in pairs of pairs without overflow.
    #[serde(rename = "w8a7")]
    Int8Chained,
    /// 8-bit activations.
    #[serde(rename = "w8a8")]
    Int8,
    /// 12-bit activations: two byte products for each weight.
    #[serde(rename = "w8a12")]
    W8A12,
    /// Not quantised.
    #[serde(rename = "f32")]
    Float,
}

impl Rung {
    /// Every rung, the fastest first; a rung's place is `rung as usize`.
    pub const ALL: [Rung; RUNGS] = [Rung::Int4, Rung::Int8Chained, Rung::Int8, Rung::W8A12, Rung::Float];

    /// The name in files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rung::Int4 => "w4a8",
            Rung::Int8Chained => "w8a7",
            Rung::Int8 => "w8a8",
            Rung::W8A12 => "w8a12",
            Rung::Float => "f32",
        }
    }

    /// What the name means, in words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Rung::Int4 => "4-bit weights in groups, 8-bit activations",
            Rung::Int8Chained => "8-bit weights, 7-bit activations",
            Rung::Int8 => "8-bit weights, 8-bit activations",
            Rung::W8A12 => "8-bit weights, 12-bit activations",
            Rung::Float => "not quantised",
        }
    }

    /// Time of a multiplication relative to [`Rung::Int8Chained`], by which the search counts cost. A fixed table, so
    /// that the same search has the same result on every machine.
    #[must_use]
    pub fn time(self) -> f64 {
        match self {
            // Generation is bound by the bytes that are read.
            Rung::Int4 => 0.5,
            Rung::Int8Chained => 1.0,
            Rung::Int8 => 4.0 / 3.0,
            Rung::W8A12 => 2.0,
            Rung::Float => 4.0,
        }
    }

    /// Noise power that the rung adds, relative to [`Rung::Int8Chained`]: codes of `b` bits add noise of power `4^-b`,
    /// once for the weights and once for the activations.
    #[must_use]
    pub fn noise(self) -> f64 {
        let power = |bits: i32| 4f64.powi(8 - bits);
        let total = match self {
            Rung::Int4 => power(4) + power(8),
            Rung::Int8Chained => power(8) + power(7),
            Rung::Int8 => power(8) + power(8),
            Rung::W8A12 => power(8) + power(12),
            Rung::Float => 0.0,
        };
        total / (power(8) + power(7))
    }
}
