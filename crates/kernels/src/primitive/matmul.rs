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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn batches_are_multiplied_and_broadcast() {
        let (m, k, n) = (3, 5, 18);
        let a: Vec<f32> = (0..2 * 4 * m * k).map(|i| (i % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..4 * k * n).map(|i| (i % 7) as f32 - 3.0).collect();
        let (a_shape, out_shape) = ([2, 4, m, k], [2, 4, m, n]);
        for kernels in Isa::available().map(|isa| Kernels::new(isa).unwrap()) {
            for (b_shape, b_items) in [(vec![4, k, n], 4), (vec![k, n], 1), (vec![2, 1, k, n], 2)] {
                let a_array = Array::new(&a, &a_shape).unwrap();
                let b_array = Array::new(&b[..b_items * k * n], &b_shape).unwrap();
                let mut scratch = vec![f32::NAN; packed_len(n, k)];
                let mut out = vec![f32::NAN; 2 * 4 * m * n];
                let view = ArrayMut::new(&mut out, &out_shape).unwrap();
                kernels.matmul(a_array, b_array, &mut scratch, view).unwrap();
                let mut part = vec![f32::NAN; 11 * n];
                let view = ArrayMut::part(&mut part, &out_shape, 4..15).unwrap();
                kernels.matmul(a_array, b_array, &mut scratch, view).unwrap();
                assert_eq!(part, out[4 * n..15 * n]);
                for (item, got) in out.chunks(m * n).enumerate() {
                    let b_item = match b_items {
                        4 => item % 4,
                        2 => item / 4,
                        _ => 0,
                    };
                    for (place, got) in got.iter().enumerate() {
                        let (i, j) = (place / n, place % n);
                        let want: f32 = (0..k).map(|l| a[(item * m + i) * k + l] * b[(b_item * k + l) * n + j]).sum();
                        assert_eq!(*got, want);
                    }
                }
            }
        }
    }

    #[test]
    fn misfits_are_refused() {
        let kernels = Kernels::new(Isa::Portable).unwrap();
        let a = Array::new(&[0.0; 6], &[2, 3]).unwrap();
        let mut scratch = [0.0; 48];
        let mut out = [0.0; 4];
        let refused = |b_shape: &[usize], out_shape: &[usize], scratch: &mut [f32], out: &mut [f32]| {
            let data = vec![0.0; b_shape.iter().product()];
            let b = Array::new(&data, b_shape).unwrap();
            kernels.matmul(a, b, scratch, ArrayMut::new(out, out_shape).unwrap()).is_err()
        };
        assert!(!refused(&[3, 2], &[2, 2], &mut scratch, &mut out));
        assert!(refused(&[2, 2], &[2, 2], &mut scratch, &mut out));
        assert!(refused(&[3], &[2, 2], &mut scratch, &mut out));
        assert!(refused(&[3, 1], &[2, 2], &mut scratch, &mut out));
        assert!(refused(&[2, 3, 2], &[2, 2], &mut scratch, &mut out));
        assert!(refused(&[3, 2], &[2, 2], &mut scratch[..47], &mut out));
    }
}
