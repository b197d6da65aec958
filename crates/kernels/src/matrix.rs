//! Row-major views of f32 memory: `rows` rows of `columns` elements, `stride` elements apart.
//!
//! The views hold raw pointers, because threads of a stage write disjoint parts of one buffer and a
//! kernel may read the very element that it is about to overwrite (a residual added in place). Safe
//! constructors borrow slices; [`Matrix::from_raw_parts`] and [`MatrixMut::from_raw_parts`] are for
//! the caller that has split a buffer between threads.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use crate::error::{KernelError, expect_length};

/// Floats in a cache line.
const LINE: usize = 16;

/// The stride (in elements) at which rows of `columns` elements are best laid out: whole cache
/// lines, and an odd number of them, so that a column of lines is spread over all sets of the
/// caches. Rows shorter than a line are only rounded up.
#[must_use]
pub fn row_stride(columns: usize) -> usize {
    match columns.div_ceil(LINE) {
        0 => 0,
        lines => (lines | 1) * LINE,
    }
}

/// A read-only view.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: *const f32,
    rows: usize,
    columns: usize,
    stride: usize,
    lifetime: PhantomData<&'a [f32]>,
}

/// A writable view.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Matrix` only reads, like `&[f32]`.
unsafe impl Send for Matrix<'_> {}
// SAFETY: as above.
unsafe impl Sync for Matrix<'_> {}
// SAFETY: a `MatrixMut` is the only way to its elements, like `&mut [f32]`; whoever builds one from
// raw parts promises the same.
unsafe impl Send for MatrixMut<'_> {}
// SAFETY: writing needs `&mut MatrixMut`.
unsafe impl Sync for MatrixMut<'_> {}

/// Elements from the first of the first row to the last of the last; `None` if that overflows or
/// rows overlap.
fn extent(rows: usize, columns: usize, stride: usize) -> Option<usize> {
    if rows == 0 || columns == 0 {
        return Some(0);
    }
    if rows > 1 && stride < columns {
        return None;
    }
    (rows - 1).checked_mul(stride)?.checked_add(columns)
}

fn check(len: usize, rows: usize, columns: usize, stride: usize) -> Result<(), KernelError> {
    let needed = extent(rows, columns, stride).unwrap_or(usize::MAX);
    expect_length("matrix", "data", len, needed)
}

/// Start of `range` if it lies in `0..limit`.
fn check_range(what: &'static str, range: &Range<usize>, limit: usize) -> Result<usize, KernelError> {
    if range.start <= range.end && range.end <= limit {
        Ok(range.start)
    } else {
        Err(KernelError::Shape { kernel: "matrix", what, found: range.end.max(range.start), expected: limit })
    }
}

impl<'a> Matrix<'a> {
    /// A view of `data`. Errors if `data` is too short or rows would overlap.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Result<Self, KernelError> {
        check(data.len(), rows, columns, stride)?;
        Ok(Self { data: data.as_ptr(), rows, columns, stride, lifetime: PhantomData })
    }

    /// A view of `data` without gaps between rows.
    pub fn contiguous(data: &'a [f32], rows: usize, columns: usize) -> Result<Self, KernelError> {
        Self::new(data, rows, columns, columns)
    }

    /// A view of memory that the caller answers for.
    ///
    /// # Safety
    /// For `'a`, every row must be readable and initialised, and nobody may write the elements that
    /// are read through the view (except the kernel itself where its doc allows `out` to be the same
    /// memory). Rows must lie in one allocation.
    #[must_use]
    pub unsafe fn from_raw_parts(data: *const f32, rows: usize, columns: usize, stride: usize) -> Self {
        Self { data, rows, columns, stride, lifetime: PhantomData }
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements in a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements from one row to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `index`, or `None` past the end.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<&'a [f32]> {
        (index < self.rows).then(|| {
            // SAFETY: the row is inside the view, whose constructor vouched for it.
            unsafe { std::slice::from_raw_parts(self.row_pointer(index), self.columns) }
        })
    }

    /// The view of some columns, all rows. Errors if the range is not in `0..columns`.
    pub fn slice_columns(self, range: Range<usize>) -> Result<Self, KernelError> {
        let start = check_range("columns", &range, self.columns)?;
        let data = if self.rows == 0 { self.data } else { self.data.wrapping_add(start) };
        Ok(Self { data, columns: range.len(), ..self })
    }

    /// The view of some rows, all columns. Errors if the range is not in `0..rows`.
    pub fn slice_rows(self, range: Range<usize>) -> Result<Self, KernelError> {
        let start = check_range("rows", &range, self.rows)?;
        Ok(Self { data: self.row_pointer(start), rows: range.len(), ..self })
    }

    /// Address of the first element of a row; to be read only if the row exists.
    #[inline(always)]
    pub(crate) fn row_pointer(&self, index: usize) -> *const f32 {
        self.data.wrapping_add(index.wrapping_mul(self.stride))
    }
}

impl<'a> MatrixMut<'a> {
    /// A view of `data`. Errors if `data` is too short or rows would overlap.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Result<Self, KernelError> {
        check(data.len(), rows, columns, stride)?;
        Ok(Self { data: data.as_mut_ptr(), rows, columns, stride, lifetime: PhantomData })
    }

    /// A view of `data` without gaps between rows.
    pub fn contiguous(data: &'a mut [f32], rows: usize, columns: usize) -> Result<Self, KernelError> {
        Self::new(data, rows, columns, columns)
    }

    /// A view of memory that the caller answers for.
    ///
    /// Several threads may each hold a view of the whole buffer, as long as the parts that kernels
    /// write through them (their rows, or their column panels) are disjoint.
    ///
    /// # Safety
    /// For `'a`, every row must be writable and initialised, and the elements that are accessed
    /// through this view must not be accessed by anything else at the same time. Rows must lie in
    /// one allocation.
    #[must_use]
    pub unsafe fn from_raw_parts(data: *mut f32, rows: usize, columns: usize, stride: usize) -> Self {
        Self { data, rows, columns, stride, lifetime: PhantomData }
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements in a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements from one row to the next.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `index`, or `None` past the end.
    #[must_use]
    pub fn row_mut(&mut self, index: usize) -> Option<&mut [f32]> {
        (index < self.rows).then(|| {
            // SAFETY: the row is inside the view, whose constructor vouched for it, and is borrowed
            // through `&mut self`.
            unsafe { std::slice::from_raw_parts_mut(self.row_pointer(index), self.columns) }
        })
    }

    /// A read-only view of the same elements.
    #[must_use]
    pub fn as_matrix(&self) -> Matrix<'_> {
        Matrix { data: self.data, rows: self.rows, columns: self.columns, stride: self.stride, lifetime: PhantomData }
    }

    /// A shorter-lived view of the same elements.
    #[must_use]
    pub fn reborrow(&mut self) -> MatrixMut<'_> {
        MatrixMut { lifetime: PhantomData, ..*self }
    }

    /// The view of some columns, all rows. Errors if the range is not in `0..columns`.
    pub fn slice_columns(self, range: Range<usize>) -> Result<Self, KernelError> {
        let start = check_range("columns", &range, self.columns)?;
        let data = if self.rows == 0 { self.data } else { self.data.wrapping_add(start) };
        Ok(Self { data, columns: range.len(), ..self })
    }

    /// The view of some rows, all columns. Errors if the range is not in `0..rows`.
    pub fn slice_rows(self, range: Range<usize>) -> Result<Self, KernelError> {
        let start = check_range("rows", &range, self.rows)?;
        Ok(Self { data: self.row_pointer(start), rows: range.len(), ..self })
    }

    /// Address of the first element of a row; to be accessed only if the row exists.
    #[inline(always)]
    pub(crate) fn row_pointer(&self, index: usize) -> *mut f32 {
        self.data.wrapping_add(index.wrapping_mul(self.stride))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked() {
        let data = [0.0; 10];
        assert!(Matrix::new(&data, 3, 2, 4).is_ok());
        assert!(Matrix::new(&data, 3, 3, 4).is_err());
        assert!(Matrix::new(&data, 2, 4, 3).is_err());
        assert!(Matrix::new(&data, usize::MAX, 2, usize::MAX).is_err());
        assert!(Matrix::new(&[], 0, 5, 5).is_ok());
    }

    #[test]
    fn slices_show_the_right_elements() {
        let data: Vec<f32> = (0..12u8).map(f32::from).collect();
        let all = Matrix::contiguous(&data, 3, 4).unwrap();
        let part = all.slice_rows(1..3).unwrap().slice_columns(1..3).unwrap();
        assert_eq!(part.row(0), Some(&[5.0, 6.0][..]));
        assert_eq!(part.row(1), Some(&[9.0, 10.0][..]));
        assert_eq!(part.row(2), None);
        assert!(all.slice_columns(2..5).is_err());
        assert!(all.slice_rows(4..4).is_err());
    }

    #[test]
    fn strides_are_odd_numbers_of_lines() {
        assert_eq!(row_stride(0), 0);
        assert_eq!(row_stride(1), 16);
        assert_eq!(row_stride(384), 400);
        assert_eq!(row_stride(1152), 1168);
        assert_eq!(row_stride(400), 400);
    }
}
