//! Building blocks for graphs that no fused kernel fits: operations on contiguous n-dimensional arrays
//! with broadcasting, as ONNX defines them. Simple rather than fast; none allocates.
//!
//! Rows of a result, along its last axis, can be computed apart from each other: see [`ArrayMut::part`].
//!
//! Softmax along the last axis is [`Kernels::softmax`](crate::Kernels::softmax) on the array seen as rows.

mod elementwise;
mod matmul;
mod movement;
mod reduce;

pub use elementwise::{Binary, Unary, binary, select};
pub use movement::{expand, gather, gather_elements, transpose};
pub use reduce::{Reduction, cumulative_sum, reduce};

use std::ops::Range;

use crate::error::{KernelError, expect_dimension};

/// Most axes an array can have.
pub const MAX_RANK: usize = 8;

/// A read-only contiguous array, last axis fastest. A scalar has no axes.
#[derive(Debug, Clone, Copy)]
pub struct Array<'a> {
    data: &'a [f32],
    shape: &'a [usize],
}

/// A writable contiguous array, or some of its rows.
#[derive(Debug)]
pub struct ArrayMut<'a> {
    /// Of the rows that are to be written.
    data: &'a mut [f32],
    /// Of the whole array.
    shape: &'a [usize],
    rows: Range<usize>,
}

/// Number of elements of a shape.
fn count(shape: &[usize]) -> usize {
    shape.iter().copied().fold(1, usize::saturating_mul)
}

fn check(len: usize, shape: &[usize]) -> Result<(), KernelError> {
    if shape.len() > MAX_RANK {
        return Err(KernelError::TooLarge {
            kernel: "array",
            what: "number of axes",
            found: shape.len(),
            limit: MAX_RANK,
        });
    }
    expect_dimension("array", "length of data", len, count(shape))
}

impl<'a> Array<'a> {
    /// Errors if the length of `data` is not the product of `shape`, or there are too many axes.
    pub fn new(data: &'a [f32], shape: &'a [usize]) -> Result<Self, KernelError> {
        check(data.len(), shape)?;
        Ok(Self { data, shape })
    }

    /// The elements.
    #[must_use]
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// Length of each axis.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }
}

impl<'a> ArrayMut<'a> {
    /// Errors if the length of `data` is not the product of `shape`, or there are too many axes.
    pub fn new(data: &'a mut [f32], shape: &'a [usize]) -> Result<Self, KernelError> {
        check(data.len(), shape)?;
        Ok(Self { data, shape, rows: 0..rows(shape) })
    }

    /// Some rows along the last axis of an array of `shape`, to which `data` belongs.
    ///
    /// Errors if there are no such rows, or the length of `data` is not theirs.
    pub fn part(data: &'a mut [f32], shape: &'a [usize], part: Range<usize>) -> Result<Self, KernelError> {
        check(count(shape), shape)?;
        let limit = rows(shape);
        if part.start > part.end || part.end > limit {
            return Err(KernelError::TooLarge { kernel: "array", what: "row", found: part.end, limit });
        }
        let columns = shape.last().copied().unwrap_or(1);
        expect_dimension("array", "length of data", data.len(), part.len() * columns)?;
        Ok(Self { data, shape, rows: part })
    }

    /// Length of each axis of the whole array.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Visits its rows, in order.
    fn for_each_row<const N: usize>(self, strides: [&Strides; N], mut visit: impl FnMut(&mut [f32], Row<N>)) {
        let columns = self.shape.last().copied().unwrap_or(1).max(1);
        let mut rows = self.data.chunks_exact_mut(columns);
        for_each_row(self.shape, self.rows, strides, |row| visit(rows.next().unwrap_or_default(), row));
    }
}

/// Number of rows along the last axis of a shape.
fn rows(shape: &[usize]) -> usize {
    shape.split_last().map_or(1, |(_, outer)| count(outer))
}

/// The place of the element of that index, in the order of a shape, in an array with other strides.
fn place(mut index: usize, shape: &[usize], strides: &Strides) -> usize {
    let mut place = 0;
    for (axis, length) in shape.iter().enumerate().rev() {
        place += index % length.max(&1) * strides[axis];
        index /= length.max(&1);
    }
    place
}

/// Elements from one index to the next, for each axis; 0 repeats.
type Strides = [usize; MAX_RANK];

/// Strides of a contiguous array. They may wrap around where an axis is empty; there is nothing to visit then.
fn strides(shape: &[usize]) -> Strides {
    let mut out = [0; MAX_RANK];
    let mut step = 1usize;
    for (axis, length) in shape.iter().enumerate().rev() {
        out[axis] = step;
        step = step.wrapping_mul(*length);
    }
    out
}

/// Strides that read an array of `shape` as one of shape `to`: axes are aligned at the last one, and those
/// of length 1 repeat.
fn broadcast(kernel: &'static str, shape: &[usize], to: &[usize]) -> Result<Strides, KernelError> {
    let misfit = || KernelError::Shapes { kernel, left: shape.to_vec(), right: to.to_vec() };
    let extra = to.len().checked_sub(shape.len()).ok_or_else(misfit)?;
    let own = strides(shape);
    let mut out = [0; MAX_RANK];
    for (axis, length) in shape.iter().enumerate() {
        if *length == to[extra + axis] {
            out[extra + axis] = own[axis];
        } else if *length != 1 {
            return Err(misfit());
        }
    }
    Ok(out)
}

/// A row along the last axis, as N operands see it.
struct Row<const N: usize> {
    /// Elements of the row.
    length: usize,
    /// Where the row starts in each operand.
    starts: [usize; N],
    /// Elements from one to the next in each operand.
    steps: [usize; N],
}

/// Visits some rows along the last axis of `shape`, in order.
fn for_each_row<const N: usize>(
    shape: &[usize],
    rows: Range<usize>,
    strides: [&Strides; N],
    mut visit: impl FnMut(Row<N>),
) {
    let (length, outer) = shape.split_last().map_or((1, shape), |(last, outer)| (*last, outer));
    if length == 0 || rows.is_empty() {
        return;
    }
    let steps = strides.map(|strides| if shape.is_empty() { 0 } else { strides[outer.len()] });
    let mut index = [0; MAX_RANK];
    let mut first = rows.start;
    for (axis, length) in outer.iter().enumerate().rev() {
        index[axis] = first % length.max(&1);
        first /= length.max(&1);
    }
    let mut starts = strides.map(|strides| place(rows.start, outer, strides));
    for _ in rows {
        visit(Row { length, starts, steps });
        for axis in (0..outer.len()).rev() {
            index[axis] += 1;
            for (start, strides) in starts.iter_mut().zip(strides) {
                *start += strides[axis];
            }
            if index[axis] < shape[axis] {
                break;
            }
            for (start, strides) in starts.iter_mut().zip(strides) {
                *start -= strides[axis] * shape[axis];
            }
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_aligns_the_last_axes() {
        assert_eq!(broadcast("test", &[3, 1], &[2, 3, 4]).unwrap()[..3], [0, 1, 0]);
        assert_eq!(broadcast("test", &[], &[2, 3]).unwrap()[..2], [0, 0]);
        assert!(broadcast("test", &[2], &[3]).is_err());
        assert!(broadcast("test", &[1, 3], &[3]).is_err());
    }

    #[test]
    fn shapes_are_checked() {
        assert!(Array::new(&[0.0; 6], &[2, 3]).is_ok());
        assert!(Array::new(&[0.0; 5], &[2, 3]).is_err());
        assert!(Array::new(&[0.0], &[]).is_ok());
        assert!(Array::new(&[0.0], &[1; 9]).is_err());
        assert!(Array::new(&[], &[usize::MAX, 3]).is_err());
    }

    #[test]
    fn rows_can_be_visited_from_any_one_on() {
        let shape = [2, 3, 2, 4];
        let strides = [16, 4, 0, 1, 0, 0, 0, 0];
        let visited = |rows: Range<usize>| {
            let mut starts = Vec::new();
            for_each_row(&shape, rows, [&strides], |row| starts.push(row.starts[0]));
            starts
        };
        let all = visited(0..12);
        assert_eq!(all, [0, 0, 4, 4, 8, 8, 16, 16, 20, 20, 24, 24]);
        for start in 0..=12 {
            assert_eq!(visited(start..12), all[start..]);
        }
    }

    #[test]
    fn parts_are_checked() {
        let mut data = [0.0; 6];
        let mut part = |rows: Range<usize>, shape: &[usize]| ArrayMut::part(&mut data, shape, rows).is_ok();
        assert!(part(1..3, &[4, 3]) && part(0..2, &[2, 3]));
        assert!(!part(3..5, &[4, 3]) && !part(1..2, &[4, 3]));
    }
}
