//! Concrete tensors: weights, constants, and the values of the reference evaluator.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;
use half::{bf16, f16};

use crate::{Buffer, DType};

/// Shared bytes behind a tensor: an owned [`Buffer`], or a mapped file.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What can be wrong with a tensor.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The number of bytes does not fit shape and type.
    #[error("a {dtype} tensor of shape {shape:?} needs {expected} bytes, not {found}")]
    Size {
        /// Element type.
        dtype: DType,
        /// Claimed shape.
        shape: Vec<usize>,
        /// Bytes that shape and type ask for.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// The shape's volume overflows.
    #[error("the shape {0:?} is beyond the address space")]
    Volume(Vec<usize>),
    /// The tensor is only declared.
    #[error("a {dtype} tensor of shape {shape:?} is declared, but its elements are not here")]
    Absent {
        /// Element type.
        dtype: DType,
        /// Shape.
        shape: Vec<usize>,
    },
    /// The elements have another type than asked for.
    #[error("expected a {expected} tensor, found {found}")]
    Type {
        /// Type that was asked for.
        expected: DType,
        /// Type of the elements.
        found: DType,
    },
}

/// A contiguous row-major tensor. Cloning shares the bytes.
///
/// It can be only declared: type and shape are known, the elements are elsewhere, and asking for them is an error.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
    range: Range<usize>,
    declared: bool,
}

/// The bytes of a declared tensor.
struct Nothing;

impl AsRef<[u8]> for Nothing {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

impl Tensor {
    /// A tensor over part of shared bytes.
    ///
    /// Bytes that are not aligned for `dtype` are copied once.
    pub fn from_shared(
        dtype: DType,
        shape: &[usize],
        bytes: Bytes,
        range: Range<usize>,
    ) -> Result<Tensor, TensorError> {
        let expected = volume(shape)
            .and_then(|count| count.checked_mul(dtype.size()))
            .ok_or_else(|| TensorError::Volume(shape.to_vec()))?;
        let size = |found| TensorError::Size { dtype, shape: shape.to_vec(), expected, found };
        let part = (*bytes).as_ref().get(range.clone()).ok_or_else(|| size(0))?;
        if part.len() != expected {
            return Err(size(part.len()));
        }
        if !(part.as_ptr() as usize).is_multiple_of(dtype.size()) {
            let mut copy = Buffer::zeroed(expected);
            copy.as_bytes_mut().copy_from_slice(part);
            let (bytes, range) = (Arc::new(copy), 0..expected);
            return Ok(Tensor { dtype, shape: shape.to_vec(), bytes, range, declared: false });
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), bytes, range, declared: false })
    }

    /// A tensor without its elements.
    pub fn declared(dtype: DType, shape: &[usize]) -> Result<Tensor, TensorError> {
        let bytes = volume(shape).and_then(|count| count.checked_mul(dtype.size()));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(TensorError::Volume(shape.to_vec()));
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), bytes: Arc::new(Nothing), range: 0..0, declared: true })
    }

    /// Whether the tensor is only declared.
    pub fn is_declared(&self) -> bool {
        self.declared
    }

    /// A number that clones of a tensor share, and views of the same part of the same bytes.
    pub fn identity(&self) -> (usize, usize) {
        (Arc::as_ptr(&self.bytes).cast::<u8>() as usize, self.range.start)
    }

    /// An f32 tensor.
    pub fn from_f32(shape: &[usize], data: &[f32]) -> Result<Tensor, TensorError> {
        Tensor::from_slice(DType::F32, shape, bytemuck::cast_slice(data))
    }

    /// An i64 tensor.
    pub fn from_i64(shape: &[usize], data: &[i64]) -> Result<Tensor, TensorError> {
        Tensor::from_slice(DType::I64, shape, bytemuck::cast_slice(data))
    }

    /// An i8 tensor.
    pub fn from_i8(shape: &[usize], data: &[i8]) -> Result<Tensor, TensorError> {
        Tensor::from_slice(DType::I8, shape, bytemuck::cast_slice(data))
    }

    /// An i8 tensor whose elements `fill` writes; they are 0 before.
    pub fn from_i8_with(shape: &[usize], fill: impl FnOnce(&mut [i8])) -> Result<Tensor, TensorError> {
        let length = volume(shape).ok_or_else(|| TensorError::Volume(shape.to_vec()))?;
        let mut buffer = Buffer::try_zeroed(length).ok_or_else(|| TensorError::Volume(shape.to_vec()))?;
        fill(bytemuck::cast_slice_mut(&mut buffer.as_bytes_mut()[..length]));
        Tensor::from_shared(DType::I8, shape, Arc::new(buffer), 0..length)
    }

    fn from_slice(dtype: DType, shape: &[usize], data: &[u8]) -> Result<Tensor, TensorError> {
        let mut buffer = Buffer::zeroed(data.len());
        buffer.as_bytes_mut().copy_from_slice(data);
        Tensor::from_shared(dtype, shape, Arc::new(buffer), 0..data.len())
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape, outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The raw little-endian content.
    pub fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref().get(self.range.clone()).unwrap_or_default()
    }

    /// The elements of an f32 tensor.
    pub fn as_f32(&self) -> Result<&[f32], TensorError> {
        self.expect(DType::F32).map(bytemuck::cast_slice)
    }

    /// The elements of a floating-point tensor, widened if they are stored in 16 bits.
    pub fn to_f32(&self) -> Result<Cow<'_, [f32]>, TensorError> {
        match self.dtype {
            DType::F16 => Ok(Cow::Owned(bytemuck::cast_slice::<u8, f16>(self.expect(DType::F16)?).to_f32_vec())),
            DType::BF16 => Ok(Cow::Owned(bytemuck::cast_slice::<u8, bf16>(self.expect(DType::BF16)?).to_f32_vec())),
            DType::F32 | DType::I8 | DType::I64 => self.as_f32().map(Cow::Borrowed),
        }
    }

    /// The same tensor stored as f16, each element rounded to nearest; `None` where one is not finite in f16.
    pub fn to_f16(&self) -> Result<Option<Tensor>, TensorError> {
        let halves = Vec::<f16>::from_f32_slice(&self.to_f32()?);
        if !halves.iter().all(|half| half.is_finite()) {
            return Ok(None);
        }
        Tensor::from_slice(DType::F16, &self.shape, bytemuck::cast_slice(&halves)).map(Some)
    }

    /// The elements of an i8 tensor.
    pub fn as_i8(&self) -> Result<&[i8], TensorError> {
        self.expect(DType::I8).map(bytemuck::cast_slice)
    }

    /// The elements of an i64 tensor.
    pub fn as_i64(&self) -> Result<&[i64], TensorError> {
        self.expect(DType::I64).map(bytemuck::cast_slice)
    }

    /// The same elements under another shape of equal volume.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Tensor, TensorError> {
        if self.declared && volume(shape) == Some(self.len()) {
            return Ok(Tensor { shape: shape.to_vec(), ..self.clone() });
        }
        Tensor::from_shared(self.dtype, shape, Arc::clone(&self.bytes), self.range.clone())
    }

    fn expect(&self, expected: DType) -> Result<&[u8], TensorError> {
        if self.declared {
            return Err(TensorError::Absent { dtype: self.dtype, shape: self.shape.clone() });
        }
        if self.dtype == expected { Ok(self.bytes()) } else { Err(TensorError::Type { expected, found: self.dtype }) }
    }
}

fn volume(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        let alike = self.dtype == other.dtype && self.shape == other.shape && self.declared == other.declared;
        alike && self.bytes() == other.bytes()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}{:?})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_wrong_sizes() {
        assert!(Tensor::from_f32(&[2, 2], &[0.0; 3]).is_err());
        assert!(Tensor::from_f32(&[usize::MAX, 2], &[]).is_err());
        let bytes: Bytes = Arc::new(Buffer::zeroed(8));
        assert!(Tensor::from_shared(DType::F32, &[2], Arc::clone(&bytes), 4..12).is_err());
        assert!(Tensor::from_shared(DType::F32, &[1], bytes, 4..8).is_ok());
    }

    #[test]
    fn halves_are_rounded_and_widened() -> Result<(), TensorError> {
        let tensor = Tensor::from_f32(&[3], &[1.0, 0.1, -65504.0])?;
        let half = tensor.to_f16()?.expect("all fit");
        assert_eq!(half.dtype(), DType::F16);
        assert_eq!(&*half.to_f32()?, &[1.0, 0.099975586, -65504.0]);
        assert!(Tensor::from_f32(&[1], &[1e6])?.to_f16()?.is_none());
        assert!(half.as_f32().is_err() && Tensor::from_i64(&[1], &[1])?.to_f32().is_err());
        Ok(())
    }

    #[test]
    fn a_declared_tensor_has_a_shape_and_no_elements() -> Result<(), TensorError> {
        let tensor = Tensor::declared(DType::F16, &[2, 3])?;
        assert_eq!((tensor.len(), tensor.bytes().len()), (6, 0));
        assert!(matches!(tensor.to_f32(), Err(TensorError::Absent { .. })));
        assert_eq!(tensor.reshaped(&[6])?.shape(), &[6]);
        assert!(tensor.reshaped(&[7]).is_err() && Tensor::declared(DType::I8, &[usize::MAX, 2]).is_err());
        assert_eq!(tensor.identity(), tensor.clone().identity());
        assert_ne!(tensor.identity(), Tensor::declared(DType::F16, &[2, 3])?.identity());
        Ok(())
    }

    #[test]
    fn misaligned_bytes_are_copied() -> Result<(), TensorError> {
        let mut buffer = Buffer::zeroed(9);
        buffer.as_bytes_mut()[1..5].copy_from_slice(&1.5f32.to_le_bytes());
        let tensor = Tensor::from_shared(DType::F32, &[1], Arc::new(buffer), 1..5)?;
        assert_eq!(tensor.as_f32()?, &[1.5]);
        assert!(tensor.as_i64().is_err());
        Ok(())
    }
}
