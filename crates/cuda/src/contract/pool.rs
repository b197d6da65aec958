//! One row per sequence.

use super::warp_sum;
use crate::specialisation::{Format, Pooling};

/// Operands of `kernels/pool.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    /// Type of the rows.
    pub format: Format,
    /// How.
    pub pooling: Pooling,
    /// `[tokens, width]`.
    pub x: &'a [u16],
    /// Columns.
    pub width: usize,
    /// Tokens of each sequence.
    pub lengths: &'a [usize],
    /// Tokens of each sequence that don't count, or the one that alone does.
    pub pool_from: &'a [usize],
    /// Rows are divided by their length, or by this number where it is more.
    pub normalise: Option<f32>,
}

/// The result, `[sequences, width]`.
pub fn pool(operands: &Pool) -> Vec<f32> {
    let mut results = Vec::new();
    let mut begin = 0;
    for (&length, &from) in operands.lengths.iter().zip(operands.pool_from) {
        let rows = &operands.x[begin * operands.width..][..length * operands.width];
        let column = |column: usize| {
            let values: Vec<f32> = rows.chunks(operands.width).map(|row| operands.format.widen(row[column])).collect();
            pooled(operands.pooling, &values, from.min(length))
        };
        let mut row: Vec<f32> = (0..operands.width).map(column).collect();
        if let Some(epsilon) = operands.normalise {
            let norm = norm(&row).max(epsilon);
            row.iter_mut().for_each(|x| *x /= norm);
        }
        results.extend(row);
        begin += length;
    }
    results
}

fn pooled(pooling: Pooling, column: &[f32], from: usize) -> f32 {
    let counted = &column[from..];
    let count = counted.len().max(1) as f32;
    let sum = || counted.iter().fold(0.0, |sum, x| sum + x);
    match pooling {
        Pooling::Cls => column[0],
        Pooling::LastToken => column[column.len() - 1],
        Pooling::Token => column[from],
        Pooling::Mean => sum() / count,
        Pooling::MeanSqrtLength => sum() / count.sqrt(),
        Pooling::Max if counted.is_empty() => 0.0,
        Pooling::Max => counted.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        Pooling::WeightedMean => {
            let weighted = counted.iter().enumerate().map(|(row, x)| (x, (from + row + 1) as f32));
            let (sum, weights) = weighted
                .fold((0.0f32, 0.0f32), |(sum, weights), (x, weight)| (x.mul_add(weight, sum), weights + weight));
            sum / weights.max(1.0)
        }
    }
}

/// The length of a row, each of whose columns belongs to one of 8 warps of 32 lanes.
fn norm(row: &[f32]) -> f32 {
    let mut threads = [0.0f32; 256];
    row.iter().enumerate().for_each(|(column, x)| threads[column % 256] = x.mul_add(*x, threads[column % 256]));
    let warps = threads.chunks(32).map(|lanes| warp_sum(std::array::from_fn(|lane| lanes[lane])));
    warps.fold(0.0, |sum, warp| sum + warp).sqrt()
}
