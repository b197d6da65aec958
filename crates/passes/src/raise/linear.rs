//! `MatMul` with a constant matrix → `Linear`, and vectors that are added to one → its bias.
//!
//! A `Linear` holds its weight by output column, a `MatMul` by input column: weights are transposed once, and those that
//! are read more than once are shared again.

use std::collections::HashMap;

use centuple_graph::{Binary, Graph, GraphError, Node, NodeId, Op};
use centuple_tensor::Tensor;

use crate::rewrite::{Outcome, Rewrite, rewrite, sum_of};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let mut transposed = Transposed::default();
    // Layers may share codes but not their scales: as many new weights as there are constants are enough for any model.
    let constants = graph.iter().filter_map(|(id, _)| graph.constant_of(id));
    let mut allowed: usize = constants.map(Tensor::len).fold(0, usize::saturating_add);
    rewrite(graph, |state, _, node| {
        if matches!(node.op, Op::MatMul) {
            return product(state, &mut transposed, node);
        }
        if let (Op::Binary(Binary::Mul), &[a, b]) = (&node.op, node.inputs.as_slice()) {
            return match scaled(state, &mut allowed, node, [a, b])? {
                Some(scaled) => Ok(Some(scaled)),
                None => scaled(state, &mut allowed, node, [b, a]),
            };
        }
        let Some([a, b]) = sum_of(node) else { return Ok(None) };
        for (value, vector) in [(a, b), (b, a)] {
            if let Some(biased) = biased(state, node, value, vector)? {
                return Ok(Some(biased));
            }
        }
        Ok(None)
    })
}

fn product(state: &mut Rewrite, transposed: &mut Transposed, node: &Node) -> Result<Option<NodeId>, GraphError> {
    let &[x, matrix] = node.inputs.as_slice() else { return Ok(None) };
    let old = state.old;
    if old.constant_of(x).is_some() || old.node(x).fact.shape.len() < 2 {
        return Ok(None);
    }
    // A transposition in the file is already the weight as it is wanted.
    let is_turned = old.node(matrix).op == Op::Transpose { perm: vec![1, 0] };
    let source = if is_turned { old.node(matrix).inputs[0] } else { matrix };
    let Some(tensor) = old.constant_of(source) else { return Ok(None) };
    let [leading @ .., k, n] = tensor.shape() else { return Ok(None) };
    if leading.iter().any(|&dim| dim != 1) || leading.len() + 2 > old.node(x).fact.shape.len() {
        return Ok(None);
    }
    let weight = if is_turned { Some(tensor.clone()) } else { transposed.of(tensor, *k, *n) };
    let Some(weight) = weight.filter(|weight| weight.as_f32().is_ok()) else { return Ok(None) };
    let name = old.node(source).name.clone();
    let inputs = [state.image(x), state.new.constant(name, weight)?];
    let op = Op::Linear { bias: false, activation: None, residual: false };
    state.new.push(node.name.clone(), op, &inputs).map(Some)
}

/// The product of a layer whose weights are codes, that is whole numbers, and their scales: a layer with weights.
fn scaled(
    state: &mut Rewrite,
    allowed: &mut usize,
    node: &Node,
    [value, factor]: [NodeId; 2],
) -> Result<Option<NodeId>, GraphError> {
    let image = state.new.node(state.image(value)).clone();
    let Op::Linear { bias: false, activation: None, residual: false } = image.op else { return Ok(None) };
    let (Some(weight), Some(factor)) = (state.new.constant_of(image.inputs[1]), state.old.constant_of(factor)) else {
        return Ok(None);
    };
    let (Ok(codes), Ok(scales), &[n, k]) = (weight.as_f32(), factor.as_f32(), weight.shape()) else { return Ok(None) };
    let fits = scales.len() == 1 || (scales.len() == n && factor.shape().last() == Some(&n));
    if !fits || !state.has_one_use(value) || node.fact != image.fact || !codes.iter().all(|code| code.fract() == 0.0) {
        return Ok(None);
    }
    let Some(left) = allowed.checked_sub(codes.len()) else { return Ok(None) };
    *allowed = left;
    let scale = |row: usize| scales.get(row).or(scales.first()).copied().unwrap_or(1.0);
    let rows = codes.chunks_exact(k.max(1)).enumerate();
    let data: Vec<f32> = rows.flat_map(|(row, codes)| codes.iter().map(move |code| code * scale(row))).collect();
    let Ok(weight) = Tensor::from_f32(&[n, k], &data) else { return Ok(None) };
    let name = state.new.node(image.inputs[1]).name.clone();
    let weight = state.new.constant(name, weight)?;
    state.new.push(image.name, image.op, &[image.inputs[0], weight]).map(Some)
}

/// The sum as a linear layer with a bias, where it is the sum of a layer and a vector. The layer may be reshaped in between.
fn biased(state: &mut Rewrite, node: &Node, value: NodeId, vector: NodeId) -> Result<Option<NodeId>, GraphError> {
    let old = state.old;
    let reshape = if matches!(old.node(value).op, Op::Reshape { .. }) { Some(old.node(value)) } else { None };
    let layer = reshape.map_or(value, |reshape| reshape.inputs[0]);
    let image = state.new.node(state.image(layer)).clone();
    let op = if let Op::Linear { bias: false, activation: None, residual: false } = image.op {
        Op::Linear { bias: true, activation: None, residual: false }
    } else if let Op::QuantizedLinear { bits, range, bias: false, activation: None, residual: false } = image.op {
        Op::QuantizedLinear { bits, range, bias: true, activation: None, residual: false }
    } else {
        return Ok(None);
    };
    let width = image.fact.shape.last().and_then(|dim| dim.constant());
    let Some(tensor) = state.new.constant_of(state.image(vector)) else { return Ok(None) };
    let is_row = tensor.shape().last() == Some(&tensor.len()) && width == Some(tensor.len());
    if !is_row || tensor.as_f32().is_err() || node.fact != old.node(value).fact {
        return Ok(None);
    }
    if reshape.is_some_and(|reshape| reshape.fact.shape.last() != image.fact.shape.last()) {
        return Ok(None);
    }
    if !state.has_one_use(value) || !state.has_one_use(layer) {
        state.refuse(node, "the linear layer before it has other readers");
        return Ok(None);
    }
    let Ok(bias) = tensor.reshaped(&[tensor.len()]) else { return Ok(None) };
    let name = old.node(vector).name.clone();
    let inputs = [image.inputs.as_slice(), &[state.new.constant(name, bias)?]].concat();
    let biased = state.new.push(image.name, op, &inputs)?;
    match reshape {
        Some(reshape) => state.new.push(reshape.name.clone(), reshape.op.clone(), &[biased]).map(Some),
        None => Ok(Some(biased)),
    }
}

/// Transposed matrices by what they were: where elements lie, and rows and columns.
#[derive(Default)]
struct Transposed(HashMap<((usize, usize), usize, usize), Tensor>);

impl Transposed {
    /// The matrix `[K, N]` as `[N, K]`; `None` where it is no f32.
    fn of(&mut self, tensor: &Tensor, k: usize, n: usize) -> Option<Tensor> {
        let key = (tensor.identity(), k, n);
        if let Some(done) = self.0.get(&key) {
            return Some(done.clone());
        }
        let done = Tensor::from_f32(&[n, k], &transpose(tensor.as_f32().ok()?, k, n)).ok()?;
        self.0.insert(key, done.clone());
        Some(done)
    }
}

/// The transpose of `[K, N]`, in blocks that stay in the cache.
fn transpose(data: &[f32], k: usize, n: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut out = vec![0.0; data.len()];
    if k == 0 || n == 0 {
        return out;
    }
    for (block, columns) in out.chunks_mut(BLOCK * k).enumerate() {
        for first in (0..k).step_by(BLOCK) {
            for (column, row) in columns.chunks_exact_mut(k).enumerate() {
                let from = data.iter().skip(first * n + block * BLOCK + column).step_by(n);
                row.iter_mut().skip(first).take(BLOCK).zip(from).for_each(|(to, &from)| *to = from);
            }
        }
    }
    out
}
