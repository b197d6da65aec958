//! The layout of 4-bit weights, in f32 words: panels of 16 columns, each made of its groups: a line of 16 scales, then
//! 64-byte lines of 16 columns × 8 of depth. A byte holds the nibbles of the depths `d` (lower half) and `d + 4`. The
//! depth is padded with zeros to a multiple of 8. Where groups have zero points, those follow behind all panels, 16
//! bytes for each group of each panel.
//!
//! It is the same for every instruction set, so packed weights can be stored.

use super::{LINE_DEPTH, check_group};
use crate::error::{KernelError, expect_dimension, expect_length};
use crate::int8::rows::code_words;
use crate::pack::{PANEL, panels};

/// What is added to a code to make it a nibble: the zero point of weights that have none.
const MIDDLE: i8 = 8;

/// Weights of a linear layer, `[n, k]`, quantised in groups along the depth: `weight ≈ (code - zero point) · scale`.
#[derive(Debug, Clone, Copy)]
pub struct Int4Weight<'a> {
    /// `[n, k]`, in -8..=7.
    pub codes: &'a [i8],
    /// `[n, ⌈k / group⌉]`
    pub scales: &'a [f32],
    /// `[n, ⌈k / group⌉]`, in -8..=7; 0 where there are none.
    pub zero_points: Option<&'a [i8]>,
    /// Number of outputs.
    pub n: usize,
    /// Number of inputs.
    pub k: usize,
    /// Elements of a group, a multiple of 8 up to 8192; the last one of a row may have fewer.
    pub group: usize,
}

impl Int4Weight<'_> {
    /// Errors unless lengths fit the shape and all numbers fit 4 bits.
    fn check(&self) -> Result<(), KernelError> {
        const NAME: &str = "int4 weight";
        check_group(NAME, self.group)?;
        let scales = self.n.saturating_mul(self.k.div_ceil(self.group));
        expect_dimension(NAME, "number of codes", self.codes.len(), self.n.saturating_mul(self.k))?;
        expect_dimension(NAME, "number of scales", self.scales.len(), scales)?;
        check_nibbles("weight code", self.codes)?;
        let Some(zero_points) = self.zero_points else { return Ok(()) };
        expect_dimension(NAME, "number of zero points", zero_points.len(), scales)?;
        check_nibbles("zero point", zero_points)
    }
}

fn check_nibbles(what: &'static str, codes: &[i8]) -> Result<(), KernelError> {
    match codes.iter().position(|code| !(-MIDDLE..MIDDLE).contains(code)) {
        Some(position) => Err(KernelError::BeyondNibble { what, code: codes[position], position }),
        None => Ok(()),
    }
}

/// The nibble of a code.
fn nibble(code: i8) -> u8 {
    (code + MIDDLE).cast_unsigned()
}

/// The code of a nibble.
fn code(nibble: u8) -> i8 {
    nibble.cast_signed().wrapping_sub(MIDDLE)
}

/// Words of a panel: a line for each group, and those of the codes.
fn panel_words(k: usize, group: usize) -> usize {
    PANEL.saturating_mul(k.div_ceil(group.max(1)).saturating_add(code_words(k) / 2))
}

/// Words of the zero points of a panel.
fn zero_words(k: usize, group: usize) -> usize {
    (PANEL / size_of::<f32>()).saturating_mul(k.div_ceil(group.max(1)))
}

/// Words of packed weights of `n` columns and depth `k` in groups; `usize::MAX` if that overflows.
#[must_use]
pub fn packed_int4_len(n: usize, k: usize, group: usize, zero_points: bool) -> usize {
    let zeros = if zero_points { zero_words(k, group) } else { 0 };
    panels(n).saturating_mul(panel_words(k, group).saturating_add(zeros))
}

/// Packs `weight` into `packed`, whose length must be [`packed_int4_len`]`(n, k, group, zero points)`. Refuses codes
/// that 4 bits don't hold.
pub fn pack_int4(weight: &Int4Weight<'_>, packed: &mut [f32]) -> Result<(), KernelError> {
    weight.check()?;
    let Int4Weight { n, k, group, .. } = *weight;
    let length = packed_int4_len(n, k, group, weight.zero_points.is_some());
    expect_dimension("pack_int4", "length of the packed weights", packed.len(), length)?;
    packed.fill(0.0);
    if k == 0 {
        return Ok(());
    }
    let (lines, zeros) = packed.split_at_mut(panels(n) * panel_words(k, group));
    for (number, panel) in lines.chunks_exact_mut(panel_words(k, group)).enumerate() {
        for (column, row) in (number * PANEL..n.min((number + 1) * PANEL)).enumerate() {
            pack_column(weight, row, column, panel);
        }
    }
    let Some(zero_points) = weight.zero_points else { return Ok(()) };
    let groups = k.div_ceil(group);
    let zeros: &mut [u8] = bytemuck::cast_slice_mut(zeros);
    zeros.fill(nibble(0));
    for (row, points) in zero_points.chunks_exact(groups).enumerate() {
        for (number, point) in points.iter().enumerate() {
            zeros[(row / PANEL * groups + number) * PANEL + row % PANEL] = nibble(*point);
        }
    }
    Ok(())
}

/// Puts the scales and codes of a row of the weight into a column of its panel.
fn pack_column(weight: &Int4Weight<'_>, row: usize, column: usize, panel: &mut [f32]) {
    let Int4Weight { k, group, .. } = *weight;
    let codes = &weight.codes[row * k..(row + 1) * k];
    let scales = &weight.scales[row * k.div_ceil(group)..];
    let words = PANEL * (1 + group / LINE_DEPTH);
    for ((part, codes), scale) in panel.chunks_mut(words).zip(codes.chunks(group)).zip(scales) {
        let (head, lines) = part.split_at_mut(PANEL);
        head[column] = *scale;
        let lines: &mut [u8] = bytemuck::cast_slice_mut(lines);
        for (line, codes) in lines.chunks_exact_mut(4 * PANEL).zip(codes.chunks(LINE_DEPTH)) {
            for (depth, code) in codes.iter().enumerate() {
                line[4 * column + depth % 4] |= nibble(*code) << (depth / 4 * 4);
            }
        }
    }
}

/// What [`pack_int4`] has packed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UnpackedInt4 {
    /// `[n, k]`
    pub codes: Vec<i8>,
    /// `[n, ⌈k / group⌉]`
    pub scales: Vec<f32>,
    /// `[n, ⌈k / group⌉]`; empty where there are none.
    pub zero_points: Vec<i8>,
}

/// The codes, scales and zero points that [`pack_int4`] has packed.
pub fn unpack_int4(packed: &[f32], [n, k, group]: [usize; 3], zero_points: bool) -> Result<UnpackedInt4, KernelError> {
    check_group("unpack_int4", group)?;
    expect_length("unpack_int4", "data", packed.len(), packed_int4_len(n, k, group, zero_points))?;
    let (lines, zeros) = packed.split_at(panels(n) * panel_words(k, group));
    let (bytes, zeros): (&[u8], &[u8]) = (bytemuck::cast_slice(lines), bytemuck::cast_slice(zeros));
    let groups = k.div_ceil(group);
    // Words of a whole group: its scales, and a line for each 8 of its depth.
    let group_words = PANEL * (1 + group / LINE_DEPTH);
    let mut unpacked = UnpackedInt4::default();
    for row in 0..n {
        let (panel, column) = (row / PANEL * panel_words(k, group), row % PANEL);
        unpacked.scales.extend((0..groups).map(|number| lines[panel + number * group_words + column]));
        unpacked.codes.extend((0..k).map(|depth| {
            let (number, depth) = (depth / group, depth % group);
            let line = panel + number * group_words + PANEL * (1 + depth / LINE_DEPTH);
            code(bytes[4 * (line + column) + depth % 4] >> (depth % LINE_DEPTH / 4 * 4) & 15)
        }));
        if zero_points {
            let place = |number| (row / PANEL * groups + number) * PANEL + column;
            unpacked.zero_points.extend((0..groups).map(|number| code(zeros[place(number)])));
        }
    }
    Ok(unpacked)
}

/// Packed 4-bit weights of `n` columns and depth `k`.
///
/// Kernels are fastest if the words start at a multiple of 64 bytes.
#[derive(Debug, Clone, Copy)]
pub struct PackedInt4<'a> {
    words: &'a [f32],
    n: usize,
    k: usize,
    group: usize,
    zero_points: bool,
}

impl<'a> PackedInt4<'a> {
    /// A view of what [`pack_int4`] wrote. Errors if there are fewer words than
    /// [`packed_int4_len`]`(n, k, group, zero_points)`.
    pub fn new(words: &'a [f32], n: usize, k: usize, group: usize, zero_points: bool) -> Result<Self, KernelError> {
        const NAME: &str = "packed int4 weights";
        check_group(NAME, group)?;
        expect_length(NAME, "data", words.len(), packed_int4_len(n, k, group, zero_points))?;
        Ok(Self { words, n, k, group, zero_points })
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

    /// Elements of a group.
    #[must_use]
    pub fn group(&self) -> usize {
        self.group
    }

    /// Number of panels.
    #[must_use]
    pub fn panels(&self) -> usize {
        panels(self.n)
    }

    /// Words of a panel.
    #[inline(always)]
    pub(super) fn panel_words(&self) -> usize {
        panel_words(self.k, self.group)
    }

    /// Address of a panel; to be read only if the panel exists.
    #[inline(always)]
    pub(super) fn panel_pointer(&self, panel: usize) -> *const f32 {
        self.words.as_ptr().wrapping_add(panel * self.panel_words())
    }

    /// Address of a panel's zero points, 16 bytes, and the bytes from those of one group and of one panel to the next; to
    /// be read only if the panel exists.
    #[inline(always)]
    pub(super) fn zeros_pointer(&self, panel: usize) -> (*const [u8; PANEL], usize, usize) {
        if !self.zero_points {
            return (&raw const MIDDLES, 0, 0);
        }
        let panel_bytes = size_of::<f32>() * zero_words(self.k, self.group);
        let zeros = self.panel_pointer(self.panels()).wrapping_byte_add(panel * panel_bytes);
        (zeros.cast(), PANEL, panel_bytes)
    }
}

/// The zero points of columns that have none.
static MIDDLES: [u8; PANEL] = [MIDDLE.cast_unsigned(); PANEL];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_lie_where_the_layout_says() {
        let (n, k, group) = (18, 20, 16);
        let codes: Vec<i8> = (0..n * k).map(|i| (i * 7 % 16) as i8 - 8).collect();
        let scales: Vec<f32> = (0..n * 2).map(|i| i as f32).collect();
        let zero_points: Vec<i8> = (0..n * 2).map(|i| (i % 16) as i8 - 8).collect();
        let weight = Int4Weight { codes: &codes, scales: &scales, zero_points: Some(&zero_points), n, k, group };
        let mut packed = vec![f32::NAN; packed_int4_len(n, k, group, true)];
        pack_int4(&weight, &mut packed).unwrap();
        let panel = 16 * (2 + 3);
        assert_eq!(packed.len(), 2 * (panel + 8));
        let bytes: &[u8] = bytemuck::cast_slice(&packed);
        for (row, codes) in codes.chunks(k).enumerate() {
            for (depth, code) in codes.iter().enumerate() {
                let line = row / 16 * panel + 16 * (depth / 8 + 1 + depth / group);
                let byte = bytes[4 * line + row % 16 * 4 + depth % 4];
                assert_eq!((byte >> (depth / 4 % 2 * 4)) & 15, (code + 8) as u8, "{row}, {depth}");
            }
            for number in 0..2 {
                assert_eq!(packed[row / 16 * panel + 48 * number + row % 16], scales[2 * row + number]);
                let zero = bytes[4 * 2 * panel + 16 * (row / 16 * 2 + number) + row % 16];
                assert_eq!(zero, (zero_points[2 * row + number] + 8) as u8);
            }
        }
    }

    #[test]
    fn what_is_no_nibble_is_refused() {
        let pack = |codes: &[i8], zero: i8, group: usize| {
            let weight = Int4Weight { codes, scales: &[1.0], zero_points: Some(&[zero]), n: 1, k: codes.len(), group };
            pack_int4(&weight, &mut vec![0.0; packed_int4_len(1, codes.len(), group.max(1), true)])
        };
        pack(&[-8, 7], 7, 8).unwrap();
        let error = pack(&[0, 8], 0, 8).unwrap_err().to_string();
        assert!(error.contains("weight code 8 at position 1"), "{error}");
        let error = pack(&[0, 0], -9, 8).unwrap_err().to_string();
        assert!(error.contains("zero point -9"), "{error}");
        let error = pack(&[0, 0], 0, 12).unwrap_err().to_string();
        assert!(error.contains("group (a multiple of 8) is 12, but 16 is needed"), "{error}");
        assert!(pack(&[0; 9], 0, 8).is_err(), "one scale for two groups");
        assert!(pack(&[0, 0], 0, 0).is_err());
    }

    #[test]
    fn lengths_are_checked() {
        assert_eq!(packed_int4_len(17, 24, 16, false), 2 * 16 * (2 + 3));
        assert!(PackedInt4::new(&[0.0; 31], 1, 8, 8, false).is_err());
        assert!(PackedInt4::new(&[0.0; 32], 1, 8, 8, false).is_ok());
        assert!(PackedInt4::new(&[0.0; 32], 1, 8, 8, true).is_err());
        assert!(PackedInt4::new(&[], usize::MAX, usize::MAX, 8, true).is_err());
    }
}
