//! Matrix products.

use centuple_graph::{Binary, NodeId, Op};
use centuple_tensor::{Dim, Tensor};

use super::Importer;
use super::attributes::Call;
use super::ops::Table;
use super::problem::{Problem, Result, problem};
use super::quantized::Quantized;
use super::value::Value;
use crate::file::{Constant, Element};

pub(super) const OPS: Table = &[("MatMul", matmul), ("Gemm", gemm)];

fn matmul(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (a, b) = (call.operand(0)?.clone(), call.operand(1)?.clone());
    Ok(vec![importer.matmul(&a, &b)?])
}

pub(super) fn gemm(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (mut a, mut b) = (call.operand(0)?.clone(), call.operand(1)?.clone());
    for (operand, attribute) in [(&mut a, "transA"), (&mut b, "transB")] {
        if call.int(attribute, 0) != 0 {
            *operand = importer.transpose(operand, &[1, 0])?;
        }
    }
    let mut result = importer.matmul(&a, &b)?;
    let (alpha, beta) = (call.float("alpha", 1.0), call.float("beta", 1.0));
    if alpha != 1.0 {
        let node = importer.node(&result)?;
        result = Value::Node(importer.with_number(Binary::Mul, node, alpha)?, Element::Float);
    }
    if let Some(c) = call.optional(2).filter(|_| beta != 0.0) {
        let mut c = importer.node(c)?;
        if beta != 1.0 {
            c = importer.with_number(Binary::Mul, c, beta)?;
        }
        let node = importer.node(&result)?;
        result = Value::Node(importer.binary(Binary::Add, node, c)?, Element::Float);
    }
    Ok(vec![result])
}

impl Importer<'_> {
    /// The matrix product of NumPy.
    pub(super) fn matmul(&mut self, a: &Value, b: &Value) -> Result<Value> {
        if let Value::Quantized(Quantized::Weight(weight)) = b
            && let Value::Quantized(Quantized::Rounded { x, range }) = a
            && let Some(layer) = weight.layer()?
        {
            return Ok(Value::Node(self.quantized_linear(*x, &layer, *range, None, None)?, Element::Float));
        }
        // Activations are rows in front of a matrix that lies as linear layers want it.
        if let Value::Transposed(weight) = b
            && weight.element == Element::Float
            && self.shape(a).len() >= 2
        {
            let x = self.node(a)?;
            return Ok(Value::Node(self.linear(x, weight)?, Element::Float));
        }
        let (a, b) = (self.node(a)?, self.node(b)?);
        Ok(Value::Node(self.product(a, b)?, Element::Float))
    }

    /// `x · weightᵀ` with a constant weight `[N, K]`.
    pub(super) fn linear(&mut self, x: NodeId, weight: &Constant) -> Result<NodeId> {
        let weight = self.node(&Value::Constant(weight.clone()))?;
        self.push(Op::Linear { bias: false, activation: None, residual: false }, &[x, weight])
    }

    /// A matrix product of nodes; vectors become matrices for it.
    pub(super) fn product(&mut self, a: NodeId, b: NodeId) -> Result<NodeId> {
        let (a_shape, b_shape) = (self.shape_of(a), self.shape_of(b));
        let (left, right) = match (a_shape.as_slice(), b_shape.as_slice()) {
            ([], _) | (_, []) => return Err(problem("a matrix product of a number")),
            ([k], _) => (self.reshape_node(a, &[Dim::from(1), k.clone()])?, b),
            (_, [k]) => (a, self.reshape_node(b, &[k.clone(), Dim::from(1)])?),
            _ => (a, b),
        };
        let right = match b_shape.as_slice() {
            [k] => self.reshape_node(right, &[k.clone(), Dim::from(1)])?,
            _ => right,
        };
        let product = self.push(Op::MatMul, &[left, right])?;
        let mut shape = self.shape_of(product);
        if b_shape.len() == 1 {
            shape.pop();
        }
        if a_shape.len() == 1 {
            let row = if b_shape.len() == 1 { shape.len().checked_sub(1) } else { shape.len().checked_sub(2) };
            shape.remove(row.ok_or_else(|| Problem("a matrix product without rows".to_owned()))?);
        }
        self.reshape_node(product, &shape)
    }

    /// `x · codesᵀ · scales` by [`Op::QuantizedLinear`], with a range of all activations, a factor on the result's columns and a
    /// bias where given.
    pub(super) fn quantized_linear(
        &mut self,
        x: NodeId,
        layer: &super::quantized::Layer,
        range: Option<[f32; 2]>,
        factor: Option<&Constant>,
        bias: Option<NodeId>,
    ) -> Result<NodeId> {
        let [outputs, inputs] = layer.shape;
        let scales = match factor {
            None => layer.scales.clone(),
            Some(factor) => layer.scaled(factor)?,
        };
        let weight_name = layer.name.as_deref().unwrap_or(&self.name).to_owned();
        let codes = self.graph.constant(format!("{weight_name}.codes"), layer.codes.clone())?;
        let scales = Tensor::from_f32(&[outputs], &scales)?;
        let scales = self.graph.constant(format!("{weight_name}.scales"), scales)?;
        let ones = Tensor::from_f32(&[inputs], &vec![1.0; inputs])?;
        let ones = self.graph.constant(format!("{weight_name}.factor"), ones)?;
        let mut operands = vec![x, codes, scales, ones];
        operands.extend(bias);
        // Files have codes of the full range. With activations of 12 bits no sum of products of any codes overflows.
        let op = Op::QuantizedLinear { bits: 12, range, bias: bias.is_some(), activation: None, residual: false };
        self.note(match range {
            None => "layers of 8-bit codes take activations of 12 bits, quantised for each token".to_owned(),
            Some(_) => "layers of 8-bit codes take activations of 12 bits, within the range that the file gives them"
                .to_owned(),
        });
        self.push(op, &operands)
    }
}
