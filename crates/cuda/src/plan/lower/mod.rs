//! From an optimised graph of an encoder to steps.

mod linear;
mod operands;

use std::collections::HashMap;

use centuple_graph::{self as graph, Graph, Node, NodeId, Op, PositionScores};
use centuple_tensor::{DType, Dim, Symbol};

use operands::{floats, stored, wide};

use super::{Codes, IdSource, Ids, IdsId, Output, Plan, Rows, Step, Value, ValueId, View, WeightId, unsupported};
use crate::error::{CudaError, Result};
use crate::specialisation::{Format, HEAD_DIMS, HIDDEN_SIZES, Pooling};

/// What a node has become.
#[derive(Clone, Debug)]
enum Lowered {
    /// A weight, read where it is used; or a node that its reader takes in.
    Later,
    Ids(IdSource),
    Stored(View),
    Wide(ValueId),
}

struct Lowering<'a> {
    graph: &'a Graph,
    plan: Plan,
    nodes: Vec<Lowered>,
    uses: Vec<usize>,
    /// Weights by node, and whether they are stored in 16 bits.
    weights: HashMap<(NodeId, bool), WeightId>,
    /// Codes of a value by what it is multiplied by, and their bits.
    codes: HashMap<(ValueId, NodeId, u8), Codes>,
}

/// The steps of a graph that the passes have optimised, f32 or with quantised layers; 16-bit floats are of `format`.
///
/// # Errors
/// The graph has an op, a size or an attribute for which there is no kernel; the error names it.
pub fn lower(graph: &Graph, format: Format) -> Result<Plan> {
    let plan = Plan { format, steps: vec![], values: vec![], weights: vec![], ids: vec![], outputs: vec![] };
    let (nodes, uses) = (Vec::with_capacity(graph.nodes().len()), graph.use_counts());
    let mut lowering = Lowering { graph, plan, nodes, uses, weights: HashMap::new(), codes: HashMap::new() };
    for (id, node) in graph.iter() {
        let lowered = lowering.node(id, node).map_err(|error| named(error, node))?;
        lowering.nodes.push(lowered);
    }
    for (name, id) in graph.outputs() {
        let value = match lowering.nodes[id.index()] {
            Lowered::Wide(value) => value,
            Lowered::Stored(view) => lowering.widened(view)?,
            Lowered::Later | Lowered::Ids(_) => return unsupported(format!("the output `{name}`, which is no result")),
        };
        lowering.plan.outputs.push(Output { name: name.clone(), value });
    }
    Ok(lowering.plan)
}

/// The error with the node's name.
fn named(error: CudaError, node: &Node) -> CudaError {
    if let CudaError::Unsupported(what) = error {
        return CudaError::Unsupported(format!("{what} (at {} `{}`)", node.op.name(), node.name));
    }
    error
}

impl Lowering<'_> {
    fn node(&mut self, id: NodeId, node: &Node) -> Result<Lowered> {
        match &node.op {
            Op::Input { dtype: DType::I64, .. } => Ok(Lowered::Ids(IdSource::Input(node.name.clone()))),
            Op::Constant(_) | Op::Dequantize => Ok(Lowered::Later),
            Op::Positions { offset, padding } => self.positions(node, *offset, *padding),
            Op::Embedding if self.sole_reader(id).is_some_and(is_plain_norm) => Ok(Lowered::Later),
            Op::Embedding => self.norm(id, node, None, id),
            Op::LayerNorm { epsilon, residual } => {
                let (gamma, beta) = (1 + usize::from(*residual), 2 + usize::from(*residual));
                let affine = [self.wide_weight(node.inputs[gamma])?, self.wide_weight(node.inputs[beta])?];
                self.norm(id, node, Some((affine, *epsilon)), node.inputs[0])
            }
            Op::Linear { bias, activation, residual } => self.linear(id, node, *bias, *activation, *residual),
            Op::QuantizedLinear { bits, bias, activation, residual } => {
                self.quantised(node, *bits, *bias, *activation, *residual)
            }
            Op::Slice { axis, start, end } if axis + 1 == node.fact.shape.len() => {
                let view = self.view(node.inputs[0])?;
                Ok(Lowered::Stored(View { first: view.first + start, columns: end - start, ..view }))
            }
            Op::Attention(attention) => self.attention(node, attention),
            Op::Pool(pooling) => self.pool(id, node, *pooling),
            Op::L2Normalize { .. } => match self.nodes[node.inputs[0].index()] {
                // The pooling before it has taken it in.
                Lowered::Wide(value) if self.is_pooled(node.inputs[0]) => Ok(Lowered::Wide(value)),
                Lowered::Later | Lowered::Ids(_) | Lowered::Stored(_) | Lowered::Wide(_) => {
                    unsupported("a normalisation that doesn't follow a pooling")
                }
            },
            Op::Input { .. }
            | Op::ShiftRight { .. }
            | Op::GroupQuantizedLinear { .. }
            | Op::GroupedLinear { .. }
            | Op::RmsNorm { .. }
            | Op::HeadNorm { .. }
            | Op::Activation(_)
            | Op::Gate { .. }
            | Op::CrossAttention(_)
            | Op::Rotary { .. }
            | Op::Select
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::MatMul
            | Op::Softmax
            | Op::Transpose { .. }
            | Op::Reshape { .. }
            | Op::Slice { .. }
            | Op::Concat { .. }
            | Op::Gather { .. }
            | Op::Reduce { .. }
            | Op::Where
            | Op::ToFloat
            | Op::GatherElements { .. }
            | Op::CumSum { .. }
            | Op::Expand { .. }
            | Op::Iota { .. }
            | Op::Pad
            | Op::Pack => unsupported(format!("the op {}", node.op.name())),
        }
    }

    /// The node that alone reads a value.
    fn sole_reader(&self, id: NodeId) -> Option<&Node> {
        let reads = |node: &&Node| node.inputs.contains(&id);
        self.graph.nodes().iter().find(reads).filter(|_| self.uses[id.index()] == 1)
    }

    fn positions(&self, node: &Node, offset: i64, padding: Option<i64>) -> Result<Lowered> {
        let padding = match (padding, node.inputs.first().map(|input| &self.nodes[input.index()])) {
            (None, _) => None,
            (Some(padding), Some(Lowered::Ids(IdSource::Input(name)))) => Some((padding, name.clone())),
            (Some(_), _) => return unsupported("positions of ids that are no input"),
        };
        Ok(Lowered::Ids(IdSource::Positions { offset, padding }))
    }

    /// A norm, or an embedding without one, of the value `x`.
    fn norm(&mut self, id: NodeId, node: &Node, affine: Option<([WeightId; 2], f32)>, x: NodeId) -> Result<Lowered> {
        let hidden = width(node)?;
        if !HIDDEN_SIZES.contains(&hidden) {
            return unsupported(format!("rows of {hidden} elements; there are kernels for {HIDDEN_SIZES:?}"));
        }
        let source = self.graph.node(x);
        let (x, tables) =
            if source.op == Op::Embedding && matches!(self.nodes.get(x.index()), None | Some(Lowered::Later)) {
                (None, self.tables(source)?)
            } else {
                (Some(self.matrix(x)?), Vec::new())
            };
        let residual = matches!(node.op, Op::LayerNorm { residual: true, .. }).then(|| self.matrix(node.inputs[1]));
        let residual = residual.transpose()?;
        let y = self.value(Rows::Tokens, hidden, 2);
        let quantisation = match self.quantised_reader(id) {
            Some((factor, bits)) => Some(self.quantisation(y, hidden, factor, bits)?),
            None => None,
        };
        let (affine, epsilon) = affine.map_or((None, 0.0), |(affine, epsilon)| (Some(affine), epsilon));
        self.plan.steps.push(Step::Norm { x, tables, residual, affine, epsilon, y, quantisation });
        Ok(stored_whole(y, hidden))
    }

    fn tables(&mut self, embedding: &Node) -> Result<Vec<(WeightId, IdsId)>> {
        if embedding.inputs.len() > 6 {
            return unsupported(format!("a sum of {} tables; there are kernels for 3", embedding.inputs.len() / 2));
        }
        let mut tables = Vec::new();
        for pair in embedding.inputs.chunks_exact(2) {
            let (table, ids) = (self.graph.node(pair[0]), pair[1]);
            let Lowered::Ids(source) = self.nodes[ids.index()].clone() else { return unsupported("computed ids") };
            let Some(limit) = table.fact.shape[0].constant() else { return unsupported("a table of unknown size") };
            let known = self.plan.ids.iter().position(|known| known.source == source);
            let ids = known.unwrap_or_else(|| {
                self.plan.ids.push(Ids { source, limit });
                self.plan.ids.len() - 1
            });
            self.plan.ids[ids].limit = self.plan.ids[ids].limit.min(limit);
            tables.push((self.stored_weight(pair[0])?, ids));
        }
        Ok(tables)
    }

    fn attention(&mut self, node: &Node, attention: &graph::Attention) -> Result<Lowered> {
        let graph::Attention { heads, kv_heads, head_dim, scale, soft_cap, causal, window, position, cache } =
            *attention;
        let plain = soft_cap.is_none() && !causal && window.is_none() && cache.is_none();
        if !plain || position != PositionScores::None {
            return unsupported("attention with a cap, a mask, a window, a cache or relative positions");
        }
        if !HEAD_DIMS.contains(&head_dim) {
            return unsupported(format!("heads of width {head_dim}; there are kernels for {HEAD_DIMS:?}"));
        }
        let mut views = Vec::with_capacity(3);
        for &input in &node.inputs[..3] {
            let view = self.view(input)?;
            if !view.first.is_multiple_of(8) || !self.plan.values[view.value].columns.is_multiple_of(8) {
                return unsupported("columns that don't begin at a multiple of 8");
            }
            views.push(view);
        }
        let (columns, group) = (heads * head_dim, heads / kv_heads.max(1));
        let y = self.value(Rows::Tokens, columns, 2);
        let [q, k, v] = [views[0], views[1], views[2]];
        self.plan.steps.push(Step::Attention { q, k, v, y, heads, group, head_dim, scale });
        Ok(stored_whole(y, columns))
    }

    fn pool(&mut self, id: NodeId, node: &Node, pooling: graph::Pooling) -> Result<Lowered> {
        let pooling = match pooling {
            graph::Pooling::Cls => Pooling::Cls,
            graph::Pooling::Mean => Pooling::Mean,
            graph::Pooling::Max => Pooling::Max,
            graph::Pooling::MeanSqrtLength => Pooling::MeanSqrtLength,
            graph::Pooling::WeightedMean => Pooling::WeightedMean,
            graph::Pooling::LastToken => Pooling::LastToken,
            graph::Pooling::LastEqual(_) => return unsupported("pooling of the last token of an id"),
        };
        let x = self.matrix(node.inputs[0])?;
        let y = self.value(Rows::Sequences, self.plan.values[x].columns, 4);
        let normalise = self.sole_reader(id).and_then(normalisation);
        self.plan.steps.push(Step::Pool { x, y, pooling, normalise });
        Ok(Lowered::Wide(y))
    }

    /// Whether a node is a pooling that took in the normalisation behind it.
    fn is_pooled(&self, id: NodeId) -> bool {
        matches!(self.graph.node(id).op, Op::Pool(_)) && self.sole_reader(id).and_then(normalisation).is_some()
    }

    fn widened(&mut self, view: View) -> Result<ValueId> {
        let columns = self.plan.values[view.value].columns;
        if view.columns != columns {
            return unsupported("an output of some columns of a matrix");
        }
        let y = self.value(Rows::Tokens, columns, 4);
        self.plan.steps.push(Step::Widen { x: view.value, y });
        Ok(y)
    }

    fn value(&mut self, rows: Rows, columns: usize, element_bytes: usize) -> ValueId {
        self.plan.values.push(Value { rows, columns, element_bytes });
        self.plan.values.len() - 1
    }

    /// A 16-bit result.
    fn view(&self, id: NodeId) -> Result<View> {
        match self.nodes[id.index()] {
            Lowered::Stored(view) => Ok(view),
            Lowered::Later | Lowered::Ids(_) | Lowered::Wide(_) => {
                unsupported(format!("`{}` as an operand here", self.graph.node(id).name))
            }
        }
    }

    /// A 16-bit result that is a matrix of its own.
    fn matrix(&self, id: NodeId) -> Result<ValueId> {
        let view = self.view(id)?;
        if view.columns == self.plan.values[view.value].columns {
            return Ok(view.value);
        }
        unsupported("some columns of a matrix as an operand here")
    }

    fn weight(&mut self, bytes: Vec<u8>) -> WeightId {
        self.plan.weights.push(bytes);
        self.plan.weights.len() - 1
    }

    fn stored_weight(&mut self, id: NodeId) -> Result<WeightId> {
        if let Some(known) = self.weights.get(&(id, true)) {
            return Ok(*known);
        }
        let bytes = stored(self.plan.format, &self.graph.node(id).name, &floats(self.graph, id)?)?;
        let weight = self.weight(bytes);
        self.weights.insert((id, true), weight);
        Ok(weight)
    }

    fn wide_weight(&mut self, id: NodeId) -> Result<WeightId> {
        if let Some(known) = self.weights.get(&(id, false)) {
            return Ok(*known);
        }
        let bytes = wide(&floats(self.graph, id)?);
        let weight = self.weight(bytes);
        self.weights.insert((id, false), weight);
        Ok(weight)
    }
}

fn stored_whole(value: ValueId, columns: usize) -> Lowered {
    Lowered::Stored(View { value, first: 0, columns })
}

fn is_plain_norm(node: &Node) -> bool {
    matches!(node.op, Op::LayerNorm { residual: false, .. })
}

fn normalisation(node: &Node) -> Option<f32> {
    if let Op::L2Normalize { epsilon } = node.op { Some(epsilon) } else { None }
}

/// Columns of a result that has a row for each token or sequence.
fn width(node: &Node) -> Result<usize> {
    let known = [Symbol::Tokens, Symbol::Sequences].map(Dim::from);
    match &node.fact.shape[..] {
        [rows, columns] if known.contains(rows) => match columns.constant() {
            Some(columns) => Ok(columns),
            None => unsupported("a matrix of unknown width"),
        },
        _ => unsupported(format!("a value {}, which is no matrix of tokens or sequences", node.fact)),
    }
}
