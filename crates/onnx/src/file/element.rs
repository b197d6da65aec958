//! Constants of every type.

use std::sync::Arc;

use bytemuck::Pod;
use centuple_tensor::{Buffer, Bytes, DType, Tensor, TensorError};

/// What the elements of a value are. Constants keep them exact, but for the floating point numbers of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// Floating point numbers, stored as f32.
    Float,
    /// Integers of 16 bits and more, stored as i64.
    Int,
    /// Truth values, stored as bytes.
    Bool,
    /// Unsigned integers of at most 8 bits, stored as the same bits of i8.
    U8,
    /// Signed integers of at most 8 bits.
    I8,
}

impl Element {
    /// How a constant of such elements is stored.
    pub(crate) fn storage(self) -> DType {
        match self {
            Element::Float => DType::F32,
            Element::Int => DType::I64,
            Element::Bool | Element::U8 | Element::I8 => DType::I8,
        }
    }

    /// Whether the elements are whole numbers (truth values are not).
    pub(crate) fn is_integer(self) -> bool {
        matches!(self, Element::Int | Element::U8 | Element::I8)
    }
}

/// A constant: a tensor, and what its elements mean.
#[derive(Clone, Debug)]
pub(crate) struct Constant {
    pub(crate) element: Element,
    pub(crate) tensor: Tensor,
    /// What it, or what it was made of, is called in the file.
    pub(crate) name: Option<Arc<str>>,
}

impl Constant {
    pub(crate) fn new(element: Element, tensor: Tensor) -> Constant {
        Constant { element, tensor, name: None }
    }

    /// Gives it a name, if it has none.
    pub(crate) fn named(self, name: Option<Arc<str>>) -> Constant {
        Constant { name: self.name.clone().or(name), ..self }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    pub(crate) fn len(&self) -> usize {
        self.tensor.len()
    }

    /// The elements of a constant of [`Element::Float`]; none of another one.
    pub(crate) fn floats(&self) -> &[f32] {
        self.tensor.as_f32().unwrap_or_default()
    }

    /// The bytes of one that is stored in bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.tensor.as_i8().map(bytemuck::cast_slice).unwrap_or_default()
    }

    /// An integer or truth value by its place.
    pub(crate) fn integer(&self, index: usize) -> Option<i64> {
        match self.element {
            Element::Float => None,
            Element::Int => self.tensor.as_i64().ok()?.get(index).copied(),
            Element::Bool | Element::U8 => self.bytes().get(index).map(|&byte| i64::from(byte)),
            Element::I8 => self.tensor.as_i8().ok()?.get(index).map(|&value| i64::from(value)),
        }
    }

    /// All integers or truth values.
    pub(crate) fn integers(&self) -> Option<Vec<i64>> {
        match self.element {
            Element::Float => None,
            Element::Int => self.tensor.as_i64().ok().map(<[i64]>::to_vec),
            Element::Bool | Element::U8 => Some(self.bytes().iter().map(|&byte| i64::from(byte)).collect()),
            Element::I8 => self.tensor.as_i8().ok().map(|codes| codes.iter().map(|&code| i64::from(code)).collect()),
        }
    }

    /// The single element as a number.
    pub(crate) fn scalar(&self) -> Option<f32> {
        if self.len() != 1 {
            return None;
        }
        match self.element {
            Element::Float => self.floats().first().copied(),
            Element::Int | Element::Bool | Element::U8 | Element::I8 => self.integer(0).map(|value| value as f32),
        }
    }

    /// The elements as f32.
    pub(crate) fn to_float(&self) -> Result<Constant, TensorError> {
        let shape = self.shape();
        let tensor = match self.element {
            Element::Float => self.tensor.clone(),
            Element::Int => {
                let values = self.tensor.as_i64()?;
                filled(DType::F32, shape, |out: &mut [f32]| {
                    out.iter_mut().zip(values).for_each(|(out, &value)| *out = value as f32);
                })?
            }
            Element::Bool | Element::U8 => filled(DType::F32, shape, |out: &mut [f32]| {
                out.iter_mut().zip(self.bytes()).for_each(|(out, &value)| *out = f32::from(value));
            })?,
            Element::I8 => {
                let values = self.tensor.as_i8()?;
                filled(DType::F32, shape, |out: &mut [f32]| {
                    out.iter_mut().zip(values).for_each(|(out, &value)| *out = f32::from(value));
                })?
            }
        };
        Ok(Constant::new(Element::Float, tensor).named(self.name.clone()))
    }

    pub(crate) fn of_floats(shape: &[usize], values: &[f32]) -> Result<Constant, TensorError> {
        Ok(Constant::new(Element::Float, Tensor::from_f32(shape, values)?))
    }

    pub(crate) fn of_integers(shape: &[usize], values: &[i64]) -> Result<Constant, TensorError> {
        Ok(Constant::new(Element::Int, Tensor::from_i64(shape, values)?))
    }

    pub(crate) fn of_bools(shape: &[usize], values: &[bool]) -> Result<Constant, TensorError> {
        let values: Vec<i8> = values.iter().map(|&value| i8::from(value)).collect();
        Ok(Constant::new(Element::Bool, Tensor::from_i8(shape, &values)?))
    }

    /// The same elements under another shape.
    pub(crate) fn reshaped(&self, shape: &[usize]) -> Result<Constant, TensorError> {
        Ok(Constant::new(self.element, self.tensor.reshaped(shape)?).named(self.name.clone()))
    }
}

/// A tensor whose elements `fill` writes; they are 0 before. `T` is the type that `dtype` says.
pub(crate) fn filled<T: Pod>(
    dtype: DType,
    shape: &[usize],
    fill: impl FnOnce(&mut [T]),
) -> Result<Tensor, TensorError> {
    let volume = || TensorError::Volume(shape.to_vec());
    let count = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim)).ok_or_else(volume)?;
    let length = count.checked_mul(size_of::<T>()).ok_or_else(volume)?;
    let mut buffer = Buffer::try_zeroed(length).ok_or_else(volume)?;
    fill(bytemuck::cast_slice_mut(buffer.as_bytes_mut()));
    let bytes: Bytes = Arc::new(buffer);
    Tensor::from_shared(dtype, shape, bytes, 0..length)
}
