//! Linear layers.

use super::{Codes, warp_sum};
use crate::specialisation::{Activation, Format};

/// A weight `[n, k]` with what it is multiplied with.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// `x [tokens, k]` and the weight as 16-bit floats.
    Floats {
        /// The rows.
        x: &'a [u16],
        /// The weight.
        weight: &'a [u16],
    },
    /// Codes of x and of the weight, and what the latter are multiplied by, `[n]`.
    Codes {
        /// The rows.
        x: &'a Codes,
        /// The weight.
        weight: &'a [i8],
        /// The scales.
        scales: &'a [f32],
    },
}

/// Operands of `kernels/gemm.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    /// Type of the 16-bit operands.
    pub format: Format,
    /// Depth.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
    /// What is multiplied.
    pub weight: Weight<'a>,
    /// `[n]`.
    pub bias: Option<&'a [f32]>,
    /// Applied before the residual is added.
    pub activation: Activation,
    /// `[tokens, n]`.
    pub residual: Option<&'a [u16]>,
}

impl Gemm<'_> {
    /// The result, `[tokens, n]`.
    pub fn run(&self) -> Vec<u16> {
        let products = match self.weight {
            Weight::Floats { x, weight } => self.floats(x, weight),
            Weight::Codes { x, weight, scales } => self.codes(x, weight, scales),
        };
        let finish = |(place, value): (usize, f32)| {
            let value = self.activation.of(self.bias.map_or(value, |bias| value + bias[place % self.n]));
            self.format.narrow(self.residual.map_or(value, |residual| value + self.format.widen(residual[place])))
        };
        products.into_iter().enumerate().map(finish).collect()
    }

    /// Sums of f32 in the order of the depth; each product is exact.
    fn floats(&self, x: &[u16], weight: &[u16]) -> Vec<f32> {
        let (x, weight) = (self.format.widened(x), self.format.widened(weight));
        let dot = |row: &[f32], column: &[f32]| row.iter().zip(column).fold(0.0, |sum, (x, w)| sum + x * w);
        let rows = x.chunks(self.k);
        rows.flat_map(|row| weight.chunks(self.k).map(move |column| dot(row, column))).collect()
    }

    /// Exact sums, then two products of f32.
    fn codes(&self, x: &Codes, weight: &[i8], scales: &[f32]) -> Vec<f32> {
        let mut results = Vec::new();
        for (token, row) in x.codes.chunks(self.k).enumerate() {
            for (column, scale) in weight.chunks(self.k).zip(scales) {
                let sum: i32 = row.iter().zip(column).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum();
                let total: i32 = column.iter().map(|&w| i32::from(w)).sum();
                results.push((sum - x.zero_points[token] * total) as f32 * (x.scales[token] * scale));
            }
        }
        results
    }
}

/// A linear layer for each group of columns: `x [tokens, groups · k]` and `weight [groups, n, k]` give `[tokens, groups · n]`.
pub fn grouped_gemm(format: Format, x: &[u16], weight: &[u16], [groups, n, k]: [usize; 3]) -> Vec<u16> {
    let row = |row: &[u16]| -> Vec<u16> {
        let of_group = |(x, weight)| {
            let weight = Weight::Floats { x, weight };
            Gemm { format, k, n, weight, bias: None, activation: Activation::Identity, residual: None }.run()
        };
        row.chunks(k).zip(weight.chunks(n * k)).flat_map(of_group).collect()
    };
    x.chunks(groups * k).flat_map(row).collect()
}

/// Operands of `kernels/dense.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Dense<'a> {
    /// Type of the weight.
    pub format: Format,
    /// `[rows, k]`, widened.
    pub x: &'a [f32],
    /// `[n, k]`.
    pub weight: &'a [u16],
    /// `[n]`.
    pub bias: Option<&'a [f32]>,
    /// Depth.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
    /// Applied to the sums.
    pub activation: Activation,
}

impl Dense<'_> {
    /// The result, `[rows, n]`.
    pub fn run(&self) -> Vec<f32> {
        let weight = self.format.widened(self.weight);
        let mut results = Vec::new();
        for row in self.x.chunks(self.k) {
            for (column, weights) in weight.chunks(self.k).enumerate() {
                let mut lanes = [0.0f32; 32];
                for (chunk, (x, w)) in row.chunks(8).zip(weights.chunks(8)).enumerate() {
                    let lane = &mut lanes[chunk % 32];
                    x.iter().zip(w).for_each(|(x, w)| *lane = x.mul_add(*w, *lane));
                }
                let sum = warp_sum(lanes);
                results.push(self.activation.of(self.bias.map_or(sum, |bias| sum + bias[column])));
            }
        }
        results
    }
}
