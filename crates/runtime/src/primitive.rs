//! Primitive stages: contiguous tensors of any rank, computed by one worker.

use centuple_graph::{Binary, Reduction, Unary};
use centuple_kernels::primitive::{self, Array, ArrayMut};
use centuple_kernels::{KernelError, MatrixMut, packed_len};
use centuple_tensor::Dim;

use crate::compute::{Run, kernel_activation};
use crate::plan::{Operand, Place, Primitive, View};

type Result<T> = std::result::Result<T, KernelError>;

/// An operand of this batch.
struct Value<'a> {
    data: &'a [f32],
    shape: Vec<usize>,
}

impl Value<'_> {
    fn array(&self) -> Result<Array<'_>> {
        Array::new(self.data, &self.shape)
    }

    /// Elements in front of, along and behind an axis.
    fn around(&self, axis: usize) -> [usize; 3] {
        let (before, after) = self.shape.split_at(axis.min(self.shape.len()));
        let along = after.first().copied().unwrap_or(1);
        [before.iter().product(), along, after.iter().skip(1).product()]
    }
}

impl Run<'_> {
    /// Computes one primitive stage.
    pub(crate) fn primitive(&self, kind: &Primitive, operands: &[Operand], shape: &[Dim], out: View) -> Result<()> {
        let values: Vec<Value> = operands.iter().map(|operand| self.value(operand)).collect::<Result<_>>()?;
        let shape = self.concrete(shape)?;
        let target = self.contiguous_mut(out, shape.iter().product())?;
        let operand = |index: usize| {
            values.get(index).ok_or(KernelError::Empty { kernel: "primitive", what: "list of operands" })
        };
        match kind {
            Primitive::Unary(unary) => {
                target.copy_from_slice(operand(0)?.data);
                self.kernels.unary(kernel_unary(*unary), target);
                Ok(())
            }
            Primitive::Activation(activation) => {
                target.copy_from_slice(operand(0)?.data);
                self.kernels.activate(kernel_activation(*activation), target);
                Ok(())
            }
            Primitive::Softmax => {
                target.copy_from_slice(operand(0)?.data);
                let columns = shape.last().copied().unwrap_or(1);
                self.kernels.softmax(&mut MatrixMut::contiguous(target, rows_of(&shape), columns)?);
                Ok(())
            }
            Primitive::Binary(binary) => {
                let (a, b) = (operand(0)?.array()?, operand(1)?.array()?);
                primitive::binary(kernel_binary(*binary), a, b, ArrayMut::new(target, &shape)?)
            }
            Primitive::Where => {
                let (condition, a, b) = (operand(0)?.array()?, operand(1)?.array()?, operand(2)?.array()?);
                primitive::select(condition, a, b, ArrayMut::new(target, &shape)?)
            }
            Primitive::MatMul => {
                let (a, b) = (operand(0)?, operand(1)?);
                let [k, n] =
                    [b.shape.len().saturating_sub(2), b.shape.len().saturating_sub(1)].map(|axis| b.around(axis)[1]);
                let mut scratch = vec![0.0; packed_len(n, k)];
                self.kernels.matmul(a.array()?, b.array()?, &mut scratch, ArrayMut::new(target, &shape)?)
            }
            Primitive::Transpose { perm } => {
                primitive::transpose(operand(0)?.array()?, perm, ArrayMut::new(target, &shape)?)
            }
            Primitive::Reduce { reduction, axes } => {
                primitive::reduce(kernel_reduction(*reduction), operand(0)?.array()?, axes, target)
            }
            Primitive::Gather { axis, ids } => {
                primitive::gather(operand(0)?.array()?, *axis, &self.ids.integers(ids), target)
            }
            Primitive::ToFloat { ids } => {
                for (float, &integer) in target.iter_mut().zip(self.ids.integers(ids).iter()) {
                    *float = integer as f32;
                }
                Ok(())
            }
            Primitive::Slice { axis, start } => {
                slice(operand(0)?, *axis, *start, shape.get(*axis).copied().unwrap_or(1), target);
                Ok(())
            }
            Primitive::Concat { axis } => {
                concat(&values, *axis, target);
                Ok(())
            }
        }
    }

    fn concrete(&self, shape: &[Dim]) -> Result<Vec<usize>> {
        let value = |dim: &Dim| dim.evaluate(&self.bindings);
        shape.iter().map(value).collect::<Option<_>>().ok_or(KernelError::Empty { kernel: "primitive", what: "shape" })
    }

    fn value(&self, operand: &Operand) -> Result<Value<'_>> {
        let shape = self.concrete(&operand.shape)?;
        let length = shape.iter().product();
        let data = match self.plan.values[operand.view.value].place {
            Place::Weights { offset } => self.weight(offset, length)?,
            Place::Shared { slot } => self.arena.read_slice(self.slot_starts[slot], length)?,
            Place::Local { .. } | Place::Unplaced => {
                return Err(KernelError::Empty { kernel: "primitive", what: "shared place of an operand" });
            }
        };
        Ok(Value { data, shape })
    }

    fn contiguous_mut(&self, out: View, length: usize) -> Result<&mut [f32]> {
        match self.plan.values[out.value].place {
            Place::Shared { slot } => self.arena.write_slice(self.slot_starts[slot], length),
            Place::Weights { .. } | Place::Local { .. } | Place::Unplaced => {
                Err(KernelError::Empty { kernel: "primitive", what: "shared place of the result" })
            }
        }
    }
}

fn rows_of(shape: &[usize]) -> usize {
    shape.split_last().map_or(1, |(_, rows)| rows.iter().product())
}

/// Elements `start..start + length` along an axis.
fn slice(from: &Value, axis: usize, start: usize, length: usize, target: &mut [f32]) {
    let [_, along, inner] = from.around(axis);
    let blocks = from.data.chunks_exact((along * inner).max(1));
    for (source, part) in blocks.zip(target.chunks_exact_mut((length * inner).max(1))) {
        part.copy_from_slice(&source[start * inner..(start + length) * inner]);
    }
}

/// Arrays behind each other along an axis.
fn concat(parts: &[Value], axis: usize, target: &mut [f32]) {
    let mut rest = target;
    let outer = parts.first().map_or(0, |part| part.around(axis)[0]);
    for block in 0..outer {
        for part in parts {
            let [_, along, inner] = part.around(axis);
            let size = along * inner;
            let (place, behind) = std::mem::take(&mut rest).split_at_mut(size);
            place.copy_from_slice(&part.data[block * size..(block + 1) * size]);
            rest = behind;
        }
    }
}

pub(crate) fn kernel_unary(unary: Unary) -> primitive::Unary {
    match unary {
        Unary::Neg => primitive::Unary::Neg,
        Unary::Abs => primitive::Unary::Abs,
        Unary::Exp => primitive::Unary::Exp,
        Unary::Log => primitive::Unary::Log,
        Unary::Log1p => primitive::Unary::Log1p,
        Unary::Sqrt => primitive::Unary::Sqrt,
        Unary::Reciprocal => primitive::Unary::Reciprocal,
        Unary::Erf => primitive::Unary::Erf,
    }
}

pub(crate) fn kernel_binary(binary: Binary) -> primitive::Binary {
    match binary {
        Binary::Add => primitive::Binary::Add,
        Binary::Sub => primitive::Binary::Sub,
        Binary::Mul => primitive::Binary::Mul,
        Binary::Div => primitive::Binary::Div,
        Binary::Pow => primitive::Binary::Pow,
        Binary::Min => primitive::Binary::Min,
        Binary::Max => primitive::Binary::Max,
        Binary::Equal => primitive::Binary::Equal,
        Binary::Less => primitive::Binary::Less,
    }
}

fn kernel_reduction(reduction: Reduction) -> primitive::Reduction {
    match reduction {
        Reduction::Sum => primitive::Reduction::Sum,
        Reduction::Mean => primitive::Reduction::Mean,
        Reduction::Max => primitive::Reduction::Max,
    }
}
