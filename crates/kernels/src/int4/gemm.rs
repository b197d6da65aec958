//! Int4 matrix multiplication: rows quantised in groups by packed weights, with the epilogue of the f32 kernel.
//!
//! `sum += (scale_row · scale_column) · (products - zero_point · codes)` for one group after the other, then
//! `out = activation(sum + bias) + residual`. The products of a group, and the sum of the row's codes, are exact.
#![allow(unsafe_code)]

use std::ops::Range;

use super::LINE_DEPTH;
use super::pack::PackedInt4;
use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension, expect_length};
use crate::gemm::{Epilogue, Sums, Target, finish};
use crate::int8::rows::{QuantizedRows, RowCodes, code_words};
use crate::matrix::MatrixMut;
use crate::pack::PANEL;
use crate::simd::dot::Dot;
#[cfg(any(target_arch = "x86_64", test))]
use crate::simd::tiles::TileUnit;
use crate::tile::{AHEAD, FEW_ROWS, Pieces};

/// Checked operands of [`multiply`].
pub(crate) struct Job<'a> {
    x: QuantizedRows<'a>,
    b: PackedInt4<'a>,
    panels: Range<usize>,
    target: Target<'a>,
}

impl Kernels {
    /// Multiplies all rows of `x`, `[m, k]`, by the columns of `b` in `panels` (16 columns each) and writes those columns
    /// of `out`, `[m, n]`. Rows and weights must have the same groups.
    ///
    /// Threads split the work by giving each its own rows of `x` and `out`, or its own panels. The result does not depend
    /// on the split, bit for bit.
    pub fn gemm_int4(
        self,
        x: QuantizedRows<'_>,
        b: PackedInt4<'_>,
        panels: Range<usize>,
        epilogue: &Epilogue<'_>,
        out: &mut MatrixMut<'_>,
    ) -> Result<(), KernelError> {
        const NAME: &str = "gemm_int4";
        expect_dimension(NAME, "k of x", x.k(), b.k())?;
        let group = match x.form() {
            RowCodes::Groups(group) => group,
            RowCodes::Whole(_) => 0,
        };
        expect_dimension(NAME, "group of x", group, b.group())?;
        expect_length(NAME, "range of panels", b.panels(), panels.end)?;
        let target = Target::new(NAME, (x.rows(), b.n()), epilogue, out)?;
        // SAFETY: all shapes agree and the views vouch for their elements.
        unsafe { (self.int8.gemm_int4)(&Job { x, b, panels, target }) };
        Ok(())
    }
}

/// Bytes of rows that are kept in the second-level cache while the panels pass by.
const ROW_BLOCK_BYTES: usize = 256 * 1024;

/// # Safety
/// The shapes of the job agree: `x` has the depth and groups of `b`, the target is `[rows of x, n]`, and the panels exist.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Dot>(s: S, job: &Job<'_>) {
    let block = (ROW_BLOCK_BYTES / job.x.k().max(1)).max(S::DOT_ROWS);
    for block in Pieces::new(0..job.x.rows(), block) {
        let mut panel = job.panels.start;
        while panel < job.panels.end {
            // One panel after the other comes from memory faster than two side by side.
            let width = if block.len() <= FEW_ROWS { 1 } else { S::DOT_PANELS };
            let panels = panel..job.panels.end.min(panel + width);
            for rows in Pieces::new(block.clone(), S::DOT_ROWS) {
                let mut sums = Sums::new();
                // SAFETY: rows and panels exist, and there is room for the largest tile.
                unsafe {
                    compute(s, job, rows.clone(), panels.clone(), sums.as_mut_ptr());
                    finish::<S, false>(s, &job.target, rows, panels.clone(), &sums, S::DOT_PANELS);
                }
            }
            panel = panels.end;
        }
    }
}

/// [`multiply`] with the vectors of an instruction set that also has tiles.
///
/// # Safety
/// As [`multiply`].
#[cfg(any(target_arch = "x86_64", test))]
#[inline(always)]
pub(crate) unsafe fn multiply_by_vectors<T: TileUnit>(t: T, job: &Job<'_>) {
    // SAFETY: as promised by the caller.
    unsafe { multiply(t.vectors(), job) };
}

/// Computes a tile; its sums go to `to`, rows `S::DOT_PANELS` panels apart.
///
/// # Safety
/// Rows and panels exist; there is at least one and not more than the instruction set's tile has.
#[inline(always)]
unsafe fn compute<S: Dot>(s: S, job: &Job<'_>, rows: Range<usize>, panels: Range<usize>, to: *mut f32) {
    macro_rules! heights {
        ($panels:literal: $($rows:literal)*) => {
            match rows.len() {
                $($rows if $rows <= S::DOT_ROWS => {
                    // SAFETY: as promised by the caller.
                    unsafe { accumulate::<S, $rows, $panels>(s, job, rows.start, panels.start, to) }
                })*
                height => debug_assert!(false, "no tile of {height} rows"),
            }
        };
    }
    if panels.len() == 1 {
        heights!(1: 1 2 3 4 5 6 7 8 9 10 11 12);
    } else if S::DOT_PANELS == 2 {
        heights!(2: 1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

/// # Safety
/// As [`compute`], for a tile of `ROWS` rows and `PANELS` panels.
#[inline(always)]
unsafe fn accumulate<S: Dot, const ROWS: usize, const PANELS: usize>(
    s: S,
    job: &Job<'_>,
    row: usize,
    panel: usize,
    to: *mut f32,
) {
    let (k, group) = (job.b.k(), job.b.group());
    let (groups, stride, panel_words) = (k.div_ceil(group), job.x.words().stride(), job.b.panel_words());
    let mut x = job.x.words().row_pointer(row);
    let mut scales = x.wrapping_add(code_words(k));
    let mut b = job.b.panel_pointer(panel);
    let (mut zeros, zero_step, zero_panel) = job.b.zeros_pointer(panel);
    let mut left = k.div_ceil(LINE_DEPTH);
    let mut totals = [[s.splat(0.0); PANELS]; ROWS];
    // SAFETY: every row has two words for each line of a panel, and two more for each group; every panel has one line
    // more for each group, and 16 zero points if there are any.
    unsafe {
        for _ in 0..groups {
            let lines = left.min(group / LINE_DEPTH);
            left -= lines;
            let sums = add_products::<S, ROWS, PANELS>(s, lines, (x, stride), (b.add(PANEL), panel_words));
            // Unrolled by hand: the sums stay in registers only if each is named by a constant.
            macro_rules! scale_rows {
                ($p:expr, $zeros:expr, $column_scales:expr; $($i:literal)*) => {
                    $(if let (Some(row), Some(totals)) = (sums.get($i), totals.get_mut($i)) {
                        let scale = s.mul(s.splat(*scales.add($i * stride)), $column_scales);
                        let codes = (*scales.add($i * stride + groups)).to_bits().cast_signed();
                        let value = s.dequantize(row[$p], codes, $zeros.as_ptr(), scale);
                        totals[$p] = s.add(totals[$p], value);
                    })*
                };
            }
            let mut p = 0;
            while p < PANELS {
                let zeros = (*zeros.byte_add(p * zero_panel)).map(i32::from);
                let column_scales = s.load(b.add(p * panel_words));
                scale_rows!(p, zeros, column_scales; 0 1 2 3 4 5 6 7 8 9 10 11);
                p += 1;
            }
            x = x.add(2 * lines);
            b = b.add(PANEL * (1 + lines));
            scales = scales.add(1);
            zeros = zeros.wrapping_byte_add(zero_step);
        }
        for (i, row) in totals.iter().enumerate() {
            for (p, total) in row.iter().enumerate() {
                s.store(*total, to.add((i * S::DOT_PANELS + p) * PANEL));
            }
        }
    }
}

/// The sums of products of `lines` lines of each panel, `panel_words` words apart from `b` on, by the codes of rows
/// from `x` on, `stride` words apart.
///
/// # Safety
/// The lines exist, and two words of each row for each of them.
#[inline(always)]
unsafe fn add_products<S: Dot, const ROWS: usize, const PANELS: usize>(
    s: S,
    lines: usize,
    (mut x, stride): (*const f32, usize),
    (mut b, panel_words): (*const f32, usize),
) -> [[S::Sums; PANELS]; ROWS] {
    let mut sums = [[s.no_sums(); PANELS]; ROWS];
    // SAFETY: as promised by the caller.
    unsafe {
        for _ in 0..lines {
            if ROWS <= FEW_ROWS {
                for p in 0..PANELS {
                    s.prefetch_near(b.wrapping_add(p * panel_words).wrapping_byte_add(AHEAD));
                }
            }
            let mut halves = [s.split_line(s.load_line(b)); PANELS];
            for (p, halves) in halves.iter_mut().enumerate().skip(1) {
                *halves = s.split_line(s.load_line(b.add(p * panel_words)));
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let x = x.add(i * stride);
                let pair = [s.load_signed_word(x), s.load_signed_word(x.add(1))];
                for (sum, halves) in row.iter_mut().zip(halves) {
                    *sum = s.dot_signed(*sum, pair, halves);
                }
            }
            x = x.add(2);
            b = b.add(PANEL);
        }
    }
    sums
}
