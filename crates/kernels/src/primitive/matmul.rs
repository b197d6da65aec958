//! Batched matrix multiplication of two activations.

use super::{Array, ArrayMut, broadcast, place};
use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension, expect_length};
use crate::gemm::Epilogue;
use crate::matrix::{Matrix, MatrixMut};
use crate::pack::{PackedMatrix, pack_right, packed_len};

impl Kernels {
    /// `out = a · b` for arrays `[..., m, k]`, `[..., k, n]` and `[..., m, n]`; the leading axes of both
    /// operands are broadcast to those of `out`. `scratch` needs
    /// [`packed_len`]`(n, k)` elements.
    pub fn matmul(self, a: Array<'_>, b: Array<'_>, scratch: &mut [f32], out: ArrayMut<'_>) -> Result<(), KernelError> {
        const NAME: &str = "matmul";
        let (a_batch, [m, k]) = split(a.shape)?;
        let (b_batch, [b_rows, n]) = split(b.shape)?;
        let (batch, [out_rows, out_columns]) = split(out.shape)?;
        expect_dimension(NAME, "rows of b", b_rows, k)?;
        expect_dimension(NAME, "rows of out", out_rows, m)?;
        expect_dimension(NAME, "columns of out", out_columns, n)?;
        let needed = packed_len(n, k);
        expect_length(NAME, "scratch", scratch.len(), needed)?;
        if out.data.is_empty() || m == 0 {
            return Ok(());
        }
        let packed = &mut scratch[..needed];
        let from_a = broadcast(NAME, a_batch, batch)?;
        let from_b = broadcast(NAME, b_batch, batch)?;
        let mut packed_item = None;
        let (mut row, mut rest) = (out.rows.start, out.data);
        while row < out.rows.end {
            // The rows of one item that are wanted.
            let (item, first) = (row / m, row % m);
            let count = (m - first).min(out.rows.end - row);
            let [a_item, b_item] = [&from_a, &from_b].map(|strides| place(item, batch, strides));
            if packed_item != Some(b_item) {
                let b = &b.data[b_item * k * n..(b_item + 1) * k * n];
                pack_right(Matrix::contiguous(b, k, n)?, packed)?;
                packed_item = Some(b_item);
            }
            let b = PackedMatrix::new(packed, n, k)?;
            let start = (a_item * m + first) * k;
            let a = Matrix::contiguous(&a.data[start..start + count * k], count, k)?;
            let (target, behind) = std::mem::take(&mut rest).split_at_mut(count * n);
            let mut target = MatrixMut::contiguous(target, count, n)?;
            self.gemm(a, b, 0..b.panels(), &Epilogue::default(), &mut target)?;
            (row, rest) = (row + count, behind);
        }
        Ok(())
    }
}

/// The leading axes and the last two.
fn split(shape: &[usize]) -> Result<(&[usize], [usize; 2]), KernelError> {
    match shape {
        [batch @ .., rows, columns] => Ok((batch, [*rows, *columns])),
        _ => Err(KernelError::TooSmall { kernel: "matmul", what: "list of axes", found: shape.len(), needed: 2 }),
    }
}
