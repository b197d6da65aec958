//! Building blocks for graphs that no fused kernel fits: operations on contiguous n-dimensional arrays
//! with broadcasting, as ONNX defines them. Simple rather than fast; none allocates.
//!
//! Softmax along the last axis is [`Kernels::softmax`](crate::Kernels::softmax) on the array seen as rows.

mod elementwise;
mod matmul;
mod movement;
mod reduce;

pub use elementwise::{Binary, Unary, binary, select};
pub use movement::{gather, transpose};
pub use reduce::{Reduction, reduce};

use crate::error::{KernelError, expect_dimension};

/// Most axes an array can have.
pub const MAX_RANK: usize = 8;

/// A read-only contiguous array, last axis fastest. A scalar has no axes.
#[derive(Debug, Clone, Copy)]
pub struct Array<'a> {
    data: &'a [f32],
    shape: &'a [usize],
}

/// A writable contiguous array.
#[derive(Debug)]
pub struct ArrayMut<'a> {
    data: &'a mut [f32],
    shape: &'a [usize],
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
        Ok(Self { data, shape })
    }

    /// Length of each axis.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }
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

/// Visits all rows along the last axis of `shape`, in order.
fn for_each_row<const N: usize>(shape: &[usize], strides: [&Strides; N], mut visit: impl FnMut(Row<N>)) {
    if count(shape) == 0 {
        return;
    }
    let outer = shape.len().saturating_sub(1);
    let length = shape.last().copied().unwrap_or(1);
    let steps = strides.map(|strides| if shape.is_empty() { 0 } else { strides[outer] });
    let mut index = [0; MAX_RANK];
    let mut starts = [0; N];
    for _ in 0..count(&shape[..outer]) {
        visit(Row { length, starts, steps });
        for axis in (0..outer).rev() {
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
}
