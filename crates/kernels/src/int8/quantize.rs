//! Quantisation of rows, each by its own range or all by one that is given: what a row becomes does not depend on other rows.
#![allow(unsafe_code)]

use std::ops::Range;

use super::SPLIT;
use super::rows::{QuantizedRowsMut, RowCodes, code_words, row_words};
use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension};
use crate::gate::{self, Gate};
use crate::int4;
use crate::matrix::{Matrix, MatrixMut};
use crate::norm::{self, LayerNorm, RmsNorm};
use crate::rows::RowJob;
use crate::simd::{LANES, Simd};
use crate::tile::Pieces;

/// How and where rows are quantised.
#[derive(Debug)]
pub struct Quantization<'a> {
    /// Multiplied to each column first (its inverse is in the weights that follow); `k` elements.
    pub factor: Option<&'a [f32]>,
    /// The result.
    pub rows: QuantizedRowsMut<'a>,
}

/// Checked operands of [`rows`].
pub(crate) struct Job<'a> {
    x: Matrix<'a>,
    target: Target<'a>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(
        x: Matrix<'a>,
        factor: Option<&'a [f32]>,
        out: &'a mut QuantizedRowsMut<'_>,
    ) -> Result<Job<'a>, KernelError> {
        let target = Target::new("quantize_rows", (x.rows(), x.columns()), factor, out)?;
        Ok(Job { x, target })
    }
}

/// Checked operands of [`computed_rows`]: what computes the rows, and where they are quantised to.
pub(crate) struct Computed<'a, J> {
    rows: J,
    target: Target<'a>,
}

/// A [`Quantization`] that fits its rows.
struct Target<'a> {
    factor: Option<&'a [f32]>,
    out: QuantizedRowsMut<'a>,
}

impl<'a> Target<'a> {
    fn new(
        kernel: &'static str,
        (rows, columns): (usize, usize),
        factor: Option<&'a [f32]>,
        out: &'a mut QuantizedRowsMut<'_>,
    ) -> Result<Self, KernelError> {
        expect_dimension(kernel, "rows of the quantised rows", out.rows(), rows)?;
        expect_dimension(kernel, "k of the quantised rows", out.k(), columns)?;
        if let Some(factor) = factor {
            expect_dimension(kernel, "length of factor", factor.len(), columns)?;
        }
        Ok(Self { factor, out: out.reborrow() })
    }
}

impl Kernels {
    /// Quantises each row of `x · factor` to the codes of `out`, as a whole asymmetrically.
    ///
    /// With `low` and `high` the least and greatest of the row and 0, or those of [`QuantizedRowsMut::within`],
    /// `scale = (high - low) / levels`, `zero point = round(-low / scale)` and
    /// `code = clamp(round(v / scale) + zero point, 0, levels)`; halves
    /// are rounded to even, and `/ scale` is a multiplication with the rounded `1 / scale`. A row whose
    /// range is zero, or so small that `1 / scale` is infinite, becomes zeros with scale 0. A row with a
    /// NaN, an infinity or a range beyond f32 becomes zeros with scale NaN, so that what is computed from
    /// it is NaN.
    ///
    /// In groups, each group of a row is quantised on its own, symmetrically: with `largest` the greatest magnitude,
    /// `scale = largest / 127` and `code = round(v / scale)`, rounded and multiplied likewise. What is said of the
    /// range of a row holds for a group.
    pub fn quantize_rows(
        self,
        x: Matrix<'_>,
        factor: Option<&[f32]>,
        out: &mut QuantizedRowsMut<'_>,
    ) -> Result<(), KernelError> {
        let job = Job::new(x, factor, out)?;
        // SAFETY: all shapes agree and the views vouch for their elements.
        unsafe { (self.table.quantize_rows)(&job) };
        Ok(())
    }

    /// [`Kernels::layer_norm`] into `out`, and [`Kernels::quantize_rows`] of the result while it is in the
    /// first-level cache. `out` may be the same memory as `x` or `residual`.
    pub fn layer_norm_quantize(
        self,
        x: Matrix<'_>,
        residual: Option<Matrix<'_>>,
        norm: &LayerNorm<'_>,
        out: &mut MatrixMut<'_>,
        quantization: &mut Quantization<'_>,
    ) -> Result<(), KernelError> {
        const NAME: &str = "layer_norm_quantize";
        self.norm_quantize(NAME, norm::Job::new(NAME, x, residual, norm.into(), out)?, quantization)
    }

    /// [`Kernels::rms_norm`] into `out`, and [`Kernels::quantize_rows`] of the result while it is in the first-level
    /// cache. `out` may be the same memory as `x` or `residual`.
    pub fn rms_norm_quantize(
        self,
        x: Matrix<'_>,
        residual: Option<Matrix<'_>>,
        norm: &RmsNorm<'_>,
        out: &mut MatrixMut<'_>,
        quantization: &mut Quantization<'_>,
    ) -> Result<(), KernelError> {
        const NAME: &str = "rms_norm_quantize";
        self.norm_quantize(NAME, norm::Job::new(NAME, x, residual, norm.into(), out)?, quantization)
    }

    fn norm_quantize(
        self,
        kernel: &'static str,
        rows: norm::Job<'_>,
        quantization: &mut Quantization<'_>,
    ) -> Result<(), KernelError> {
        let shape = (rows.out().rows(), rows.out().columns());
        let target = Target::new(kernel, shape, quantization.factor, &mut quantization.rows)?;
        // SAFETY: all shapes agree and the views vouch for their elements.
        unsafe { (self.table.norm_quantize)(&Computed { rows, target }) };
        Ok(())
    }

    /// [`Kernels::gate`] into `out`, and [`Kernels::quantize_rows`] of the result while it is in the first-level cache.
    /// `out` may be the same memory as an operand.
    pub fn gate_quantize(
        self,
        gate: &Gate<'_>,
        out: &mut MatrixMut<'_>,
        quantization: &mut Quantization<'_>,
    ) -> Result<(), KernelError> {
        const NAME: &str = "gate_quantize";
        let shape = (out.rows(), out.columns());
        let rows = gate::Job::new(NAME, gate, out)?;
        let target = Target::new(NAME, shape, quantization.factor, &mut quantization.rows)?;
        // SAFETY: all shapes agree and the views vouch for their elements.
        unsafe { (self.table.gate_quantize)(&Computed { rows, target }) };
        Ok(())
    }
}

/// Rows that are quantised together, so that the dependent steps between range and codes overlap.
const BLOCK: usize = 4;

/// # Safety
/// `x`, `factor` and `out` have the same number of columns, `x` and `out` of rows.
#[inline(always)]
pub(crate) unsafe fn rows<S: Simd>(s: S, job: &Job<'_>) {
    for block in Pieces::new(0..job.x.rows(), BLOCK) {
        // SAFETY: the rows exist in both.
        unsafe { quantize(s, |row| job.x.row_pointer(row), &job.target, block) };
    }
}

/// Computes rows and quantises them.
///
/// # Safety
/// The computed rows and those of the target have the same shape.
#[inline(always)]
pub(crate) unsafe fn computed_rows<S: Simd, J: RowJob>(s: S, job: &Computed<'_, J>) {
    for block in Pieces::new(0..job.rows.out().rows(), BLOCK) {
        // SAFETY: the rows exist everywhere.
        unsafe {
            for row in block.clone() {
                job.rows.row(s, row);
            }
            quantize(s, |row| job.rows.out().row_pointer(row), &job.target, block);
        }
    }
}

/// Adding it rounds what is small to an integer, halves to even; subtracting it again leaves the integer.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// How one row is quantised.
#[derive(Clone, Copy)]
struct Steps {
    scale: f32,
    inverse: f32,
    zero_point: f32,
}

/// Quantises at most [`BLOCK`] rows, each read at `x(row)`.
///
/// # Safety
/// The rows exist, and `x` gives addresses of as many elements as a row has.
#[inline(always)]
unsafe fn quantize<S: Simd>(s: S, x: impl Fn(usize) -> *const f32, target: &Target<'_>, rows: Range<usize>) {
    let columns = target.out.k();
    let factor = target.factor.map(<[f32]>::as_ptr);
    let bits = match target.out.form() {
        RowCodes::Whole(bits) => bits,
        RowCodes::Groups(group) => {
            for row in rows {
                // SAFETY: as promised by the caller; rows have words for their codes, and two for each group.
                unsafe { int4::quantize::row(s, (x(row), factor), columns, group, target.out.row_pointer(row)) };
            }
            return;
        }
    };
    let levels = f32::from(bits.levels());
    let words = row_words(columns, bits);
    let two_bytes = bits.bytes() == 2;
    let mut steps = [Steps { scale: 0.0, inverse: 0.0, zero_point: 0.0 }; BLOCK];
    // SAFETY: the rows have `words + 2` words, `x` and `factor` `columns` elements.
    unsafe {
        for (steps, row) in steps.iter_mut().zip(rows.clone()) {
            let (mut low, mut high) = range(s, x(row), factor, columns);
            if let Some(given) = target.out.range().filter(|_| low.is_finite() && high.is_finite()) {
                [low, high] = given;
            }
            let scale = (high - low) / levels;
            let inverse = 1.0 / scale;
            *steps = Steps { scale, inverse, zero_point: (-low * inverse).round_ties_even() };
        }
        for (steps, row) in steps.iter().zip(rows) {
            let out = target.out.row_pointer(row);
            if steps.scale.is_finite() && steps.inverse.is_finite() {
                if two_bytes {
                    codes::<S, true>(s, (x(row), factor), columns, steps, levels, out.cast());
                } else {
                    codes::<S, false>(s, (x(row), factor), columns, steps, levels, out.cast());
                }
                out.add(words).write(steps.scale);
                out.add(words + 1).write(f32::from_bits(steps.zero_point as u32));
            } else {
                out.write_bytes(0, words + 2);
                out.add(words).write(if steps.scale.is_finite() { 0.0 } else { f32::NAN });
            }
        }
    }
}

/// `count.min(16)` elements of `x · factor` from `start` on, zeros after them.
///
/// # Safety
/// The elements exist.
#[inline(always)]
pub(crate) unsafe fn scaled<S: Simd>(
    s: S,
    x: *const f32,
    factor: Option<*const f32>,
    start: usize,
    count: usize,
) -> S::Vector {
    // SAFETY: as promised by the caller.
    unsafe {
        let x = s.load_up_to(x.add(start), count);
        match factor {
            Some(factor) => s.mul(x, s.load_up_to(factor.add(start), count)),
            None => x,
        }
    }
}

/// The least and greatest of the elements and 0; NaN if one of them is not finite.
///
/// # Safety
/// `x` and `factor` have `columns` elements.
#[inline(always)]
unsafe fn range<S: Simd>(s: S, x: *const f32, factor: Option<*const f32>, columns: usize) -> (f32, f32) {
    /// Independent ranges of a row, so that comparisons overlap.
    const CHAINS: usize = 4;
    let zero = s.splat(0.0);
    let widen = |(low, high, invalid), v| {
        // 0 times a finite number is 0, times any other it is NaN; and NaN stays.
        (s.min(v, low), s.max(v, high), s.mul_add(v, zero, invalid))
    };
    let mut ranges = [(zero, zero, zero); CHAINS];
    let mut start = 0;
    // SAFETY: all elements are before `columns`.
    unsafe {
        while start + CHAINS * LANES <= columns {
            for (i, range) in ranges.iter_mut().enumerate() {
                *range = widen(*range, scaled(s, x, factor, start + i * LANES, LANES));
            }
            start += CHAINS * LANES;
        }
        while start < columns {
            let count = LANES.min(columns - start);
            ranges[0] = widen(ranges[0], scaled(s, x, factor, start, count));
            start += count;
        }
    }
    let join = |a: (S::Vector, S::Vector, S::Vector), b: (S::Vector, S::Vector, S::Vector)| {
        (s.min(a.0, b.0), s.max(a.1, b.1), s.add(a.2, b.2))
    };
    let (low, high, invalid) = join(join(ranges[0], ranges[1]), join(ranges[2], ranges[3]));
    let invalid = s.sum(invalid);
    (invalid - s.maximum(s.sub(zero, low)), invalid + s.maximum(high))
}

/// Writes the codes of a row, and zeros up to the end of its last group; of codes of two bytes first all high
/// bytes, then all low ones.
///
/// # Safety
/// `x` and `factor` have `columns` elements, `out` has room for the bytes of the codes and of the padding.
#[inline(always)]
unsafe fn codes<S: Simd, const TWO_BYTES: bool>(
    s: S,
    (x, factor): (*const f32, Option<*const f32>),
    columns: usize,
    steps: &Steps,
    levels: f32,
    out: *mut u8,
) {
    // Subtracting less than was added to round adds the zero point.
    let (round, shift) = (s.splat(ROUND), s.splat(ROUND - steps.zero_point));
    let (inverse, zero, levels) = (s.splat(steps.inverse), s.splat(0.0), s.splat(levels));
    let code = |v: S::Vector| s.max(s.min(s.sub(s.add(s.mul(v, inverse), round), shift), levels), zero);
    let padded = 4 * code_words(columns);
    let mut start = 0;
    // SAFETY: all elements are before `columns`; padding ends at the next multiple of 8.
    unsafe {
        while start + LANES <= columns {
            store_codes::<S, TWO_BYTES>(s, code(scaled(s, x, factor, start, LANES)), out.add(start), padded);
            start += LANES;
        }
        if start < columns {
            let mut bytes = [[0u8; LANES]; 2];
            let last = code(scaled(s, x, factor, start, columns - start));
            store_codes::<S, TWO_BYTES>(s, last, bytes.as_mut_ptr().cast(), LANES);
            for (place, bytes) in bytes.iter_mut().take(1 + usize::from(TWO_BYTES)).enumerate() {
                bytes[columns - start..].fill(0);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.add(place * padded + start), padded - start);
            }
        }
    }
}

/// Stores 16 codes, the low byte of each, if there are two, `apart` bytes behind the high one.
///
/// # Safety
/// 16 bytes at `out` are writable, and at `out + apart` if there are two.
#[inline(always)]
unsafe fn store_codes<S: Simd, const TWO_BYTES: bool>(s: S, codes: S::Vector, out: *mut u8, apart: usize) {
    const BASE: f32 = (1u32 << SPLIT) as f32;
    // SAFETY: as promised by the caller.
    unsafe {
        if TWO_BYTES {
            // Exact all the way: behind the point `codes / BASE` has at most 63/64, and less 63/128 that rounds away.
            let nearest = s.mul_add(codes, s.splat(1.0 / BASE), s.splat(0.5 / BASE - 0.5));
            let high = s.sub(s.add(nearest, s.splat(ROUND)), s.splat(ROUND));
            s.store_bytes(high, out);
            s.store_bytes(s.neg_mul_add(high, s.splat(BASE), codes), out.add(apart));
        } else {
            s.store_bytes(codes, out);
        }
    }
}
