//! From an optimised graph to steps.

mod fp8;
mod linear;
mod operands;

use std::collections::HashMap;

use centuple_graph::{self as graph, Graph, Node, NodeId, Op, PositionScores};
use centuple_tensor::{DType, Dim, Symbol};

use linear::activation_of;
use operands::{floats, indices, stored, wide};

use super::{
    Affine, Codes, Content, IdSource, Ids, IdsId, Mark, MarkId, Output, Plan, SlotId, Step, Value, ValueId, View,
    WeightId, unsupported,
};
use crate::error::{CudaError, Result};
use crate::launch::Rows;
use crate::specialisation::{CONTENT_HEAD_DIM, Format, HEAD_DIMS, Pooling, head_tile, norm_room};

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
    /// Codes of a value.
    codes: HashMap<(ValueId, Coding), Codes>,
    /// Whether linear layers over tokens are to multiply e4m3 codes.
    fp8: bool,
    /// Such codes of weights, and their scales.
    fp8_weights: HashMap<NodeId, [WeightId; 2]>,
    results: Results,
}

/// What becomes of a graph's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Results {
    /// They are read.
    Outputs,
    /// They are the keys and values of one slot after the other.
    Pages,
}

/// How a value becomes codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Coding {
    /// Integers of so many bits, once columns are multiplied by a factor, and the bits of a range for all rows.
    Integers { factor: NodeId, bits: u8, range: Option<[u32; 2]> },
    /// 8-bit floats.
    E4m3,
}

/// The steps of a graph that the passes have optimised, f32 or with quantised layers; 16-bit floats are of `format`.
///
/// # Errors
/// The graph has an op, a size or an attribute for which there is no kernel; the error names it.
pub fn lower(graph: &Graph, format: Format) -> Result<Plan> {
    lower_to(graph, format, false, Results::Outputs)
}

/// The same, in which linear layers over tokens multiply e4m3 floats: rows with a scale per token, weights with one per column. Those
/// of outputs, and of sizes that are no multiples of 16, stay as they are.
///
/// # Errors
/// Those of [`lower`].
pub fn lower_fp8(graph: &Graph, format: Format) -> Result<Plan> {
    lower_to(graph, format, true, Results::Outputs)
}

/// The steps of the encoder in front of a decoder, in one of these ways: its outputs, keys and values `[Tokens, width]` of each slot of the
/// decoder in turn, go to the pages of their sequence.
///
/// # Errors
/// Those of [`lower`].
pub fn lower_encoder(graph: &Graph, format: Format, fp8: bool) -> Result<Plan> {
    lower_to(graph, format, fp8, Results::Pages)
}

fn lower_to(graph: &Graph, format: Format, fp8: bool, results: Results) -> Result<Plan> {
    let plan = Plan {
        format,
        steps: vec![],
        values: vec![],
        weights: vec![],
        ids: vec![],
        marks: vec![],
        outputs: vec![],
        slots: vec![],
    };
    let (nodes, uses) = (Vec::with_capacity(graph.nodes().len()), graph.use_counts());
    let mut lowering = Lowering {
        graph,
        plan,
        nodes,
        uses,
        weights: HashMap::new(),
        codes: HashMap::new(),
        fp8,
        fp8_weights: HashMap::new(),
        results,
    };
    for (id, node) in graph.iter() {
        let lowered = lowering.node(id, node).map_err(|error| named(error, node))?;
        lowering.nodes.push(lowered);
    }
    if results == Results::Pages {
        for (slot, pair) in graph.outputs().chunks(2).enumerate() {
            let [(_, k), (_, v)] = pair else { return unsupported("keys without values") };
            let [k, v] = [lowering.aligned_view(*k)?, lowering.aligned_view(*v)?];
            lowering.append(k, v, slot)?;
        }
        return Ok(lowering.plan);
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
            Op::Embedding if self.sole_reader(id).is_some_and(|reader| is_plain_norm(reader) || is_scaling(reader)) => {
                Ok(Lowered::Later)
            }
            Op::Embedding => self.norm(id, node, None, id, None, 1.0),
            Op::Binary(graph::Binary::Mul) => self.scaled(id, node),
            Op::Binary(graph::Binary::Add) if self.is_sum_of_rows(node) => {
                self.norm(id, node, None, node.inputs[0], Some(node.inputs[1]), 1.0)
            }
            Op::LayerNorm { epsilon, residual } => {
                let gamma = 1 + usize::from(*residual);
                let beta = Some(self.wide_weight(node.inputs[gamma + 1])?);
                let norm = Affine { gamma: self.wide_weight(node.inputs[gamma])?, beta, epsilon: *epsilon };
                self.norm(id, node, Some(norm), node.inputs[0], residual.then(|| node.inputs[1]), 1.0)
            }
            Op::RmsNorm { epsilon, residual } => {
                let gamma = self.wide_weight(node.inputs[1 + usize::from(*residual)])?;
                let norm = Affine { gamma, beta: None, epsilon: *epsilon };
                self.norm(id, node, Some(norm), node.inputs[0], residual.then(|| node.inputs[1]), 1.0)
            }
            Op::Linear { bias, activation, residual } if self.is_fp8(id, node) => {
                self.fp8(id, node, *bias, *activation, *residual)
            }
            Op::Linear { bias, activation, residual } => {
                let weight = self.stored_weight(node.inputs[1])?;
                self.linear(id, node, weight, bias.then_some(2), *activation, *residual)
            }
            Op::GroupQuantizedLinear { group, zero_points, bias, activation, residual, .. } => {
                self.group_quantised(id, node, *group, *zero_points, [*bias, *residual], *activation)
            }
            Op::QuantizedLinear { bits: _, range: _, bias, activation, residual } => {
                self.quantised(id, node, *bias, *activation, *residual)
            }
            Op::GroupedLinear { groups } => self.grouped(node, *groups),
            Op::Slice { axis, start, end } if axis + 1 == node.fact.shape.len() => {
                let view = self.view(node.inputs[0])?;
                Ok(Lowered::Stored(View { first: view.first + start, columns: end - start, ..view }))
            }
            Op::Attention(attention) => self.attention(node, attention),
            Op::CrossAttention(attention) => self.cross_attention(node, attention),
            Op::ShiftRight { first } => match &self.nodes[node.inputs[0].index()] {
                Lowered::Ids(IdSource::Input(input)) => {
                    Ok(Lowered::Ids(IdSource::ShiftRight { first: *first, input: input.clone() }))
                }
                Lowered::Ids(_) | Lowered::Later | Lowered::Stored(_) | Lowered::Wide(_) => {
                    unsupported("ids that are no input, one token later")
                }
            },
            Op::Rotary { heads, head_dim, interleaved } => self.rotary(node, *heads, *head_dim, *interleaved),
            Op::HeadNorm { heads, epsilon } => self.head_norm(node, *heads, *epsilon),
            Op::Activation(activation) => self.gate(node, *activation, false),
            Op::Gate { activation } => self.gate(node, *activation, true),
            Op::Select => {
                let (x, columns) = (self.matrix(node.inputs[0])?, width(node)?.1);
                if !columns.is_multiple_of(8) {
                    return unsupported(format!(
                        "selected rows of {columns} elements: they have to be a multiple of 8"
                    ));
                }
                let y = self.value(Rows::Selected, columns, 2);
                self.plan.steps.push(Step::Select { x, y });
                Ok(stored_whole(y, columns))
            }
            Op::Pool(pooling) => self.pool(id, node, *pooling),
            Op::L2Normalize { .. } => match self.nodes[node.inputs[0].index()] {
                // The pooling before it has taken it in.
                Lowered::Wide(value) if self.is_pooled(node.inputs[0]) => Ok(Lowered::Wide(value)),
                Lowered::Later | Lowered::Ids(_) | Lowered::Stored(_) | Lowered::Wide(_) => {
                    unsupported("a normalisation that doesn't follow a pooling")
                }
            },
            Op::Input { .. }
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

    /// Whether it adds two matrices of a size.
    fn is_sum_of_rows(&self, node: &Node) -> bool {
        let [a, b] = [node.inputs[0], node.inputs[1]].map(|input| &self.graph.node(input).fact);
        a == b && *a == node.fact
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
    fn norm(
        &mut self,
        id: NodeId,
        node: &Node,
        norm: Option<Affine>,
        x: NodeId,
        residual: Option<NodeId>,
        scale: f32,
    ) -> Result<Lowered> {
        let (rows, hidden) = width(node)?;
        if let (Some(norm), Some(Lowered::Wide(x)), None) = (norm, self.nodes.get(x.index()), residual) {
            let x = *x;
            let y = self.value(rows, hidden, 4);
            self.plan.steps.push(Step::WideNorm { x, norm, y });
            return Ok(Lowered::Wide(y));
        }
        norm_room(hidden)?;
        let source = self.graph.node(x);
        let (x, tables) =
            if source.op == Op::Embedding && matches!(self.nodes.get(x.index()), None | Some(Lowered::Later)) {
                (None, self.tables(source)?)
            } else {
                (Some(self.matrix(x)?), Vec::new())
            };
        let residual = residual.map(|residual| self.matrix(residual)).transpose()?;
        let y = self.value(rows, hidden, 2);
        let quantisation = self.coded_reader(id).map(|coding| self.quantisation(y, coding)).transpose()?;
        self.plan.steps.push(Step::Norm { x, tables, residual, scale, norm, y, quantisation });
        Ok(stored_whole(y, hidden))
    }

    fn tables(&mut self, embedding: &Node) -> Result<Vec<(WeightId, IdsId)>> {
        if embedding.inputs.len() > 6 {
            return unsupported(format!("a sum of {} tables; there are kernels for 3", embedding.inputs.len() / 2));
        }
        let mut tables = Vec::new();
        for pair in embedding.inputs.chunks_exact(2) {
            let ids = self.rows_of(pair[0], pair[1])?;
            tables.push((self.stored_weight(pair[0])?, ids));
        }
        Ok(tables)
    }

    /// Ids by which rows of a table are looked up.
    fn rows_of(&mut self, table: NodeId, ids: NodeId) -> Result<IdsId> {
        let Lowered::Ids(source) = self.nodes[ids.index()].clone() else { return unsupported("computed ids") };
        let Some(limit) = self.graph.node(table).fact.shape[0].constant() else {
            return unsupported("a table of unknown size");
        };
        let known = self.plan.ids.iter().position(|known| known.source == source);
        let ids = known.unwrap_or_else(|| {
            self.plan.ids.push(Ids { source, limit });
            self.plan.ids.len() - 1
        });
        self.plan.ids[ids].limit = self.plan.ids[ids].limit.min(limit);
        Ok(ids)
    }

    fn attention(&mut self, node: &Node, attention: &graph::Attention) -> Result<Lowered> {
        let graph::Attention { heads, kv_heads, head_dim, scale, soft_cap, causal, window, position, cache } =
            *attention;
        check_heads(head_dim)?;
        let content = self.content(node, attention)?;
        let distances = match position {
            PositionScores::None | PositionScores::Disentangled { .. } => None,
            PositionScores::Bias => {
                let table = floats(self.graph, node.inputs[3])?;
                let farthest = (table.len() / heads.max(1)).saturating_sub(1) / 2;
                let scaled: Vec<f32> = table.iter().map(|score| score * std::f32::consts::LOG2_E).collect();
                Some((self.weight(wide(&scaled)), farthest))
            }
        };
        let mut views = Vec::with_capacity(3);
        for &input in &node.inputs[..3] {
            views.push(self.aligned_view(input)?);
        }
        let (columns, group) = (heads * head_dim, heads / kv_heads.max(1));
        let y = self.value(Rows::Tokens, columns, 2);
        let [q, k, v] = [views[0], views[1], views[2]];
        if let Some(slot) = cache {
            self.append(k, v, slot)?;
        }
        self.plan.steps.push(Step::Attention {
            q,
            k,
            v,
            y,
            heads,
            group,
            head_dim,
            scale,
            soft_cap,
            causal,
            window,
            distances,
            content,
            cache,
        });
        Ok(stored_whole(y, columns))
    }

    fn cross_attention(&mut self, node: &Node, attention: &graph::CrossAttention) -> Result<Lowered> {
        let graph::CrossAttention { heads, head_dim, scale, slot } = *attention;
        check_heads(head_dim)?;
        let columns = heads * head_dim;
        self.slot(slot, columns)?;
        let (q, y) = (self.aligned_view(node.inputs[0])?, self.value(Rows::Tokens, columns, 2));
        self.plan.steps.push(Step::CrossAttention { q, y, heads, head_dim, scale, slot });
        Ok(stored_whole(y, columns))
    }

    /// New keys and values to the pages of a slot.
    fn append(&mut self, k: View, v: View, slot: SlotId) -> Result<()> {
        self.slot(slot, k.columns)?;
        self.plan.steps.push(Step::Append { k, v, slot });
        Ok(())
    }

    /// A slot of the cache for keys, and values, of so many columns.
    fn slot(&mut self, slot: SlotId, columns: usize) -> Result<()> {
        let slots = self.plan.slots.len().max(slot + 1);
        self.plan.slots.resize(slots, 0);
        if ![0, columns].contains(&self.plan.slots[slot]) {
            return unsupported(format!("keys of {columns} columns beside others of {}", self.plan.slots[slot]));
        }
        self.plan.slots[slot] = columns;
        Ok(())
    }

    /// Rows times a number.
    fn scaled(&mut self, id: NodeId, node: &Node) -> Result<Lowered> {
        let [x, factor] = [node.inputs[0], node.inputs[1]];
        if !matches!(self.graph.node(factor).op, Op::Constant(_)) {
            return unsupported("a product of values");
        }
        let [scale] = floats(self.graph, factor)?[..] else { return unsupported("a product of columns") };
        self.norm(id, node, None, x, None, scale)
    }

    /// Scores of content and position, where an attention has them.
    fn content(&mut self, node: &Node, attention: &graph::Attention) -> Result<Option<Content>> {
        let PositionScores::Disentangled { content_to_position, position_to_content } = attention.position else {
            return Ok(None);
        };
        if attention.cache.is_some() || attention.head_dim > CONTENT_HEAD_DIM {
            return unsupported(format!(
                "scores of content and position with a cache, or of heads of more than {CONTENT_HEAD_DIM} columns"
            ));
        }
        let mut values = Vec::with_capacity(2);
        for &input in &node.inputs[3..node.inputs.len() - 1] {
            values.push(self.matrix(input)?);
        }
        let by_query = if content_to_position { values.first().copied() } else { None };
        let by_key = if position_to_content { values.last().copied() } else { None };
        let columns = values.first().map_or(0, |&value| self.plan.values[value].columns);
        let buckets = columns / attention.heads.max(1);
        let bucket_of = indices(self.graph, node.inputs[node.inputs.len() - 1], buckets)?;
        let farthest = (bucket_of.len() / size_of::<i32>()).saturating_sub(1) / 2;
        Ok(Some(Content { by_query, by_key, buckets, bucket_of: self.weight(bucket_of), farthest }))
    }

    fn rotary(&mut self, node: &Node, heads: usize, head_dim: usize, interleaved: bool) -> Result<Lowered> {
        let (rows, columns) = width(node)?;
        let [x, positions, table] = [node.inputs[0], node.inputs[1], node.inputs[2]];
        let rotated = self.graph.node(table).fact.shape[1].constant().unwrap_or(0);
        if !head_dim.is_multiple_of(8) || !rotated.is_multiple_of(4) || rotated == 0 {
            return unsupported(format!("{rotated} rotated columns of heads of width {head_dim}"));
        }
        let (x, positions, table) = (self.aligned_view(x)?, self.rows_of(table, positions)?, self.wide_weight(table)?);
        let y = self.value(rows, columns, 2);
        self.plan.steps.push(Step::Rotary { x, positions, table, rotated, interleaved, y, heads, head_dim });
        Ok(stored_whole(y, columns))
    }

    fn head_norm(&mut self, node: &Node, heads: usize, epsilon: f32) -> Result<Lowered> {
        let (rows, columns) = width(node)?;
        let (x, gamma) = (self.view(node.inputs[0])?, self.wide_weight(node.inputs[1])?);
        let (y, head_dim) = (self.value(rows, columns, 2), columns / heads.max(1));
        self.plan.steps.push(Step::HeadNorm { x, gamma, epsilon, y, heads, head_dim });
        Ok(stored_whole(y, columns))
    }

    /// An activation function of one value, times another one.
    fn gate(&mut self, node: &Node, activation: graph::Activation, gated: bool) -> Result<Lowered> {
        let (rows, columns) = width(node)?;
        let activation = activation_of(Some(activation))?;
        let a = self.aligned_view(node.inputs[0])?;
        let b = if gated { Some(self.aligned_view(node.inputs[1])?) } else { None };
        if !columns.is_multiple_of(8) {
            return unsupported(format!("{columns} columns: they have to be a multiple of 8"));
        }
        let y = self.value(rows, columns, 2);
        self.plan.steps.push(Step::Gate { a, b, activation, y });
        Ok(stored_whole(y, columns))
    }

    fn pool(&mut self, id: NodeId, node: &Node, pooling: graph::Pooling) -> Result<Lowered> {
        let mut mark = None;
        let pooling = match pooling {
            graph::Pooling::Cls => Pooling::Cls,
            graph::Pooling::Mean => Pooling::Mean,
            graph::Pooling::Max => Pooling::Max,
            graph::Pooling::MeanSqrtLength => Pooling::MeanSqrtLength,
            graph::Pooling::WeightedMean => Pooling::WeightedMean,
            graph::Pooling::LastToken => Pooling::LastToken,
            graph::Pooling::LastEqual(last) => {
                mark = Some(self.mark(node.inputs[1], last)?);
                Pooling::Token
            }
        };
        let x = self.matrix(node.inputs[0])?;
        let y = self.value(Rows::Sequences, self.plan.values[x].columns, 4);
        let normalise = self.sole_reader(id).and_then(normalisation);
        self.plan.steps.push(Step::Pool { x, y, pooling, mark, normalise });
        Ok(Lowered::Wide(y))
    }

    /// The last tokens of an id.
    fn mark(&mut self, ids: NodeId, id: i64) -> Result<MarkId> {
        let Lowered::Ids(IdSource::Input(input)) = self.nodes[ids.index()].clone() else {
            return unsupported("pooling by ids that are no input");
        };
        self.plan.marks.push(Mark { input, id });
        Ok(self.plan.marks.len() - 1)
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
        let y = self.value(self.plan.values[view.value].rows, columns, 4);
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

    /// A 16-bit result whose columns begin at multiples of 8.
    fn aligned_view(&self, id: NodeId) -> Result<View> {
        let view = self.view(id)?;
        if view.first.is_multiple_of(8) && self.plan.values[view.value].columns.is_multiple_of(8) {
            return Ok(view);
        }
        unsupported("columns that don't begin at a multiple of 8")
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

    /// A weight in 16 bits.
    fn stored(&mut self, name: &str, floats: &[f32]) -> Result<WeightId> {
        let bytes = stored(self.plan.format, name, floats)?;
        Ok(self.weight(bytes))
    }

    fn stored_weight(&mut self, id: NodeId) -> Result<WeightId> {
        if let Some(known) = self.weights.get(&(id, true)) {
            return Ok(*known);
        }
        let weight = self.stored(&self.graph.node(id).name, &floats(self.graph, id)?)?;
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

/// Whether it multiplies rows by what may be a number.
fn is_scaling(node: &Node) -> bool {
    node.op == Op::Binary(graph::Binary::Mul)
}

fn is_plain_norm(node: &Node) -> bool {
    matches!(node.op, Op::LayerNorm { residual: false, .. } | Op::RmsNorm { residual: false, .. })
}

fn normalisation(node: &Node) -> Option<f32> {
    if let Op::L2Normalize { epsilon } = node.op { Some(epsilon) } else { None }
}

/// Refuses heads that there is no kernel for.
fn check_heads(head_dim: usize) -> Result<()> {
    if head_tile(head_dim).is_some() {
        return Ok(());
    }
    let widest = HEAD_DIMS[HEAD_DIMS.len() - 1];
    unsupported(format!("heads of {head_dim} columns: they have to be a multiple of 8, at most {widest}"))
}

/// What a result has a row for, and its columns.
fn width(node: &Node) -> Result<(Rows, usize)> {
    let [rows, columns] = &node.fact.shape[..] else {
        return unsupported(format!("a value {}, which is no matrix", node.fact));
    };
    let kinds =
        [(Symbol::Tokens, Rows::Tokens), (Symbol::Sequences, Rows::Sequences), (Symbol::Selected, Rows::Selected)];
    let kind = kinds.into_iter().find_map(|(symbol, kind)| (*rows == Dim::from(symbol)).then_some(kind));
    match (kind, columns.constant()) {
        (Some(kind), Some(columns)) => Ok((kind, columns)),
        _ => unsupported(format!("a value {}, which is no matrix of tokens or sequences", node.fact)),
    }
}
