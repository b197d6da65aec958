//! All weights of a plan in one buffer.

use std::collections::HashMap;

use centuple_kernels::{
    ActivationBits, Int8Weight, Matrix, int8_table_columns, pack, pack_half, pack_int8, pack_table, packed_half_len,
    packed_int8_len, packed_len,
};
use centuple_tensor::{Buffer, DType, Tensor};

use crate::error::Result;
use crate::plan::{Packed, PackedCodes};

/// Weights start on a cache line.
const LINE: usize = 16;

/// Collects weights, each once, and lays them out behind each other.
#[derive(Default)]
pub(crate) struct WeightsBuilder {
    length: usize,
    parts: Vec<Part>,
    /// Offset of a tensor that was added before: by address, form and shape.
    known: HashMap<(*const u8, bool, Vec<usize>), usize>,
}

struct Part {
    offset: usize,
    length: usize,
    tensor: Tensor,
    form: Form,
}

/// How a tensor is laid out.
enum Form {
    /// As it lies.
    Floats,
    /// A matrix for the GEMM.
    Packed { n: usize, k: usize, half: bool },
    /// A matrix of codes for the integer GEMM.
    PackedCodes { n: usize, k: usize, bits: ActivationBits, scales: Tensor },
    /// Codes by row, each row with its scale.
    Table { columns: usize, scales: Tensor },
}

impl Form {
    fn is_packed(&self) -> bool {
        !matches!(self, Form::Floats)
    }
}

impl WeightsBuilder {
    /// Adds a tensor as it lies; returns its first float.
    pub(crate) fn floats(&mut self, tensor: &Tensor) -> Result<usize> {
        let length = tensor.as_f32()?.len();
        Ok(self.add(tensor, Form::Floats, length))
    }

    /// Adds a matrix `[n, k]` in packed form.
    pub(crate) fn packed(&mut self, tensor: &Tensor) -> Result<Packed> {
        tensor.to_f32()?;
        let (n, k) = (tensor.shape()[0], tensor.shape()[1]);
        let half = tensor.dtype() == DType::F16;
        let length = if half { packed_half_len(n, k) } else { packed_len(n, k) };
        Ok(Packed { offset: self.add(tensor, Form::Packed { n, k, half }, length), n, k, half })
    }

    /// Adds a matrix `[n, k]` of codes with a scale per row, in packed form.
    pub(crate) fn codes(&mut self, codes: &Tensor, scales: &Tensor, bits: ActivationBits) -> Result<PackedCodes> {
        codes.as_i8()?;
        let (n, k) = (codes.shape()[0], codes.shape()[1]);
        let form = Form::PackedCodes { n, k, bits, scales: scales.clone() };
        Ok(PackedCodes { offset: self.add(codes, form, packed_int8_len(n, k)), n, k, bits })
    }

    /// Adds a table `[rows, columns]` of codes with a scale per row.
    pub(crate) fn table(&mut self, codes: &Tensor, scales: &Tensor) -> Result<usize> {
        codes.as_i8()?;
        let (rows, columns) = (codes.shape()[0], codes.shape()[1]);
        Ok(self.add(codes, Form::Table { columns, scales: scales.clone() }, rows * int8_table_columns(columns)))
    }

    fn add(&mut self, tensor: &Tensor, form: Form, length: usize) -> usize {
        let key = (tensor.bytes().as_ptr(), form.is_packed(), tensor.shape().to_vec());
        if let Some(&offset) = self.known.get(&key) {
            return offset;
        }
        let offset = self.length;
        self.length += length.next_multiple_of(LINE);
        self.parts.push(Part { offset, length, tensor: tensor.clone(), form });
        self.known.insert(key, offset);
        offset
    }

    /// Copies and packs everything.
    pub(crate) fn finish(self) -> Result<Buffer> {
        let mut buffer = Buffer::zeroed_f32(self.length);
        for part in self.parts {
            let target = &mut buffer.as_f32_mut()[part.offset..part.offset + part.length];
            match part.form {
                Form::Floats => target.copy_from_slice(part.tensor.as_f32()?),
                Form::Packed { n, k, half } => {
                    let floats = part.tensor.to_f32()?;
                    let matrix = Matrix::contiguous(&floats, n, k)?;
                    if half { pack_half(matrix, target)? } else { pack(matrix, target)? }
                }
                Form::PackedCodes { n, k, bits, scales } => {
                    let (codes, scales) = (part.tensor.as_i8()?, scales.as_f32()?);
                    pack_int8(&Int8Weight { codes, scales, n, k, bits }, target)?;
                }
                Form::Table { columns, scales } => pack_table(part.tensor.as_i8()?, scales.as_f32()?, columns, target)?,
            }
        }
        Ok(buffer)
    }
}
