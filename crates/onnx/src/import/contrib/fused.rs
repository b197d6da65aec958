//! Matrix products and activations with what stands around them.

use centuple_graph::{Activation, Binary, NodeId, Unary};

use super::super::Importer;
use super::super::attributes::Call;
use super::super::ops::Table;
use super::super::problem::{Problem, Result};
use super::super::value::Value;
use crate::file::Element;

pub(super) const OPS: Table = &[
    ("Gelu", |i, c| activated(i, c, Activation::Gelu)),
    ("BiasGelu", |i, c| activated(i, c, Activation::Gelu)),
    ("FastGelu", |i, c| activated(i, c, Activation::GeluTanh)),
    ("QuickGelu", quick_gelu),
    ("FusedMatMul", fused_matmul),
    ("TransposeMatMul", fused_matmul),
    ("FusedGemm", fused_gemm),
    ("BiasAdd", bias_add),
];

/// An activation function of the first operand plus the second, if there is one.
fn activated(importer: &mut Importer, call: &Call, activation: Activation) -> Result<Vec<Value>> {
    let mut x = importer.node(call.operand(0)?)?;
    if let Some(bias) = call.optional(1) {
        let bias = importer.node(bias)?;
        x = importer.binary(Binary::Add, x, bias)?;
    }
    Ok(vec![Value::Node(importer.activate(activation, x)?, Element::Float)])
}

fn quick_gelu(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    Ok(vec![Value::Node(importer.quick_gelu(x, call.float("alpha", 1.702))?, Element::Float)])
}

fn fused_matmul(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let mut operands = [call.operand(0)?.clone(), call.operand(1)?.clone()];
    for (operand, suffix) in operands.iter_mut().zip(["A", "B"]) {
        if call.int(&format!("transBatch{suffix}"), 0) != 0 {
            return Err(Problem("a matrix product with its batch dimensions turned".to_owned()));
        }
        let rank = importer.shape(operand).len();
        if call.int(&format!("trans{suffix}"), 0) != 0 && rank >= 2 {
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(rank - 2, rank - 1);
            *operand = importer.transpose(operand, &perm)?;
        }
    }
    let product = importer.matmul(&operands[0], &operands[1])?;
    let alpha = call.float("alpha", 1.0);
    if alpha == 1.0 {
        return Ok(vec![product]);
    }
    let product = importer.node(&product)?;
    Ok(vec![Value::Node(importer.with_number(Binary::Mul, product, alpha)?, Element::Float)])
}

fn fused_gemm(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let results = super::super::matmul::gemm(importer, call)?;
    let Some(result) = results.first() else { return Ok(results) };
    let node = importer.node(result)?;
    let name = call.text("activation").unwrap_or_default();
    Ok(vec![Value::Node(by_name(importer, &name, node)?, Element::Float)])
}

fn by_name(importer: &mut Importer, name: &str, x: NodeId) -> Result<NodeId> {
    match name {
        "" => Ok(x),
        "Relu" => importer.activate(Activation::Relu, x),
        "Tanh" => importer.activate(Activation::Tanh, x),
        "Sigmoid" => importer.activate(Activation::Sigmoid, x),
        "Gelu" => importer.activate(Activation::Gelu, x),
        "Abs" => importer.unary(Unary::Abs, x),
        other => Err(Problem(format!("the activation `{}`", crate::error::shown(other)))),
    }
}

fn bias_add(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let mut sum = importer.node(call.operand(0)?)?;
    for operand in [1, 2] {
        let operand = importer.node(call.operand(operand)?)?;
        sum = importer.binary(Binary::Add, sum, operand)?;
    }
    Ok(vec![Value::Node(sum, Element::Float)])
}
