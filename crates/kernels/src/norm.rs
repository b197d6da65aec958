//! Normalisation of rows.
#![allow(unsafe_code)]

use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension};
use crate::matrix::{Matrix, MatrixMut};
use crate::rows::RowJob;
use crate::simd::{LANES, Simd};

/// Parameters of a LayerNorm.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// Scale of each column.
    pub gamma: &'a [f32],
    /// Shift of each column.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Parameters of an RMSNorm.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm<'a> {
    /// Scale of each column.
    pub gamma: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
}

/// What is done to each row.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    gamma: &'a [f32],
    beta: Option<&'a [f32]>,
    epsilon: f32,
    /// Whether the mean is taken off first.
    centred: bool,
}

impl<'a> From<&LayerNorm<'a>> for Norm<'a> {
    fn from(norm: &LayerNorm<'a>) -> Self {
        let LayerNorm { gamma, beta, epsilon } = *norm;
        Self { gamma, beta, epsilon, centred: true }
    }
}

impl<'a> From<&RmsNorm<'a>> for Norm<'a> {
    fn from(norm: &RmsNorm<'a>) -> Self {
        Self { gamma: norm.gamma, beta: None, epsilon: norm.epsilon, centred: false }
    }
}

/// Checked operands of [`rows`].
pub(crate) struct Job<'a> {
    x: Matrix<'a>,
    residual: Option<Matrix<'a>>,
    norm: Norm<'a>,
    out: MatrixMut<'a>,
}

impl Kernels {
    /// `out = (v - mean(v)) / sqrt(var(v) + epsilon) · gamma + beta` for each row v of `x + residual`,
    /// with the population variance computed in a second pass over the row.
    ///
    /// `out` may be the same memory as `x` or `residual`.
    pub fn layer_norm(
        self,
        x: Matrix<'_>,
        residual: Option<Matrix<'_>>,
        norm: &LayerNorm<'_>,
        out: &mut MatrixMut<'_>,
    ) -> Result<(), KernelError> {
        self.norm(&Job::new("layer_norm", x, residual, norm.into(), out)?);
        Ok(())
    }

    /// `out = v / sqrt(mean(v²) + epsilon) · gamma` for each row v of `x + residual`.
    ///
    /// `out` may be the same memory as `x` or `residual`.
    pub fn rms_norm(
        self,
        x: Matrix<'_>,
        residual: Option<Matrix<'_>>,
        norm: &RmsNorm<'_>,
        out: &mut MatrixMut<'_>,
    ) -> Result<(), KernelError> {
        self.norm(&Job::new("rms_norm", x, residual, norm.into(), out)?);
        Ok(())
    }

    fn norm(self, job: &Job<'_>) {
        // SAFETY: all shapes agree and the views vouch for their elements.
        unsafe { (self.table.norm)(job) };
    }
}

impl<'a> Job<'a> {
    /// Checks that all shapes agree.
    pub(crate) fn new(
        kernel: &'static str,
        x: Matrix<'a>,
        residual: Option<Matrix<'a>>,
        norm: Norm<'a>,
        out: &'a mut MatrixMut<'_>,
    ) -> Result<Self, KernelError> {
        expect_dimension(kernel, "rows of out", out.rows(), x.rows())?;
        expect_dimension(kernel, "columns of out", out.columns(), x.columns())?;
        expect_dimension(kernel, "length of gamma", norm.gamma.len(), x.columns())?;
        if let Some(beta) = norm.beta {
            expect_dimension(kernel, "length of beta", beta.len(), x.columns())?;
        }
        if let Some(residual) = residual {
            expect_dimension(kernel, "rows of residual", residual.rows(), x.rows())?;
            expect_dimension(kernel, "columns of residual", residual.columns(), x.columns())?;
        }
        Ok(Self { x, residual, norm, out: out.reborrow() })
    }
}

impl RowJob for Job<'_> {
    fn out(&self) -> &MatrixMut<'_> {
        &self.out
    }

    #[inline(always)]
    unsafe fn row<S: Simd>(&self, s: S, row: usize) {
        let out = self.out.row_pointer(row);
        let mut x = self.x.row_pointer(row);
        // SAFETY: the row exists in all three views, whose shapes were checked.
        unsafe {
            if let Some(residual) = self.residual {
                add(s, x, residual.row_pointer(row), out, self.x.columns());
                x = out;
            }
            normalize(s, x, &self.norm, out);
        }
    }
}

/// Independent sums of a row, so that additions overlap.
const CHAINS: usize = 4;

/// `out = a + b`
///
/// # Safety
/// `columns` elements of each are accessible; `out` may be `a` or `b`.
#[inline(always)]
unsafe fn add<S: Simd>(s: S, a: *const f32, b: *const f32, out: *mut f32, columns: usize) {
    let mut start = 0;
    while start < columns {
        let count = LANES.min(columns - start);
        // SAFETY: `start + count` is at most `columns`.
        unsafe {
            let sum = s.add(s.load_up_to(a.add(start), count), s.load_up_to(b.add(start), count));
            s.store_up_to(sum, out.add(start), count);
        }
        start += count;
    }
}

/// # Safety
/// `x` and `out` have as many elements as gamma; they may be the same.
#[inline(always)]
unsafe fn normalize<S: Simd>(s: S, x: *const f32, norm: &Norm<'_>, out: *mut f32) {
    let columns = norm.gamma.len();
    // SAFETY: every access is to elements before `columns`.
    unsafe {
        let mean = if norm.centred { total::<S, false>(s, x, columns, s.splat(0.0)) / columns as f32 } else { 0.0 };
        let variance = total::<S, true>(s, x, columns, s.splat(mean)) / columns as f32;
        let (mean, scale) = (s.splat(mean), s.splat(1.0 / (variance + norm.epsilon).sqrt()));
        let mut start = 0;
        while start + LANES <= columns {
            scale_and_shift(s, x, norm, out, (mean, scale), start, LANES);
            start += LANES;
        }
        if start < columns {
            scale_and_shift(s, x, norm, out, (mean, scale), start, columns - start);
        }
    }
}

/// `out = (x - mean) · scale · gamma + beta` for `count` elements from `start` on.
///
/// # Safety
/// The elements exist in all operands.
#[inline(always)]
unsafe fn scale_and_shift<S: Simd>(
    s: S,
    x: *const f32,
    norm: &Norm<'_>,
    out: *mut f32,
    (mean, scale): (S::Vector, S::Vector),
    start: usize,
    count: usize,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let value = s.mul(s.sub(s.load_up_to(x.add(start), count), mean), scale);
        let gamma = s.load_up_to(norm.gamma.as_ptr().add(start), count);
        let beta = match norm.beta {
            Some(beta) => s.load_up_to(beta.as_ptr().add(start), count),
            None => s.splat(0.0),
        };
        s.store_up_to(s.mul_add(value, gamma, beta), out.add(start), count);
    }
}

/// Sum of the elements, or of their squared distances to `centre`.
///
/// # Safety
/// `columns` elements of `x` are readable.
#[inline(always)]
unsafe fn total<S: Simd, const SQUARES: bool>(s: S, x: *const f32, columns: usize, centre: S::Vector) -> f32 {
    let mut sums = [s.splat(0.0); CHAINS];
    let mut start = 0;
    // SAFETY: every access is to elements before `columns`.
    unsafe {
        while start + CHAINS * LANES <= columns {
            for (i, sum) in sums.iter_mut().enumerate() {
                let v = s.load(x.add(start + i * LANES));
                *sum = accumulate::<S, SQUARES>(s, *sum, v, centre, LANES);
            }
            start += CHAINS * LANES;
        }
        for sum in &mut sums {
            let count = LANES.min(columns - start);
            let v = s.load_up_to(x.add(start), count);
            *sum = accumulate::<S, SQUARES>(s, *sum, v, centre, count);
            start += count;
        }
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// `sum + v`, or `sum + (v - centre)²`, of the first `count` lanes; the others of `v` are 0.
#[inline(always)]
fn accumulate<S: Simd, const SQUARES: bool>(
    s: S,
    sum: S::Vector,
    v: S::Vector,
    centre: S::Vector,
    count: usize,
) -> S::Vector {
    if !SQUARES {
        return s.add(sum, v);
    }
    let distance = s.sub(v, centre);
    let distance = if count < LANES { s.keep_first(distance, count) } else { distance };
    s.mul_add(distance, distance, sum)
}

/// Divides each row by the larger of its Euclidean norm and `epsilon`.
pub fn l2_normalize(rows: &mut MatrixMut<'_>, epsilon: f32) {
    for index in 0..rows.rows() {
        if let Some(row) = rows.row_mut(index) {
            let squares: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            let norm = (squares.sqrt() as f32).max(epsilon);
            for x in row {
                *x /= norm;
            }
        }
    }
}
