//! From the ops of a graph to nodes of ONNX: what each value is called, and which op goes where.

use std::collections::{HashMap, HashSet};

use centuple_graph::{Graph, Node, NodeId, Op};
use centuple_tensor::{DType, Dim, Symbol, Tensor};

use super::emitter::{Emitter, int, ints};
use super::quantize::Codes;
use super::{ExportError, MASK, Options};
use crate::proto::tensor_proto::DataType;

/// Yields a value's name.
pub(super) type Result<T = String> = std::result::Result<T, ExportError>;

/// A graph on its way.
pub(super) struct Exporter<'a> {
    pub(super) graph: &'a Graph,
    pub(super) options: &'a Options,
    pub(super) emitter: Emitter,
    /// Name of each value so far, by node index.
    pub(super) names: Vec<String>,
    /// Values over tokens that are the same for every sequence: `[1, sequence_length, ...]`.
    pub(super) same: HashSet<NodeId>,
    /// Values that several nodes need and none of the graph yields, by what they are.
    pub(super) shared: HashMap<String, String>,
    /// Products of linear layers before their bias, with the bias.
    pub(super) unbiased: HashMap<NodeId, [String; 2]>,
    /// Values `[Tokens, groups·N]` by group: `[batch_size, groups, sequence_length, N]`.
    pub(super) by_head: HashMap<NodeId, String>,
    /// Constants that tables are looked up in, which are written as they lie.
    pub(super) tables: HashSet<(usize, usize)>,
    /// Constants that are the weights of linear layers.
    pub(super) matrices: HashSet<(usize, usize)>,
    /// Inputs of ids that can only be 0.
    idle: HashSet<NodeId>,
    /// What was quantised, by identity and shape.
    pub(super) codes: HashMap<((usize, usize), Vec<usize>), Codes>,
}

/// Whether a dimension counts tokens.
pub(super) fn counts_tokens(dim: &Dim) -> bool {
    *dim == Symbol::Tokens.into() || *dim == Symbol::Selected.into()
}

impl<'a> Exporter<'a> {
    pub(super) fn new(graph: &'a Graph, options: &'a Options) -> Exporter<'a> {
        let mut emitter = Emitter::default();
        let inputs = graph.inputs().map(|(_, node)| node.name.as_str());
        let outputs = options.outputs.iter().map(|output| output.name.as_str());
        inputs.chain(outputs).chain([MASK, "input_ids"]).for_each(|name| emitter.reserve(name));
        let embeddings = graph.nodes().iter().filter(|node| node.op == Op::Embedding);
        let tables = embeddings.flat_map(|node| node.inputs.iter().step_by(2)).filter_map(|&id| graph.constant_of(id));
        let tables = tables.map(Tensor::identity).collect();
        let layers = graph.nodes().iter().filter(|node| matches!(node.op, Op::Linear { .. }));
        let matrices = layers.filter_map(|node| graph.constant_of(*node.inputs.get(1)?));
        let matrices = matrices.map(Tensor::identity).collect();
        let idle = idle(graph);
        Exporter {
            graph,
            options,
            emitter,
            names: vec![String::new(); graph.nodes().len()],
            same: HashSet::new(),
            shared: HashMap::new(),
            unbiased: HashMap::new(),
            by_head: HashMap::new(),
            tables,
            matrices,
            idle,
            codes: HashMap::new(),
        }
    }

    /// Lowers every node.
    pub(super) fn lower_all(&mut self) -> Result<()> {
        for (id, node) in self.graph.iter() {
            if node.fact.shape.iter().skip(1).any(counts_tokens) {
                return Err(self.unsupported(node, format!("a padded graph has no {}", node.fact)));
            }
            self.emitter.scope = if node.name.is_empty() { node.op.name().to_owned() } else { node.name.clone() };
            let name = self.lower(id, node)?;
            self.names[id.index()] = name;
        }
        Ok(())
    }

    fn lower(&mut self, id: NodeId, node: &Node) -> Result {
        let same = !node.inputs.is_empty()
            && node.inputs.iter().filter(|&&input| self.by_token(input)).all(|&input| self.is_same(input))
            && node.inputs.iter().any(|&input| self.is_same(input));
        let x =
            |exporter: &Self, operand: usize| node.inputs.get(operand).map_or(String::new(), |&id| exporter.value(id));
        if same && is_row_wise(&node.op) {
            self.set_same(id);
        }
        match &node.op {
            Op::Input { .. } if self.idle.contains(&id) => {
                self.set_same(id);
                Ok(self.emitter.computed("constant/[[0]]", DataType::Int64, &[1, 1], vec![0; 8]))
            }
            Op::Input { .. } => self.input(node),
            Op::Constant(tensor) => self.constant(&node.name, tensor),
            Op::Positions { offset, padding } => Ok(self.positions(id, node, *offset, *padding)),
            Op::ShiftRight { first } => Ok(self.shift_right(node, *first)),
            Op::Embedding => self.embedding(node),
            Op::Linear { bias, activation, residual } => self.linear(id, node, *bias, *activation, *residual),
            Op::QuantizedLinear { bits: _, range, bias, activation, residual } => {
                self.quantized_linear(id, node, *range, [*bias, *residual], *activation)
            }
            Op::GroupQuantizedLinear { .. } => {
                Err(self
                    .unsupported(node, "weights of 4 bits in groups are not written; export the model without them"))
            }
            Op::GroupedLinear { groups } => self.grouped_linear(id, node, *groups),
            Op::Dequantize => Ok(self.dequantize(node)),
            Op::LayerNorm { epsilon, residual } => Ok(self.layer_norm(node, *epsilon, *residual)),
            Op::RmsNorm { epsilon, residual } => Ok(self.rms_norm(node, *epsilon, *residual)),
            Op::HeadNorm { heads, epsilon } => Ok(self.head_norm(node, *heads, *epsilon)),
            Op::Activation(activation) => Ok(self.activation_of(node, *activation)),
            Op::Gate { activation } => {
                let (a, b) = (x(self, 0), x(self, 1));
                let activated = self.activate(*activation, &a);
                Ok(self.emitter.node("Mul", &[&activated, &b]))
            }
            Op::Attention(attention) => self.attention(node, attention),
            Op::CrossAttention(_) => {
                Err(self.unsupported(node, "attention to a cache that an encoder fills isn't written to ONNX files"))
            }
            Op::Rotary { heads, head_dim, interleaved } => self.rotary(node, [*heads, *head_dim], *interleaved),
            Op::Pool(pooling) => self.pool(node, *pooling),
            // The file gives the rows of all tokens.
            Op::Select => Ok(self.full(node.inputs[0])),
            Op::L2Normalize { epsilon } => {
                let x = x(self, 0);
                let norm = self.emitter.with("ReduceL2", &[&x], vec![ints("axes", &[-1]), int("keepdims", 1)]);
                let least = self.emitter.float(*epsilon);
                let norm = self.emitter.node("Clip", &[&norm, &least]);
                Ok(self.emitter.node("Div", &[&x, &norm]))
            }
            Op::Unary(unary) => Ok(self.unary(*unary, &x(self, 0))),
            Op::Binary(binary) => Ok(self.binary(*binary, &x(self, 0), &x(self, 1))),
            Op::MatMul => Ok(self.emitter.node("MatMul", &[&x(self, 0), &x(self, 1)])),
            Op::Softmax => Ok(self.emitter.with("Softmax", &[&x(self, 0)], vec![int("axis", -1)])),
            Op::Transpose { perm } => self.transpose(node, perm),
            Op::Reshape { shape } => self.reshape(node, shape),
            Op::Slice { axis, start, end } => self.slice(node, *axis, *start, *end),
            Op::Concat { axis } => self.concat(node, *axis),
            Op::Gather { axis } => self.gather(node, *axis),
            Op::Reduce { reduction, axes } => self.reduce(node, *reduction, axes),
            Op::Where => {
                let zero = self.emitter.float(0.0);
                let equal = self.emitter.node("Equal", &[&x(self, 0), &zero]);
                Ok(self.emitter.node("Where", &[&equal, &x(self, 2), &x(self, 1)]))
            }
            Op::ToFloat => Ok(self.cast(&x(self, 0), DataType::Float)),
            Op::GatherElements { axis } => self.gather_elements(node, *axis),
            Op::CumSum { axis } => self.cum_sum(node, *axis),
            Op::Expand { shape } => self.expand(node, shape),
            Op::Iota { size } => self.iota(node, size),
            Op::Pad => Ok(self.pad(node)),
            // The rows of padding stay; nothing reads them.
            Op::Pack => Ok(self.full(node.inputs[0])),
        }
    }

    fn input(&self, node: &Node) -> Result {
        let is_ids = node.fact.dtype == DType::I64 && node.fact.shape == vec![Dim::from(Symbol::Tokens)];
        if is_ids { Ok(node.name.clone()) } else { Err(self.unsupported(node, "only ids of tokens are inputs")) }
    }
}

/// Inputs that are only looked up in tables of one row; so they can only be 0, and the file has no such input.
pub(super) fn idle(graph: &Graph) -> HashSet<NodeId> {
    let mut idle: HashSet<NodeId> =
        graph.inputs().filter(|(_, node)| node.name != "input_ids").map(|(id, _)| id).collect();
    for node in graph.nodes() {
        let pairs = node.inputs.chunks(2).filter(|_| node.op == Op::Embedding);
        let one_row = |table: &NodeId| graph.node(*table).fact.shape.first() == Some(&Dim::from(1));
        let looked_up: Vec<&NodeId> =
            pairs.filter_map(|pair| pair.first().filter(|table| one_row(table)).and(pair.get(1))).collect();
        node.inputs.iter().filter(|input| !looked_up.contains(input)).for_each(|input| {
            idle.remove(input);
        });
    }
    idle
}

/// Whether each token's row of the result depends on that token's rows of the operands only.
fn is_row_wise(op: &Op) -> bool {
    match op {
        Op::Embedding
        | Op::Linear { .. }
        | Op::QuantizedLinear { .. }
        | Op::GroupQuantizedLinear { .. }
        | Op::LayerNorm { .. }
        | Op::RmsNorm { .. }
        | Op::HeadNorm { .. }
        | Op::Activation(_)
        | Op::Gate { .. }
        | Op::L2Normalize { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::MatMul
        | Op::Softmax
        | Op::Where
        | Op::ToFloat
        | Op::Slice { .. }
        | Op::Reduce { .. } => true,
        Op::Input { .. }
        | Op::Constant(_)
        | Op::Positions { .. }
        | Op::ShiftRight { .. }
        | Op::GroupedLinear { .. }
        | Op::Dequantize
        | Op::Attention(_)
        | Op::CrossAttention(_)
        | Op::Rotary { .. }
        | Op::Pool(_)
        | Op::Select
        | Op::Transpose { .. }
        | Op::Reshape { .. }
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::CumSum { .. }
        | Op::Expand { .. }
        | Op::Iota { .. }
        | Op::Pad
        | Op::Pack => false,
    }
}
