//! All weights of a plan in one buffer.

use std::collections::HashMap;

use centuple_kernels::{Matrix, pack, packed_len};
use centuple_tensor::{Buffer, Tensor};

use crate::error::Result;
use crate::plan::Packed;

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
    tensor: Tensor,
    /// `[n, k]` of a matrix that is packed for the GEMM.
    packed: Option<[usize; 2]>,
}

impl WeightsBuilder {
    /// Adds a tensor as it lies; returns its first float.
    pub(crate) fn floats(&mut self, tensor: &Tensor) -> Result<usize> {
        let length = tensor.as_f32()?.len();
        Ok(self.add(tensor, None, length))
    }

    /// Adds a matrix `[n, k]` in packed form.
    pub(crate) fn packed(&mut self, tensor: &Tensor) -> Result<Packed> {
        tensor.as_f32()?;
        let (n, k) = (tensor.shape()[0], tensor.shape()[1]);
        Ok(Packed { offset: self.add(tensor, Some([n, k]), packed_len(n, k)), n, k })
    }

    fn add(&mut self, tensor: &Tensor, packed: Option<[usize; 2]>, length: usize) -> usize {
        let key = (tensor.bytes().as_ptr(), packed.is_some(), tensor.shape().to_vec());
        if let Some(&offset) = self.known.get(&key) {
            return offset;
        }
        let offset = self.length;
        self.length += length.next_multiple_of(LINE);
        self.parts.push(Part { offset, tensor: tensor.clone(), packed });
        self.known.insert(key, offset);
        offset
    }

    /// Copies and packs everything.
    pub(crate) fn finish(self) -> Result<Buffer> {
        let mut buffer = Buffer::zeroed_f32(self.length);
        for part in self.parts {
            let source = part.tensor.as_f32()?;
            let target = &mut buffer.as_f32_mut()[part.offset..];
            match part.packed {
                Some([n, k]) => pack(Matrix::contiguous(source, n, k)?, &mut target[..packed_len(n, k)])?,
                None => target[..source.len()].copy_from_slice(source),
            }
        }
        Ok(buffer)
    }
}
