//! Lowering: from a graph to a plan.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use centuple_graph::{Attention, Graph, Node, NodeId, Op, Pooling, PositionScores};
use centuple_kernels::{ActivationBits, Isa, RowCodes, quantized_columns, row_stride};
use centuple_tensor::{Buffer, DType, Dim, Shape, Symbol, Tensor};

use crate::error::{Result, RuntimeError};
use crate::kv_cache::CacheSlot;
use crate::memory;
use crate::plan::{
    DerivedIds, IdRule, Ids, Input, Kernel, Operand, Output, PackedCodes, PackedNibbles, Place, Plan, PositionTables,
    Primitive, Quantized, Rotary, RowOperand, Stage, Table, Value, View,
};
use crate::steps;
use crate::store::Weights;
use crate::weights::{Unpacked, WeightsBuilder};

/// Compiles a graph for an instruction set: packs its weights, orders its stages, lays out its memory.
///
/// # Errors
/// The graph asks for something that has no kernel.
pub fn lower(graph: &Graph, isa: Isa) -> Result<Plan> {
    compile(graph, isa, WeightsBuilder::finish)
}

/// Compiles a graph whose constants are only declared, with the weights that [`Plan::write_weights`] has written for it.
///
/// Whatever `file` holds, the plan reads nothing outside of its memory; whether the numbers are the ones that were written
/// is for the caller to check.
///
/// # Errors
/// As for [`lower`]; or `file` cannot be read, or is not what the graph asks for.
pub fn lower_stored(graph: &Graph, isa: Isa, file: &mut dyn Read) -> Result<Plan> {
    compile(graph, isa, |weights| weights.read(file))
}

/// The same, and the graph with the elements that the file holds of its constants, for what computes otherwise than a plan.
/// Constants that the plan doesn't use stay declared.
///
/// # Errors
/// As for [`lower_stored`].
pub fn restore(graph: &Graph, isa: Isa, file: &mut dyn Read) -> Result<(Plan, Graph)> {
    let mut unpacked = Unpacked::default();
    let plan = compile(graph, isa, |weights| {
        let buffer = weights.read(file)?;
        unpacked = weights.unpacked(&buffer)?;
        Ok(buffer)
    })?;
    let mut restored = Graph::new();
    for (id, node) in graph.iter() {
        let found = graph.constant_of(id).and_then(|declared| unpacked.get(declared));
        let op = found.map_or_else(|| node.op.clone(), |tensor| Op::Constant(tensor.clone()));
        restored
            .push(node.name.clone(), op, &node.inputs)
            .map_err(|error| RuntimeError::Unsupported { node: node.name.clone(), reason: error.to_string() })?;
    }
    graph.outputs().iter().for_each(|(name, id)| restored.output(name, *id));
    Ok((plan, restored))
}

fn compile(graph: &Graph, isa: Isa, fill: impl FnOnce(WeightsBuilder) -> Result<Buffer>) -> Result<Plan> {
    let mut lowering = Lowering {
        graph,
        contiguous: contiguous_values(graph),
        pooled: pooled_layers(graph),
        lowered: HashMap::new(),
        quantized: HashMap::new(),
        weights: WeightsBuilder::default(),
        inputs: Vec::new(),
        derived: Vec::new(),
        values: Vec::new(),
        stages: Vec::new(),
        cache_slots: Vec::new(),
    };
    for (id, node) in graph.iter() {
        let lowered = lowering.node(id, node)?;
        lowering.lowered.insert(id, lowered);
    }
    let mut outputs = Vec::new();
    for (name, id) in graph.outputs() {
        let view = lowering.view(*id)?;
        outputs.push(Output { name: name.clone(), view, shape: graph.node(*id).fact.shape.clone() });
    }
    let Lowering { weights, inputs, derived, mut values, stages, cache_slots, .. } = lowering;
    let mut phases = memory::phases(&stages);
    let pinned: Vec<usize> = outputs
        .iter()
        .map(|output: &Output| output.view.value)
        .chain(inputs.iter().filter_map(|input: &Input| input.value))
        .collect();
    let (slots, local_stride) = memory::place(&mut values, &stages, &mut phases, &pinned);
    let parts = weights.parts();
    let weights = Arc::new(Weights::own(fill(weights)?));
    let plan = Plan {
        isa,
        inputs,
        derived,
        outputs,
        values,
        stages,
        phases,
        slots,
        local_stride,
        weights,
        parts,
        cache_slots,
        padded: graph.nodes().iter().any(|node| node.fact.shape.iter().any(|dim| dim.depends_on(Symbol::Sequence))),
    };
    memory::check(&plan)?;
    steps::check(&plan)?;
    Ok(plan)
}

/// What a node has become.
#[derive(Clone, Debug)]
enum Lowered {
    /// Floats in the arena.
    View(View),
    /// Ids that only embeddings and gathers read.
    Ids(Ids),
    /// A linear layer that is computed by the pooling that reads it.
    Pooled(Box<Kernel>),
    /// A constant, laid out by each of its readers in its own way.
    Constant,
}

/// What tells quantised rows apart: their value, factors, form and the bits of their range.
type QuantizedKey = (NodeId, Option<NodeId>, RowCodes, Option<[u32; 2]>);

struct Lowering<'a> {
    graph: &'a Graph,
    /// By node: whether a primitive op reads it, so that rows must have no gaps.
    contiguous: Vec<bool>,
    /// By node: whether it is a wide layer that is only pooled.
    pooled: Vec<bool>,
    lowered: HashMap<NodeId, Lowered>,
    quantized: HashMap<QuantizedKey, View>,
    weights: WeightsBuilder,
    inputs: Vec<Input>,
    derived: Vec<DerivedIds>,
    values: Vec<Value>,
    stages: Vec<Stage>,
    cache_slots: Vec<CacheSlot>,
}

/// Nodes whose value a primitive op reads.
fn contiguous_values(graph: &Graph) -> Vec<bool> {
    let mut contiguous = vec![false; graph.nodes().len()];
    for node in graph.nodes().iter().rev() {
        let row_wise = matches!(
            node.op,
            Op::Linear { .. }
                | Op::QuantizedLinear { .. }
                | Op::GroupQuantizedLinear { .. }
                | Op::GroupedLinear { .. }
                | Op::LayerNorm { .. }
                | Op::RmsNorm { .. }
                | Op::HeadNorm { .. }
                | Op::Gate { .. }
                | Op::Select
                | Op::Attention(_)
                | Op::CrossAttention(_)
                | Op::Rotary { .. }
                | Op::Pool(_)
                | Op::L2Normalize { .. }
                | Op::Embedding
                | Op::Slice { .. }
                | Op::Activation(_)
        ) || is_column_concat(node)
            || is_row_wise_arithmetic(graph, node)
            || right_matrix(graph, node).is_some();
        if !row_wise {
            node.inputs.iter().for_each(|input| contiguous[input.index()] = true);
        }
    }
    contiguous
}

/// Columns from which a layer's results are only kept as far as they are needed.
const WIDE: usize = 4096;

/// Wide linear layers of which only the largest results of each sequence are read.
fn pooled_layers(graph: &Graph) -> Vec<bool> {
    let mut pooled = vec![false; graph.nodes().len()];
    let uses = graph.use_counts();
    for node in graph.nodes().iter().filter(|node| node.op == Op::Pool(Pooling::Max)) {
        let id = node.inputs[0];
        let layer = graph.node(id);
        let plain = matches!(
            layer.op,
            Op::Linear { residual: false, .. }
                | Op::QuantizedLinear { residual: false, .. }
                | Op::GroupQuantizedLinear { residual: false, .. }
        );
        let wide = last(&layer.fact.shape).is_some_and(|columns| columns >= WIDE);
        pooled[id.index()] = plain && wide && uses[id.index()] == 1;
    }
    pooled
}

/// Whether the node joins columns of matrices, which is a row-wise stage.
fn is_column_concat(node: &Node) -> bool {
    matches!(node.op, Op::Concat { axis } if axis + 1 == node.fact.shape.len() && last(&node.fact.shape).is_some())
}

/// Whether the node is an operation on numbers that can be computed row by row.
fn is_row_wise_arithmetic(graph: &Graph, node: &Node) -> bool {
    matches!(node.op, Op::Unary(_) | Op::Binary(_))
        && last(&node.fact.shape).is_some()
        && node.inputs.iter().all(|&input| spread(graph, input, &node.fact.shape).is_some())
}

/// The constant matrix `[K, N]` on the right of a product.
fn right_matrix<'a>(graph: &'a Graph, node: &Node) -> Option<&'a Tensor> {
    let right = node.inputs.get(1).filter(|_| node.op == Op::MatMul)?;
    graph.constant_of(*right).filter(|tensor| tensor.dtype() == DType::F32 && tensor.shape().len() == 2)
}

/// What an operand is for each row of a result.
enum Spread {
    /// A row of its own.
    Rows,
    /// The same constant row.
    Row,
    /// The same constant number.
    Number,
}

/// How an operand is spread over rows of the given shape; `None` where they depend on it in another way.
fn spread(graph: &Graph, operand: NodeId, shape: &[Dim]) -> Option<Spread> {
    let fact = &graph.node(operand).fact;
    if fact.shape == shape {
        return Some(Spread::Rows);
    }
    let constant = graph.constant_of(operand)?;
    match constant.len() {
        1 => Some(Spread::Number),
        length if last(&fact.shape) == Some(length) && last(shape) == Some(length) => Some(Spread::Row),
        _ => None,
    }
}

/// The constant last dimension.
fn last(shape: &[Dim]) -> Option<usize> {
    shape.last()?.constant()
}

/// Rows of a tensor seen as a matrix over its last dimension.
fn rows(shape: &[Dim]) -> Dim {
    shape.iter().take(shape.len().saturating_sub(1)).cloned().fold(Dim::from(1), |product, dim| product * dim)
}

impl Lowering<'_> {
    fn node(&mut self, id: NodeId, node: &Node) -> Result<Lowered> {
        match &node.op {
            Op::Input { dtype, shape } => self.input(node, *dtype, shape),
            Op::Constant(_) => Ok(Lowered::Constant),
            Op::Positions { offset, padding: Some(padding) } => {
                self.derive(node, IdRule::Ranks { offset: *offset, padding: *padding })
            }
            Op::ShiftRight { first } => self.derive(node, IdRule::Shifted { first: *first }),
            Op::Positions { offset, padding: None } => Ok(Lowered::Ids(Ids::Positions { offset: *offset })),
            Op::Embedding => {
                let tables = node.inputs.chunks_exact(2).map(|pair| self.table(node, pair)).collect::<Result<_>>()?;
                self.stage(id, node, Kernel::Embedding { tables })
            }
            Op::Linear { bias, activation, residual } => {
                let x = self.view(node.inputs[0])?;
                let (name, weight) = self.constant(node, 1)?;
                let weight = self.weights.packed(name, weight)?;
                let bias_at = if *bias { Some(self.floats(node, 2)?) } else { None };
                let residual_at = 2 + usize::from(*bias);
                let residual = if *residual { Some(self.view(node.inputs[residual_at])?) } else { None };
                let kernel = Kernel::Linear { x, weight, bias: bias_at, activation: *activation, residual };
                self.stage(id, node, kernel)
            }
            Op::QuantizedLinear { bits, range, bias, activation, residual } => {
                let x = self.quantized(node, Some(3), activation_bits(node, *bits)?.into(), *range)?;
                let weight = self.codes(node, *bits)?;
                let bias_at = if *bias { Some(self.floats(node, 4)?) } else { None };
                let residual_at = 4 + usize::from(*bias);
                let residual = if *residual { Some(self.view(node.inputs[residual_at])?) } else { None };
                let kernel = Kernel::QuantizedLinear { x, weight, bias: bias_at, activation: *activation, residual };
                self.stage(id, node, kernel)
            }
            Op::GroupQuantizedLinear { bits: _, group, zero_points, bias, activation, residual } => {
                let x = self.quantized(node, None, RowCodes::Groups(*group), None)?;
                let weight = self.nibbles(node, *group, *zero_points)?;
                let rest = 3 + usize::from(*zero_points);
                let bias_at = if *bias { Some(self.floats(node, rest)?) } else { None };
                let residual_at = rest + usize::from(*bias);
                let residual = if *residual { Some(self.view(node.inputs[residual_at])?) } else { None };
                let activation = *activation;
                self.stage(id, node, Kernel::GroupQuantizedLinear { x, weight, bias: bias_at, activation, residual })
            }
            // Laid out by the embedding that reads it.
            Op::Dequantize => Ok(Lowered::Constant),
            Op::LayerNorm { epsilon, residual } => {
                let x = self.view(node.inputs[0])?;
                let first = 1 + usize::from(*residual);
                let residual = if *residual { Some(self.view(node.inputs[1])?) } else { None };
                let (gamma, beta) = (self.floats(node, first)?, self.floats(node, first + 1)?);
                self.stage(id, node, Kernel::LayerNorm { x, residual, gamma, beta, epsilon: *epsilon, quantized: None })
            }
            Op::RmsNorm { epsilon, residual } => {
                let x = self.view(node.inputs[0])?;
                let gamma = self.floats(node, 1 + usize::from(*residual))?;
                let residual = if *residual { Some(self.view(node.inputs[1])?) } else { None };
                self.stage(id, node, Kernel::RmsNorm { x, residual, gamma, epsilon: *epsilon, quantized: None })
            }
            Op::HeadNorm { heads, epsilon } => {
                let (x, gamma) = (self.view(node.inputs[0])?, self.floats(node, 1)?);
                self.stage(id, node, Kernel::HeadNorm { x, heads: *heads, gamma, epsilon: *epsilon })
            }
            Op::Gate { activation } => {
                let (a, b) = (self.view(node.inputs[0])?, self.view(node.inputs[1])?);
                self.stage(id, node, Kernel::Gate { a, b, activation: *activation, quantized: None })
            }
            Op::Activation(activation) if last(&node.fact.shape).is_some() => {
                let kernel = Kernel::Activation { x: self.view(node.inputs[0])?, activation: *activation };
                self.stage(id, node, kernel)
            }
            Op::Activation(activation) => self.primitive(node, Primitive::Activation(*activation)),
            Op::Attention(attention) => {
                let [q, k, v] = [0, 1, 2].map(|operand| self.view(node.inputs[operand]));
                let (q, k, v) = (q?, k?, v?);
                if let Some(slot) = attention.cache {
                    self.append(node, k, v, slot, attention);
                }
                let position = self.position_tables(node, attention)?;
                self.stage(id, node, Kernel::Attention { q, k, v, attention: attention.clone(), position })
            }
            Op::CrossAttention(attention) => {
                let q = self.view(node.inputs[0])?;
                self.keep(attention.slot, attention.heads, attention.head_dim);
                self.stage(id, node, Kernel::CrossAttention { q, attention: attention.clone() })
            }
            Op::GroupedLinear { groups } => {
                let x = self.view(node.inputs[0])?;
                let (name, weight) = self.constant(node, 1)?;
                let weight = self.weights.packed_groups(name, weight)?;
                self.stage(id, node, Kernel::GroupedLinear { x, weight, groups: *groups })
            }
            Op::Rotary { heads: _, head_dim, interleaved } => {
                let x = self.view(node.inputs[0])?;
                let (positions, offset) = (self.ids(node, 1)?, self.floats(node, 2)?);
                let (_, table) = self.constant(node, 2)?;
                let (rows, columns) = (table.shape()[0], table.shape()[1]);
                let (head_dim, interleaved) = (*head_dim, *interleaved);
                let rotary = Rotary { offset, rows, columns, head_dim, interleaved, positions };
                self.stage(id, node, Kernel::Rotary { x, rotary })
            }
            Op::Pool(Pooling::Max) if self.pooled[node.inputs[0].index()] => {
                let Some(Lowered::Pooled(linear)) = self.lowered.get(&node.inputs[0]).cloned() else {
                    return Err(unsupported(node, "pools what was not lowered"));
                };
                self.stage(id, node, Kernel::PooledLinear { linear })
            }
            Op::Pool(pooling) => {
                let ids = if node.inputs.len() > 1 { Some(self.ids(node, 1)?) } else { None };
                let kernel = Kernel::Pool { x: self.view(node.inputs[0])?, pooling: *pooling, ids };
                self.stage(id, node, kernel)
            }
            Op::Select => {
                let kernel = Kernel::Select { x: self.view(node.inputs[0])? };
                self.stage(id, node, kernel)
            }
            Op::L2Normalize { epsilon } => {
                let kernel = Kernel::L2Normalize { x: self.view(node.inputs[0])?, epsilon: *epsilon };
                self.stage(id, node, kernel)
            }
            Op::Slice { axis, start, end } => self.slice(id, node, *axis, *start, *end),
            Op::Concat { .. } if is_column_concat(node) => {
                let parts = node.inputs.iter().map(|&input| self.view(input)).collect::<Result<_>>()?;
                self.stage(id, node, Kernel::Columns { parts })
            }
            Op::Reshape { shape } => {
                let operand = self.operand(node, 0)?;
                Ok(Lowered::View(reinterpreted(operand.view, shape)))
            }
            Op::Unary(unary) if is_row_wise_arithmetic(self.graph, node) => {
                let kernel = Kernel::Unary { x: self.view(node.inputs[0])?, unary: *unary };
                self.stage(id, node, kernel)
            }
            Op::Binary(binary) if is_row_wise_arithmetic(self.graph, node) => {
                let (a, b) = (self.row_operand(node, 0)?, self.row_operand(node, 1)?);
                self.stage(id, node, Kernel::Binary { binary: *binary, a, b })
            }
            Op::Unary(unary) => self.primitive(node, Primitive::Unary(*unary)),
            Op::Binary(binary) => self.primitive(node, Primitive::Binary(*binary)),
            Op::MatMul => match right_matrix(self.graph, node) {
                Some(matrix) => {
                    let x = self.view(node.inputs[0])?;
                    let (name, _) = self.constant(node, 1)?;
                    let weight = self.weights.packed_right(name, matrix)?;
                    self.stage(id, node, Kernel::Linear { x, weight, bias: None, activation: None, residual: None })
                }
                None => self.primitive(node, Primitive::MatMul),
            },
            Op::Softmax => self.primitive(node, Primitive::Softmax),
            Op::Transpose { perm } => self.primitive(node, Primitive::Transpose { perm: perm.clone() }),
            Op::Concat { axis } => self.primitive(node, Primitive::Concat { axis: *axis }),
            Op::Reduce { reduction, axes } => {
                self.primitive(node, Primitive::Reduce { reduction: *reduction, axes: axes.clone() })
            }
            Op::Where => self.primitive(node, Primitive::Where),
            Op::Gather { axis } => match self.graph.node(node.inputs[1]).fact.dtype {
                DType::F32 => self.primitive(node, Primitive::Gather { axis: *axis, ids: None }),
                DType::F16 | DType::BF16 | DType::I8 | DType::I64 => {
                    let ids = Some(self.ids(node, 1)?);
                    let operands = vec![self.operand(node, 0)?];
                    self.primitive_over(node, Primitive::Gather { axis: *axis, ids }, operands)
                }
            },
            Op::ToFloat => {
                let ids = self.ids(node, 0)?;
                self.primitive_over(node, Primitive::ToFloat { ids }, Vec::new())
            }
            Op::GatherElements { axis } => self.primitive(node, Primitive::GatherElements { axis: *axis }),
            Op::CumSum { axis } => self.primitive(node, Primitive::CumSum { axis: *axis }),
            Op::Expand { .. } => self.primitive(node, Primitive::Expand),
            Op::Iota { .. } => self.primitive(node, Primitive::Iota),
            Op::Pad => self.primitive(node, Primitive::Pad),
            Op::Pack => self.primitive(node, Primitive::Pack),
        }
    }

    fn input(&mut self, node: &Node, dtype: DType, shape: &Shape) -> Result<Lowered> {
        let index = self.inputs.len();
        let (value, lowered) = match dtype {
            DType::I64 => (None, Lowered::Ids(Ids::Input(index))),
            DType::F32 => {
                let view = self.value(shape, true);
                (Some(view.value), Lowered::View(view))
            }
            DType::F16 | DType::BF16 | DType::I8 => return Err(unsupported(node, format!("inputs of type {dtype}"))),
        };
        self.inputs.push(Input { name: node.name.clone(), dtype, shape: shape.clone(), value });
        Ok(lowered)
    }

    /// A stage over the rows of the node's result; later, where that is only pooled.
    fn stage(&mut self, id: NodeId, node: &Node, kernel: Kernel) -> Result<Lowered> {
        if self.pooled[id.index()] {
            return Ok(Lowered::Pooled(Box::new(kernel)));
        }
        let view = self.value(&node.fact.shape, self.contiguous[id.index()]);
        self.stages.push(Stage { name: node.name.clone(), rows: rows(&node.fact.shape), kernel, out: Some(view) });
        Ok(Lowered::View(view))
    }

    /// Sets a slot of the cache aside.
    fn keep(&mut self, slot: usize, heads: usize, head_dim: usize) {
        if self.cache_slots.len() <= slot {
            self.cache_slots.resize(slot + 1, CacheSlot::default());
        }
        self.cache_slots[slot] = CacheSlot { heads, head_dim };
    }

    fn append(&mut self, node: &Node, k: View, v: View, slot: usize, attention: &Attention) {
        self.keep(slot, attention.kv_heads, attention.head_dim);
        let (name, rows) = (format!("{}.cache", node.name), rows(&node.fact.shape));
        self.stages.push(Stage { name, rows, kernel: Kernel::AppendCache { k, v, slot }, out: None });
    }

    /// The operands of an attention behind query, key and value.
    fn position_tables(&mut self, node: &Node, attention: &Attention) -> Result<PositionTables> {
        match attention.position {
            PositionScores::None => Ok(PositionTables::None),
            PositionScores::Bias => {
                let (_, table) = self.constant(node, 3)?;
                let distances = table.shape()[1];
                Ok(PositionTables::Bias { offset: self.floats(node, 3)?, distances })
            }
            PositionScores::Disentangled { content_to_position, position_to_content } => {
                let p2c_at = 3 + usize::from(content_to_position);
                let mut view = |wanted: bool, at: usize| wanted.then(|| self.view(node.inputs[at])).transpose();
                let content_to_position = view(content_to_position, 3)?;
                let position_to_content = view(position_to_content, p2c_at)?;
                let (name, buckets) = self.constant(node, node.inputs.len() - 1)?;
                let (offset, distances) = (self.weights.indices(name, buckets)?, buckets.len());
                Ok(PositionTables::Disentangled { offset, distances, content_to_position, position_to_content })
            }
        }
    }

    fn primitive(&mut self, node: &Node, kind: Primitive) -> Result<Lowered> {
        let operands = (0..node.inputs.len()).map(|index| self.operand(node, index)).collect::<Result<_>>()?;
        self.primitive_over(node, kind, operands)
    }

    fn primitive_over(&mut self, node: &Node, kind: Primitive, operands: Vec<Operand>) -> Result<Lowered> {
        let shape = node.fact.shape.clone();
        let view = self.value(&shape, true);
        let kernel = Kernel::Primitive { kind, operands, shape };
        self.stages.push(Stage { name: node.name.clone(), rows: Dim::from(1), kernel, out: Some(view) });
        Ok(Lowered::View(view))
    }

    /// Columns of a matrix stay where they are; other slices are copied.
    fn slice(&mut self, id: NodeId, node: &Node, axis: usize, start: usize, end: usize) -> Result<Lowered> {
        let shape = &self.graph.node(node.inputs[0]).fact.shape;
        if axis + 1 == shape.len() && !self.contiguous[id.index()] {
            let view = self.view(node.inputs[0])?;
            return Ok(Lowered::View(View { start: view.start + start, columns: end - start, ..view }));
        }
        self.primitive(node, Primitive::Slice { axis, start })
    }

    /// A new value of the given shape.
    fn value(&mut self, shape: &[Dim], contiguous: bool) -> View {
        let value = self.values.len();
        let (rows, columns) = match last(shape) {
            Some(columns) => (rows(shape), columns),
            None => (shape.iter().cloned().fold(Dim::from(1), |product, dim| product * dim), 1),
        };
        let stride = if contiguous { columns } else { row_stride(columns) };
        self.values.push(Value { rows, columns, stride, place: Place::Unplaced });
        View { value, start: 0, columns, stride }
    }

    /// The value of a node as floats; constants are laid out as they are.
    fn view(&mut self, id: NodeId) -> Result<View> {
        let node = self.graph.node(id);
        match self.lowered.get(&id) {
            Some(Lowered::View(view)) => Ok(*view),
            Some(Lowered::Constant) => {
                let (name, tensor) = self.constant_at(node, id)?;
                let offset = self.weights.floats(name, tensor)?;
                let view = self.value(&node.fact.shape, true);
                self.values[view.value].place = Place::Weights { offset };
                Ok(view)
            }
            Some(Lowered::Ids(_) | Lowered::Pooled(_)) | None => {
                Err(unsupported(node, "ids are used as floats; convert them first"))
            }
        }
    }

    /// An operand of a primitive op, without gaps between its rows.
    fn operand(&mut self, node: &Node, index: usize) -> Result<Operand> {
        let id = node.inputs[index];
        let shape = self.graph.node(id).fact.shape.clone();
        let view = self.view(id)?;
        let value = &self.values[view.value];
        if view.start == 0 && view.columns == value.columns && value.stride == value.columns {
            return Ok(Operand { view, shape });
        }
        let copy = self.value(&shape, true);
        let (name, rows) = (format!("{}.copy", node.name), rows(&shape));
        self.stages.push(Stage { name, rows, kernel: Kernel::Columns { parts: vec![view] }, out: Some(copy) });
        Ok(Operand { view: copy, shape })
    }

    fn ids(&self, node: &Node, index: usize) -> Result<Ids> {
        match self.lowered.get(&node.inputs[index]) {
            Some(Lowered::Ids(ids)) => Ok(ids.clone()),
            Some(Lowered::View(_) | Lowered::Constant | Lowered::Pooled(_)) | None => {
                Err(unsupported(node, format!("operand {index} must be an i64 input or positions")))
            }
        }
    }

    fn derive(&mut self, node: &Node, rule: IdRule) -> Result<Lowered> {
        let from = self.ids(node, 0)?;
        self.derived.push(DerivedIds { from, rule });
        Ok(Lowered::Ids(Ids::Derived(self.derived.len() - 1)))
    }

    fn row_operand(&mut self, node: &Node, index: usize) -> Result<RowOperand> {
        match spread(self.graph, node.inputs[index], &node.fact.shape) {
            Some(Spread::Row) => Ok(RowOperand::Row { offset: self.floats(node, index)? }),
            Some(Spread::Number) => Ok(RowOperand::Number { offset: self.floats(node, index)? }),
            Some(Spread::Rows) | None => Ok(RowOperand::Rows(self.view(node.inputs[index])?)),
        }
    }

    fn table(&mut self, node: &Node, pair: &[NodeId]) -> Result<Table> {
        let table = self.graph.node(pair[0]);
        let (offset, rows) = if table.op == Op::Dequantize {
            let ((name, codes), (_, scales)) = (self.constant(table, 0)?, self.constant(table, 1)?);
            (self.weights.table(name, codes, scales)?, codes.shape()[0])
        } else {
            let (name, floats) = self.constant_at(node, pair[0])?;
            (self.weights.floats(name, floats)?, floats.shape()[0])
        };
        let ids = match self.lowered.get(&pair[1]) {
            Some(Lowered::Ids(ids)) => ids.clone(),
            Some(Lowered::View(_) | Lowered::Constant | Lowered::Pooled(_)) | None => {
                return Err(unsupported(node, "ids must be an i64 input or positions"));
            }
        };
        Ok(Table { offset, rows, codes: table.op == Op::Dequantize, ids })
    }

    /// The quantised rows of an integer layer's input, whose factors are an operand of the layer: as a by-product of the
    /// norm or gate that yields it, else by a stage.
    fn quantized(
        &mut self,
        node: &Node,
        factor: Option<usize>,
        form: RowCodes,
        range: Option<[f32; 2]>,
    ) -> Result<View> {
        let bits = range.map(|range| range.map(f32::to_bits));
        let key = (node.inputs[0], factor.map(|index| node.inputs[index]), form, bits);
        if let Some(view) = self.quantized.get(&key) {
            return Ok(*view);
        }
        let x = self.view(node.inputs[0])?;
        let shape = &self.graph.node(node.inputs[0]).fact.shape;
        let words = quantized_columns(x.columns, form);
        let out = self.value(&[rows(shape), words.into()], false);
        let factor = factor.map(|index| self.floats(node, index)).transpose()?;
        let quantized = Quantized { out, factor, k: x.columns, form, range };
        let producer = self.stages.iter_mut().rev().find(|stage| stage.out == Some(x));
        match producer.map(|stage| &mut stage.kernel) {
            Some(
                Kernel::LayerNorm { quantized: slot @ None, .. }
                | Kernel::RmsNorm { quantized: slot @ None, .. }
                | Kernel::Gate { quantized: slot @ None, .. },
            ) => *slot = Some(quantized),
            _ => {
                let (name, rows) = (format!("{}.quantize", node.name), rows(shape));
                self.stages.push(Stage { name, rows, kernel: Kernel::Quantize { x, quantized }, out: Some(out) });
            }
        }
        self.quantized.insert(key, out);
        Ok(out)
    }

    fn codes(&mut self, node: &Node, bits: u8) -> Result<PackedCodes> {
        let ((name, codes), (_, scales)) = (self.constant(node, 1)?, self.constant(node, 2)?);
        self.weights.codes(name, codes, scales, activation_bits(node, bits)?)
    }

    fn nibbles(&mut self, node: &Node, group: usize, zero_points: bool) -> Result<PackedNibbles> {
        let ((name, codes), (_, scales)) = (self.constant(node, 1)?, self.constant(node, 2)?);
        let zero_points = if zero_points { Some(self.constant(node, 3)?.1) } else { None };
        self.weights.nibbles(name, codes, scales, zero_points, group)
    }

    fn floats(&mut self, node: &Node, index: usize) -> Result<usize> {
        let (name, constant) = self.constant(node, index)?;
        self.weights.floats(name, constant)
    }
}

impl<'a> Lowering<'a> {
    /// A constant operand and its name.
    fn constant(&self, node: &Node, index: usize) -> Result<(&'a str, &'a Tensor)> {
        self.constant_at(node, node.inputs[index])
    }

    fn constant_at(&self, node: &Node, id: NodeId) -> Result<(&'a str, &'a Tensor)> {
        let tensor = self.graph.constant_of(id).ok_or_else(|| unsupported(node, "a weight that is not a constant"))?;
        Ok((&self.graph.node(id).name, tensor))
    }
}

fn activation_bits(node: &Node, bits: u8) -> Result<ActivationBits> {
    match bits {
        7 => Ok(ActivationBits::Seven),
        8 => Ok(ActivationBits::Eight),
        12 => Ok(ActivationBits::Twelve),
        _ => Err(unsupported(node, format!("activations of {bits} bits"))),
    }
}

/// A contiguous view under another shape.
fn reinterpreted(view: View, shape: &[Dim]) -> View {
    let columns = last(shape).unwrap_or(1);
    View { columns, stride: columns, ..view }
}

fn unsupported(node: &Node, reason: impl Into<String>) -> RuntimeError {
    RuntimeError::Unsupported { node: node.name.clone(), reason: reason.into() }
}
