//! What exporters leave behind: the same value twice, ops that change nothing, masks that hide nothing.

use std::collections::HashMap;

use centuple_graph::{Binary, Graph, GraphError, Node, NodeId, Op, Unary};
use centuple_tensor::{Dim, Shape, Tensor};

use super::uniform::uniform;
use crate::rewrite::{Outcome, Rewrite, rewrite, sum_of};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let numbers = uniform(graph);
    let mut seen = Seen::default();
    let mut copies = 0;
    let outcome = rewrite(graph, |state, id, node| {
        let plain = Plain { numbers: &numbers, node, id };
        let simpler = plain.simplified(state)?;
        let (op, inputs, changed) = match simpler {
            Simpler::Is(new) => return Ok(Some(new)),
            Simpler::Op(op, inputs) => (op, inputs, true),
            Simpler::No => (node.op.clone(), state.images(&node.inputs), false),
        };
        if let Some(same) = seen.find(&state.new, &op, &inputs) {
            return Ok(Some(same));
        }
        let new = state.new.push(node.name.clone(), op.clone(), &inputs)?;
        seen.add(&op, &inputs, new);
        copies += usize::from(!changed);
        Ok(Some(new))
    })?;
    Ok(Outcome { applied: outcome.applied.saturating_sub(copies), ..outcome })
}

/// Constants that look alike and are compared byte by byte.
const ALIKE: usize = 4;

/// The values that are there, to be found by what they are computed by.
#[derive(Default)]
struct Seen {
    ops: HashMap<(String, Vec<NodeId>), NodeId>,
    /// By type, shape and some of the bytes.
    constants: HashMap<(String, Vec<u8>), Vec<NodeId>>,
}

impl Seen {
    /// A value that is equal to that of an op.
    fn find(&self, graph: &Graph, op: &Op, inputs: &[NodeId]) -> Option<NodeId> {
        let Op::Constant(tensor) = op else {
            return self.ops.get(&(format!("{op:?}"), inputs.to_vec())).copied();
        };
        let alike = self.constants.get(&glimpse(tensor))?;
        let is_equal = |other: &Tensor| {
            let shares = other.identity() == tensor.identity() && other.shape() == tensor.shape();
            !tensor.is_declared() && (shares || other == tensor)
        };
        alike.iter().copied().take(ALIKE).find(|&id| graph.constant_of(id).is_some_and(is_equal))
    }

    fn add(&mut self, op: &Op, inputs: &[NodeId], id: NodeId) {
        if let Op::Constant(tensor) = op {
            self.constants.entry(glimpse(tensor)).or_default().push(id);
        } else if !matches!(op, Op::Input { .. }) {
            self.ops.insert((format!("{op:?}"), inputs.to_vec()), id);
        }
    }
}

/// What tells most constants apart.
fn glimpse(tensor: &Tensor) -> (String, Vec<u8>) {
    let bytes = tensor.bytes();
    let stride = (bytes.len() / 64).max(1) | 1;
    (format!("{tensor:?}"), bytes.iter().step_by(stride).copied().collect())
}

/// What can stand in place of a node.
enum Simpler {
    /// A value that is there.
    Is(NodeId),
    /// Another op.
    Op(Op, Vec<NodeId>),
    /// Nothing simpler.
    No,
}

/// A node that is looked at.
struct Plain<'a> {
    numbers: &'a [Option<f32>],
    node: &'a Node,
    id: NodeId,
}

impl Plain<'_> {
    fn simplified(&self, state: &mut Rewrite) -> Result<Simpler, GraphError> {
        let inputs = state.images(&self.node.inputs);
        let Some(&first) = inputs.first() else { return Ok(Simpler::No) };
        if let Some(scalar) = self.scalar(state, first)? {
            let shape = self.node.fact.shape.clone();
            let is_scalar = shape.is_empty();
            return Ok(if is_scalar { Simpler::Is(scalar) } else { Simpler::Op(Op::Expand { shape }, vec![scalar]) });
        }
        if let (Op::Gather { axis }, &[x, indices]) = (&self.node.op, inputs.as_slice()) {
            return picked(state, x, indices, *axis, &self.node.fact.shape);
        }
        Ok(match self.moved(state, first, inputs.len()) {
            Simpler::No => self.computed(state, inputs),
            simpler @ (Simpler::Is(_) | Simpler::Op(..)) => simpler,
        })
    }

    /// The number that all elements are, as a constant; `None` where there is none, or nothing else is there already.
    fn scalar(&self, state: &mut Rewrite, first: NodeId) -> Result<Option<NodeId>, GraphError> {
        let Some(number) = self.number(self.id).filter(|number| !number.is_nan()) else { return Ok(None) };
        let is_there = matches!(self.node.op, Op::Expand { .. })
            && state.new.constant_of(first).is_some_and(|tensor| tensor.shape().is_empty());
        match Tensor::from_f32(&[], &[number]) {
            Ok(tensor) if !is_there => state.new.constant(self.node.name.clone(), tensor).map(Some),
            _ => Ok(None),
        }
    }

    /// What only moves elements.
    fn moved(&self, state: &Rewrite, first: NodeId, count: usize) -> Simpler {
        let (op, source) = (&self.node.op, state.new.node(first));
        let keeps = matches!(op, Op::Reshape { .. } | Op::Expand { .. } | Op::Slice { .. } | Op::Reduce { .. });
        let is_one = matches!(op, Op::Concat { .. }) && count == 1;
        if is_one || (keeps && source.fact == self.node.fact) {
            return Simpler::Is(first);
        }
        let undoes = (*op == Op::Pack && source.op == Op::Pad) || (*op == Op::Pad && source.op == Op::Pack);
        let reshapes = matches!(op, Op::Reshape { .. }) && matches!(source.op, Op::Reshape { .. });
        if undoes || (reshapes && state.new.node(source.inputs[0]).fact == self.node.fact) {
            return Simpler::Is(source.inputs[0]);
        }
        if reshapes || (matches!(op, Op::Expand { .. }) && matches!(source.op, Op::Expand { .. })) {
            return Simpler::Op(op.clone(), source.inputs.clone());
        }
        if let Op::Transpose { perm } = op { transposed(source, first, perm) } else { Simpler::No }
    }

    /// What computes elements.
    fn computed(&self, state: &Rewrite, inputs: Vec<NodeId>) -> Simpler {
        let chosen = if let Op::Binary(binary) = self.node.op {
            self.neutral(binary)
        } else if self.node.op == Op::Where {
            let condition = self.number(self.node.inputs[0]).filter(|number| !number.is_nan());
            condition.map(|number| if number == 0.0 { 2 } else { 1 })
        } else if self.node.op == Op::Unary(Unary::Log) {
            return self.log_of_one_more(state);
        } else {
            return Simpler::No;
        };
        match chosen {
            Some(operand) => expanded(state, inputs[operand], &self.node.fact.shape),
            None => narrowed(state, self.node, inputs),
        }
    }

    /// `ln(1 + x)`
    fn log_of_one_more(&self, state: &Rewrite) -> Simpler {
        let Some([a, b]) = sum_of(state.old.node(self.node.inputs[0])) else { return Simpler::No };
        for (x, one) in [(a, b), (b, a)] {
            if self.number(one) == Some(1.0) && state.old.node(x).fact == self.node.fact {
                return Simpler::Op(Op::Unary(Unary::Log1p), vec![state.image(x)]);
            }
        }
        Simpler::No
    }

    fn number(&self, id: NodeId) -> Option<f32> {
        self.numbers.get(id.index()).copied().flatten()
    }

    /// The operand that the other one leaves as it is.
    fn neutral(&self, binary: Binary) -> Option<usize> {
        let [a, b] = [0, 1].map(|operand| self.node.inputs.get(operand).and_then(|&id| self.number(id)));
        match binary {
            Binary::Add if b == Some(0.0) => Some(0),
            Binary::Add if a == Some(0.0) => Some(1),
            Binary::Sub if b == Some(0.0) => Some(0),
            Binary::Mul if b == Some(1.0) => Some(0),
            Binary::Mul if a == Some(1.0) => Some(1),
            Binary::Div | Binary::Pow if b == Some(1.0) => Some(0),
            Binary::Add
            | Binary::Sub
            | Binary::Mul
            | Binary::Div
            | Binary::Pow
            | Binary::Min
            | Binary::Max
            | Binary::Equal
            | Binary::Less => None,
        }
    }
}

fn transposed(source: &Node, first: NodeId, perm: &[usize]) -> Simpler {
    let stays = |perm: &[usize]| perm.iter().copied().eq(0..perm.len());
    if stays(perm) {
        return Simpler::Is(first);
    }
    let Op::Transpose { perm: inner } = &source.op else { return Simpler::No };
    let Some(both) = perm.iter().map(|&axis| inner.get(axis).copied()).collect::<Option<Vec<_>>>() else {
        return Simpler::No;
    };
    if stays(&both) {
        Simpler::Is(source.inputs[0])
    } else {
        Simpler::Op(Op::Transpose { perm: both }, source.inputs.clone())
    }
}

/// A gather of everything in order is nothing, and one of a known index a slice.
fn picked(state: &mut Rewrite, x: NodeId, indices: NodeId, axis: usize, shape: &Shape) -> Result<Simpler, GraphError> {
    let Some(size) = state.new.node(x).fact.shape.get(axis).cloned() else { return Ok(Simpler::No) };
    let picker = state.new.node(indices);
    if picker.op == (Op::Iota { size: size.clone() }) {
        return Ok(Simpler::Is(x));
    }
    let index = state.new.constant_of(indices).and_then(index);
    let (Some(start), Some(size), None) = (index, size.constant(), state.new.constant_of(x)) else {
        return Ok(Simpler::No);
    };
    if start >= size {
        return Ok(Simpler::No);
    }
    let name = picker.name.clone();
    let slice = state.new.push(name, Op::Slice { axis, start, end: start + 1 }, &[x])?;
    Ok(if state.new.node(slice).fact.shape == *shape {
        Simpler::Is(slice)
    } else {
        Simpler::Op(Op::Reshape { shape: shape.clone() }, vec![slice])
    })
}

/// The one element of an index tensor.
fn index(tensor: &Tensor) -> Option<usize> {
    match tensor.as_i64() {
        Ok(&[index]) => usize::try_from(index).ok(),
        _ => match tensor.as_f32() {
            Ok(&[index]) if (0.0..16_777_216.0).contains(&index) && index.fract() == 0.0 => Some(index as usize),
            _ => None,
        },
    }
}

/// A value broadcast to a shape.
fn expanded(state: &Rewrite, value: NodeId, shape: &Shape) -> Simpler {
    if state.new.node(value).fact.shape == *shape {
        return Simpler::Is(value);
    }
    Simpler::Op(Op::Expand { shape: shape.clone() }, vec![value])
}

/// An elementwise op whose operands are not broadcast before it does so itself.
fn narrowed(state: &Rewrite, node: &Node, mut inputs: Vec<NodeId>) -> Simpler {
    let mut changed = false;
    for operand in 0..inputs.len() {
        let source = state.new.node(inputs[operand]);
        if !matches!(source.op, Op::Expand { .. }) {
            continue;
        }
        let wide = std::mem::replace(&mut inputs[operand], source.inputs[0]);
        let shapes = inputs.iter().map(|&input| state.new.node(input).fact.shape.as_slice());
        if broadcast(shapes).as_ref() == Some(&node.fact.shape) {
            changed = true;
        } else {
            inputs[operand] = wide;
        }
    }
    if changed { Simpler::Op(node.op.clone(), inputs) } else { Simpler::No }
}

/// The common shape of some values.
pub(crate) fn broadcast<'a>(shapes: impl Iterator<Item = &'a [Dim]>) -> Option<Shape> {
    let one = Dim::from(1);
    let mut common: Shape = Vec::new();
    for shape in shapes {
        while common.len() < shape.len() {
            common.insert(0, one.clone());
        }
        let skip = common.len() - shape.len();
        for (own, dim) in common.iter_mut().skip(skip).zip(shape) {
            if *own == one {
                *own = dim.clone();
            } else if *dim != one && dim != own {
                return None;
            }
        }
    }
    Some(common)
}
