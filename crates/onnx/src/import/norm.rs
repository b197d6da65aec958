//! Normalisations.

use centuple_graph::{Binary, NodeId, Op, Reduction, Unary};
use centuple_tensor::Dim;

use super::Importer;
use super::attributes::Call;
use super::dims::{self, volume};
use super::ops::Table;
use super::problem::{Result, problem};
use super::value::Value;
use crate::file::Element;

pub(super) const OPS: Table = &[
    ("Softmax", softmax),
    ("LogSoftmax", log_softmax),
    ("LayerNormalization", layer_normalization),
    ("RMSNormalization", rms_normalization),
    // Files of ONNX Runtime have it in ONNX's own domain.
    ("SimplifiedLayerNormalization", rms_normalization),
];

fn softmax(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    Ok(vec![Value::Node(importer.softmax(x, call)?, Element::Float)])
}

fn log_softmax(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let softmax = importer.softmax(x, call)?;
    Ok(vec![Value::Node(importer.unary(Unary::Log, softmax)?, Element::Float)])
}

impl Importer<'_> {
    /// Softmax along an axis; before opset 13 over all dimensions from it on.
    fn softmax(&mut self, x: NodeId, call: &Call) -> Result<NodeId> {
        let shape = self.shape_of(x);
        let rank = shape.len();
        let axis = dims::axis(call.int("axis", if call.opset < 13 { 1 } else { -1 }), rank)?;
        if axis + 1 == rank {
            return self.push(Op::Softmax, &[x]);
        }
        if call.opset < 13 {
            let flat = [&shape[..axis], &[volume(&shape[axis..])?]].concat();
            let rows = self.reshape_node(x, &flat)?;
            let rows = self.push(Op::Softmax, &[rows])?;
            return self.reshape_node(rows, &shape);
        }
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(axis, rank - 1);
        let turned = self.transpose_node(x, &perm)?;
        let turned = self.push(Op::Softmax, &[turned])?;
        self.transpose_node(turned, &perm)
    }

    /// Layer normalisation over the last dimension; `gamma` and `beta` may be missing.
    pub(super) fn layer_norm(
        &mut self,
        x: NodeId,
        gamma: Option<&Value>,
        beta: Option<&Value>,
        epsilon: f32,
    ) -> Result<NodeId> {
        let width = self.width(x)?;
        let gamma = self.row(gamma, width, 1.0)?;
        let beta = self.row(beta, width, 0.0)?;
        self.push(Op::LayerNorm { epsilon, residual: false }, &[x, gamma, beta])
    }

    /// Normalisation by the root of the mean square over the last dimension.
    pub(super) fn rms_norm(&mut self, x: NodeId, gamma: Option<&Value>, epsilon: f32) -> Result<NodeId> {
        let width = self.width(x)?;
        let gamma = self.row(gamma, width, 1.0)?;
        self.push(Op::RmsNorm { epsilon, residual: false }, &[x, gamma])
    }

    /// The constant last dimension.
    pub(super) fn width(&self, x: NodeId) -> Result<usize> {
        let width = self.graph.node(x).fact.shape.last().and_then(Dim::constant);
        width.ok_or_else(|| problem("rows whose width is not fixed"))
    }

    /// A vector `[width]`, all `default` where it is missing.
    fn row(&mut self, value: Option<&Value>, width: usize, default: f32) -> Result<NodeId> {
        let Some(value) = value else { return self.numbers(&[width], &vec![default; width]) };
        let shape = [Dim::from(width)];
        let value = if volume(&self.shape(value))? == Dim::from(1) {
            let scalar = self.reshape(value, &[Dim::from(1)])?;
            self.expand(&scalar, &shape)?
        } else {
            self.reshape(value, &shape)?
        };
        self.node(&value)
    }
}

/// The dimensions from `axis` on as one, if they aren't the last one alone.
fn joined(importer: &mut Importer, x: NodeId, axis: usize) -> Result<(NodeId, Vec<Dim>)> {
    let shape = importer.shape_of(x);
    let flat = [&shape[..axis], &[volume(&shape[axis..])?]].concat();
    Ok((importer.reshape_node(x, &flat)?, shape))
}

fn layer_normalization(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let axis = dims::axis(call.int("axis", -1), importer.shape_of(x).len())?;
    let epsilon = call.float("epsilon", 1e-5);
    let (rows, shape) = joined(importer, x, axis)?;
    let normal = importer.layer_norm(rows, call.optional(1), call.optional(2), epsilon)?;
    let mut results = vec![Value::Node(importer.reshape_node(normal, &shape)?, Element::Float)];
    if call.results > 1 {
        // The mean and the reciprocal of the deviation, for training.
        let last = [importer.shape_of(rows).len() - 1];
        let mean = importer.reduce_node(Reduction::Mean, rows, &last, false)?;
        let centred = importer.binary(Binary::Sub, rows, mean)?;
        let squares = importer.binary(Binary::Mul, centred, centred)?;
        let variance = importer.reduce_node(Reduction::Mean, squares, &last, false)?;
        let variance = importer.with_number(Binary::Add, variance, epsilon)?;
        let deviation = importer.unary(Unary::Sqrt, variance)?;
        let inverse = importer.unary(Unary::Reciprocal, deviation)?;
        results.extend([mean, inverse].map(|node| Value::Node(node, Element::Float)));
    }
    Ok(results)
}

fn rms_normalization(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let axis = dims::axis(call.int("axis", -1), importer.shape_of(x).len())?;
    let (rows, shape) = joined(importer, x, axis)?;
    let normal = importer.rms_norm(rows, call.optional(1), call.float("epsilon", 1e-5))?;
    Ok(vec![Value::Node(importer.reshape_node(normal, &shape)?, Element::Float)])
}
