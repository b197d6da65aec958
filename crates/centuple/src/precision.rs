//! The numbers that models compute with.

use std::fmt;

use centuple_passes::Quantization;
use serde::{Deserialize, Serialize};

/// The numbers that linear layers compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 32-bit floats over weights that are stored in 16 bits.
    F16,
    /// 16-bit floats with the range of 32-bit ones and a precision of 8 bits (bfloat16), on GPUs only.
    Bf16,
    /// Integers: 8-bit weights, 7-bit activations, calibrated on shipped texts.
    Int8,
    /// Integers: 4-bit weights in groups along the depth, of [`INT4_GROUP`] elements where [`Quantization::groups`] doesn't say.
    Int4,
    /// 8-bit floats (e4m3) with a scale per token and column, on GPUs only; what follows no linear layer over tokens is f16.
    Fp8,
}

/// Weights that share a scale in [`Precision::Int4`].
pub const INT4_GROUP: usize = 128;

impl Precision {
    /// The name of its number type.
    pub fn dtype(self) -> &'static str {
        match self {
            Precision::F32 => "float32",
            Precision::F16 => "float16",
            Precision::Bf16 => "bfloat16",
            Precision::Int8 => "int8",
            Precision::Int4 => "int4",
            Precision::Fp8 => "float8_e4m3fn",
        }
    }

    /// Whether its weights are codes in groups, rounded by the products of their inputs' channels.
    pub(crate) fn groups(self) -> bool {
        self == Precision::Int4
    }

    /// How a model of this precision is quantised, where options leave something open; none where it is not.
    ///
    /// What generates reads few rows at a time, so that finer activations cost little beside reading the weights.
    pub(crate) fn quantization(self, options: &Quantization, generates: bool) -> Option<Quantization> {
        let usual = Quantization::default();
        let finer = |bits: u8, usual: u8, finer: u8| if generates && bits == usual { finer } else { bits };
        let (groups, selected_bits) = match self {
            Precision::F32 | Precision::F16 | Precision::Bf16 | Precision::Fp8 => return None,
            Precision::Int8 => (None, options.selected_bits),
            Precision::Int4 => (Some(options.groups.unwrap_or(INT4_GROUP)), options.selected_bits.or(Some(8))),
        };
        Some(Quantization {
            bits: finer(options.bits, usual.bits, 8),
            activated_bits: finer(options.activated_bits, usual.activated_bits, 12),
            groups,
            selected_bits,
            ..options.clone()
        })
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
            Precision::Int4 => "int4",
            Precision::Fp8 => "fp8",
        })
    }
}
