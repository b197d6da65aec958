//! Products of 8-bit integers: `[rows, k]` activations, quantised row by row as they are made, times
//! weights that come quantised, with a scale for each column. How weights are best quantised is not
//! decided here.
//!
//! The integers belong to the model and not to the machine: for the same rows and weights every
//! instruction set computes the same 32-bit sums, and the same f32 results where the activation in the
//! epilogue gives the same. Instruction sets without a byte dot product sum products in 16 bits;
//! [`check_overflow`] proves when weights are packed that those never overflow.
//!
//! A code of more than 8 bits is split into two bytes of 6, which are multiplied one after the other by the
//! same weights: `code · w = 64 · (high · w) + low · w`.

pub(crate) mod gemm;
mod pack;
pub(crate) mod quantize;
pub(crate) mod rows;
mod table;
#[cfg(any(target_arch = "x86_64", test))]
pub(crate) mod tiled;
mod weight;

pub use pack::{PackedInt8, pack_int8, packed_int8_len, unpack_int8};
pub use quantize::Quantization;
pub use rows::{QuantizedRows, QuantizedRowsMut, RowCodes, quantized_columns};
pub use table::{Int8Table, int8_table_columns, pack_table, unpack_table};
pub use weight::{Int8Weight, check_overflow};

/// Depth that is summed at once: packed weights and quantised rows are padded to a multiple of it.
pub(crate) const GROUP: usize = 8;

/// How many bits an activation has. Fewer bits in a byte let AVX2 add more products before it widens them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivationBits {
    /// 0..=127: products of two pairs of weights are added in 16 bits.
    Seven,
    /// 0..=255: products of one pair of weights are added in 16 bits.
    Eight,
    /// 0..=4095, in two bytes of 6 bits: products of two pairs of weights are added in 16 bits, whatever the
    /// weights are. Twice the work.
    Twelve,
}

/// Bits of a byte of a code that takes two.
pub(crate) const SPLIT: u32 = 6;

impl ActivationBits {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Seven, Self::Eight, Self::Twelve];

    /// The number of bits.
    #[must_use]
    pub fn count(self) -> u32 {
        match self {
            Self::Seven => 7,
            Self::Eight => 8,
            Self::Twelve => 12,
        }
    }

    /// The largest code of an activation.
    #[must_use]
    pub fn levels(self) -> u16 {
        (1 << self.count()) - 1
    }

    /// Bytes that a code takes.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Seven | Self::Eight => 1,
            Self::Twelve => 2,
        }
    }

    /// The largest value of a byte of a code.
    pub(crate) fn largest_byte(self) -> u8 {
        match self {
            Self::Seven => 127,
            Self::Eight => 255,
            Self::Twelve => (1 << SPLIT) - 1,
        }
    }

    /// The depth up to which 32-bit sums cannot overflow, whatever the codes and weights are.
    #[must_use]
    pub fn max_depth(self) -> usize {
        match self {
            Self::Seven | Self::Eight => 65_536,
            Self::Twelve => 4096,
        }
    }
}
