//! Rotary position embedding: pairs of columns are rotated by angles that depend on the position.
#![allow(unsafe_code)]

use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension};
use crate::matrix::{Matrix, MatrixMut};
use crate::simd::Simd;

/// How the columns of each head are rotated.
#[derive(Debug, Clone, Copy)]
pub struct Rotary<'a> {
    /// Columns of a head.
    pub head_dim: usize,
    /// Whether a pair is adjacent; else its second column is as many behind the first as there are pairs.
    pub interleaved: bool,
    /// `[positions, 2 · pairs]`: cosines, then sines. Columns of a head behind the pairs stay as they are.
    pub table: Matrix<'a>,
    /// Row of the table for each row.
    pub positions: &'a [u32],
}

/// Checked operands of [`rotate`].
pub(crate) struct Job<'a> {
    x: Matrix<'a>,
    rotary: &'a Rotary<'a>,
    out: MatrixMut<'a>,
}

impl Kernels {
    /// Row `t` of `out`, `[rows, heads · head_dim]`, becomes row `t` of `x`, each head rotated:
    /// `(x₁ · cos - x₂ · sin, x₂ · cos + x₁ · sin)` of each pair. A position beyond the table is an error.
    pub fn rotary(self, x: Matrix<'_>, rotary: &Rotary<'_>, out: &mut MatrixMut<'_>) -> Result<(), KernelError> {
        const NAME: &str = "rotary";
        expect_dimension(NAME, "rows of out", out.rows(), x.rows())?;
        expect_dimension(NAME, "columns of out", out.columns(), x.columns())?;
        expect_dimension(NAME, "number of positions", rotary.positions.len(), x.rows())?;
        let Some(heads) = x.columns().checked_div(rotary.head_dim) else {
            return Err(KernelError::Empty { kernel: NAME, what: "head" });
        };
        expect_dimension(NAME, "columns of x", x.columns(), heads * rotary.head_dim)?;
        let columns = rotary.table.columns();
        expect_dimension(NAME, "columns of the table", columns, columns.min(rotary.head_dim) / 2 * 2)?;
        let limit = rotary.table.rows();
        if let Some(row) = rotary.positions.iter().position(|position| *position as usize >= limit) {
            let index = i64::from(rotary.positions[row]);
            return Err(KernelError::IndexOutOfRange { kernel: NAME, what: "position", position: row, index, limit });
        }
        let mut job = Job { x, rotary, out: out.reborrow() };
        // SAFETY: the kernel asks for nothing but the instruction set.
        unsafe { (self.table.rotary)(&mut job) };
        Ok(())
    }
}

/// # Safety
/// None beyond holding the token.
#[inline(always)]
pub(crate) unsafe fn rotate<S: Simd>(_: S, job: &mut Job<'_>) {
    let rotary = job.rotary;
    let pairs = rotary.table.columns() / 2;
    for (row, position) in rotary.positions.iter().enumerate() {
        let (Some(x), Some(out)) = (job.x.row(row), job.out.row_mut(row)) else { continue };
        let Some(angles) = rotary.table.row(*position as usize) else { continue };
        let angles = angles.split_at(pairs);
        for (x, out) in x.chunks_exact(rotary.head_dim).zip(out.chunks_exact_mut(rotary.head_dim)) {
            if rotary.interleaved {
                rotate_neighbours(x, angles, out)
            } else {
                rotate_halves(x, angles, out)
            }
            out[2 * pairs..].copy_from_slice(&x[2 * pairs..]);
        }
    }
}

/// Pairs of columns `t` and `t + pairs`. A plain loop over slices, which the compiler makes vectors of.
#[inline(always)]
fn rotate_halves(x: &[f32], (cosines, sines): (&[f32], &[f32]), out: &mut [f32]) {
    let pairs = cosines.len();
    let sines = &sines[..pairs];
    let (x1, x2) = (&x[..pairs], &x[pairs..2 * pairs]);
    let (out1, out2) = out[..2 * pairs].split_at_mut(pairs);
    let out2 = &mut out2[..pairs];
    for pair in 0..pairs {
        out1[pair] = x1[pair] * cosines[pair] - x2[pair] * sines[pair];
        out2[pair] = x2[pair] * cosines[pair] + x1[pair] * sines[pair];
    }
}

/// Pairs of columns `2t` and `2t + 1`.
#[inline(always)]
fn rotate_neighbours(x: &[f32], (cosines, sines): (&[f32], &[f32]), out: &mut [f32]) {
    let pairs = x.chunks_exact(2).zip(out.chunks_exact_mut(2));
    for ((x, out), (cosine, sine)) in pairs.zip(cosines.iter().zip(sines)) {
        out[0] = x[0] * cosine - x[1] * sine;
        out[1] = x[1] * cosine + x[0] * sine;
    }
}
