//! Primitive stages: contiguous tensors of any rank. Workers share out the parts of a result.

use std::ops::Range;

use centuple_graph::{Binary, Reduction, Unary};
use centuple_kernels::primitive::{self, Array, ArrayMut};
use centuple_kernels::{KernelError, MatrixMut, Worker, packed_len};
use centuple_tensor::{Bindings, Dim};

use crate::compute::{Run, kernel_activation};
use crate::plan::{Kernel, Operand, Place, Primitive, Stage, View};

type Result<T> = std::result::Result<T, KernelError>;

/// Products of numbers in a matrix product that take as long as an element that is read or written.
const PRODUCTS_PER_STEP: usize = 4;
/// Steps that are worth a piece of their own.
const STEPS_PER_PIECE: usize = 16 << 10;
/// Most pieces that each thread gets: the last one to finish is waited for.
const PIECES_PER_THREAD: usize = 4;

/// An operand of this batch.
struct Value<'a> {
    data: &'a [f32],
    shape: Vec<usize>,
}

impl<'a> Value<'a> {
    fn array(&self) -> Result<Array<'_>> {
        Array::new(self.data, &self.shape)
    }

    /// Elements in front of, along and behind an axis.
    fn around(&self, axis: usize) -> [usize; 3] {
        around(&self.shape, axis)
    }

    /// Blocks `[..., axis, ...]` of all those that lie in front of an axis, as an array with the blocks as its first
    /// dimension.
    fn blocks(&self, axis: usize, blocks: Range<usize>) -> Result<Value<'a>> {
        let behind = self.shape.get(axis..).unwrap_or_default();
        let block: usize = behind.iter().product();
        let needed = blocks.end.saturating_mul(block);
        let (found, length) = (self.data.len(), blocks.len());
        let data = self.data.get(blocks.start * block..needed);
        let misfit = KernelError::TooSmall { kernel: "primitive", what: "operand", found, needed };
        Ok(Value { data: data.ok_or(misfit)?, shape: [&[length], behind].concat() })
    }
}

/// The numbers of one stage in this batch.
struct Problem<'a> {
    kind: &'a Primitive,
    operands: Vec<Value<'a>>,
    shape: Vec<usize>,
}

impl<'a> Problem<'a> {
    fn operand(&self, index: usize) -> Result<&Value<'a>> {
        self.operands.get(index).ok_or(KernelError::Empty { kernel: "primitive", what: "list of operands" })
    }

    /// Equal contiguous parts of the result that can be computed apart from each other.
    fn units(&self) -> usize {
        match self.kind {
            Primitive::Unary(_)
            | Primitive::Activation(_)
            | Primitive::Softmax
            | Primitive::Binary(_)
            | Primitive::Where
            | Primitive::Transpose { .. }
            | Primitive::Expand
            | Primitive::GatherElements { .. }
            | Primitive::MatMul => rows_of(&self.shape),
            Primitive::Reduce { axes, .. } => {
                let first = axes.first().copied().unwrap_or(self.shape.len());
                self.shape.iter().take(first).product()
            }
            Primitive::Slice { axis, .. }
            | Primitive::Concat { axis }
            | Primitive::CumSum { axis }
            | Primitive::Gather { axis, .. } => around(&self.shape, *axis)[0],
            Primitive::Pad => self.shape.iter().take(2).product(),
            Primitive::Pack => self.shape.first().copied().unwrap_or(1),
            Primitive::Iota | Primitive::ToFloat { .. } => 1,
        }
    }

    /// Units of which a piece holds a multiple, where there are pieces enough: the items of a batch of matrices, since each
    /// worker packs the right operands of its own.
    fn grain(&self, threads: usize) -> usize {
        let rows = self.shape.len().checked_sub(2).and_then(|axis| self.shape.get(axis)).copied().unwrap_or(1);
        let is_product = matches!(self.kind, Primitive::MatMul) && rows > 0;
        if is_product && self.units() / rows >= threads { rows } else { 1 }
    }

    /// About how many elements it reads or writes, or what takes as long.
    fn steps(&self) -> usize {
        let out: usize = self.shape.iter().product();
        let read = self.operands.iter().map(|operand| operand.data.len()).max().unwrap_or(0);
        let depth = || self.operands.first().and_then(|left| left.shape.last()).copied().unwrap_or(1);
        if matches!(self.kind, Primitive::MatMul) {
            out.saturating_mul(depth()) / PRODUCTS_PER_STEP
        } else {
            out.max(read)
        }
    }

    /// How many pieces it is cut into.
    fn pieces(&self, threads: usize) -> usize {
        if threads < 2 {
            return 1;
        }
        let most = (self.units() / self.grain(threads)).min(threads * PIECES_PER_THREAD);
        (self.steps() / STEPS_PER_PIECE).clamp(1, most.max(1))
    }

    /// The units of one of `pieces` pieces.
    fn part(&self, piece: usize, pieces: usize, threads: usize) -> Range<usize> {
        let (units, grain) = (self.units(), self.grain(threads));
        let at = |piece: usize| if piece == pieces { units } else { units / grain * piece / pieces * grain };
        at(piece)..at(piece + 1)
    }
}

/// Floats of scratch that a worker needs for the largest batch.
pub(crate) fn scratch_length(kind: &Primitive, operands: &[Operand], capacity: &Bindings) -> usize {
    let (Primitive::MatMul, Some(right)) = (kind, operands.get(1)) else { return 0 };
    let [.., k, n] = right.shape.as_slice() else { return 0 };
    packed_len(n.evaluate(capacity).unwrap_or(0), k.evaluate(capacity).unwrap_or(0))
}

impl Run<'_> {
    /// How many pieces a primitive stage is cut into; the same for every worker. One for other stages.
    pub(crate) fn pieces(&self, stage: &Stage, threads: usize) -> usize {
        self.problem(stage).map_or(1, |problem| problem.pieces(threads))
    }

    /// Computes one of several pieces of a primitive stage.
    pub(crate) fn piece(&self, stage: &Stage, (piece, pieces): (usize, usize), worker: &Worker) -> Result<()> {
        let problem = self.problem(stage)?;
        let units = problem.part(piece, pieces, worker.threads());
        let unit = problem.shape.iter().product::<usize>() / problem.units().max(1);
        let out = stage.out.ok_or(KernelError::Empty { kernel: "primitive", what: "result" })?;
        let target = self.contiguous_mut(out, units.start * unit..units.end * unit)?;
        if target.is_empty() {
            return Ok(());
        }
        self.compute(&problem, units, unit, worker.index(), target)
    }

    fn problem<'a>(&'a self, stage: &'a Stage) -> Result<Problem<'a>> {
        let Kernel::Primitive { kind, operands, shape } = &stage.kernel else {
            return Err(KernelError::Empty { kernel: "primitive", what: "stage" });
        };
        let operands = operands.iter().map(|operand| self.value(operand)).collect::<Result<_>>()?;
        Ok(Problem { kind, operands, shape: self.concrete(shape)? })
    }

    /// Some units of a result, to be written to `target`, each of `unit` elements.
    fn compute(
        &self,
        problem: &Problem,
        units: Range<usize>,
        unit: usize,
        worker: usize,
        target: &mut [f32],
    ) -> Result<()> {
        let operand = |index: usize| problem.operand(index);
        let elements = units.start * unit..units.end * unit;
        let same = || operand(0)?.data.get(elements).ok_or(KernelError::Empty { kernel: "primitive", what: "operand" });
        match problem.kind {
            Primitive::Unary(unary) => {
                target.copy_from_slice(same()?);
                self.kernels.unary(kernel_unary(*unary), target);
                Ok(())
            }
            Primitive::Activation(activation) => {
                target.copy_from_slice(same()?);
                self.kernels.activate(kernel_activation(*activation), target);
                Ok(())
            }
            Primitive::Softmax => {
                target.copy_from_slice(same()?);
                self.kernels.softmax(&mut MatrixMut::contiguous(target, units.len(), unit)?);
                Ok(())
            }
            Primitive::Binary(binary) => {
                let (a, b) = (operand(0)?.array()?, operand(1)?.array()?);
                primitive::binary(kernel_binary(*binary), a, b, ArrayMut::part(target, &problem.shape, units)?)
            }
            Primitive::Where => {
                let (condition, a, b) = (operand(0)?.array()?, operand(1)?.array()?, operand(2)?.array()?);
                primitive::select(condition, a, b, ArrayMut::part(target, &problem.shape, units)?)
            }
            Primitive::MatMul => {
                let (a, b) = (operand(0)?, operand(1)?);
                let scratch = self.scratch.write_slice(worker * self.scratch_length, self.scratch_length)?;
                let out = ArrayMut::part(target, &problem.shape, units)?;
                self.kernels.matmul(a.array()?, b.array()?, scratch, out)
            }
            Primitive::Transpose { perm } => {
                primitive::transpose(operand(0)?.array()?, perm, ArrayMut::part(target, &problem.shape, units)?)
            }
            Primitive::Expand => {
                primitive::expand(operand(0)?.array()?, ArrayMut::part(target, &problem.shape, units)?)
            }
            Primitive::GatherElements { axis } => {
                let (x, indices) = (operand(0)?.array()?, operand(1)?.array()?);
                primitive::gather_elements(x, *axis, indices, ArrayMut::part(target, &problem.shape, units)?)
            }
            Primitive::Reduce { reduction, axes } => {
                let first = axes.first().copied().unwrap_or(problem.shape.len());
                let axes: Vec<usize> = axes.iter().map(|axis| axis - first + 1).collect();
                let x = operand(0)?.blocks(first, units)?;
                primitive::reduce(kernel_reduction(*reduction), x.array()?, &axes, target)
            }
            Primitive::CumSum { axis } => {
                primitive::cumulative_sum(operand(0)?.blocks(*axis, units)?.array()?, 1, target)
            }
            Primitive::Gather { axis, ids } => {
                let x = operand(0)?.blocks(*axis, units)?;
                match ids {
                    Some(ids) => primitive::gather(x.array()?, 1, &self.ids.integers(ids), target),
                    None => primitive::gather(x.array()?, 1, &indices(operand(1)?.data), target),
                }
            }
            Primitive::ToFloat { ids } => {
                for (float, &integer) in target.iter_mut().zip(self.ids.integers(ids).iter()) {
                    *float = integer as f32;
                }
                Ok(())
            }
            Primitive::Iota => {
                target.iter_mut().enumerate().for_each(|(index, float)| *float = index as f32);
                Ok(())
            }
            Primitive::Slice { axis, start } => {
                let length = problem.shape.get(*axis).copied().unwrap_or(1);
                slice(&operand(0)?.blocks(*axis, units)?, *start, length, target)
            }
            Primitive::Concat { axis } => {
                let parts = problem.operands.iter().map(|part| part.blocks(*axis, units.clone()));
                concat(&parts.collect::<Result<Vec<_>>>()?, target)
            }
            Primitive::Pad => {
                self.pad(operand(0)?.data, problem.shape.get(1).copied().unwrap_or(1), units.start, target, unit);
                Ok(())
            }
            Primitive::Pack => {
                let longest = operand(0)?.shape.get(1).copied().unwrap_or(1);
                self.pack(operand(0)?.data, longest, units.start, target, unit);
                Ok(())
            }
        }
    }

    /// Rows, from `first` on, of sequences that are padded with zeros to `longest` rows.
    fn pad(&self, from: &[f32], longest: usize, first: usize, target: &mut [f32], width: usize) {
        for (index, row) in target.chunks_exact_mut(width).enumerate() {
            let (sequence, token) = ((first + index) / longest, (first + index) % longest);
            let span = self.layout.spans().get(sequence).filter(|span| token < span.tokens);
            let source = span.and_then(|span| from.get((span.start + token) * width..)?.get(..width));
            match source {
                Some(source) => row.copy_from_slice(source),
                None => row.fill(0.0),
            }
        }
    }

    /// Rows of tokens, from `first` on, out of sequences that are padded to `longest` rows.
    fn pack(&self, from: &[f32], longest: usize, first: usize, target: &mut [f32], width: usize) {
        let spans = self.layout.spans();
        let mut sequence = spans.partition_point(|span| span.start + span.tokens <= first);
        for (index, row) in target.chunks_exact_mut(width).enumerate() {
            let token = first + index;
            while spans.get(sequence).is_some_and(|span| span.start + span.tokens <= token) {
                sequence += 1;
            }
            let place = spans.get(sequence).map(|span| sequence * longest + token - span.start);
            if let Some(source) = place.and_then(|place| from.get(place * width..)?.get(..width)) {
                row.copy_from_slice(source);
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

    fn contiguous_mut(&self, out: View, elements: Range<usize>) -> Result<&mut [f32]> {
        match self.plan.values[out.value].place {
            Place::Shared { slot } => self.arena.write_slice(self.slot_starts[slot] + elements.start, elements.len()),
            Place::Weights { .. } | Place::Local { .. } | Place::Unplaced => {
                Err(KernelError::Empty { kernel: "primitive", what: "shared place of the result" })
            }
        }
    }
}

fn rows_of(shape: &[usize]) -> usize {
    shape.split_last().map_or(1, |(_, rows)| rows.iter().product())
}

/// Elements in front of, along and behind an axis.
fn around(shape: &[usize], axis: usize) -> [usize; 3] {
    let (before, after) = shape.split_at(axis.min(shape.len()));
    let along = after.first().copied().unwrap_or(1);
    [before.iter().product(), along, after.iter().skip(1).product()]
}

/// Floats as indices; what is no whole number that is not negative becomes one that is never found.
fn indices(floats: &[f32]) -> Vec<i64> {
    floats.iter().map(|&float| if float >= 0.0 { float as i64 } else { i64::MIN }).collect()
}

/// Elements `start..start + length` along the second axis of blocks.
fn slice(from: &Value, start: usize, length: usize, target: &mut [f32]) -> Result<()> {
    let [_, along, inner] = from.around(1);
    let part = start * inner..(start + length) * inner;
    let blocks = from.data.chunks_exact((along * inner).max(1));
    for (source, target) in blocks.zip(target.chunks_exact_mut((length * inner).max(1))) {
        let misfit = KernelError::TooSmall { kernel: "slice", what: "axis", found: along, needed: start + length };
        target.copy_from_slice(source.get(part.clone()).ok_or(misfit)?);
    }
    Ok(())
}

/// Blocks behind each other along their second axis.
fn concat(parts: &[Value], target: &mut [f32]) -> Result<()> {
    let size = |part: &Value| part.shape.iter().skip(1).product::<usize>();
    let whole: usize = parts.iter().map(size).sum();
    for (block, mut rest) in target.chunks_exact_mut(whole.max(1)).enumerate() {
        for part in parts {
            let (size, needed) = (size(part), (block + 1) * size(part));
            let source = part.data.get(block * size..needed);
            let misfit = KernelError::TooSmall { kernel: "concat", what: "operand", found: part.data.len(), needed };
            let (place, behind) = rest.split_at_mut(size.min(rest.len()));
            place.copy_from_slice(source.filter(|source| source.len() == place.len()).ok_or(misfit)?);
            rest = behind;
        }
    }
    Ok(())
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
        Unary::Floor => primitive::Unary::Floor,
        Unary::Ceil => primitive::Unary::Ceil,
        Unary::Round => primitive::Unary::Round,
        Unary::Trunc => primitive::Unary::Trunc,
        Unary::Sin => primitive::Unary::Sin,
        Unary::Cos => primitive::Unary::Cos,
        Unary::Sign => primitive::Unary::Sign,
        Unary::IsNan => primitive::Unary::IsNan,
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
