//! Graphs as ONNX files, in the form that Optimum gives them.
//!
//! A packed graph, on `[Tokens, ...]`, becomes a padded one: `[batch_size, sequence_length, ...]`, with the inputs
//! `input_ids`, `attention_mask` and, where the model knows token types, `token_type_ids`, all int64. Ops of single rows
//! stay what they are; attention and pooling read the mask. Rows of padding hold numbers without a meaning.

mod attention;
mod emitter;
mod file;
mod linear;
mod lower;
mod microsoft;
mod normal;
mod pool;
mod positions;
mod primitive;
mod quantize;
mod values;

use std::collections::HashMap;

use centuple_graph::{Graph, NodeId};
use centuple_tensor::{Shape, Symbol, TensorError};

use crate::proto::tensor_proto::DataType;
use crate::proto::tensor_shape_proto::Dimension;
use crate::proto::tensor_shape_proto::dimension::Value as DimensionValue;
use crate::proto::type_proto::{Tensor as TensorType, Value};
use crate::proto::{GraphProto, ModelProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto};
use emitter::MICROSOFT;
pub use file::{DATA_LIMIT, Written};
use lower::Exporter;

/// The version of ONNX's operators: the first one with LayerNormalization.
const OPSET: i64 = 17;
/// The version of the file's format that came with them.
const IR_VERSION: i64 = 8;
/// Names of the dynamic dimensions.
const BATCH: &str = "batch_size";
const SEQUENCE: &str = "sequence_length";
/// The input that says what is padding.
const MASK: &str = "attention_mask";

/// Which operators are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Those of ONNX itself.
    Standard,
    /// Also those that ONNX Runtime adds for transformers, as its CPU provider has them.
    Fused,
}

/// The numbers of linear layers over tokens.
#[derive(Clone, Debug, Default)]
pub enum Weights {
    /// 32-bit floats.
    #[default]
    Float,
    /// Integers: weights in 8 bits per output channel, activations in 8 bits per batch, by what a batch shows.
    Dynamic,
    /// Integers, symmetric: weights in 8 bits per output channel, activations in 8 bits by the largest magnitudes that
    /// these values have shown. Others stay floats.
    Static(HashMap<NodeId, f32>),
}

/// An output of the file.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: NodeId,
    /// The one column that it has, without the dimension of columns; all by default.
    pub column: Option<usize>,
}

/// How a graph is exported.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operators.
    pub dialect: Dialect,
    /// The numbers.
    pub weights: Weights,
    /// The outputs, in order.
    pub outputs: Vec<Output>,
    /// Name of the graph in the file.
    pub name: String,
}

/// Why a graph could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no way to say a node in a padded ONNX graph.
    #[error("`{name}` ({op}) can't be exported: {reason}")]
    Unsupported {
        /// Name of the node.
        name: String,
        /// Name of its op.
        op: &'static str,
        /// What stands in the way.
        reason: String,
    },
    /// The elements of a weight are not there.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// An ONNX model whose constants still lie where the graph has them.
pub struct Exported {
    /// All but the initializers.
    model: ModelProto,
    initializers: Vec<emitter::Initializer>,
}

impl Exported {
    /// The model without its initializers.
    pub fn model(&self) -> &ModelProto {
        &self.model
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.model.graph.as_ref().map_or(0, |graph| graph.node.len())
    }
}

/// Writes a graph down as an ONNX model. It may be the plain graph of a family or an optimised one.
///
/// # Errors
/// The graph has something that padded graphs can't say, as a key/value cache.
pub fn export(graph: &Graph, options: &Options) -> Result<Exported, ExportError> {
    let mut exporter = Exporter::new(graph, options);
    exporter.lower_all()?;
    let mut published = Vec::with_capacity(options.outputs.len());
    let mut outputs = Vec::with_capacity(options.outputs.len());
    for output in &options.outputs {
        let value = exporter.column(output)?;
        exporter.emitter.publish(&value, &output.name, &published);
        published.push(output.name.clone());
        let mut shape = graph.node(output.value).fact.shape.clone();
        if output.column.is_some() {
            shape.pop();
        }
        outputs.push(value_info(&output.name, DataType::Float, padded(&shape)));
    }
    exporter.emitter.sweep(&published);
    let ids = || vec![dynamic(BATCH), dynamic(SEQUENCE)];
    let proto = GraphProto {
        name: options.name.clone(),
        input: inputs(graph).into_iter().map(|name| value_info(name, DataType::Int64, ids())).collect(),
        output: outputs,
        node: std::mem::take(&mut exporter.emitter.nodes),
        ..GraphProto::default()
    };
    let fused = proto.node.iter().any(|node| node.domain == MICROSOFT);
    let versions = [("", OPSET), (MICROSOFT, 1)].into_iter().take(if fused { 2 } else { 1 });
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "centuple".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(proto),
        opset_import: versions
            .map(|(domain, version)| OperatorSetIdProto { domain: domain.to_owned(), version })
            .collect(),
        ..ModelProto::default()
    };
    Ok(Exported { model, initializers: exporter.emitter.initializers })
}

/// The inputs of the file that a graph becomes, in order; all are `[batch_size, sequence_length]` int64.
pub fn inputs(graph: &Graph) -> Vec<&str> {
    let idle = lower::idle(graph);
    let others = graph.inputs().filter(|(id, node)| node.name != "input_ids" && !idle.contains(id));
    let others = others.map(|(_, node)| node.name.as_str()).filter(|name| *name != MASK);
    ["input_ids", MASK].into_iter().chain(others).collect()
}

/// The dimensions of a value in the file.
fn padded(shape: &Shape) -> Vec<Dimension> {
    let of = |dim: &centuple_tensor::Dim| match dim.constant() {
        Some(value) => vec![fixed(value)],
        None if lower::counts_tokens(dim) => vec![dynamic(BATCH), dynamic(SEQUENCE)],
        None if *dim == Symbol::Sequences.into() || *dim == Symbol::Batch.into() => vec![dynamic(BATCH)],
        None if *dim == Symbol::Sequence.into() => vec![dynamic(SEQUENCE)],
        None => vec![Dimension::default()],
    };
    shape.iter().flat_map(of).collect()
}

fn dynamic(name: &str) -> Dimension {
    Dimension { value: Some(DimensionValue::DimParam(name.to_owned())), ..Dimension::default() }
}

fn fixed(value: usize) -> Dimension {
    Dimension { value: Some(DimensionValue::DimValue(value as i64)), ..Dimension::default() }
}

fn value_info(name: &str, data_type: DataType, dim: Vec<Dimension>) -> ValueInfoProto {
    let tensor = TensorType { elem_type: data_type.into(), shape: Some(TensorShapeProto { dim }) };
    let r#type = Some(TypeProto { value: Some(Value::TensorType(tensor)), ..TypeProto::default() });
    ValueInfoProto { name: name.to_owned(), r#type, ..ValueInfoProto::default() }
}
