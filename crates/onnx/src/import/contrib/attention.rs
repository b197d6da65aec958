//! Attention of ONNX Runtime, with and without its projections.

use centuple_graph::{Binary, NodeId, Op};
use centuple_tensor::Dim;

use super::super::Importer;
use super::super::attention::Heads;
use super::super::attributes::Call;
use super::super::ops::Table;
use super::super::problem::{Problem, Result, problem};
use super::super::quantized::{Quantized, Weight};
use super::super::value::Value;
use crate::file::{Constant, Element};

pub(super) const OPS: Table = &[
    ("Attention", attention),
    ("QAttention", quantized_attention),
    ("MultiHeadAttention", multi_head_attention),
    ("RotaryEmbedding", rotary_embedding),
];

/// What hidden keys get where the attribute is missing.
const FILTER: f32 = -10_000.0;

/// What the forms of attention with projections have in common.
struct Projected {
    x: Value,
    weight: Value,
    bias: Option<Value>,
    mask: Option<Value>,
    past: bool,
    attention_bias: Option<Value>,
}

fn attention(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let projected = Projected {
        x: call.operand(0)?.clone(),
        weight: call.operand(1)?.clone(),
        bias: call.optional(2).cloned(),
        mask: call.optional(3).cloned(),
        past: call.optional(4).is_some(),
        attention_bias: call.optional(5).cloned(),
    };
    attend(importer, call, &projected)
}

/// Operands: codes of the input and of the weight, the bias, both scales, the mask, both zero points.
fn quantized_attention(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (input, weight) = (call.operand(0)?.clone(), call.operand(1)?.clone());
    let (input_scale, weight_scale) = (call.operand(3)?.clone(), call.operand(4)?.clone());
    let projected = Projected {
        x: importer.real(&input, &input_scale, call.optional(6), 0, 0)?,
        weight: importer.real(&weight, &weight_scale, call.optional(7), -1, 0)?,
        bias: call.optional(2).cloned(),
        mask: call.optional(5).cloned(),
        past: call.optional(8).is_some(),
        attention_bias: None,
    };
    attend(importer, call, &projected)
}

fn attend(importer: &mut Importer, call: &Call, operands: &Projected) -> Result<Vec<Value>> {
    let heads = call.count("num_heads")?;
    if operands.past || call.int("do_rotary", 0) != 0 {
        return Err(problem("attention over keys of earlier steps, or with rotations"));
    }
    let shape = importer.shape(&operands.weight);
    let [_, columns] = shape.as_slice() else { return Err(problem("a weight that is no matrix")) };
    let columns = columns.constant().ok_or_else(|| problem("a weight whose size is not fixed"))?;
    let widths = match call.ints("qkv_hidden_sizes") {
        Some(&[q, k, v]) => [q, k, v].map(|width| usize::try_from(width).unwrap_or(0)),
        Some(_) => return Err(problem("other than three hidden sizes")),
        None => [columns / 3; 3],
    };
    if widths.iter().try_fold(0usize, |sum, &width| sum.checked_add(width)) != Some(columns) {
        return Err(Problem(format!("a weight of {columns} columns for three projections")));
    }
    let mut start = 0;
    let mut projections = Vec::with_capacity(3);
    for width in widths {
        let weight = importer.columns(&operands.weight, start, width)?;
        let mut projection = importer.matmul(&operands.x, &weight)?;
        if let Some(bias) = &operands.bias {
            let bias = importer.slice(bias, 0, &Dim::from(start), &Dim::from(width), 1)?;
            let (x, bias) = (importer.node(&projection)?, importer.node(&bias)?);
            projection = Value::Node(importer.binary(Binary::Add, x, bias)?, Element::Float);
        }
        let projection = importer.node(&projection)?;
        projections.push(importer.split_heads(projection, heads)?);
        start += width;
    }
    let [queries, keys, values] = projections.as_slice() else { return Err(problem("a projection is missing")) };
    finish(importer, call, [*queries, *keys, *values], operands.mask.as_ref(), operands.attention_bias.as_ref())
}

/// Attention of projected heads, with ONNX Runtime's forms of masks.
fn finish(
    importer: &mut Importer,
    call: &Call,
    [queries, keys, values]: [NodeId; 3],
    mask: Option<&Value>,
    bias: Option<&Value>,
) -> Result<Vec<Value>> {
    let filter = call.float("mask_filter_value", FILTER);
    let mut biases = Vec::new();
    if let Some(bias) = bias {
        biases.push(importer.node(bias)?);
    }
    if let Some(mask) = mask {
        let mask = importer.node(mask)?;
        biases.push(importer.mask(mask, keys, filter)?);
    }
    let scale = call.float("scale", 0.0);
    let heads = Heads {
        queries,
        keys,
        values,
        scale: (scale != 0.0).then_some(scale),
        biases,
        causal: call.int("unidirectional", 0) != 0,
        softcap: 0.0,
    };
    let attended = importer.attend(&heads)?;
    Ok(vec![Value::Node(importer.merge_heads(attended)?, Element::Float)])
}

impl Importer<'_> {
    /// Columns of a weight, numbers or codes.
    fn columns(&mut self, weight: &Value, start: usize, width: usize) -> Result<Value> {
        let Value::Quantized(Quantized::Weight(codes)) = weight else {
            return self.slice(weight, 1, &Dim::from(start), &Dim::from(width), 1);
        };
        let axis = usize::from(!codes.flipped);
        let mut cut = |constant: &Constant, axis: usize| -> Result<Constant> {
            if constant.len() == 1 {
                return Ok(constant.clone());
            }
            match self.slice(&constant.clone().into(), axis, &Dim::from(start), &Dim::from(width), 1)? {
                Value::Constant(part) => Ok(part),
                Value::Transposed(_) | Value::Dims(_) | Value::Node(..) | Value::Quantized(_) | Value::Marked(_) => {
                    Err(problem("scales that are not fixed"))
                }
            }
        };
        let last = |constant: &Constant| constant.shape().len().saturating_sub(1);
        let weight = Weight {
            scale: cut(&codes.scale, last(&codes.scale))?,
            zero: codes.zero.as_ref().map(|zero| cut(zero, last(zero))).transpose()?,
            codes: cut(&codes.codes, axis)?,
            ..(**codes).clone()
        };
        Ok(Value::Quantized(Quantized::Weight(Box::new(weight))))
    }

    /// A mask as what is added to the scores: of lengths `[B]`, of keys `[B, T]`, of pairs `[B, S, T]`, or `[B, 1, S, T]`.
    fn mask(&mut self, mask: NodeId, keys: NodeId, filter: f32) -> Result<NodeId> {
        let shape = self.shape_of(mask);
        let keys = self.shape_of(keys);
        let (batch, length) = (keys[0].clone(), keys[2].clone());
        let one = Dim::from(1);
        let seen = match shape.as_slice() {
            [lengths] if *lengths == batch => {
                let lengths = self.reshape_node(mask, &[batch, one.clone(), one.clone(), one])?;
                let places = self.places(&Dim::default(), &length, 1)?;
                self.binary(Binary::Less, places, lengths)?
            }
            [rows, columns] if *columns == length => {
                self.reshape_node(mask, &[rows.clone(), one.clone(), one, columns.clone()])?
            }
            [rows, queries, columns] if *columns == length => {
                self.reshape_node(mask, &[rows.clone(), one, queries.clone(), columns.clone()])?
            }
            [_, _, _, columns] if *columns == length => mask,
            _ => return Err(Problem(format!("a mask of the shape [{}]", super::super::dims::shown(&shape)))),
        };
        self.additive(seen, filter)
    }
}

/// Operands: query, key, value, bias of the projections, mask, what is added to the scores, past keys and values.
fn multi_head_attention(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let count = call.count("num_heads")?;
    if call.optional(6).is_some() || call.optional(7).is_some() {
        return Err(problem("attention over keys of earlier steps"));
    }
    let query = importer.node(call.operand(0)?)?;
    let given = match (call.optional(1), call.optional(2)) {
        (Some(key), Some(value)) => [query, importer.node(key)?, importer.node(value)?],
        _ => packed(importer, query)?,
    };
    let mut heads = Vec::with_capacity(3);
    let mut start = 0;
    for node in given {
        let mut node = node;
        if importer.shape_of(node).len() == 4 {
            heads.push(node);
            continue;
        }
        if let Some(bias) = call.optional(3) {
            let width = importer.width(node)?;
            let bias = importer.slice(bias, 0, &Dim::from(start), &Dim::from(width), 1)?;
            let bias = importer.node(&bias)?;
            node = importer.binary(Binary::Add, node, bias)?;
            start += width;
        }
        heads.push(importer.split_heads(node, count)?);
    }
    let [queries, keys, values] = heads.as_slice() else { return Err(problem("an operand is missing")) };
    finish(importer, call, [*queries, *keys, *values], call.optional(4), call.optional(5))
}

/// The parts of `[B, S, heads, 3, D]`, as rows.
fn packed(importer: &mut Importer, all: NodeId) -> Result<[NodeId; 3]> {
    let shape = importer.shape_of(all);
    let [batch, sequence, heads, three, width] = shape.as_slice() else {
        return Err(problem("neither key nor value, nor all in one"));
    };
    if *three != Dim::from(3) {
        return Err(problem("other than three projections in one"));
    }
    let rows = [batch.clone(), sequence.clone(), super::super::dims::multiply(heads, width)?];
    let mut part = |index: usize| {
        let part = importer.push(Op::Slice { axis: 3, start: index, end: index + 1 }, &[all])?;
        importer.reshape_node(part, &rows)
    };
    Ok([part(0)?, part(1)?, part(2)?])
}

/// Operands: the input, positions, tables of cosines and sines.
fn rotary_embedding(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let shape = importer.shape_of(x);
    let tables = [call.operand(2)?.clone(), call.operand(3)?.clone()];
    let positions = call.operand(1)?.clone();
    let positions = if importer.shape(&positions) == [Dim::from(1)] {
        // A single number is where the sequences start.
        let sequence = if shape.len() == 3 { &shape[1] } else { &shape[2] };
        let places = importer.places(&Dim::default(), sequence, 1)?;
        let start = importer.node(&positions)?;
        Value::Node(importer.binary(Binary::Add, places, start)?, Element::Int)
    } else {
        positions
    };
    if call.float("scale", 1.0) != 1.0 {
        return Err(problem("a scale on rotations"));
    }
    let x = if shape.len() == 3 && call.int("num_heads", 0) == 0 {
        let table = importer.shape(&tables[0]);
        let head = table.last().and_then(Dim::constant).and_then(|half| half.checked_mul(2));
        let width = importer.width(x)?;
        let head = head.filter(|&head| head > 0 && width % head == 0).ok_or_else(|| problem("no number of heads"))?;
        let heads = importer.split_heads(x, width / head)?;
        let rotated = importer.rotary(heads, tables, Some(&positions), call)?;
        importer.merge_heads(rotated)?
    } else {
        importer.rotary(x, tables, Some(&positions), call)?
    };
    Ok(vec![Value::Node(x, Element::Float)])
}
