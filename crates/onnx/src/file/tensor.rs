//! A `TensorProto` as a constant.

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::Pod;
use centuple_tensor::{Bytes, DType, Tensor, TensorError};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::element::{Constant, Element, filled};
use super::external::External;
use crate::proto::TensorProto;
use crate::proto::tensor_proto::{DataLocation, DataType};

/// Reads the elements of a constant.
///
/// # Errors
/// A type that is not read, a shape or a number of elements that doesn't fit, or external data that can't be had.
pub(super) fn read(proto: &TensorProto, external: &External) -> Result<Constant, String> {
    let kind = DataType::try_from(proto.data_type).map_err(|_| format!("has the unknown type {}", proto.data_type))?;
    if proto.segment.is_some() {
        return Err("is stored in segments, which is not supported".to_owned());
    }
    let shape = proto.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<Vec<usize>>>();
    let shape = shape.ok_or("has a negative dimension")?;
    let count = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let size = count.and_then(|count| stored_size(kind, count));
    let (Some(count), Some(size)) = (count, size) else {
        return Err(match stored_size(kind, 1) {
            Some(_) => format!("has the shape {shape:?}, which is beyond the address space"),
            None => format!("has elements of type {}, which is not supported", kind.as_str_name()),
        });
    };
    let stored = if proto.data_location == DataLocation::External as i32 {
        Some(external.read(&proto.external_data, size)?)
    } else if !proto.raw_data.is_empty() {
        let bytes: Bytes = Arc::new(proto.raw_data.clone());
        Some(bytes)
    } else {
        None
    };
    match stored {
        Some(bytes) => {
            let found = (*bytes).as_ref().len();
            if found != size {
                return Err(format!("of shape {shape:?} needs {size} bytes, not {found}"));
            }
            from_bytes(kind, &shape, bytes)
        }
        None => from_fields(kind, &shape, count, proto),
    }
}

/// Bytes that `count` elements take; `None` beyond the address space, and for types that are not read.
fn stored_size(kind: DataType, count: usize) -> Option<usize> {
    let size = match kind {
        DataType::Float | DataType::Int32 | DataType::Uint32 => 4,
        DataType::Uint8 | DataType::Int8 | DataType::Bool => 1,
        DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => 2,
        DataType::Int64 | DataType::Uint64 | DataType::Double => 8,
        DataType::Uint4 | DataType::Int4 => return Some(count.div_ceil(2)),
        DataType::Uint2 | DataType::Int2 => return Some(count.div_ceil(4)),
        DataType::Undefined
        | DataType::String
        | DataType::Complex64
        | DataType::Complex128
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz
        | DataType::Float4e2m1
        | DataType::Float8e8m0 => return None,
    };
    count.checked_mul(size).filter(|&bytes| bytes <= isize::MAX as usize)
}

/// A constant of little-endian bytes, as many as it needs.
fn from_bytes(kind: DataType, shape: &[usize], bytes: Bytes) -> Result<Constant, String> {
    let data = (*bytes).as_ref();
    let (element, tensor) = match kind {
        DataType::Float => (Element::Float, share(DType::F32, shape, &bytes)),
        DataType::Int64 => (Element::Int, share(DType::I64, shape, &bytes)),
        DataType::Bool => (Element::Bool, truths(shape, data)),
        DataType::Uint8 => (Element::U8, share(DType::I8, shape, &bytes)),
        DataType::Int8 => (Element::I8, share(DType::I8, shape, &bytes)),
        DataType::Float16 => (
            Element::Float,
            filled(DType::F32, shape, |out: &mut [f32]| aligned::<f16>(data).convert_to_f32_slice(out)),
        ),
        DataType::Bfloat16 => (
            Element::Float,
            filled(DType::F32, shape, |out: &mut [f32]| aligned::<bf16>(data).convert_to_f32_slice(out)),
        ),
        DataType::Double => (Element::Float, each(DType::F32, shape, data, |word| f64::from_le_bytes(word) as f32)),
        DataType::Int32 => (Element::Int, each(DType::I64, shape, data, |word| i64::from(i32::from_le_bytes(word)))),
        DataType::Uint32 => (Element::Int, each(DType::I64, shape, data, |word| i64::from(u32::from_le_bytes(word)))),
        DataType::Int16 => (Element::Int, each(DType::I64, shape, data, |word| i64::from(i16::from_le_bytes(word)))),
        DataType::Uint16 => (Element::Int, each(DType::I64, shape, data, |word| i64::from(u16::from_le_bytes(word)))),
        DataType::Uint64 => {
            let saturated = |word| i64::try_from(u64::from_le_bytes(word)).unwrap_or(i64::MAX);
            (Element::Int, each(DType::I64, shape, data, saturated))
        }
        DataType::Uint4 => (Element::U8, parts(shape, data, 4, false)),
        DataType::Int4 => (Element::I8, parts(shape, data, 4, true)),
        DataType::Uint2 => (Element::U8, parts(shape, data, 2, false)),
        DataType::Int2 => (Element::I8, parts(shape, data, 2, true)),
        DataType::Undefined
        | DataType::String
        | DataType::Complex64
        | DataType::Complex128
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz
        | DataType::Float4e2m1
        | DataType::Float8e8m0 => return Err(format!("has elements of type {}", kind.as_str_name())),
    };
    Ok(Constant::new(element, tensor.map_err(|error| format!("is not sound: {error}"))?))
}

fn share(dtype: DType, shape: &[usize], bytes: &Bytes) -> Result<Tensor, TensorError> {
    Tensor::from_shared(dtype, shape, Arc::clone(bytes), 0..(**bytes).as_ref().len())
}

fn truths(shape: &[usize], data: &[u8]) -> Result<Tensor, TensorError> {
    Tensor::from_i8_with(shape, |out| {
        out.iter_mut().zip(data).for_each(|(out, &byte)| *out = i8::from(byte != 0));
    })
}

/// Elements of `bits` bits, the first in the lowest bits of a byte.
fn parts(shape: &[usize], data: &[u8], bits: usize, signed: bool) -> Result<Tensor, TensorError> {
    let in_byte = 8 / bits;
    Tensor::from_i8_with(shape, |out| {
        for (elements, &byte) in out.chunks_mut(in_byte).zip(data) {
            for (place, element) in elements.iter_mut().enumerate() {
                let top = (byte << (8 - bits - place * bits)) as i8;
                *element = if signed { top >> (8 - bits) } else { (top as u8 >> (8 - bits)) as i8 };
            }
        }
    })
}

/// The bytes as numbers, copied where they are not aligned.
fn aligned<T: Pod>(data: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(data) {
        Ok(numbers) => Cow::Borrowed(numbers),
        Err(_) => {
            let mut copy = vec![T::zeroed(); data.len() / size_of::<T>()];
            bytemuck::cast_slice_mut(&mut copy).copy_from_slice(data);
            Cow::Owned(copy)
        }
    }
}

/// Each word of the bytes as one element.
fn each<T: Pod, const WIDTH: usize>(
    dtype: DType,
    shape: &[usize],
    data: &[u8],
    convert: impl Fn([u8; WIDTH]) -> T,
) -> Result<Tensor, TensorError> {
    filled(dtype, shape, |out: &mut [T]| {
        out.iter_mut().zip(data.as_chunks::<WIDTH>().0).for_each(|(out, word)| *out = convert(*word));
    })
}

/// A constant of the fields that hold one number for each element.
fn from_fields(kind: DataType, shape: &[usize], count: usize, proto: &TensorProto) -> Result<Constant, String> {
    let little: Vec<u8> = match kind {
        DataType::Float => proto.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DataType::Double => proto.double_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DataType::Int64 => proto.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DataType::Uint64 => proto.uint64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DataType::Uint32 => proto.uint64_data.iter().flat_map(|&value| (value as u32).to_le_bytes()).collect(),
        DataType::Int32 => proto.int32_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DataType::Int16 | DataType::Uint16 | DataType::Float16 | DataType::Bfloat16 => {
            proto.int32_data.iter().flat_map(|&value| (value as u16).to_le_bytes()).collect()
        }
        DataType::Int8 | DataType::Uint8 | DataType::Bool => {
            proto.int32_data.iter().map(|&value| value as u8).collect()
        }
        DataType::Uint4 | DataType::Int4 | DataType::Uint2 | DataType::Int2 => {
            proto.int32_data.iter().map(|&value| value as u8).collect()
        }
        DataType::Undefined
        | DataType::String
        | DataType::Complex64
        | DataType::Complex128
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz
        | DataType::Float4e2m1
        | DataType::Float8e8m0 => return Err(format!("has elements of type {}", kind.as_str_name())),
    };
    if stored_size(kind, count) != Some(little.len()) {
        return Err(format!("of shape {shape:?} needs {count} elements, and has another number of them"));
    }
    from_bytes(kind, shape, Arc::new(little))
}
