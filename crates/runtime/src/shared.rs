//! Floats that several workers read and write at once. The only unsafe code of this crate.

#![allow(unsafe_code)]

use centuple_kernels::{KernelError, Matrix, MatrixMut};
use centuple_tensor::Buffer;

use crate::error::RuntimeError;

/// A rectangle in a buffer: `rows` rows of `columns` floats, `stride` floats apart, from `start` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) start: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) stride: usize,
}

impl Region {
    /// One behind the last float, if it can be said at all.
    fn end(&self) -> Option<usize> {
        if self.rows == 0 || self.columns == 0 {
            return Some(self.start);
        }
        let last = (self.rows - 1).checked_mul(self.stride)?.checked_add(self.columns)?;
        self.start.checked_add(last)
    }
}

/// A buffer whose parts are handed to workers as views.
///
/// # Soundness
/// Views are bounds-checked here. That no element is written while another view reads or writes it is the planner's
/// duty: `memory::check` proves it for every plan before the plan can be run, and `session` separates phases (and, when
/// columns are split, stages) by barriers. This type is private to the crate, so no other caller exists.
#[derive(Debug)]
pub(crate) struct SharedFloats {
    buffer: Buffer,
    length: usize,
}

impl SharedFloats {
    /// Zeroed floats; an error where the system does not grant them.
    pub(crate) fn zeroed(length: usize) -> Result<SharedFloats, RuntimeError> {
        let buffer = length.checked_mul(size_of::<f32>()).and_then(Buffer::try_zeroed);
        Ok(SharedFloats { buffer: buffer.ok_or(RuntimeError::Memory { floats: length })?, length })
    }

    /// Number of floats.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    fn first(&self, region: &Region) -> Result<*mut f32, KernelError> {
        let overlapping = region.rows > 1 && region.stride < region.columns;
        match region.end() {
            Some(end) if end <= self.length && !overlapping => {
                Ok(self.buffer.as_ptr().cast::<f32>().wrapping_add(region.start))
            }
            end => Err(KernelError::TooSmall {
                kernel: "arena",
                what: "memory of the plan",
                found: self.length,
                needed: end.unwrap_or(usize::MAX),
            }),
        }
    }

    /// A view to read.
    pub(crate) fn read(&self, region: Region) -> Result<Matrix<'_>, KernelError> {
        let first = self.first(&region)?;
        // SAFETY: in bounds by `first`, initialised (zeroed at least), and not written meanwhile: see Soundness above.
        Ok(unsafe { Matrix::from_raw_parts(first, region.rows, region.columns, region.stride) })
    }

    /// A view to write.
    pub(crate) fn write(&self, region: Region) -> Result<MatrixMut<'_>, KernelError> {
        let first = self.first(&region)?;
        // SAFETY: as for `read`, and no other view of the written elements is in use: see Soundness above.
        Ok(unsafe { MatrixMut::from_raw_parts(first, region.rows, region.columns, region.stride) })
    }

    /// A contiguous part to read.
    pub(crate) fn read_slice(&self, start: usize, length: usize) -> Result<&[f32], KernelError> {
        let first = self.first(&Region { start, rows: 1, columns: length, stride: length })?;
        // SAFETY: as for `read`.
        Ok(unsafe { std::slice::from_raw_parts(first, length) })
    }

    /// A contiguous part to write.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn write_slice(&self, start: usize, length: usize) -> Result<&mut [f32], KernelError> {
        let first = self.first(&Region { start, rows: 1, columns: length, stride: length })?;
        // SAFETY: as for `write`.
        Ok(unsafe { std::slice::from_raw_parts_mut(first, length) })
    }
}
