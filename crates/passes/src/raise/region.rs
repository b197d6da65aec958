//! Regions behind one value: what is computed of it and of constants alone, row by row.

use std::collections::{BTreeSet, HashMap, HashSet};

use centuple_graph::{Binary, Graph, Node, NodeId, Op, Unary};
use centuple_reference::{Batch, Cache, apply};
use centuple_tensor::{Bindings, Dim, Layout, Tensor};

/// Most nodes of a region; no spelling of a norm or an activation function is half as long.
const MAX_NODES: usize = 40;

/// The nodes that read each node, by node index.
pub(crate) fn readers(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut readers = vec![Vec::new(); graph.nodes().len()];
    for (id, node) in graph.iter() {
        for input in &node.inputs {
            readers[input.index()].push(id);
        }
    }
    readers
}

/// What the ops of a region do and read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Elementwise ops with single numbers.
    Elements,
    /// Elementwise ops with numbers and rows, and reductions over the last dimension.
    Rows,
}

/// All that follows from a value `[..., W]` within the rules of its [`Kind`].
pub(crate) struct Region<'a> {
    graph: &'a Graph,
    source: NodeId,
    /// In topological order, without the source.
    pub(crate) nodes: Vec<NodeId>,
}

impl<'a> Region<'a> {
    /// The region behind `source`.
    pub(crate) fn behind(graph: &'a Graph, readers: &[Vec<NodeId>], source: NodeId, kind: Kind) -> Region<'a> {
        let shape = &graph.node(source).fact.shape;
        let (mut nodes, mut inside) = (Vec::new(), HashSet::from([source]));
        let mut waiting: BTreeSet<NodeId> = readers[source.index()].iter().copied().collect();
        while let Some(id) = waiting.pop_first() {
            let node = graph.node(id);
            let may_read = |input: &NodeId| inside.contains(input) || is_parameter(graph, *input, shape.last(), kind);
            if !is_of(kind, node) || !is_over(&node.fact.shape, shape) || !node.inputs.iter().all(may_read) {
                continue;
            }
            if nodes.len() == MAX_NODES {
                break;
            }
            nodes.push(id);
            inside.insert(id);
            waiting.extend(&readers[id.index()]);
        }
        Region { graph, source, nodes }
    }

    /// The values of the nodes, where the source is `rows [R, W]`: `[R, W]` each, or `[R, 1]` behind a reduction.
    pub(crate) fn values(&self, rows: &Tensor) -> Option<HashMap<NodeId, Tensor>> {
        let layout = Layout::default();
        let mut values = HashMap::from([(self.source, rows.clone())]);
        for &id in &self.nodes {
            let node = self.graph.node(id);
            let mut operands = Vec::with_capacity(node.inputs.len());
            for input in &node.inputs {
                operands.push(match values.get(input) {
                    Some(value) => value.clone(),
                    None => flat(self.graph.constant_of(*input)?)?,
                });
            }
            let mut op = node.op.clone();
            if let Op::Reduce { axes, .. } = &mut op {
                *axes = vec![1];
            }
            let cache = &mut Cache::default();
            let mut batch = Batch { bindings: Bindings::default(), layout: &layout, cache };
            let value = apply(&op, &operands.iter().collect::<Vec<_>>(), &mut batch).ok()?;
            values.insert(id, value);
        }
        Some(values)
    }

    /// The constants that the region reads.
    pub(crate) fn constants(&self) -> Vec<(NodeId, &'a Tensor)> {
        let inputs = self.nodes.iter().flat_map(|&id| &self.graph.node(id).inputs);
        let ids: BTreeSet<NodeId> = inputs.copied().collect();
        ids.into_iter().filter_map(|id| Some((id, self.graph.constant_of(id)?))).collect()
    }

    /// The nodes that `root` is computed of, itself included.
    pub(crate) fn above(&self, root: NodeId) -> HashSet<NodeId> {
        let mut above = HashSet::from([root]);
        for &id in self.nodes.iter().rev() {
            if above.contains(&id) {
                above.extend(self.graph.node(id).inputs.iter().filter(|input| self.nodes.contains(input)));
            }
        }
        above
    }

    /// Whether a node of the region is no line in the source.
    pub(crate) fn is_curved(&self) -> bool {
        self.nodes.iter().any(|&id| is_curved(&self.graph.node(id).op))
    }
}

/// A constant without its leading dimensions of 1: `[]` or `[W]`.
fn flat(tensor: &Tensor) -> Option<Tensor> {
    let shape = if tensor.len() == 1 { Vec::new() } else { vec![tensor.len()] };
    tensor.reshaped(&shape).ok()
}

fn is_parameter(graph: &Graph, id: NodeId, width: Option<&Dim>, kind: Kind) -> bool {
    let Some(tensor) = graph.constant_of(id) else { return false };
    let is_row = || tensor.shape().last() == Some(&tensor.len()) && width == Some(&Dim::from(tensor.len()));
    tensor.as_f32().is_ok() && (tensor.len() == 1 || (kind == Kind::Rows && is_row()))
}

/// Whether a value is of the source's shape, but for a last dimension that may be reduced.
fn is_over(shape: &[Dim], source: &[Dim]) -> bool {
    let (Some((last, rows)), Some((width, leading))) = (shape.split_last(), source.split_last()) else {
        return shape == source;
    };
    rows == leading && (last == width || last.constant() == Some(1))
}

fn is_of(kind: Kind, node: &Node) -> bool {
    match &node.op {
        Op::Unary(_) | Op::Binary(_) | Op::Where | Op::Activation(_) => true,
        Op::Reduce { reduction: _, axes } => kind == Kind::Rows && *axes == [node.fact.shape.len() - 1],
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
        | Op::Transpose { .. }
        | Op::Reshape { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::ToFloat
        | Op::GatherElements { .. }
        | Op::CumSum { .. }
        | Op::Expand { .. }
        | Op::Iota { .. }
        | Op::Pad
        | Op::Pack => false,
    }
}

fn is_curved(op: &Op) -> bool {
    let is_straight = matches!(op, Op::Unary(Unary::Neg) | Op::Reduce { .. })
        || matches!(op, Op::Binary(Binary::Add | Binary::Sub | Binary::Mul | Binary::Div));
    !is_straight
}
