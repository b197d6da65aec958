//! Kernels that compute their result row by row.
#![allow(unsafe_code)]

use crate::matrix::MatrixMut;
use crate::simd::Simd;

/// Checked operands of a kernel each of whose rows can be computed on its own.
pub(crate) trait RowJob {
    /// The result.
    fn out(&self) -> &MatrixMut<'_>;

    /// Computes one row of the result.
    ///
    /// # Safety
    /// The row exists.
    unsafe fn row<S: Simd>(&self, s: S, row: usize);
}

/// Computes every row.
///
/// # Safety
/// None beyond holding the token `s`.
#[inline(always)]
pub(crate) unsafe fn all<S: Simd, J: RowJob>(s: S, job: &J) {
    for row in 0..job.out().rows() {
        // SAFETY: the row exists.
        unsafe { job.row(s, row) };
    }
}
