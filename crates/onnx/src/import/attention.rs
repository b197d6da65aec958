//! Attention and rotations, written out in primitive ops.

use centuple_graph::{Binary, NodeId, Op, Unary};
use centuple_tensor::Dim;

use super::Importer;
use super::attributes::Call;
use super::dims::multiply;
use super::ops::Table;
use super::problem::{Problem, Result, problem};
use super::value::Value;
use crate::file::Element;

pub(super) const OPS: Table = &[("Attention", attention), ("RotaryEmbedding", rotary_embedding)];

/// Scaled dot-product attention of `[B, heads, S, D]` queries, `[B, heads, T, D]` keys and `[B, heads, T, V]` values.
pub(super) struct Heads {
    pub(super) queries: NodeId,
    pub(super) keys: NodeId,
    pub(super) values: NodeId,
    /// The factor on the scores; by default `1 / sqrt(D)`.
    pub(super) scale: Option<f32>,
    /// What is added to the scores.
    pub(super) biases: Vec<NodeId>,
    /// Whether a query sees keys up to its own place only.
    pub(super) causal: bool,
    /// The scores' limit, approached by tanh; 0 for none.
    pub(super) softcap: f32,
}

impl Importer<'_> {
    /// `[B, heads, S, V]`.
    pub(super) fn attend(&mut self, heads: &Heads) -> Result<NodeId> {
        let (q_shape, k_shape) = (self.shape_of(heads.queries), self.shape_of(heads.keys));
        let ([_, _, queries, width], [_, _, keys, _]) = (q_shape.as_slice(), k_shape.as_slice()) else {
            return Err(problem("heads that are not of the shape [batch, heads, sequence, width]"));
        };
        let width = width.constant().ok_or_else(|| problem("heads whose width is not fixed"))?;
        let scale = heads.scale.unwrap_or_else(|| 1.0 / (width as f32).sqrt());
        let keys_turned = self.transpose_node(heads.keys, &[0, 1, 3, 2])?;
        let mut scores = self.push(Op::MatMul, &[heads.queries, keys_turned])?;
        if scale != 1.0 {
            scores = self.with_number(Binary::Mul, scores, scale)?;
        }
        if heads.softcap > 0.0 {
            scores = self.with_number(Binary::Div, scores, heads.softcap)?;
            scores = self.activate(centuple_graph::Activation::Tanh, scores)?;
            scores = self.with_number(Binary::Mul, scores, heads.softcap)?;
        }
        for &bias in &heads.biases {
            scores = self.binary(Binary::Add, scores, bias)?;
        }
        if heads.causal {
            let bias = self.causal(queries, keys)?;
            scores = self.binary(Binary::Add, scores, bias)?;
        }
        let weights = self.push(Op::Softmax, &[scores])?;
        self.push(Op::MatMul, &[weights, heads.values])
    }

    /// `[S, T]`: 0 where a query sees a key, else the smallest number.
    fn causal(&mut self, queries: &Dim, keys: &Dim) -> Result<NodeId> {
        let down = self.places(&Dim::default(), queries, 1)?;
        let down = self.reshape_node(down, &[queries.clone(), Dim::from(1)])?;
        let across = self.places(&Dim::default(), keys, 1)?;
        let hidden = self.binary(Binary::Less, down, across)?;
        self.with_number(Binary::Mul, hidden, f32::MIN)
    }

    /// 0 where the mask is not 0, else `low`.
    pub(super) fn additive(&mut self, mask: NodeId, low: f32) -> Result<NodeId> {
        let hidden = self.not(mask)?;
        self.with_number(Binary::Mul, hidden, low)
    }

    /// `[B, S, heads·D]` as `[B, heads, S, D]`.
    pub(super) fn split_heads(&mut self, x: NodeId, heads: usize) -> Result<NodeId> {
        let shape = self.shape_of(x);
        let [batch, sequence, width] = shape.as_slice() else {
            return Err(problem("rows that are not [batch, sequence, width]"));
        };
        let head = width.divide_exact(&Dim::from(heads));
        let head = head.ok_or_else(|| Problem(format!("{heads} heads of rows of width {width}")))?;
        let apart = self.reshape_node(x, &[batch.clone(), sequence.clone(), Dim::from(heads), head])?;
        self.transpose_node(apart, &[0, 2, 1, 3])
    }

    /// `[B, heads, S, D]` as `[B, S, heads·D]`.
    pub(super) fn merge_heads(&mut self, x: NodeId) -> Result<NodeId> {
        let turned = self.transpose_node(x, &[0, 2, 1, 3])?;
        let shape = self.shape_of(turned);
        let [batch, sequence, heads, head] = shape.as_slice() else { return Err(problem("values that are no heads")) };
        let width = multiply(heads, head)?;
        self.reshape_node(turned, &[batch.clone(), sequence.clone(), width])
    }

    /// Heads that several heads of queries share, written out for each.
    fn repeated(&mut self, x: NodeId, times: usize) -> Result<NodeId> {
        if times == 1 {
            return Ok(x);
        }
        let shape = self.shape_of(x);
        let [batch, heads, sequence, head] = shape.as_slice() else { return Err(problem("values that are no heads")) };
        let one = [batch.clone(), heads.clone(), Dim::from(1), sequence.clone(), head.clone()];
        let many = [batch.clone(), heads.clone(), Dim::from(times), sequence.clone(), head.clone()];
        let apart = self.reshape_node(x, &one)?;
        let wide = self.expand_node(apart, &many)?;
        let all = multiply(heads, &Dim::from(times))?;
        self.reshape_node(wide, &[batch.clone(), all, sequence.clone(), head.clone()])
    }

    /// The rotation of `x [B, heads, S, D]` by `cos` and `sin [.., S, R/2]` of the places; columns from `R` on stay.
    pub(super) fn rotate(&mut self, x: NodeId, tables: [NodeId; 2], interleaved: bool) -> Result<NodeId> {
        let shape = self.shape_of(x);
        let half = self.width(tables[0])?;
        let width = self.width(x)?;
        let [batch, heads, sequence, _] = shape.as_slice() else { return Err(problem("values that are no heads")) };
        if half == 0 || half.checked_mul(2).is_none_or(|rotated| rotated > width) {
            return Err(Problem(format!("{half} angles for heads of width {width}")));
        }
        let part = |this: &mut Self, x: NodeId, axis: usize, start: usize, end: usize| {
            this.push(Op::Slice { axis, start, end }, &[x])
        };
        let pairs = [batch.clone(), heads.clone(), sequence.clone(), Dim::from(half), Dim::from(2)];
        let flat = [batch.clone(), heads.clone(), sequence.clone(), Dim::from(half)];
        let (first, second) = if interleaved {
            let rotated = part(self, x, 3, 0, 2 * half)?;
            let apart = self.reshape_node(rotated, &pairs)?;
            let [first, second] = [part(self, apart, 4, 0, 1)?, part(self, apart, 4, 1, 2)?];
            (self.reshape_node(first, &flat)?, self.reshape_node(second, &flat)?)
        } else {
            (part(self, x, 3, 0, half)?, part(self, x, 3, half, 2 * half)?)
        };
        let [cos, sin] = tables;
        let products = [(first, cos), (second, sin), (second, cos), (first, sin)];
        let products = products.map(|(a, b)| self.binary(Binary::Mul, a, b));
        let [a, b, c, d] = products;
        let real = self.binary(Binary::Sub, a?, b?)?;
        let imaginary = self.binary(Binary::Add, c?, d?)?;
        let rotated = if interleaved {
            let single = [batch.clone(), heads.clone(), sequence.clone(), Dim::from(half), Dim::from(1)];
            let parts = [self.reshape_node(real, &single)?, self.reshape_node(imaginary, &single)?];
            let joined = self.push(Op::Concat { axis: 4 }, &parts)?;
            let both = [batch.clone(), heads.clone(), sequence.clone(), Dim::from(2 * half)];
            self.reshape_node(joined, &both)?
        } else {
            self.push(Op::Concat { axis: 3 }, &[real, imaginary])?
        };
        if 2 * half == width {
            return Ok(rotated);
        }
        let rest = part(self, x, 3, 2 * half, width)?;
        self.push(Op::Concat { axis: 3 }, &[rotated, rest])
    }
}

/// Attention of opset 23.
fn attention(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    if (4..7).any(|operand| call.optional(operand).is_some()) {
        return Err(problem("attention over keys of earlier steps"));
    }
    let rank = importer.shape(call.operand(0)?).len();
    let mut heads =
        [importer.node(call.operand(0)?)?, importer.node(call.operand(1)?)?, importer.node(call.operand(2)?)?];
    if rank == 3 {
        for (node, attribute) in heads.iter_mut().zip(["q_num_heads", "kv_num_heads", "kv_num_heads"]) {
            *node = importer.split_heads(*node, call.count(attribute)?)?;
        }
    }
    let count = |importer: &Importer, node: NodeId| importer.shape_of(node).get(1).and_then(Dim::constant);
    let (own, shared) = (count(importer, heads[0]), count(importer, heads[1]));
    let times = match (own, shared) {
        (Some(own), Some(shared)) if shared > 0 && own % shared == 0 => own / shared,
        _ => return Err(problem("numbers of heads that don't fit")),
    };
    let mut biases = Vec::new();
    if let Some(mask) = call.optional(3) {
        let is_bool = importer.element(mask) == Element::Bool;
        let mask = importer.node(mask)?;
        biases.push(if is_bool { importer.additive(mask, f32::MIN)? } else { mask });
    }
    let attended = Heads {
        queries: heads[0],
        keys: importer.repeated(heads[1], times)?,
        values: importer.repeated(heads[2], times)?,
        scale: call.has("scale").then(|| call.float("scale", 1.0)),
        biases,
        causal: call.int("is_causal", 0) != 0,
        softcap: call.float("softcap", 0.0),
    };
    let mut result = importer.attend(&attended)?;
    if rank == 3 {
        result = importer.merge_heads(result)?;
    }
    let present = [heads[1], heads[2]].map(|node| Value::Node(node, Element::Float));
    Ok([vec![Value::Node(result, Element::Float)], present.to_vec()].concat())
}

/// Rotations of opset 23.
fn rotary_embedding(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let tables = [call.operand(1)?.clone(), call.operand(2)?.clone()];
    let result = importer.rotary(x, tables, call.optional(3), call)?;
    Ok(vec![Value::Node(result, Element::Float)])
}

impl Importer<'_> {
    /// Rotates `x [B, heads, S, D]` or `[B, S, heads·D]` by tables of all positions, or of those that are given.
    pub(super) fn rotary(
        &mut self,
        x: NodeId,
        tables: [Value; 2],
        positions: Option<&Value>,
        call: &Call,
    ) -> Result<NodeId> {
        let rank = self.shape_of(x).len();
        let heads = if rank == 3 { self.split_heads(x, call.count("num_heads")?)? } else { x };
        let mut rows = Vec::with_capacity(2);
        for table in tables {
            let table = match positions {
                Some(positions) => self.gather(&table, positions, 0)?,
                None => table,
            };
            // [B, S, R/2] or [S, R/2]
            let mut shape = self.shape(&table);
            if shape.len() == 3 {
                shape.insert(1, Dim::from(1));
            }
            let table = self.reshape(&table, &shape)?;
            rows.push(self.node(&table)?);
        }
        let [cos, sin] = rows.as_slice() else { return Err(problem("a table is missing")) };
        let rotated = self.rotate(heads, [*cos, *sin], call.int("interleaved", 0) != 0)?;
        if rank == 3 { self.merge_heads(rotated) } else { Ok(rotated) }
    }

    /// `x · sigmoid(alpha · x)`.
    pub(super) fn quick_gelu(&mut self, x: NodeId, alpha: f32) -> Result<NodeId> {
        if (alpha - 1.702).abs() < 1e-6 {
            return self.activate(centuple_graph::Activation::QuickGelu, x);
        }
        let scaled = self.with_number(Binary::Mul, x, alpha)?;
        let gate = self.activate(centuple_graph::Activation::Sigmoid, scaled)?;
        self.binary(Binary::Mul, x, gate)
    }

    /// The natural logarithm of a node, for what has no operator of its own.
    pub(super) fn logarithm(&mut self, x: NodeId) -> Result<NodeId> {
        self.unary(Unary::Log, x)
    }
}
