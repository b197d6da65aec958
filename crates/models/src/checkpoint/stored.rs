//! Where a tensor's elements lie in a weight file, and how they become a tensor of f32.

use std::sync::Arc;

use centuple_tensor::{Buffer, Bytes, DType, Tensor, TensorError};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::Dtype;

use super::mapping::FileBytes;

/// A tensor in a weight file. Whoever makes one has checked that all elements lie inside of the file.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Elements from one index of a dimension to the next; `None` if they lie row by row without gaps.
    pub(super) strides: Option<Vec<usize>>,
    /// Byte of the file where the first element starts.
    pub(super) start: usize,
}

/// Why a stored tensor did not become one of f32.
pub(super) enum Unread {
    /// Its numbers are no floating point numbers that are read.
    Dtype,
    /// Its bytes do not make a tensor.
    Tensor(TensorError),
}

impl Stored {
    /// The tensor as f32. F32 elements that lie in order share the file's bytes.
    pub(super) fn tensor(&self, file: &Arc<FileBytes>) -> Result<Tensor, Unread> {
        let width = float_size(self.dtype).ok_or(Unread::Dtype)?;
        let all = (**file).as_ref();
        let volume = || Unread::Tensor(TensorError::Volume(self.shape.clone()));
        let count = self.shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size)).ok_or_else(volume)?;
        let gathered = match &self.strides {
            None => None,
            Some(strides) => {
                let data = all.get(self.start..).ok_or_else(volume)?;
                Some(gather(data, &self.shape, strides, count, width).ok_or_else(volume)?)
            }
        };
        let range = self.start
            ..count.checked_mul(width).and_then(|length| self.start.checked_add(length)).ok_or_else(volume)?;
        if self.dtype == Dtype::F32 && gathered.is_none() {
            let shared: Bytes = file.clone();
            return Tensor::from_shared(DType::F32, &self.shape, shared, range).map_err(Unread::Tensor);
        }
        let data = match &gathered {
            Some(bytes) => bytes,
            None => all.get(range).ok_or_else(volume)?,
        };
        let values = widen(self.dtype, data).ok_or(Unread::Dtype)?;
        let length = values.as_ref().len();
        Tensor::from_shared(DType::F32, &self.shape, Arc::new(values), 0..length).map_err(Unread::Tensor)
    }
}

/// Bytes of one element of a dtype that is read as f32.
fn float_size(dtype: Dtype) -> Option<usize> {
    [(Dtype::F16, 2), (Dtype::BF16, 2), (Dtype::F32, 4), (Dtype::F64, 8)]
        .into_iter()
        .find_map(|(float, size)| (float == dtype).then_some(size))
}

/// `count` elements of `width` bytes, in row-major order of a strided view on `data`; `None` if one lies outside.
fn gather(data: &[u8], shape: &[usize], strides: &[usize], count: usize, width: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(count.checked_mul(width)?);
    let mut index = vec![0; shape.len()];
    let mut place = 0usize;
    for _ in 0..count {
        bytes.extend_from_slice(data.get(place * width..)?.get(..width)?);
        for ((index, &size), &stride) in index.iter_mut().zip(shape).zip(strides).rev() {
            *index += 1;
            place += stride;
            if *index < size {
                break;
            }
            place -= stride * size;
            *index = 0;
        }
    }
    Some(bytes)
}

/// Little-endian floating point numbers as f32; `None` for any other dtype.
fn widen(dtype: Dtype, data: &[u8]) -> Option<Buffer> {
    let mut values = Buffer::zeroed_f32(data.len() / float_size(dtype)?);
    let target = values.as_f32_mut();
    if dtype == Dtype::F16 {
        let halves: Vec<f16> = data.as_chunks::<2>().0.iter().map(|word| f16::from_le_bytes(*word)).collect();
        halves.convert_to_f32_slice(target);
    } else if dtype == Dtype::BF16 {
        let halves: Vec<bf16> = data.as_chunks::<2>().0.iter().map(|word| bf16::from_le_bytes(*word)).collect();
        halves.convert_to_f32_slice(target);
    } else if dtype == Dtype::F64 {
        for (value, word) in target.iter_mut().zip(data.as_chunks::<8>().0) {
            *value = f64::from_le_bytes(*word) as f32;
        }
    } else {
        for (value, word) in target.iter_mut().zip(data.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*word);
        }
    }
    Some(values)
}
