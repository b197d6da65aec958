//! The layout of weights: panels of 16 columns, `[panel][k][16]`, the last one padded with zeros.
//!
//! It is the same for every instruction set, so packed weights can be stored.

use crate::error::{KernelError, expect_dimension, expect_length};
use crate::matrix::Matrix;
use crate::simd::LANES;

/// Columns of a panel.
pub const PANEL: usize = LANES;

/// Panels that `n` columns take.
#[must_use]
pub fn panels(n: usize) -> usize {
    n.div_ceil(PANEL)
}

/// Elements of a packed matrix of `n` columns and depth `k`; `usize::MAX` if that overflows.
#[must_use]
pub fn packed_len(n: usize, k: usize) -> usize {
    panels(n).saturating_mul(PANEL).saturating_mul(k)
}

/// Packs `weight`, `[n, k]` (the layout of a linear layer: one row per output), into `packed`, whose
/// length must be [`packed_len`]`(n, k)`.
pub fn pack(weight: Matrix<'_>, packed: &mut [f32]) -> Result<(), KernelError> {
    let (n, k) = (weight.rows(), weight.columns());
    expect_dimension("pack", "length of the packed matrix", packed.len(), packed_len(n, k))?;
    if k == 0 {
        return Ok(());
    }
    for (panel, out) in packed.chunks_exact_mut(PANEL * k).enumerate() {
        for lane in 0..PANEL {
            let row = weight.row(panel * PANEL + lane).unwrap_or(&[]);
            for (depth, line) in out.chunks_exact_mut(PANEL).enumerate() {
                line[lane] = row.get(depth).copied().unwrap_or(0.0);
            }
        }
    }
    Ok(())
}

/// Packs `b`, `[k, n]` (the right operand of a plain product), into `packed`, whose length must be
/// [`packed_len`]`(n, k)`.
pub fn pack_right(b: Matrix<'_>, packed: &mut [f32]) -> Result<(), KernelError> {
    let (k, n) = (b.rows(), b.columns());
    expect_dimension("pack_right", "length of the packed matrix", packed.len(), packed_len(n, k))?;
    if k == 0 {
        return Ok(());
    }
    for (panel, out) in packed.chunks_exact_mut(PANEL * k).enumerate() {
        let start = panel * PANEL;
        let width = PANEL.min(n - start);
        for (depth, line) in out.chunks_exact_mut(PANEL).enumerate() {
            let row = b.row(depth).unwrap_or(&[]);
            line[..width].copy_from_slice(&row[start..start + width]);
            line[width..].fill(0.0);
        }
    }
    Ok(())
}

/// A packed matrix of `n` columns and depth `k`.
///
/// Kernels are fastest if the data starts at a multiple of 64 bytes.
#[derive(Debug, Clone, Copy)]
pub struct PackedMatrix<'a> {
    data: &'a [f32],
    n: usize,
    k: usize,
}

impl<'a> PackedMatrix<'a> {
    /// A view of packed data. Errors if its length is less than [`packed_len`]`(n, k)`.
    pub fn new(data: &'a [f32], n: usize, k: usize) -> Result<Self, KernelError> {
        expect_length("packed matrix", "data", data.len(), packed_len(n, k))?;
        Ok(Self { data, n, k })
    }

    /// Columns: outputs of the layer.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Depth: inputs of the layer.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of panels.
    #[must_use]
    pub fn panels(&self) -> usize {
        panels(self.n)
    }

    /// Address of a panel; to be read only if the panel exists.
    #[inline(always)]
    pub(crate) fn panel_pointer(&self, panel: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add(panel * PANEL * self.k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_packings_agree_and_pad_with_zeros() {
        let (n, k) = (19, 5);
        let weight: Vec<f32> = (0..n * k).map(|i| i as f32 + 1.0).collect();
        let mut transposed = vec![0.0; n * k];
        for i in 0..n {
            for j in 0..k {
                transposed[j * n + i] = weight[i * k + j];
            }
        }
        let mut first = vec![f32::NAN; packed_len(n, k)];
        let mut second = first.clone();
        pack(Matrix::contiguous(&weight, n, k).unwrap(), &mut first).unwrap();
        pack_right(Matrix::contiguous(&transposed, k, n).unwrap(), &mut second).unwrap();
        assert_eq!(first, second);
        assert_eq!(first[PANEL * k + 2 * PANEL + 2], weight[18 * k + 2]);
        assert_eq!(first[PANEL * k + 2 * PANEL + 3], 0.0);
    }

    #[test]
    fn lengths_are_checked() {
        assert!(PackedMatrix::new(&[0.0; 15], 1, 1).is_err());
        assert!(PackedMatrix::new(&[], usize::MAX, usize::MAX).is_err());
        assert!(pack(Matrix::contiguous(&[0.0], 1, 1).unwrap(), &mut [0.0; 15]).is_err());
    }
}
