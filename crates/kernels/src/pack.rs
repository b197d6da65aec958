//! The layout of weights: panels of 16 columns, `[panel][k][16]`, the last one padded with zeros.
//!
//! It is the same for every instruction set, so packed weights can be stored. Elements are f32, or f16 held
//! in f32 words.

use half::f16;
use half::slice::HalfFloatSliceExt;

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

/// Words of a matrix of `n` columns and depth `k` packed as f16; `usize::MAX` if that overflows.
#[must_use]
pub fn packed_half_len(n: usize, k: usize) -> usize {
    panels(n).saturating_mul(PANEL / 2).saturating_mul(k)
}

/// Packs `weight`, `[n, k]` (the layout of a linear layer: one row per output), into `packed`, whose
/// length must be [`packed_len`]`(n, k)`.
pub fn pack(weight: Matrix<'_>, packed: &mut [f32]) -> Result<(), KernelError> {
    let (n, k) = (weight.rows(), weight.columns());
    expect_dimension("pack", "length of the packed matrix", packed.len(), packed_len(n, k))?;
    for row in 0..panels(n) * PANEL {
        put_row(row, weight.row(row).unwrap_or(&[]), k, packed);
    }
    Ok(())
}

/// Packs `weight`, `[n, k]`, rounded to the nearest f16 (halves to even), into `packed`, whose length must be
/// [`packed_half_len`]`(n, k)`. An element that is not finite as f16 is an error.
pub fn pack_half(weight: Matrix<'_>, packed: &mut [f32]) -> Result<(), KernelError> {
    let (n, k) = (weight.rows(), weight.columns());
    expect_dimension("pack_half", "length of the packed matrix", packed.len(), packed_half_len(n, k))?;
    let packed: &mut [f16] = bytemuck::cast_slice_mut(packed);
    let mut halves = vec![f16::ZERO; k];
    for row in 0..panels(n) * PANEL {
        match weight.row(row) {
            Some(values) => {
                halves.convert_from_f32_slice(values);
                if let Some(column) = halves.iter().position(|half| !half.is_finite()) {
                    return Err(KernelError::BeyondHalf { value: values[column], row, column });
                }
            }
            None => halves.fill(f16::ZERO),
        }
        put_row(row, &halves, k, packed);
    }
    Ok(())
}

/// Puts a row of weights into its lane of its panel, zeros after its end.
fn put_row<E: Copy + Default>(row: usize, values: &[E], k: usize, packed: &mut [E]) {
    let panel = row / PANEL * PANEL * k;
    let lines = packed[panel..panel + PANEL * k].chunks_exact_mut(PANEL);
    for (depth, line) in lines.enumerate() {
        line[row % PANEL] = values.get(depth).copied().unwrap_or_default();
    }
}

/// The weight `[n, k]` that [`pack`] or [`pack_half`] has packed, whose words are at least [`packed_len`]`(n, k)` elements.
pub fn unpack<E: Copy>(packed: &[E], n: usize, k: usize) -> Result<Vec<E>, KernelError> {
    expect_length("unpack", "data", packed.len(), packed_len(n, k))?;
    let row = |row: usize| (0..k).map(move |depth| packed[row / PANEL * PANEL * k + depth * PANEL + row % PANEL]);
    Ok((0..n).flat_map(row).collect())
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
pub struct PackedMatrix<'a, E = f32> {
    data: &'a [E],
    n: usize,
    k: usize,
}

/// A matrix packed as f16.
pub type PackedHalf<'a> = PackedMatrix<'a, f16>;

impl<'a> PackedMatrix<'a> {
    /// A view of packed data. Errors if its length is less than [`packed_len`]`(n, k)`.
    pub fn new(data: &'a [f32], n: usize, k: usize) -> Result<Self, KernelError> {
        expect_length("packed matrix", "data", data.len(), packed_len(n, k))?;
        Ok(Self { data, n, k })
    }
}

impl<'a> PackedHalf<'a> {
    /// A view of what [`pack_half`] wrote. Errors if there are fewer words than [`packed_half_len`]`(n, k)`.
    pub fn from_words(words: &'a [f32], n: usize, k: usize) -> Result<Self, KernelError> {
        expect_length("packed half matrix", "data", words.len(), packed_half_len(n, k))?;
        Ok(Self { data: bytemuck::cast_slice(words), n, k })
    }
}

impl<E> PackedMatrix<'_, E> {
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
    pub(crate) fn panel_pointer(&self, panel: usize) -> *const E {
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
    fn halves_are_packed_alike_and_padded_with_zeros() {
        let (n, k) = (19, 5);
        let weight: Vec<f32> = (0..n * k).map(|i| i as f32 * 0.3 - 11.0).collect();
        let rounded: Vec<f32> = weight.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
        let mut floats = vec![f32::NAN; packed_len(n, k)];
        let mut words = vec![f32::NAN; packed_half_len(n, k)];
        pack(Matrix::contiguous(&rounded, n, k).unwrap(), &mut floats).unwrap();
        pack_half(Matrix::contiguous(&weight, n, k).unwrap(), &mut words).unwrap();
        let widened: Vec<f32> = PackedHalf::from_words(&words, n, k).unwrap().data.iter().map(|x| x.to_f32()).collect();
        assert_eq!(widened, floats);
    }

    #[test]
    fn what_is_not_finite_as_half_is_refused() {
        let mut words = [0.0; 2 * PANEL / 2];
        let mut packed = |weight: [f32; 4]| pack_half(Matrix::contiguous(&weight, 2, 2).unwrap(), &mut words);
        packed([65_519.0, -65_519.0, 1e-30, 0.0]).unwrap();
        for value in [65_520.0, -1e9, f32::INFINITY, f32::NAN] {
            let error = packed([0.0, 1.0, value, 0.0]).unwrap_err().to_string();
            assert!(error.contains("row 1, column 0") && error.contains(&value.to_string()), "{error}");
        }
    }

    #[test]
    fn lengths_are_checked() {
        assert!(PackedHalf::from_words(&[0.0; 7], 1, 1).is_err());
        assert!(PackedHalf::from_words(&[], usize::MAX, usize::MAX).is_err());
        assert!(pack_half(Matrix::contiguous(&[0.0], 1, 1).unwrap(), &mut [0.0; 7]).is_err());
        assert!(PackedMatrix::new(&[0.0; 15], 1, 1).is_err());
        assert!(PackedMatrix::new(&[], usize::MAX, usize::MAX).is_err());
        assert!(pack(Matrix::contiguous(&[0.0], 1, 1).unwrap(), &mut [0.0; 15]).is_err());
    }
}
