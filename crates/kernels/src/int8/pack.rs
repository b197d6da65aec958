//! The layout of int8 weights, in f32 words: panels of 16 columns, each made of 64-byte lines of 16
//! columns × 4 of depth, the depth padded with zeros to a multiple of 8; then the scales of all columns
//! and the sums of their codes (i32), both padded to whole panels.
//!
//! It is the same for every instruction set, so packed weights can be stored.

use super::ActivationBits;
use super::rows::code_words;
use super::weight::{Int8Weight, check_depth};
use crate::error::{KernelError, expect_dimension, expect_length};
use crate::pack::{PANEL, panels};

/// Words of packed weights of `n` columns and depth `k`, a multiple of 16; `usize::MAX` if that overflows.
#[must_use]
pub fn packed_int8_len(n: usize, k: usize) -> usize {
    panels(n).saturating_mul(PANEL).saturating_mul(code_words(k).saturating_add(2))
}

/// Packs `weight` into `packed`, whose length must be [`packed_int8_len`]`(n, k)`. Refuses codes whose
/// products could overflow.
pub fn pack_int8(weight: &Int8Weight<'_>, packed: &mut [f32]) -> Result<(), KernelError> {
    weight.check()?;
    let (n, k) = (weight.n, weight.k);
    expect_dimension("pack_int8", "length of the packed weights", packed.len(), packed_int8_len(n, k))?;
    let columns = panels(n) * PANEL;
    let (codes, tail) = packed.split_at_mut(columns * code_words(k));
    let (scales, sums) = tail.split_at_mut(columns);
    let codes: &mut [u8] = bytemuck::cast_slice_mut(codes);
    let sums: &mut [i32] = bytemuck::cast_slice_mut(sums);
    codes.fill(0);
    scales.fill(0.0);
    sums.fill(0);
    scales[..n].copy_from_slice(weight.scales);
    if k == 0 {
        return Ok(());
    }
    let panels = codes.chunks_exact_mut(4 * PANEL * code_words(k)).zip(sums.chunks_exact_mut(PANEL));
    for ((panel, sums), rows) in panels.zip(weight.codes.chunks(PANEL * k)) {
        for (row, sum) in rows.chunks_exact(k).zip(sums) {
            *sum = row.iter().map(|code| i32::from(*code)).sum();
        }
        for (word, line) in panel.chunks_exact_mut(4 * PANEL).enumerate() {
            for (row, to) in rows.chunks_exact(k).zip(line.as_chunks_mut::<4>().0) {
                let four = &row[(4 * word).min(k)..(4 * word + 4).min(k)];
                to[..four.len()].copy_from_slice(bytemuck::cast_slice(four));
            }
        }
    }
    Ok(())
}

/// The codes `[n, k]` and scales `[n]` that [`pack_int8`] has packed.
pub fn unpack_int8(packed: &[f32], n: usize, k: usize) -> Result<(Vec<i8>, Vec<f32>), KernelError> {
    expect_length("unpack_int8", "data", packed.len(), packed_int8_len(n, k))?;
    let (words, tail) = packed.split_at(panels(n) * PANEL * code_words(k));
    let bytes: &[i8] = bytemuck::cast_slice(words);
    let row = |row: usize| {
        let panel = row / PANEL * PANEL * 4 * code_words(k);
        (0..k).map(move |depth| bytes[panel + depth / 4 * 4 * PANEL + row % PANEL * 4 + depth % 4])
    };
    Ok(((0..n).flat_map(row).collect(), tail[..n].to_vec()))
}

/// Packed int8 weights of `n` columns and depth `k`.
///
/// Kernels are fastest if the words start at a multiple of 64 bytes.
#[derive(Debug, Clone, Copy)]
pub struct PackedInt8<'a> {
    words: &'a [f32],
    n: usize,
    k: usize,
    bits: ActivationBits,
}

impl<'a> PackedInt8<'a> {
    /// A view of what [`pack_int8`] wrote for activations of `bits`. Errors if there are fewer words than
    /// [`packed_int8_len`]`(n, k)`.
    pub fn new(words: &'a [f32], n: usize, k: usize, bits: ActivationBits) -> Result<Self, KernelError> {
        const NAME: &str = "packed int8 weights";
        check_depth(NAME, k, bits)?;
        expect_length(NAME, "data", words.len(), packed_int8_len(n, k))?;
        Ok(Self { words, n, k, bits })
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

    /// Bits of the activations that these weights take.
    #[must_use]
    pub fn bits(&self) -> ActivationBits {
        self.bits
    }

    /// Number of panels.
    #[must_use]
    pub fn panels(&self) -> usize {
        panels(self.n)
    }

    /// Address of a panel's lines; to be read only if the panel exists.
    #[inline(always)]
    pub(crate) fn panel_pointer(&self, panel: usize) -> *const f32 {
        self.words.as_ptr().wrapping_add(panel * PANEL * code_words(self.k))
    }

    /// Address of a panel's 16 scales; to be read only if the panel exists.
    #[inline(always)]
    pub(crate) fn scales_pointer(&self, panel: usize) -> *const f32 {
        self.panel_pointer(self.panels()).wrapping_add(panel * PANEL)
    }

    /// Address of a panel's 16 column sums; to be read only if the panel exists.
    #[inline(always)]
    pub(crate) fn sums_pointer(&self, panel: usize) -> *const i32 {
        self.scales_pointer(self.panels() + panel).cast()
    }
}
