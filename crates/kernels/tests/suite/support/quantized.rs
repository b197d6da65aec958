//! Weights quantised for tests and benches, in the plainest way that the kernels accept.

use centuple_kernels::{ActivationBits, Int8Weight, KernelError, check_overflow};

/// Owned operands of an [`Int8Weight`].
pub(crate) struct Quantized {
    pub(crate) codes: Vec<i8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) k: usize,
    pub(crate) bits: ActivationBits,
}

impl Quantized {
    /// Quantises `weight`, rows of `k` elements: the largest magnitude of a row becomes 127, or less where
    /// products could overflow.
    pub(crate) fn new(weight: &[f32], k: usize, bits: ActivationBits) -> Self {
        let (codes, scales): (Vec<_>, Vec<_>) = weight.chunks(k).map(|row| quantize_row(row, bits)).unzip();
        Self { codes: codes.concat(), scales, k, bits }
    }

    pub(crate) fn n(&self) -> usize {
        self.scales.len()
    }

    pub(crate) fn view(&self) -> Int8Weight<'_> {
        Int8Weight { codes: &self.codes, scales: &self.scales, n: self.n(), k: self.k, bits: self.bits }
    }
}

fn quantize_row(row: &[f32], bits: ActivationBits) -> (Vec<i8>, f32) {
    let (mut codes, mut scale) = symmetric(row, 1.0);
    let mut factor = 1.0;
    while let Err(KernelError::Overflow { sum, limit, .. }) = check_overflow(&codes, row.len(), bits) {
        // Rounding may leave the sum too large by little: go on in small steps.
        factor *= (sum as f32 / limit as f32).max(1.002);
        (codes, scale) = symmetric(row, factor);
    }
    (codes, scale)
}

/// Codes and scale of a row, the scale being `factor` times the one at which its largest magnitude becomes 127.
pub(crate) fn symmetric(row: &[f32], factor: f32) -> (Vec<i8>, f32) {
    let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = if largest > 0.0 { largest / 127.0 * factor } else { 1.0 };
    (row.iter().map(|value| (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8).collect(), scale)
}
