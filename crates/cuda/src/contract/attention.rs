//! Attention within each sequence.

use crate::specialisation::{Format, KEYS};

/// Columns of a matrix `[tokens, stride]` from `first` on: heads behind each other.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The matrix.
    pub matrix: &'a [u16],
    /// The first column of head 0.
    pub first: usize,
    /// Columns of the matrix.
    pub stride: usize,
}

/// Operands of `kernels/attention.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Type of the operands.
    pub format: Format,
    /// Queries.
    pub q: Heads<'a>,
    /// Keys.
    pub k: Heads<'a>,
    /// Values.
    pub v: Heads<'a>,
    /// Query heads.
    pub heads: usize,
    /// Query heads that share a key head.
    pub group: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Tokens of each sequence.
    pub lengths: &'a [usize],
}

impl Attention<'_> {
    /// The result, `[tokens, heads · head_dim]`.
    pub fn run(&self) -> Vec<u16> {
        let mut results = Vec::new();
        let mut begin = 0;
        for &length in self.lengths {
            for query in begin..begin + length {
                for head in 0..self.heads {
                    results.extend(self.row(head, query, begin..begin + length));
                }
            }
            begin += length;
        }
        results
    }

    fn head(&self, of: Heads, head: usize, token: usize) -> Vec<f32> {
        let start = token * of.stride + of.first + head * self.head_dim;
        self.format.widened(&of.matrix[start..start + self.head_dim])
    }

    /// One head of one query, with the keys of `tokens` in steps of [`KEYS`].
    fn row(&self, head: usize, query: usize, tokens: std::ops::Range<usize>) -> Vec<u16> {
        let scale = self.scale * std::f32::consts::LOG2_E;
        let query = self.head(self.q, head, query);
        let mut outputs = vec![0.0f32; self.head_dim];
        let mut largest = f32::NEG_INFINITY;
        // Four lanes share a query: each has the total of its own columns of eight.
        let mut totals = [0.0f32; 4];
        let keys: Vec<usize> = tokens.collect();
        for block in keys.chunks(KEYS) {
            let score = |&key: &usize| {
                let key = self.head(self.k, head / self.group, key);
                query.iter().zip(&key).fold(0.0, |sum, (q, k)| sum + q * k) * scale
            };
            let scores: Vec<f32> = block.iter().map(score).collect();
            let next = scores.iter().copied().fold(largest, f32::max);
            let correction = (largest - next).exp2();
            largest = next;
            totals.iter_mut().for_each(|total| *total *= correction);
            outputs.iter_mut().for_each(|output| *output *= correction);
            for (place, (&score, &key)) in scores.iter().zip(block).enumerate() {
                let weight = (score - largest).exp2();
                totals[place % 8 / 2] += weight;
                let weight = self.format.widen(self.format.narrow(weight));
                let value = self.head(self.v, head / self.group, key);
                outputs.iter_mut().zip(&value).for_each(|(output, value)| *output += weight * value);
            }
        }
        let inverse = 1.0 / ((totals[0] + totals[1]) + (totals[2] + totals[3]));
        outputs.iter().map(|output| self.format.narrow(output * inverse)).collect()
    }
}
