//! What is done to each row by itself.

use super::{Heads, warp_sum};
use crate::specialisation::{Activation, Format};

/// Operands of `kernels/rotary.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// Type of the rows.
    pub format: Format,
    /// Rows with heads.
    pub x: Heads<'a>,
    /// `[rows]`.
    pub positions: &'a [i32],
    /// `[positions, rotated]`: cosines, then sines.
    pub table: &'a [f32],
    /// Columns of a head that are rotated.
    pub rotated: usize,
    /// Whether a pair is two columns next to each other.
    pub interleaved: bool,
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Rotary<'_> {
    /// The result, `[rows, heads · head_dim]`.
    pub fn run(&self) -> Vec<u16> {
        let half = self.rotated / 2;
        let mut results = Vec::new();
        for (row, &position) in self.positions.iter().enumerate() {
            let (cosines, sines) = self.table[position as usize * self.rotated..][..self.rotated].split_at(half);
            let from = &self.x.matrix[row * self.x.stride + self.x.first..][..self.heads * self.head_dim];
            for head in from.chunks(self.head_dim) {
                let mut head = self.format.widened(head);
                for (pair, (cosine, sine)) in cosines.iter().zip(sines).enumerate() {
                    let [a, b] = if self.interleaved { [2 * pair, 2 * pair + 1] } else { [pair, pair + half] };
                    let (first, second) = (head[a], head[b]);
                    head[a] = first.mul_add(*cosine, -(second * sine));
                    head[b] = second.mul_add(*cosine, first * sine);
                }
                results.extend(self.format.narrowed(&head));
            }
        }
        results
    }
}

/// Operands of `kernels/head_norm.cu`.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm<'a> {
    /// Type of the rows.
    pub format: Format,
    /// Rows with heads.
    pub x: Heads<'a>,
    /// `[head_dim]`.
    pub gamma: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
    /// Number of heads.
    pub heads: usize,
}

impl HeadNorm<'_> {
    /// The result, `[rows, heads · head_dim]`.
    pub fn run(&self) -> Vec<u16> {
        let width = self.gamma.len();
        let mut results = Vec::new();
        for row in self.x.matrix.chunks(self.x.stride) {
            for head in row[self.x.first..][..self.heads * width].chunks(width) {
                let head = self.format.widened(head);
                let mut lanes = [0.0f32; 32];
                head.iter().enumerate().for_each(|(at, x)| lanes[at % 32] = x.mul_add(*x, lanes[at % 32]));
                let inverse = 1.0 / (warp_sum(lanes) / width as f32 + self.epsilon).sqrt();
                results.extend(head.iter().zip(self.gamma).map(|(x, gamma)| self.format.narrow(x * inverse * gamma)));
            }
        }
        results
    }
}

/// `kernels/gate.cu`: `activation(a) · b` of the same columns of all rows, or of `a` alone.
pub fn gate(format: Format, a: &[u16], b: Option<&[u16]>, activation: Activation) -> Vec<u16> {
    let gated = |(place, &a): (usize, &u16)| {
        let left = activation.of(format.widen(a));
        format.narrow(b.map_or(left, |b| left * format.widen(b[place])))
    };
    a.iter().enumerate().map(gated).collect()
}

/// `kernels/select.cu`: rows of `x [tokens, width]`.
pub fn select(x: &[u16], places: &[i32], width: usize) -> Vec<u16> {
    places.iter().flat_map(|&place| x[place as usize * width..][..width].iter().copied()).collect()
}
