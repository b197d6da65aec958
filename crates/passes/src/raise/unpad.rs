//! Padded rows → packed ones: an op that treats each row alone does so on `[Tokens, ...]`.
//!
//! `v [Sequences, Sequence, ...] = Pad(Pack(v))`, since padding never influences what is asked of a graph (`uniform` says why). So
//! from the inputs on, each value with a row for every token is held packed as long as its readers are row-wise. What is not, an
//! attention that wasn't recognised for one, reads it padded: an island, and its results are packed again.

use std::collections::HashMap;

use centuple_graph::{Graph, GraphError, Node, NodeId, Op};
use centuple_tensor::{Dim, Shape, Symbol};

use super::probe::ambient;
use crate::rewrite::{Outcome, Rewrite, rewrite};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let mut unpad = Unpad { ambient: ambient(graph), packed: HashMap::new(), moved: 0 };
    let outcome = rewrite(graph, |state, id, node| {
        if node.op == Op::Pad {
            unpad.packed.insert(id, state.image(node.inputs[0]));
            return Ok(None);
        }
        if node.op == Op::Pack {
            return unpad.rows(state, node.inputs[0]);
        }
        let Some(form) = Form::of(&node.fact.shape) else {
            unpad.refuse(state, node);
            return Ok(None);
        };
        if unpad.ambient[id.index()] || !node.inputs.iter().any(|input| unpad.has_rows(state.old, *input)) {
            return Ok(None);
        }
        let Some(packed) = unpad.on_rows(state, node, &form)? else {
            unpad.refuse(state, node);
            return Ok(None);
        };
        unpad.moved += 1;
        unpad.packed.insert(id, packed);
        form.padded(state, &node.name, packed).map(Some)
    })?;
    Ok(Outcome { applied: unpad.moved, ..outcome })
}

/// The dimensions of a value with a row for each token.
struct Form {
    /// `[Sequences, Sequence]`, or `[Sequences·Sequence]`.
    leading: usize,
    /// What a row consists of, all of it constant.
    row: Shape,
}

impl Form {
    fn of(shape: &[Dim]) -> Option<Form> {
        let [sequences, sequence] = [Symbol::Sequences, Symbol::Sequence].map(Dim::from);
        let leading = match shape {
            [first, second, ..] if *first == sequences && *second == sequence => 2,
            [first, ..] if *first == sequences * sequence => 1,
            _ => return None,
        };
        let row = shape[leading..].to_vec();
        row.iter().all(|dim| dim.constant().is_some()).then_some(Form { leading, row })
    }

    fn packed_shape(&self) -> Shape {
        [&[Symbol::Tokens.into()], self.row.as_slice()].concat()
    }

    /// The axis of the packed value for one of the padded value.
    fn axis(&self, axis: usize) -> Option<usize> {
        Some(axis.checked_sub(self.leading)? + 1)
    }

    /// The value as the old readers know it.
    fn padded(&self, state: &mut Rewrite, name: &str, packed: NodeId) -> Result<NodeId, GraphError> {
        let padded = state.new.push(name, Op::Pad, &[packed])?;
        if self.leading == 2 {
            return Ok(padded);
        }
        let rows = Dim::from(Symbol::Sequences) * Dim::from(Symbol::Sequence);
        let shape = [&[rows], self.row.as_slice()].concat();
        state.new.push(name, Op::Reshape { shape }, &[padded])
    }
}

struct Unpad {
    ambient: Vec<bool>,
    /// The new packed values in place of old padded ones.
    packed: HashMap<NodeId, NodeId>,
    moved: usize,
}

impl Unpad {
    /// Whether a value has a row for each token, made of the batch.
    fn has_rows(&self, graph: &Graph, id: NodeId) -> bool {
        !self.ambient[id.index()] && Form::of(&graph.node(id).fact.shape).is_some()
    }

    /// Names an op that needs its rows padded.
    fn refuse(&self, state: &mut Rewrite, node: &Node) {
        if node.inputs.iter().any(|input| self.packed.contains_key(input)) {
            state.refuse(node, format!("{} reads more than single tokens, so its operands are padded", node.op.name()));
        }
    }

    /// The packed rows of an old value.
    fn rows(&mut self, state: &mut Rewrite, id: NodeId) -> Result<Option<NodeId>, GraphError> {
        if let Some(&packed) = self.packed.get(&id) {
            return Ok(Some(packed));
        }
        let Some(form) = Form::of(&state.old.node(id).fact.shape) else { return Ok(None) };
        let (name, mut value) = (state.old.node(id).name.clone(), state.image(id));
        if form.leading == 1 {
            let shape = [&[Symbol::Sequences.into(), Symbol::Sequence.into()], form.row.as_slice()].concat();
            value = state.new.push(name.clone(), Op::Reshape { shape }, &[value])?;
        }
        let packed = state.new.push(name, Op::Pack, &[value])?;
        self.packed.insert(id, packed);
        Ok(Some(packed))
    }

    /// The op on packed rows; `None` where it does more than treat each row alone.
    fn on_rows(&mut self, state: &mut Rewrite, node: &Node, form: &Form) -> Result<Option<NodeId>, GraphError> {
        let Some((op, operands)) = plan(state.old, node, form) else { return Ok(None) };
        let mut inputs = Vec::with_capacity(operands.len());
        for (operand, &id) in operands.into_iter().zip(&node.inputs) {
            let input = match operand {
                Operand::Rows => self.rows(state, id)?,
                Operand::Whole => Some(state.image(id)),
                Operand::Broadcast => self.broadcast(state, id, form)?,
            };
            let Some(input) = input else { return Ok(None) };
            inputs.push(input);
        }
        if let Op::Reshape { shape } = &op
            && state.new.node(inputs[0]).fact.shape == *shape
        {
            return Ok(Some(inputs[0]));
        }
        // What has no shape on rows after all stays padded.
        Ok(state.new.push(node.name.clone(), op, &inputs).ok())
    }

    /// An operand of an elementwise op whose result has the form: its rows, or what is the same for every row.
    fn broadcast(&mut self, state: &mut Rewrite, id: NodeId, form: &Form) -> Result<Option<NodeId>, GraphError> {
        let shape = state.old.node(id).fact.shape.clone();
        let rank = form.leading + form.row.len();
        if shape.len() == rank && Form::of(&shape).is_some_and(|own| own.leading == form.leading) {
            return self.rows(state, id);
        }
        let name = state.old.node(id).name.clone();
        let (leading, row) = shape.split_at(shape.len().saturating_sub(form.row.len()));
        if row.iter().any(|dim| dim.constant().is_none()) {
            return Ok(None);
        }
        if leading.iter().all(|dim| dim.constant() == Some(1)) {
            let image = state.image(id);
            if leading.is_empty() {
                return Ok(Some(image));
            }
            let constant = state.new.constant_of(image).cloned();
            let sizes: Option<Vec<usize>> = row.iter().map(Dim::constant).collect();
            if let (Some(tensor), Some(sizes)) = (constant, sizes)
                && let Ok(tensor) = tensor.reshaped(&sizes)
            {
                return state.new.constant(name, tensor).map(Some);
            }
            return state.new.push(name, Op::Reshape { shape: row.to_vec() }, &[image]).map(Some);
        }
        // What differs by sequence or by position only is written out for every token.
        if form.leading != 2 {
            return Ok(None);
        }
        let shape = [&[Symbol::Sequences.into(), Symbol::Sequence.into()], row].concat();
        let image = state.image(id);
        let whole = state.new.push(name.clone(), Op::Expand { shape }, &[image])?;
        state.new.push(name, Op::Pack, &[whole]).map(Some)
    }
}

/// How an operand is taken by an op on packed rows.
#[derive(Clone, Copy)]
enum Operand {
    /// Packed.
    Rows,
    /// As it is: a parameter.
    Whole,
    /// Packed if it has rows, else without the dimensions of size 1 in place of them.
    Broadcast,
}

/// The op on packed rows and how it takes its operands; `None` where there is none.
fn plan(graph: &Graph, node: &Node, form: &Form) -> Option<(Op, Vec<Operand>)> {
    let shape = |index: usize| node.inputs.get(index).map(|&input| graph.node(input).fact.shape.as_slice());
    let own = Form::of(shape(0)?);
    let keeps_rows = own.as_ref().is_some_and(|own| own.leading == form.leading);
    let has_columns = !form.row.is_empty();
    // The first operands have rows, the others are parameters, but for a residual that comes last.
    let layer = |rows: usize, residual: bool| {
        let last = node.inputs.len() - 1;
        let has_rows = |index: usize| index < rows || (residual && index == last);
        let operand = |index| if has_rows(index) { Operand::Rows } else { Operand::Whole };
        Some((node.op.clone(), (0..=last).map(operand).collect()))
    };
    match &node.op {
        Op::Unary(_) | Op::Activation(_) => layer(1, false),
        Op::Binary(_) | Op::Where => Some((node.op.clone(), vec![Operand::Broadcast; node.inputs.len()])),
        Op::Softmax | Op::L2Normalize { .. } if has_columns => layer(1, false),
        Op::Gate { .. } if has_columns => layer(2, false),
        Op::LayerNorm { residual, .. } | Op::RmsNorm { residual, .. } if has_columns => {
            layer(1 + usize::from(*residual), false)
        }
        Op::Linear { residual, .. }
        | Op::QuantizedLinear { residual, .. }
        | Op::GroupQuantizedLinear { residual, .. }
            if keeps_rows && has_columns =>
        {
            layer(1, *residual)
        }
        Op::GroupedLinear { .. } if keeps_rows && has_columns => layer(1, false),
        Op::MatMul if keeps_rows && has_columns => product(shape(1)?, form),
        Op::Reshape { .. } => own.map(|_| (Op::Reshape { shape: form.packed_shape() }, vec![Operand::Rows])),
        Op::Expand { .. } if keeps_rows => Some((Op::Expand { shape: form.packed_shape() }, vec![Operand::Rows])),
        Op::Gather { axis } => {
            let by_rows = Form::of(shape(1)?).is_some();
            match form.axis(*axis) {
                Some(axis) if own.is_some() && !by_rows => {
                    Some((Op::Gather { axis }, vec![Operand::Rows, Operand::Whole]))
                }
                None if *axis == 0 && own.is_none() && by_rows => {
                    Some((Op::Gather { axis: 0 }, vec![Operand::Whole, Operand::Rows]))
                }
                Some(_) | None => None,
            }
        }
        Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::GatherElements { .. }
        | Op::CumSum { .. }
        | Op::Reduce { .. } => within_rows(node, form),
        Op::Input { .. }
        | Op::Constant(_)
        | Op::Positions { .. }
        | Op::ShiftRight { .. }
        | Op::Embedding
        | Op::Linear { .. }
        | Op::QuantizedLinear { .. }
        | Op::GroupQuantizedLinear { .. }
        | Op::GroupedLinear { .. }
        | Op::Dequantize
        | Op::LayerNorm { .. }
        | Op::RmsNorm { .. }
        | Op::HeadNorm { .. }
        | Op::Gate { .. }
        | Op::Attention(_)
        | Op::CrossAttention(_)
        | Op::Rotary { .. }
        | Op::Pool(_)
        | Op::Select
        | Op::L2Normalize { .. }
        | Op::MatMul
        | Op::Softmax
        | Op::ToFloat
        | Op::Expand { .. }
        | Op::Iota { .. }
        | Op::Pad
        | Op::Pack => None,
    }
}

/// An op with axes, where they are all behind those of the tokens.
fn within_rows(node: &Node, form: &Form) -> Option<(Op, Vec<Operand>)> {
    let mut op = node.op.clone();
    let mut operands = vec![Operand::Rows; node.inputs.len()];
    if let Op::Transpose { perm } = &mut op {
        let (leading, row) = perm.split_at_checked(form.leading)?;
        let stays = leading.iter().copied().eq(0..form.leading);
        let row: Option<Vec<usize>> = row.iter().map(|&axis| form.axis(axis)).collect();
        *perm = [&[0], row?.as_slice()].concat();
        return stays.then_some((op, operands));
    }
    if let Op::Reduce { axes, .. } = &mut op {
        *axes = axes.iter().map(|&axis| form.axis(axis)).collect::<Option<_>>()?;
        return Some((op, operands));
    }
    if let Op::Concat { .. } | Op::GatherElements { .. } = op {
        operands.fill(Operand::Broadcast);
    }
    let (Op::Slice { axis, .. } | Op::Concat { axis } | Op::GatherElements { axis } | Op::CumSum { axis }) = &mut op
    else {
        return None;
    };
    *axis = form.axis(*axis)?;
    Some((op, operands))
}

/// A product of rows, or of the matrices in them, with a matrix that is the same for all or with matrices in rows.
fn product(other: &[Dim], form: &Form) -> Option<(Op, Vec<Operand>)> {
    let matrices = form.row.len() >= 2;
    let has_rows = Form::of(other).is_some_and(|own| own.leading == form.leading && own.row.len() == form.row.len());
    // One matrix dimension of the operand is then the tokens themselves.
    let operand = match (matrices, has_rows) {
        (true, true) => Operand::Rows,
        (_, false) if other.len() == 2 && other.iter().all(|dim| dim.constant().is_some()) => Operand::Whole,
        _ => return None,
    };
    Some((Op::MatMul, vec![Operand::Rows, operand]))
}
