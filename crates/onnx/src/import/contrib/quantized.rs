//! Layers and functions on codes.

use centuple_graph::{Activation, Binary, Op, Reduction};

use super::super::attributes::Call;
use super::super::elementwise::Arithmetic;
use super::super::ops::Table;
use super::super::problem::{Result, problem};
use super::super::quantized::{Quantized, dequantize, quantize};
use super::super::value::Value;
use super::super::{Importer, dims};
use crate::file::Element;

pub(super) const OPS: Table = &[
    ("QuantizeLinear", quantize),
    ("DequantizeLinear", dequantize),
    ("DynamicQuantizeMatMul", dynamic_quantize_matmul),
    ("MatMulIntegerToFloat", matmul_integer_to_float),
    ("QGemm", qgemm),
    ("QLinearAdd", |i, c| binary(i, c, Arithmetic::Add)),
    ("QLinearMul", |i, c| binary(i, c, Arithmetic::Mul)),
    ("QLinearSigmoid", sigmoid),
    ("QLinearLeakyRelu", leaky_relu),
    ("QLinearSoftmax", softmax),
    ("QLinearReduceMean", reduce_mean),
    ("QLinearConcat", concat),
    ("QLinearWhere", select),
];

/// The numbers of the codes in operand `index`, whose scale and zero point follow it.
fn operand(importer: &mut Importer, call: &Call, index: usize) -> Result<Value> {
    let (codes, scale) = (call.operand(index)?.clone(), call.operand(index + 1)?.clone());
    importer.real(&codes, &scale, call.optional(index + 2), 0, 0)
}

fn with_bias(importer: &mut Importer, product: Value, bias: Option<&Value>) -> Result<Value> {
    match bias {
        None => Ok(product),
        Some(bias) => importer.combine(Arithmetic::Add, &product, bias),
    }
}

fn dynamic_quantize_matmul(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let (codes, scale) = (call.operand(1)?.clone(), call.operand(2)?.clone());
    let weight = importer.real(&codes, &scale, call.optional(3), -1, 0)?;
    let product = importer.matmul(&Value::Quantized(Quantized::Rounded { x, range: None }), &weight)?;
    Ok(vec![with_bias(importer, product, call.optional(4))?])
}

fn matmul_integer_to_float(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (a, b) = (call.operand(0)?.clone(), call.operand(1)?.clone());
    let (a_scale, b_scale) = (call.operand(2)?.clone(), call.operand(3)?.clone());
    let a = importer.real(&a, &a_scale, call.optional(4), 0, 0)?;
    let b = importer.real(&b, &b_scale, call.optional(5), -1, 0)?;
    let product = importer.matmul(&a, &b)?;
    Ok(vec![with_bias(importer, product, call.optional(6))?])
}

fn qgemm(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let mut a = operand(importer, call, 0)?;
    let mut codes = call.operand(3)?.clone();
    // Its scales belong to the outputs, wherever those lie.
    let turned = call.int("transB", 0) != 0;
    codes = if turned { importer.transpose(&codes, &[1, 0])? } else { codes };
    let b_scale = call.operand(4)?.clone();
    let b = importer.real(&codes, &b_scale, call.optional(5), -1, 0)?;
    if call.int("transA", 0) != 0 {
        a = importer.transpose(&a, &[1, 0])?;
    }
    let mut result = importer.matmul(&a, &b)?;
    if let Some(bias) = call.optional(6) {
        let scale = importer.combine(Arithmetic::Mul, call.operand(1)?, &b_scale)?;
        let bias = importer.convert(bias, Element::Float)?;
        let bias = importer.combine(Arithmetic::Mul, &bias, &scale)?;
        result = importer.combine(Arithmetic::Add, &result, &bias)?;
    }
    let alpha = call.float("alpha", 1.0);
    let mut node = importer.node(&result)?;
    if alpha != 1.0 {
        node = importer.with_number(Binary::Mul, node, alpha)?;
    }
    // Without an output scale the result is numbers.
    Ok(vec![if call.optional(7).is_some() { importer.codes_of(node) } else { Value::Node(node, Element::Float) }])
}

fn binary(importer: &mut Importer, call: &Call, function: Arithmetic) -> Result<Vec<Value>> {
    let (a, b) = (operand(importer, call, 0)?, operand(importer, call, 3)?);
    let result = importer.combine(function, &a, &b)?;
    let node = importer.node(&result)?;
    Ok(vec![importer.codes_of(node)])
}

fn sigmoid(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = operand(importer, call, 0)?;
    let x = importer.node(&x)?;
    let result = importer.activate(Activation::Sigmoid, x)?;
    Ok(vec![importer.codes_of(result)])
}

fn leaky_relu(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = operand(importer, call, 0)?;
    let x = importer.node(&x)?;
    let low = importer.with_number(Binary::Min, x, 0.0)?;
    let low = importer.with_number(Binary::Mul, low, call.float("alpha", 0.01))?;
    let high = importer.activate(Activation::Relu, x)?;
    let result = importer.binary(Binary::Add, high, low)?;
    Ok(vec![importer.codes_of(result)])
}

fn softmax(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = operand(importer, call, 0)?;
    let x = importer.node(&x)?;
    let rank = importer.shape_of(x).len();
    if dims::axis(call.int("axis", -1), rank)? + 1 != rank {
        return Err(problem("a softmax of codes that is not over the last dimension"));
    }
    let result = importer.push(Op::Softmax, &[x])?;
    Ok(vec![importer.codes_of(result)])
}

fn reduce_mean(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = operand(importer, call, 0)?;
    let x = importer.node(&x)?;
    let rank = importer.shape_of(x).len();
    let axes = call.ints("axes").unwrap_or_default();
    let mut axes = axes.iter().map(|&axis| dims::axis(axis, rank)).collect::<Result<Vec<usize>>>()?;
    axes.sort_unstable();
    axes.dedup();
    if axes.is_empty() {
        axes = (0..rank).collect();
    }
    let mean = importer.reduce_node(Reduction::Mean, x, &axes, call.int("keepdims", 1) == 0)?;
    Ok(vec![importer.codes_of(mean)])
}

/// The result's scale and zero point come first.
fn concat(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let mut parts = Vec::new();
    for index in (2..call.operands.len()).step_by(3) {
        let part = operand(importer, call, index)?;
        parts.push(importer.settled(&part)?);
    }
    let first = parts.first().ok_or_else(|| problem("nothing to join"))?;
    let axis = dims::axis(call.int("axis", 0), importer.shape(first).len())?;
    let joined = importer.concat(&parts, axis)?;
    let node = importer.node(&joined)?;
    Ok(vec![importer.codes_of(node)])
}

fn select(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let condition = importer.node(call.operand(0)?)?;
    let (a, b) = (operand(importer, call, 1)?, operand(importer, call, 4)?);
    let (a, b) = (importer.node(&a)?, importer.node(&b)?);
    let result = importer.push(Op::Where, &[condition, a, b])?;
    Ok(vec![importer.codes_of(result)])
}
