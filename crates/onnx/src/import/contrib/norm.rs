//! Normalisations with what stands before them.

use centuple_graph::{Binary, NodeId, Reduction};

use super::super::Importer;
use super::super::attributes::Call;
use super::super::ops::Table;
use super::super::problem::{Result, problem};
use super::super::value::Value;
use crate::file::Element;

pub(super) const OPS: Table = &[
    ("SkipLayerNormalization", skip_layer_normalization),
    ("SkipSimplifiedLayerNormalization", skip_simplified),
    ("SimplifiedLayerNormalization", simplified),
    ("LayerNormalization", layer_normalization),
    ("EmbedLayerNormalization", embed_layer_normalization),
    ("QEmbedLayerNormalization", quantized_embed),
];

/// `input + skip + bias`.
fn sum(importer: &mut Importer, call: &Call, bias: usize) -> Result<NodeId> {
    let (input, skip) = (importer.node(call.operand(0)?)?, importer.node(call.operand(1)?)?);
    // The bias belongs to the layer before, so that it can be merged with it.
    let input = match call.optional(bias) {
        None => input,
        Some(bias) => {
            let bias = importer.node(bias)?;
            importer.binary(Binary::Add, input, bias)?
        }
    };
    importer.binary(Binary::Add, input, skip)
}

/// The result, two values for training, and the sum.
fn results(normal: NodeId, sum: NodeId, call: &Call) -> Result<Vec<Value>> {
    let value = |node| Value::Node(node, Element::Float);
    // Nothing that runs reads the mean and the deviation; their places are filled so that the sum has its own.
    Ok(if call.results > 3 { vec![value(normal), value(sum), value(sum), value(sum)] } else { vec![value(normal)] })
}

fn skip_layer_normalization(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let sum = sum(importer, call, 4)?;
    let normal = importer.layer_norm(sum, Some(call.operand(2)?), call.optional(3), call.float("epsilon", 1e-12))?;
    results(normal, sum, call)
}

fn skip_simplified(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let sum = sum(importer, call, 3)?;
    let normal = importer.rms_norm(sum, Some(call.operand(2)?), call.float("epsilon", 1e-12))?;
    results(normal, sum, call)
}

fn simplified(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    Ok(vec![Value::Node(importer.rms_norm(x, call.optional(1), call.float("epsilon", 1e-5))?, Element::Float)])
}

fn layer_normalization(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let normal = importer.layer_norm(x, call.optional(1), call.optional(2), call.float("epsilon", 1e-5))?;
    Ok(vec![Value::Node(normal, Element::Float)])
}

/// The operands of an embedding layer.
struct Embedding {
    ids: Value,
    types: Option<Value>,
    words: Value,
    positions: Value,
    segments: Option<Value>,
    gamma: Value,
    beta: Value,
    mask: Option<Value>,
    position_ids: Option<Value>,
}

fn embed_layer_normalization(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let embedding = Embedding {
        ids: call.operand(0)?.clone(),
        types: call.optional(1).cloned(),
        words: call.operand(2)?.clone(),
        positions: call.operand(3)?.clone(),
        segments: call.optional(4).cloned(),
        gamma: call.operand(5)?.clone(),
        beta: call.operand(6)?.clone(),
        mask: call.optional(7).cloned(),
        position_ids: call.optional(8).cloned(),
    };
    embed(importer, call, &embedding)
}

/// The same on codes: a scale for each table behind the mask, then the zero points.
fn quantized_embed(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let mut table = |index: usize| -> Result<Option<Value>> {
        let (Some(codes), Some(scale)) = (call.optional(index).cloned(), call.optional(index + 6).cloned()) else {
            return Ok(None);
        };
        let numbers = importer.real(&codes, &scale, call.optional(index + 11), 0, 0)?;
        importer.settled(&numbers).map(Some)
    };
    let missing = || problem("a table or its scale is missing");
    let embedding = Embedding {
        words: table(2)?.ok_or_else(missing)?,
        positions: table(3)?.ok_or_else(missing)?,
        segments: table(4)?,
        gamma: table(5)?.ok_or_else(missing)?,
        beta: table(6)?.ok_or_else(missing)?,
        ids: call.operand(0)?.clone(),
        types: call.optional(1).cloned(),
        mask: call.optional(7).cloned(),
        position_ids: None,
    };
    embed(importer, call, &embedding)
}

fn embed(importer: &mut Importer, call: &Call, embedding: &Embedding) -> Result<Vec<Value>> {
    let ids = importer.settled(&embedding.ids)?;
    let shape = importer.shape(&ids);
    let [_, sequence] = shape.as_slice() else { return Err(problem("ids that are not [batch, sequence]")) };
    let mut sum = importer.look_up(&embedding.words, &ids)?;
    let positions = match &embedding.position_ids {
        Some(positions) => importer.look_up(&embedding.positions, positions)?,
        None => {
            let first = importer.slice(&embedding.positions, 0, &Default::default(), sequence, 1)?;
            importer.node(&first)?
        }
    };
    sum = importer.binary(Binary::Add, sum, positions)?;
    if let (Some(types), Some(table)) = (&embedding.types, &embedding.segments) {
        let types = importer.look_up(table, types)?;
        sum = importer.binary(Binary::Add, sum, types)?;
    }
    let epsilon = call.float("epsilon", 1e-12);
    let normal = importer.layer_norm(sum, Some(&embedding.gamma), Some(&embedding.beta), epsilon)?;
    // The lengths of the sequences, for an attention behind.
    let lengths = match &embedding.mask {
        Some(mask) => {
            let mask = importer.node(mask)?;
            importer.reduce_node(Reduction::Sum, mask, &[1], true)?
        }
        None => {
            let zero = importer.scalar(0.0)?;
            importer.expand_node(zero, &shape[..1])?
        }
    };
    let mut results = vec![Value::Node(normal, Element::Float), Value::Node(lengths, Element::Int)];
    results.push(Value::Node(sum, Element::Float));
    Ok(results)
}

impl Importer<'_> {
    /// Rows of a table at ids.
    fn look_up(&mut self, table: &Value, ids: &Value) -> Result<NodeId> {
        let ids = self.settled(ids)?;
        if let Value::Node(node, _) = ids {
            self.looked_up(table, node, 0)?;
        }
        let rows = self.gather(table, &ids, 0)?;
        self.node(&rows)
    }
}
