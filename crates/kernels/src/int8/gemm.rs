//! Int8 matrix multiplication: quantised rows by packed weights, with the epilogue of the f32 kernel.
//!
//! `out = activation(scale_row · scale_column · (sum - zero_point · column_sum) + bias) + residual`. The
//! integer sums are exact, and each step after them is rounded on its own, so results depend neither on
//! the split nor on the instruction set (up to the rounding inside the activation). GELU is computed to an
//! absolute error of 1.4e-5, as its result becomes codes next.
#![allow(unsafe_code)]

use std::ops::Range;

use super::ActivationBits;
use super::pack::PackedInt8;
use super::rows::{QuantizedRows, RowCodes, code_words};
use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension, expect_length};
use crate::gemm::{Epilogue, Sums, Target, finish};
use crate::matrix::MatrixMut;
use crate::pack::PANEL;
use crate::simd::dot::Dot;
use crate::tile::{AHEAD, FEW_ROWS, Pieces};

/// Checked operands of [`multiply`].
pub(crate) struct Job<'a> {
    pub(super) x: QuantizedRows<'a>,
    pub(super) b: PackedInt8<'a>,
    pub(super) panels: Range<usize>,
    bias: Option<&'a [f32]>,
    /// What follows the bias, and where it goes.
    pub(super) target: Target<'a>,
}

impl<'a> Job<'a> {
    /// Errors unless all shapes agree and the panels exist.
    pub(super) fn new(
        x: QuantizedRows<'a>,
        b: PackedInt8<'a>,
        panels: Range<usize>,
        epilogue: &Epilogue<'a>,
        out: &'a mut MatrixMut<'_>,
    ) -> Result<Self, KernelError> {
        const NAME: &str = "gemm_int8";
        expect_dimension(NAME, "k of x", x.k(), b.k())?;
        let bits = match x.form() {
            RowCodes::Whole(bits) => bits.count(),
            RowCodes::Groups(_) => 0,
        };
        expect_dimension(NAME, "bits of x", bits as usize, b.bits().count() as usize)?;
        expect_length(NAME, "range of panels", b.panels(), panels.end)?;
        let mut target = Target::new(NAME, (x.rows(), b.n()), epilogue, out)?;
        let bias = target.take_bias();
        Ok(Self { x, b, panels, bias, target })
    }

    /// Rows that are kept in the second-level cache while the panels pass by, at least so many.
    #[inline(always)]
    pub(super) fn block_rows(&self, least: usize) -> usize {
        let row_bytes = self.x.k() * self.b.bits().bytes();
        (ROW_BLOCK_BYTES / row_bytes.max(1)).max(least)
    }

    /// Where the scaled sums of some panels go from a row on, and from there to the next row; and whether they are the
    /// result: nothing is left to be done to them, and all their columns exist. If not, they go to `sums`, whose rows
    /// are `stride` panels apart, for [`finish`].
    #[inline(always)]
    pub(super) fn destination(
        &self,
        row: usize,
        panels: &Range<usize>,
        sums: &mut Sums,
        stride: usize,
    ) -> (bool, (*mut f32, usize)) {
        let direct = !self.target.has_epilogue() && panels.end * PANEL <= self.b.n();
        let out = self.target.out();
        let to = if direct {
            (out.row_pointer(row).wrapping_add(panels.start * PANEL), out.stride())
        } else {
            (sums.as_mut_ptr(), stride * PANEL)
        };
        (direct, to)
    }

    /// The biases of the columns from a panel on.
    ///
    /// # Safety
    /// The panels exist.
    #[inline(always)]
    pub(super) unsafe fn biases<S: Dot, const PANELS: usize>(&self, s: S, panel: usize) -> [S::Vector; PANELS] {
        let mut biases = [s.splat(0.0); PANELS];
        if let Some(bias) = self.bias {
            for (p, vector) in biases.iter_mut().enumerate() {
                let column = (panel + p) * PANEL;
                // SAFETY: there is a bias for each of the columns.
                *vector = unsafe { s.load_up_to(bias.as_ptr().add(column), PANEL.min(self.b.n() - column)) };
            }
        }
        biases
    }
}

impl Kernels {
    /// Multiplies all rows of `x`, `[m, k]`, by the columns of `b` in `panels` (16 columns each) and
    /// writes those columns of `out`, `[m, n]`. Rows and weights must be made for the same bits.
    ///
    /// Threads split the work by giving each its own rows of `x` and `out`, or its own panels. The
    /// result does not depend on the split, bit for bit.
    pub fn gemm_int8(
        self,
        x: QuantizedRows<'_>,
        b: PackedInt8<'_>,
        panels: Range<usize>,
        epilogue: &Epilogue<'_>,
        out: &mut MatrixMut<'_>,
    ) -> Result<(), KernelError> {
        let job = Job::new(x, b, panels, epilogue, out)?;
        // SAFETY: all shapes agree and the views vouch for their elements.
        unsafe { (self.int8.gemm)(&job) };
        Ok(())
    }
}

/// Bytes of rows that are kept in the second-level cache while the panels pass by.
pub(super) const ROW_BLOCK_BYTES: usize = 256 * 1024;

/// # Safety
/// The shapes of the job agree: `x` has the depth of `b`, the target is `[rows of x, n]`, and the panels
/// exist.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Dot>(s: S, job: &Job<'_>) {
    let (chained, two_bytes) = (is_chained::<S>(job.b.bits()), job.b.bits().bytes() == 2);
    for block in Pieces::new(0..job.x.rows(), job.block_rows(S::DOT_ROWS)) {
        let mut panel = job.panels.start;
        while panel < job.panels.end {
            // One panel after the other comes from memory faster than two side by side.
            let width = if block.len() <= FEW_ROWS { 1 } else { S::DOT_PANELS };
            let panels = panel..job.panels.end.min(panel + width);
            // The first tiles of these panels fetch the next panels from afar, one each. With very few rows there
            // is no time for that, and each line is asked for shortly before it is read.
            let busy = block.len() >= S::DOT_ROWS;
            for (number, rows) in Pieces::new(block.clone(), S::DOT_ROWS).enumerate() {
                let next = panels.end + number;
                let prefetch = (busy && number < S::DOT_PANELS && next < job.panels.end).then_some(next);
                let mut sums = Sums::new();
                let (direct, to) = job.destination(rows.start, &panels, &mut sums, S::DOT_PANELS);
                let tile = Tile { rows: rows.clone(), panels: panels.clone(), prefetch, to };
                // SAFETY: rows and panels exist, and `to` has room for them or for the largest tile.
                unsafe {
                    if two_bytes {
                        compute::<S, true, 2>(s, job, &tile);
                    } else if chained {
                        compute::<S, true, 1>(s, job, &tile);
                    } else {
                        compute::<S, false, 1>(s, job, &tile);
                    }
                    if !direct {
                        finish::<S, true>(s, &job.target, rows, panels.clone(), &sums, S::DOT_PANELS);
                    }
                }
            }
            panel = panels.end;
        }
    }
}

/// Whether products of activations of so many bits are chained.
#[inline(always)]
pub(super) fn is_chained<S: Dot>(bits: ActivationBits) -> bool {
    match bits {
        ActivationBits::Seven | ActivationBits::Twelve => true,
        ActivationBits::Eight => !S::BITS_DIFFER,
    }
}

/// Rows and panels that are computed in registers.
struct Tile {
    rows: Range<usize>,
    panels: Range<usize>,
    /// The panel to be brought into the second-level cache meanwhile.
    prefetch: Option<usize>,
    /// Where the first scaled sum goes, and from there to the next row.
    to: (*mut f32, usize),
}

/// Computes the scaled sums of a tile whose codes have `BYTES` bytes.
///
/// # Safety
/// Rows and panels exist; there is at least one and not more than the instruction set's tile has.
#[inline(always)]
unsafe fn compute<S: Dot, const CHAINED: bool, const BYTES: usize>(s: S, job: &Job<'_>, tile: &Tile) {
    macro_rules! heights {
        ($panels:literal: $($rows:literal)*) => {
            match tile.rows.len() {
                $($rows if $rows <= S::DOT_ROWS => {
                    // SAFETY: as promised by the caller.
                    unsafe {
                        if tile.prefetch.is_some() {
                            accumulate::<S, $rows, $panels, CHAINED, BYTES, true>(s, job, tile);
                        } else {
                            accumulate::<S, $rows, $panels, CHAINED, BYTES, false>(s, job, tile);
                        }
                    }
                })*
                height => debug_assert!(false, "no tile of {height} rows"),
            }
        };
    }
    if tile.panels.len() == 1 {
        heights!(1: 1 2 3 4 5 6 7 8 9 10 11 12);
    } else if S::DOT_PANELS == 2 {
        heights!(2: 1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

/// # Safety
/// As [`compute`], for a tile of `ROWS` rows and `PANELS` panels.
#[inline(always)]
unsafe fn accumulate<
    S: Dot,
    const ROWS: usize,
    const PANELS: usize,
    const CHAINED: bool,
    const BYTES: usize,
    const PREFETCH: bool,
>(
    s: S,
    job: &Job<'_>,
    tile: &Tile,
) {
    let words = code_words(job.b.k());
    let stride = job.x.words().stride();
    let none = [[s.no_sums(); PANELS]; ROWS];
    let panel = tile.panels.start;
    let b = job.b.panel_pointer(panel);
    let mut x = job.x.words().row_pointer(tile.rows.start);
    // SAFETY: every row has `words` words for each byte of a code and 2 more, every panel `words` lines, 16 scales
    // and 16 sums.
    unsafe {
        let prefetch = job.b.panel_pointer(tile.prefetch.unwrap_or(panel));
        let sums = if BYTES == 2 && ROWS <= FEW_ROWS && 2 * ROWS <= S::DOT_ROWS * S::DOT_PANELS {
            // Registers hold the sums of both bytes, so that weights from memory pass by once.
            let both =
                add_products::<S, ROWS, PANELS, 2, CHAINED, false>(s, words, (x, stride), b, prefetch, [none; 2]);
            x = x.add(words);
            join(s, both)
        } else if BYTES == 2 {
            let [high] = add_products::<S, ROWS, PANELS, 1, CHAINED, false>(s, words, (x, stride), b, b, [none]);
            x = x.add(words);
            let shifted = join(s, [high, none]);
            let [sums] =
                add_products::<S, ROWS, PANELS, 1, CHAINED, PREFETCH>(s, words, (x, stride), b, prefetch, [shifted]);
            sums
        } else {
            let [sums] =
                add_products::<S, ROWS, PANELS, 1, CHAINED, PREFETCH>(s, words, (x, stride), b, prefetch, [none]);
            sums
        };
        x = x.add(words);
        let biases: [S::Vector; PANELS] = job.biases(s, panel);
        let (to, to_row) = tile.to;
        let offset = if CHAINED { 0 } else { S::OFFSET };
        // Unrolled by hand: the sums stay in registers only if each is named by a constant.
        macro_rules! store_rows {
            ($($i:literal)*) => {
                $(if let Some(row) = sums.get($i) {
                    let scale = s.splat(*x.add($i * stride));
                    let zero_point = (*x.add($i * stride + 1)).to_bits().cast_signed().wrapping_sub(offset);
                    for (p, sum) in row.iter().enumerate() {
                        let scale = s.mul(scale, s.load(job.b.scales_pointer(panel + p)));
                        let value = s.dequantize(*sum, zero_point, job.b.sums_pointer(panel + p), scale);
                        s.store(s.add(value, biases[p]), to.add($i * to_row + p * PANEL));
                    }
                })*
            };
        }
        store_rows!(0 1 2 3 4 5 6 7 8 9 10 11);
    }
}

/// The sums of codes of two bytes from those of their high and low ones.
#[inline(always)]
fn join<S: Dot, const ROWS: usize, const PANELS: usize>(
    s: S,
    [high, low]: [[[S::Sums; PANELS]; ROWS]; 2],
) -> [[S::Sums; PANELS]; ROWS] {
    let mut joined = high;
    for (row, low) in joined.iter_mut().zip(low) {
        for (sum, low) in row.iter_mut().zip(low) {
            *sum = s.join_sums(*sum, low);
        }
    }
    joined
}

/// Adds the products of `words` words of rows from `x` on, `stride` words apart, for each of the `BYTES` of a code that follow
/// each other, and of panels from `b` on. Sums come and go by value, or the compiler would keep them in memory.
///
/// # Safety
/// The words exist, and as many lines of each panel.
#[inline(always)]
unsafe fn add_products<
    S: Dot,
    const ROWS: usize,
    const PANELS: usize,
    const BYTES: usize,
    const CHAINED: bool,
    const PREFETCH: bool,
>(
    s: S,
    words: usize,
    (mut x, stride): (*const f32, usize),
    mut b: *const f32,
    mut prefetch: *const f32,
    mut sums: [[[S::Sums; PANELS]; ROWS]; BYTES],
) -> [[[S::Sums; PANELS]; ROWS]; BYTES] {
    let panel_words = words * PANEL;
    // SAFETY: as promised by the caller.
    unsafe {
        for _ in 0..words / 2 {
            if PREFETCH {
                s.prefetch(prefetch);
                s.prefetch(prefetch.wrapping_add(PANEL));
                prefetch = prefetch.wrapping_add(2 * PANEL);
            } else if ROWS <= FEW_ROWS {
                s.prefetch_near(b.wrapping_byte_add(AHEAD));
                s.prefetch_near(b.wrapping_add(PANEL).wrapping_byte_add(AHEAD));
            }
            let mut lines = [[s.load_line(b), s.load_line(b.add(PANEL))]; PANELS];
            for (p, pair) in lines.iter_mut().enumerate().skip(1) {
                let b = b.add(p * panel_words);
                *pair = [s.load_line(b), s.load_line(b.add(PANEL))];
            }
            for (byte, rows) in sums.iter_mut().enumerate() {
                for (i, row) in rows.iter_mut().enumerate() {
                    let x = x.add(i * stride + byte * words);
                    let pair = [s.load_word(x), s.load_word(x.add(1))];
                    for (sum, lines) in row.iter_mut().zip(lines) {
                        *sum = s.dot::<CHAINED>(*sum, pair, lines);
                    }
                }
            }
            x = x.add(2);
            b = b.add(2 * PANEL);
        }
    }
    sums
}
