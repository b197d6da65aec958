//! Softmax of rows.
#![allow(unsafe_code)]

use crate::dispatch::Kernels;
use crate::matrix::MatrixMut;
use crate::simd::{LANES, Simd, math};

impl Kernels {
    /// Replaces each row by its softmax, e^(x - max) / Σ e^(x - max). A row of -∞ only becomes zeros.
    pub fn softmax(self, rows: &mut MatrixMut<'_>) {
        // SAFETY: the view vouches for its elements.
        unsafe { (self.table.softmax)(rows) }
    }
}

/// What a maximum is replaced by so that `x - maximum` is no NaN where all x are -∞.
pub(crate) const LOWEST: f32 = f32::MIN;

/// # Safety
/// None beyond holding the token `s`.
#[inline(always)]
pub(crate) unsafe fn rows<S: Simd>(s: S, matrix: &mut MatrixMut<'_>) {
    for row in 0..matrix.rows() {
        // SAFETY: the row exists and has that many elements.
        unsafe { softmax_row(s, matrix.row_pointer(row), matrix.columns()) };
    }
}

/// # Safety
/// `columns` elements of `x` are accessible.
#[inline(always)]
unsafe fn softmax_row<S: Simd>(s: S, x: *mut f32, columns: usize) {
    let whole = columns - columns % LANES;
    let tail = columns - whole;
    // SAFETY: all accesses are to elements before `columns`.
    unsafe {
        let mut maximum = s.splat(LOWEST);
        let mut start = 0;
        while start < whole {
            maximum = s.max(maximum, s.load(x.add(start)));
            start += LANES;
        }
        let mut maximum = s.maximum(maximum);
        for i in whole..columns {
            maximum = if *x.add(i) > maximum { *x.add(i) } else { maximum };
        }
        let maximum = s.splat(maximum);
        let mut sum = s.splat(0.0);
        start = 0;
        while start < whole {
            let power = math::exp_of_negative(s, s.sub(s.load(x.add(start)), maximum));
            s.store(power, x.add(start));
            sum = s.add(sum, power);
            start += LANES;
        }
        if tail > 0 {
            let power = math::exp_of_negative(s, s.sub(s.load_first(x.add(whole), tail), maximum));
            s.store_first(power, x.add(whole), tail);
            sum = s.add(sum, s.keep_first(power, tail));
        }
        let sum = s.sum(sum);
        let scale = s.splat(if sum == 0.0 { 0.0 } else { 1.0 / sum });
        start = 0;
        while start < columns {
            let count = LANES.min(columns - start);
            let at = x.add(start);
            s.store_up_to(s.mul(s.load_up_to(at, count), scale), at, count);
            start += count;
        }
    }
}
