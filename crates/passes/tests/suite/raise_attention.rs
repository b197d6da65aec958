//! Attentions spelt out in primitive ops are recognised, and compute the same.

use centuple_graph::{Attention, Binary, Graph, GraphError, NodeId, Op, PositionScores, Unary};
use centuple_passes::{RaiseOptions, raise};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{DType, Dim, Layout, Shape, Symbol, Tensor};

type Error = Box<dyn std::error::Error>;

const HEADS: usize = 2;
const WIDTH: usize = 8;
const HIDDEN: usize = HEADS * WIDTH;
const LONGEST: usize = 24;

fn random(shape: &[usize], seed: usize) -> Tensor {
    let number = |index: usize| {
        let bits = (index * 7919 + seed * 104_729 + 13).wrapping_mul(2_654_435_761) >> 8;
        (bits % 2001) as f32 / 1000.0 - 1.0
    };
    Tensor::from_f32(shape, &(0..shape.iter().product()).map(number).collect::<Vec<f32>>()).expect("fits")
}

/// A graph that is written as exporters write it.
struct Spelling(Graph);

impl Spelling {
    fn op(&mut self, op: Op, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        self.0.push("node", op, inputs)
    }

    fn numbers(&mut self, shape: &[usize], data: &[f32]) -> Result<NodeId, Error> {
        Ok(self.0.constant("constant", Tensor::from_f32(shape, data)?)?)
    }

    fn number(&mut self, value: f32) -> Result<NodeId, Error> {
        self.numbers(&[], &[value])
    }

    fn binary(&mut self, binary: Binary, a: NodeId, b: NodeId) -> Result<NodeId, GraphError> {
        self.op(Op::Binary(binary), &[a, b])
    }

    fn reshape(&mut self, x: NodeId, shape: Shape) -> Result<NodeId, GraphError> {
        self.op(Op::Reshape { shape }, &[x])
    }

    fn transpose(&mut self, x: NodeId, perm: &[usize]) -> Result<NodeId, GraphError> {
        self.op(Op::Transpose { perm: perm.to_vec() }, &[x])
    }

    fn linear(&mut self, x: NodeId, outputs: usize, seed: usize) -> Result<NodeId, Error> {
        let weight = self.0.constant("weight", random(&[outputs, HIDDEN], seed))?;
        let bias = self.0.constant("bias", random(&[outputs], seed + 1))?;
        Ok(self.op(Op::Linear { bias: true, activation: None, residual: false }, &[x, weight, bias])?)
    }

    /// `[Sequences, heads, Sequence, width]` of rows.
    fn heads(&mut self, rows: NodeId) -> Result<NodeId, GraphError> {
        let split = self.reshape(rows, dims(&[n(), s(), HEADS.into(), WIDTH.into()]))?;
        self.transpose(split, &[0, 2, 1, 3])
    }

    /// `i - j` as `[S, S]`.
    fn distances(&mut self) -> Result<NodeId, GraphError> {
        let iota = self.op(Op::Iota { size: s() }, &[])?;
        let queries = self.reshape(iota, vec![s(), 1.into()])?;
        self.binary(Binary::Sub, queries, iota)
    }

    /// Softmax over scores, values, and rows again.
    fn finish(&mut self, scores: NodeId, values: NodeId) -> Result<NodeId, GraphError> {
        let weights = self.op(Op::Softmax, &[scores])?;
        let context = self.op(Op::MatMul, &[weights, values])?;
        let rows = self.transpose(context, &[0, 2, 1, 3])?;
        self.reshape(rows, dims(&[n(), s(), HIDDEN.into()]))
    }
}

fn n() -> Dim {
    Symbol::Sequences.into()
}

fn s() -> Dim {
    Symbol::Sequence.into()
}

fn dims(dims: &[Dim]) -> Shape {
    dims.to_vec()
}

/// Builds a graph over padded rows, raises it, and compares the two on sequences of several lengths.
fn attention_of(build: impl Fn(&mut Spelling, NodeId) -> Result<NodeId, Error>) -> Result<Attention, Error> {
    let raised = raised(&build)?;
    let found: Vec<&Attention> = raised
        .nodes()
        .iter()
        .filter_map(|node| if let Op::Attention(attention) = &node.op { Some(attention) } else { None })
        .collect();
    assert_eq!(found.len(), 1, "{raised}");
    assert!(!raised.nodes().iter().any(|node| node.op == Op::Softmax), "{raised}");
    Ok(found[0].clone())
}

fn raised(build: impl Fn(&mut Spelling, NodeId) -> Result<NodeId, Error>) -> Result<Graph, Error> {
    let mut spelling = Spelling(Graph::new());
    let x = spelling.0.input("x", DType::F32, vec![Symbol::Tokens.into(), HIDDEN.into()])?;
    let padded = spelling.op(Op::Pad, &[x])?;
    let out = build(&mut spelling, padded)?;
    let packed = spelling.op(Op::Pack, &[out])?;
    spelling.0.output("output", packed);
    let (raised, reports) = raise(&spelling.0, &RaiseOptions { max_tokens: LONGEST })?;
    for report in reports.iter().filter(|report| !report.refused.is_empty()) {
        println!("{report:?}");
    }
    for tokens in [1, 2, 7, LONGEST] {
        let layout = Layout::of_lengths(&[tokens])?;
        let inputs = [("x", random(&[tokens, HIDDEN], tokens))];
        let of = |graph: &Graph| {
            evaluate(
                graph,
                &inputs,
                &mut Batch { bindings: layout.bindings(), layout: &layout, cache: &mut Cache::default() },
            )
        };
        let (before, after) = (of(&spelling.0)?, of(&raised)?);
        for (a, b) in before[0].as_f32()?.iter().zip(after[0].as_f32()?) {
            assert!((a - b).abs() < 1e-4, "{a} {b} at {tokens} tokens");
        }
    }
    Ok(raised)
}

/// The plain form, with what `scores` makes of the products.
fn eager(scores: impl Fn(&mut Spelling, NodeId) -> Result<NodeId, Error>) -> Result<Attention, Error> {
    attention_of(|spelling, x| {
        let [q, k, v] = [1, 3, 5].map(|seed| spelling.linear(x, HIDDEN, seed));
        let (q, k, v) = (q?, k?, v?);
        let (q, v) = (spelling.heads(q)?, spelling.heads(v)?);
        let split = spelling.reshape(k, dims(&[n(), s(), HEADS.into(), WIDTH.into()]))?;
        let k = spelling.transpose(split, &[0, 2, 3, 1])?;
        let products = spelling.op(Op::MatMul, &[q, k])?;
        let scores = scores(spelling, products)?;
        Ok(spelling.finish(scores, v)?)
    })
}

#[test]
fn plain_attention() -> Result<(), Error> {
    let found = eager(|spelling, products| {
        let root = spelling.number((WIDTH as f32).sqrt())?;
        Ok(spelling.binary(Binary::Div, products, root)?)
    })?;
    assert_eq!((found.heads, found.head_dim, found.causal, found.window), (HEADS, WIDTH, false, None));
    assert_eq!(found.scale, 1.0 / (WIDTH as f32).sqrt());
    assert_eq!(found.position, PositionScores::None);
    Ok(())
}

/// A mask of ones that is still in the graph, added as large negative numbers.
#[test]
fn padding_masks_of_ones_add_nothing() -> Result<(), Error> {
    let found = eager(|spelling, products| {
        let one = spelling.numbers(&[1, 1], &[1.0])?;
        let ones = spelling.op(Op::Expand { shape: vec![Symbol::Tokens.into(), 1.into()] }, &[one])?;
        let mask = spelling.op(Op::Pad, &[ones])?;
        let mask = spelling.reshape(mask, dims(&[n(), 1.into(), 1.into(), s()]))?;
        let (one, least) = (spelling.number(1.0)?, spelling.number(f32::MIN)?);
        let hidden = spelling.binary(Binary::Sub, one, mask)?;
        let added = spelling.binary(Binary::Mul, hidden, least)?;
        Ok(spelling.binary(Binary::Add, products, added)?)
    })?;
    assert_eq!((found.scale, found.causal, found.window), (1.0, false, None));
    Ok(())
}

#[test]
fn causal_and_windowed_masks() -> Result<(), Error> {
    let found = eager(|spelling, products| {
        let (distances, zero) = (spelling.distances()?, spelling.number(0.0)?);
        let ahead = spelling.binary(Binary::Less, distances, zero)?;
        let least = spelling.number(f32::NEG_INFINITY)?;
        Ok(spelling.op(Op::Where, &[ahead, least, products])?)
    })?;
    assert_eq!((found.causal, found.window), (true, None));
    let found = eager(|spelling, products| {
        let distances = spelling.distances()?;
        let sizes = spelling.op(Op::Unary(Unary::Abs), &[distances])?;
        let beyond = spelling.number(4.0)?;
        let near = spelling.binary(Binary::Less, sizes, beyond)?;
        let (zero, least) = (spelling.number(0.0)?, spelling.number(f32::MIN)?);
        let added = spelling.op(Op::Where, &[near, zero, least])?;
        Ok(spelling.binary(Binary::Add, products, added)?)
    })?;
    assert_eq!((found.causal, found.window), (false, Some(3)));
    Ok(())
}

/// A bias from a table of clamped distances, as T5's is from buckets.
#[test]
fn biases_by_distance() -> Result<(), Error> {
    let found = eager(|spelling, products| {
        let distances = spelling.distances()?;
        let (low, high, shift) = (spelling.number(-3.0)?, spelling.number(5.0)?, spelling.number(3.0)?);
        let clamped = spelling.binary(Binary::Max, distances, low)?;
        let clamped = spelling.binary(Binary::Min, clamped, high)?;
        let rows = spelling.binary(Binary::Add, clamped, shift)?;
        let table = spelling.0.constant("table", random(&[9, HEADS], 40))?;
        let bias = spelling.op(Op::Gather { axis: 0 }, &[table, rows])?;
        let bias = spelling.transpose(bias, &[2, 0, 1])?;
        Ok(spelling.binary(Binary::Add, products, bias)?)
    })?;
    assert_eq!(found.position, PositionScores::Bias);
    Ok(())
}

#[test]
fn biases_that_are_no_function_of_the_distance_are_left_alone() -> Result<(), Error> {
    let graph = raised(|spelling, x| {
        let [q, k, v] = [1, 3, 5].map(|seed| spelling.linear(x, HIDDEN, seed));
        let (q, k, v) = (spelling.heads(q?)?, spelling.heads(k?)?, spelling.heads(v?)?);
        let k = spelling.transpose(k, &[0, 1, 3, 2])?;
        let products = spelling.op(Op::MatMul, &[q, k])?;
        let iota = spelling.op(Op::Iota { size: s() }, &[])?;
        let scores = spelling.binary(Binary::Add, products, iota)?;
        Ok(spelling.finish(scores, v)?)
    })?;
    assert!(graph.nodes().iter().any(|node| node.op == Op::Softmax));
    Ok(())
}

/// Queries and keys both scaled, over `[Sequences·heads, Sequence, width]`.
#[test]
fn flattened_heads_scaled_on_both_sides() -> Result<(), Error> {
    let found = attention_of(|spelling, x| {
        let flat = || dims(&[n() * Dim::from(HEADS), s(), WIDTH.into()]);
        let [q, k, v] = [1, 3, 5].map(|seed| spelling.linear(x, HIDDEN, seed));
        let factor = spelling.number(0.5)?;
        let q = spelling.binary(Binary::Mul, q?, factor)?;
        let [q, k, v] = [q, k?, v?].map(|rows| spelling.heads(rows).and_then(|heads| spelling.reshape(heads, flat())));
        let k = spelling.transpose(k?, &[0, 2, 1])?;
        let k = spelling.binary(Binary::Mul, k, factor)?;
        let products = spelling.op(Op::MatMul, &[q?, k])?;
        let weights = spelling.op(Op::Softmax, &[products])?;
        let context = spelling.op(Op::MatMul, &[weights, v?])?;
        let context = spelling.reshape(context, dims(&[n(), HEADS.into(), s(), WIDTH.into()]))?;
        let rows = spelling.transpose(context, &[0, 2, 1, 3])?;
        Ok(spelling.reshape(rows, dims(&[n(), s(), HIDDEN.into()]))?)
    })?;
    assert!((found.scale - 0.25).abs() < 1e-6);
    Ok(())
}

/// One layer for all three, whose columns stand by head or by part.
#[test]
fn merged_projections() -> Result<(), Error> {
    for by_head in [false, true] {
        attention_of(|spelling, x| {
            let merged = spelling.linear(x, 3 * HIDDEN, 7)?;
            let (shape, axis) = if by_head {
                (dims(&[n(), s(), HEADS.into(), Dim::from(3 * WIDTH)]), 3)
            } else {
                (dims(&[n(), s(), 3.into(), HEADS.into(), WIDTH.into()]), 2)
            };
            let split = spelling.reshape(merged, shape)?;
            let step = if by_head { WIDTH } else { 1 };
            let mut part = |index: usize| {
                let op = Op::Slice { axis, start: index * step, end: (index + 1) * step };
                let part = spelling.op(op, &[split])?;
                let part = spelling.reshape(part, dims(&[n(), s(), HEADS.into(), WIDTH.into()]))?;
                spelling.transpose(part, &[0, 2, 1, 3])
            };
            let (q, k, v) = (part(0)?, part(1)?, part(2)?);
            let shift = spelling.0.constant("shift", random(&[HEADS, 1, WIDTH], 70))?;
            let q = if by_head { spelling.binary(Binary::Add, q, shift)? } else { q };
            let k = spelling.transpose(k, &[0, 1, 3, 2])?;
            let products = spelling.op(Op::MatMul, &[q, k])?;
            Ok(spelling.finish(products, v)?)
        })?;
    }
    Ok(())
}

/// Rotations of halves (GPT-NeoX) and of neighbours (RoFormer), of all columns of a head or of the first ones.
#[test]
fn rotations() -> Result<(), Error> {
    for (interleaved, rotated) in [(false, WIDTH), (false, WIDTH / 2), (true, WIDTH)] {
        attention_of(|spelling, x| {
            let [q, k, v] = [1, 3, 5].map(|seed| spelling.linear(x, HIDDEN, seed));
            let (q, k, v) = (spelling.heads(q?)?, spelling.heads(k?)?, spelling.heads(v?)?);
            let q = rotate(spelling, q, rotated, interleaved)?;
            let k = rotate(spelling, k, rotated, interleaved)?;
            let k = spelling.transpose(k, &[0, 1, 3, 2])?;
            let products = spelling.op(Op::MatMul, &[q, k])?;
            Ok(spelling.finish(products, v)?)
        })?;
    }
    Ok(())
}

fn rotate(spelling: &mut Spelling, x: NodeId, rotated: usize, interleaved: bool) -> Result<NodeId, Error> {
    let half = rotated / 2;
    let frequency = |pair: usize| 0.5f32.powi(i32::try_from(pair).unwrap_or(0));
    let of_column = |column: usize| frequency(if interleaved { column / 2 } else { column % half });
    let frequencies: Vec<f32> = (0..rotated).map(of_column).collect();
    let frequencies = spelling.numbers(&[rotated], &frequencies)?;
    let iota = spelling.op(Op::Iota { size: s() }, &[])?;
    let positions = spelling.reshape(iota, vec![s(), 1.into()])?;
    let angles = spelling.binary(Binary::Mul, positions, frequencies)?;
    let (cosines, sines) =
        (spelling.op(Op::Unary(Unary::Cos), &[angles])?, spelling.op(Op::Unary(Unary::Sin), &[angles])?);
    let slice = |start, end| Op::Slice { axis: 3, start, end };
    let first = if rotated < WIDTH { spelling.op(slice(0, rotated), &[x])? } else { x };
    let turned = if interleaved {
        let pairs = spelling.reshape(first, dims(&[n(), HEADS.into(), s(), half.into(), 2.into()]))?;
        let even = spelling.op(Op::Slice { axis: 4, start: 0, end: 1 }, &[pairs])?;
        let odd = spelling.op(Op::Slice { axis: 4, start: 1, end: 2 }, &[pairs])?;
        let odd = spelling.op(Op::Unary(Unary::Neg), &[odd])?;
        let both = spelling.op(Op::Concat { axis: 4 }, &[odd, even])?;
        spelling.reshape(both, dims(&[n(), HEADS.into(), s(), rotated.into()]))?
    } else {
        let low = spelling.op(slice(0, half), &[first])?;
        let high = spelling.op(slice(half, rotated), &[first])?;
        let high = spelling.op(Op::Unary(Unary::Neg), &[high])?;
        spelling.op(Op::Concat { axis: 3 }, &[high, low])?
    };
    let still = spelling.binary(Binary::Mul, first, cosines)?;
    let moved = spelling.binary(Binary::Mul, turned, sines)?;
    let sum = spelling.binary(Binary::Add, still, moved)?;
    if rotated == WIDTH {
        return Ok(sum);
    }
    let rest = spelling.op(slice(rotated, WIDTH), &[x])?;
    Ok(spelling.op(Op::Concat { axis: 3 }, &[sum, rest])?)
}

/// DeBERTa: queries by embedded distances, and keys by them, looked up by clamped distances.
#[test]
fn disentangled_attention() -> Result<(), Error> {
    const SPAN: usize = 6;
    for (c2p, p2c) in [(true, true), (true, false), (false, true)] {
        let found = attention_of(|spelling, x| {
            let flat = || dims(&[n() * Dim::from(HEADS), s(), WIDTH.into()]);
            let [q, k, v] = [1, 3, 5].map(|seed| spelling.linear(x, HIDDEN, seed));
            let [q, k, v] = [q?, k?, v?].map(|x| spelling.heads(x).and_then(|heads| spelling.reshape(heads, flat())));
            let (q, k, v) = (q?, k?, v?);
            let keys = spelling.transpose(k, &[0, 2, 1])?;
            let scale = spelling.number((WIDTH as f32 * 3.0).sqrt())?;
            let scaled = spelling.binary(Binary::Div, keys, scale)?;
            let mut scores = spelling.op(Op::MatMul, &[q, scaled])?;
            let distances = spelling.distances()?;
            for (wanted, rows, seed, sign) in [(c2p, q, 80, 1.0), (p2c, k, 90, -1.0)] {
                if !wanted {
                    continue;
                }
                let table = spelling.0.constant("positions", random(&[HEADS, WIDTH, 2 * SPAN], seed))?;
                let shape = vec![n() * Dim::from(HEADS), Dim::from(WIDTH), (2 * SPAN).into()];
                let table = spelling.reshape(table, vec![1.into(), HEADS.into(), WIDTH.into(), (2 * SPAN).into()])?;
                let expanded = vec![n(), HEADS.into(), WIDTH.into(), (2 * SPAN).into()];
                let table = spelling.op(Op::Expand { shape: expanded }, &[table])?;
                let table = spelling.reshape(table, shape)?;
                let products = spelling.op(Op::MatMul, &[rows, table])?;
                let (sign_of, span) = (spelling.number(sign)?, spelling.number(SPAN as f32)?);
                let signed = spelling.binary(Binary::Mul, distances, sign_of)?;
                let (zero, last) = (spelling.number(0.0)?, spelling.number((2 * SPAN - 1) as f32)?);
                let shifted = spelling.binary(Binary::Add, signed, span)?;
                let clamped = spelling.binary(Binary::Max, shifted, zero)?;
                let clamped = spelling.binary(Binary::Min, clamped, last)?;
                // By keys and queries the distance is turned: looked up for each key, then transposed.
                let square = dims(&[n() * Dim::from(HEADS), s(), s()]);
                let indices = spelling.op(Op::Expand { shape: square }, &[clamped])?;
                let picked = spelling.op(Op::GatherElements { axis: 2 }, &[products, indices])?;
                let picked = if sign < 0.0 { spelling.transpose(picked, &[0, 2, 1])? } else { picked };
                let added = spelling.binary(Binary::Div, picked, scale)?;
                scores = spelling.binary(Binary::Add, scores, added)?;
            }
            let scores = spelling.reshape(scores, dims(&[n(), HEADS.into(), s(), s()]))?;
            let v = spelling.reshape(v, dims(&[n(), HEADS.into(), s(), WIDTH.into()]))?;
            Ok(spelling.finish(scores, v)?)
        })?;
        assert_eq!(found.position, PositionScores::Disentangled { content_to_position: c2p, position_to_content: p2c });
    }
    Ok(())
}
