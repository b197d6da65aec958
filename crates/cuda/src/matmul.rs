//! Matrix products that a library computes.

use crate::contract::LARGEST;
use crate::launch::Pointer;
use crate::specialisation::Format;

/// `y = x · weightᵀ` of e4m3 codes, summed in f32 in an order that depends on n and k alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matmul {
    /// Type of the result.
    pub format: Format,
    /// `[rows, k]` e4m3.
    pub x: Pointer,
    /// `[n, k]` e4m3.
    pub weight: Pointer,
    /// `[rows, n]`.
    pub y: Pointer,
    /// Rows of x. All are computed, whatever those hold that a batch has no token for.
    pub rows: usize,
    /// Columns of the result, a multiple of 16.
    pub n: usize,
    /// Depth, a multiple of 16.
    pub k: usize,
    /// Factor on all sums.
    pub factor: f32,
    /// Scales of rows and columns; without them the result is the sums.
    pub scaling: Option<Scaling>,
}

/// What rows and columns of a product are multiplied by, and what is added to columns. A library does so for compute capability
/// 9.0 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// `[rows]` f32.
    pub x: Pointer,
    /// `[n]` f32.
    pub weight: Pointer,
    /// `[n]` of the result's type, or null.
    pub bias: Pointer,
}

/// The factor on sums of k products of e4m3 floats with which f16 holds them all: a power of two, which rounds nothing.
pub(crate) fn sum_factor(k: usize) -> f32 {
    let excess = LARGEST * LARGEST * k as f32 / f32::from(half::f16::MAX);
    2f32.powi(-(excess.log2().ceil() as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_fit_f16() {
        for k in [16, 128, 768, 3072, 65536] {
            let largest = LARGEST * LARGEST * k as f32 * sum_factor(k);
            assert!(largest <= f32::from(half::f16::MAX) && 2.0 * largest > f32::from(half::f16::MAX), "{k}");
        }
        assert_eq!(sum_factor(768), 1.0 / 4096.0);
    }
}
