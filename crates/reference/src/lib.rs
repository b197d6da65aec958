//! A slow, obvious evaluator of every op: the oracle of tests and the constant folder.
//!
//! Everything is a loop over indices with f64 accumulation. Nothing here is ever on a request's way.

mod activation;
mod attention;
mod packed;
mod padded;
mod primitive;
mod quantized;

use std::collections::HashMap;

use centuple_graph::{Graph, NodeId, Op};
use centuple_tensor::{Bindings, Layout, Tensor, TensorError};

pub use attention::Cache;

/// Why a graph could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// An input of the graph was not given.
    #[error("the input `{0}` was not given")]
    MissingInput(String),
    /// The given tensor does not fit the input.
    #[error("the input `{name}` must be {expected}, not {found:?}")]
    Input {
        /// Name of the input.
        name: String,
        /// Fact of the graph.
        expected: String,
        /// The given tensor.
        found: Tensor,
    },
    /// An index lies outside its table.
    #[error("index {index} is outside the table of {rows} rows")]
    Index {
        /// The index.
        index: i64,
        /// Rows of the table.
        rows: usize,
    },
    /// A symbol of a shape has no value, or the value overflows.
    #[error("the dimension {0} has no value for this batch")]
    Unbound(String),
    /// A cache page lies outside the cache, or the op needs a cache and none was given.
    #[error("cache slot {slot} has no page {page}")]
    Page {
        /// The attention's cache slot.
        slot: usize,
        /// The page.
        page: u32,
    },
    /// Shape and data of a tensor disagree.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

pub(crate) type Result<T> = std::result::Result<T, ReferenceError>;

/// What a batch gives besides its tensors.
pub struct Batch<'a> {
    /// Values of the symbols.
    pub bindings: Bindings,
    /// The packed sequences; empty for padded graphs.
    pub layout: &'a Layout,
    /// Keys and values of earlier steps.
    pub cache: &'a mut Cache,
}

/// Evaluates the outputs of `graph`, in order.
///
/// # Errors
/// An input is missing or does not fit, an index is outside its table, or a symbol has no value.
pub fn evaluate(graph: &Graph, inputs: &[(&str, Tensor)], batch: &mut Batch) -> Result<Vec<Tensor>> {
    let mut values: HashMap<NodeId, Tensor> = HashMap::new();
    for (id, node) in graph.iter() {
        let operands: Vec<&Tensor> = node.inputs.iter().filter_map(|input| values.get(input)).collect();
        let value = if let Op::Input { dtype, shape } = &node.op {
            let given = inputs.iter().find(|(name, _)| *name == node.name);
            let tensor = given.ok_or_else(|| ReferenceError::MissingInput(node.name.clone()))?.1.clone();
            let expected = concrete(shape, &batch.bindings)?;
            if tensor.dtype() != *dtype || tensor.shape() != expected {
                let expected = format!("{dtype}{expected:?}");
                return Err(ReferenceError::Input { name: node.name.clone(), expected, found: tensor });
            }
            tensor
        } else {
            apply(&node.op, &operands, batch)?
        };
        values.insert(id, value);
    }
    Ok(graph.outputs().iter().filter_map(|(_, id)| values.get(id).cloned()).collect())
}

/// The value of an op whose operands are all constants and which depends on no batch.
///
/// `None` where the op depends on the batch or cannot be evaluated.
pub fn fold(op: &Op, operands: &[&Tensor]) -> Option<Tensor> {
    match op {
        Op::Input { .. }
        | Op::Constant(_)
        | Op::Positions { .. }
        | Op::ShiftRight { .. }
        | Op::Attention(_)
        | Op::CrossAttention(_)
        | Op::Pool(_)
        | Op::Select
        | Op::Pad
        | Op::Pack => None,
        // Its result is what quantising the table has saved.
        Op::Dequantize => None,
        Op::Embedding
        | Op::Linear { .. }
        | Op::QuantizedLinear { .. }
        | Op::GroupQuantizedLinear { .. }
        | Op::GroupedLinear { .. }
        | Op::Rotary { .. }
        | Op::LayerNorm { .. }
        | Op::RmsNorm { .. }
        | Op::HeadNorm { .. }
        | Op::Gate { .. }
        | Op::Activation(_)
        | Op::L2Normalize { .. }
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
        | Op::Iota { .. } => {
            let layout = Layout::default();
            let mut batch = Batch { bindings: Bindings::default(), layout: &layout, cache: &mut Cache::default() };
            apply(op, operands, &mut batch).ok()
        }
    }
}

fn concrete(shape: &[centuple_tensor::Dim], bindings: &Bindings) -> Result<Vec<usize>> {
    shape.iter().map(|dim| dim.evaluate(bindings).ok_or_else(|| ReferenceError::Unbound(dim.to_string()))).collect()
}

/// The value of one op. The operands have to fit it, as they do in a graph that verifies.
///
/// # Errors
/// The op is an input, an index is outside its table, or a symbol has no value.
pub fn apply(op: &Op, operands: &[&Tensor], batch: &mut Batch) -> Result<Tensor> {
    match op {
        Op::Input { .. } => Err(ReferenceError::MissingInput(String::new())),
        Op::Constant(tensor) => Ok(tensor.clone()),
        Op::Positions { offset, padding } => packed::positions(operands, *offset, *padding, batch.layout),
        Op::ShiftRight { first } => packed::shift_right(operands[0], *first, batch.layout),
        Op::Embedding => packed::embedding(operands),
        Op::Linear { bias, activation, residual } => packed::linear(operands, *bias, *activation, *residual),
        Op::QuantizedLinear { bits, range, bias, activation, residual } => {
            let epilogue = quantized::Epilogue { bias: *bias, activation: *activation, residual: *residual };
            quantized::linear(operands, *bits, *range, epilogue)
        }
        Op::GroupQuantizedLinear { bits: _, group, zero_points, bias, activation, residual } => {
            let epilogue = quantized::Epilogue { bias: *bias, activation: *activation, residual: *residual };
            quantized::group_linear(operands, *group, *zero_points, epilogue)
        }
        Op::GroupedLinear { groups } => packed::grouped_linear(operands, *groups),
        Op::Dequantize => quantized::dequantize(operands),
        Op::LayerNorm { epsilon, residual } => packed::layer_norm(operands, *epsilon, *residual),
        Op::RmsNorm { epsilon, residual } => packed::rms_norm(operands, *epsilon, *residual),
        Op::HeadNorm { heads: _, epsilon } => packed::head_norm(operands, *epsilon),
        Op::Gate { activation } => packed::gate(operands, *activation),
        Op::Activation(activation) => primitive::map(operands[0], |x| activation::activate(*activation, x)),
        Op::Attention(attention) => attention::attention(operands, attention, batch),
        Op::CrossAttention(attention) => attention::cross_attention(operands[0], attention, batch),
        Op::Rotary { heads: _, head_dim, interleaved } => packed::rotary(operands, *head_dim, *interleaved),
        Op::Pool(pooling) => packed::pool(operands, *pooling, batch.layout),
        Op::Select => packed::select(operands[0], batch.layout),
        Op::L2Normalize { epsilon } => packed::l2_normalize(operands[0], *epsilon),
        Op::Unary(unary) => primitive::map(operands[0], |x| primitive::unary(*unary, x)),
        Op::Binary(binary) => primitive::binary(*binary, operands[0], operands[1]),
        Op::MatMul => primitive::matmul(operands[0], operands[1]),
        Op::Softmax => primitive::softmax(operands[0]),
        Op::Transpose { perm } => primitive::transpose(operands[0], perm),
        Op::Reshape { shape } => Ok(operands[0].reshaped(&concrete(shape, &batch.bindings)?)?),
        Op::Slice { axis, start, end } => primitive::slice(operands[0], *axis, *start, *end),
        Op::Concat { axis } => primitive::concat(operands, *axis),
        Op::Gather { axis } => primitive::gather(operands[0], operands[1], *axis),
        Op::Reduce { reduction, axes } => primitive::reduce(*reduction, operands[0], axes),
        Op::Where => primitive::select(operands[0], operands[1], operands[2]),
        Op::ToFloat => primitive::to_float(operands[0]),
        Op::GatherElements { axis } => primitive::gather_elements(operands[0], operands[1], *axis),
        Op::CumSum { axis } => primitive::cumulative_sum(operands[0], *axis),
        Op::Expand { shape } => primitive::expand(operands[0], &concrete(shape, &batch.bindings)?),
        Op::Iota { size } => primitive::iota(concrete(std::slice::from_ref(size), &batch.bindings)?[0]),
        Op::Pad => padded::pad(operands[0], batch.layout),
        Op::Pack => padded::pack(operands[0], batch.layout),
    }
}
