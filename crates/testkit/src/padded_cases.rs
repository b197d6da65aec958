//! Cases of the ops between packed and padded sequences, and of those that only padded graphs have.

use centuple_graph::{Binary, Graph, NodeId, Op, Reduction, Unary};
use centuple_tensor::{DType, Dim, Layout, Shape, Symbol, Tensor};

use crate::cases::LENGTHS;
use crate::{Case, CaseError, Random, Step};

type Result<T> = std::result::Result<T, CaseError>;

const WIDTH: usize = 24;
const HEADS: usize = 3;

pub(crate) fn cases() -> Result<Vec<Case>> {
    let mut all = vec![sums()?, positions()?, elements()?, extents()?, attention()?];
    for unary in [
        Unary::Floor,
        Unary::Ceil,
        Unary::Round,
        Unary::Trunc,
        Unary::Sin,
        Unary::Cos,
        Unary::Sign,
        Unary::IsNan,
        Unary::Abs,
    ] {
        all.push(rows(unary)?);
    }
    Ok(all)
}

fn tokens() -> Shape {
    vec![Symbol::Tokens.into(), WIDTH.into()]
}

/// `[Sequences, Sequence, ...]`.
fn padded(rest: &[usize]) -> Shape {
    [Symbol::Sequences, Symbol::Sequence].map(Dim::from).into_iter().chain(rest.iter().map(|&dim| dim.into())).collect()
}

/// A graph with the input `x [Tokens, WIDTH]` and what that is when it is padded.
fn begun() -> Result<(Graph, NodeId)> {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, tokens())?;
    let x = graph.push("padded", Op::Pad, &[x])?;
    Ok((graph, x))
}

/// The case whose output is what is packed of `out`.
fn finish(name: impl std::fmt::Display, mut graph: Graph, out: NodeId, lengths: &[usize]) -> Result<Case> {
    let packed = graph.push("packed", Op::Pack, &[out])?;
    graph.output("output", packed);
    let layout = Layout::of_lengths(lengths)?;
    let x = Random::new(41).tensor(&[layout.tokens(), WIDTH], 3.0)?;
    let step = Step { inputs: vec![("x", x)], bindings: layout.bindings(), layout };
    Ok(Case { name: format!("padded {name}"), graph, steps: vec![step], cache_pages: 0, tolerance: 2e-5 })
}

fn rows(unary: Unary) -> Result<Case> {
    let (mut graph, x) = begun()?;
    let out = graph.push("op", Op::Unary(unary), &[x])?;
    finish(format!("{unary:?}"), graph, out, &LENGTHS)
}

fn sums() -> Result<Case> {
    let (mut graph, x) = begun()?;
    let over_tokens = graph.push("over tokens", Op::CumSum { axis: 1 }, &[x])?;
    let over_columns = graph.push("over columns", Op::CumSum { axis: 2 }, &[x])?;
    let out = graph.push("sum", Op::Binary(Binary::Add), &[over_tokens, over_columns])?;
    finish("CumSum", graph, out, &LENGTHS)
}

/// A row of a table for each position, looked up by numbers.
fn positions() -> Result<Case> {
    let (mut graph, x) = begun()?;
    let table = graph.constant("table", Random::new(5).tensor(&[200, WIDTH], 1.0)?)?;
    let positions = graph.push("positions", Op::Iota { size: Symbol::Sequence.into() }, &[])?;
    let positions = graph.push("positions", Op::Expand { shape: padded(&[]) }, &[positions])?;
    let rows = graph.push("rows", Op::Gather { axis: 0 }, &[table, positions])?;
    let out = graph.push("sum", Op::Binary(Binary::Add), &[x, rows])?;
    finish("positions", graph, out, &LENGTHS)
}

/// Columns in an order that differs from row to row.
fn elements() -> Result<Case> {
    let (mut graph, x) = begun()?;
    let two = graph.constant("two", Tensor::from_f32(&[1], &[2.0])?)?;
    let order: Vec<f32> = (0..WIDTH).map(|column| (column * 5 % 7) as f32).collect();
    let order = graph.constant("order", Tensor::from_f32(&[WIDTH], &order)?)?;
    let is_small = graph.push("is small", Op::Binary(Binary::Less), &[x, two])?;
    let indices = graph.push("indices", Op::Binary(Binary::Add), &[is_small, order])?;
    let out = graph.push("columns", Op::GatherElements { axis: 2 }, &[x, indices])?;
    finish("GatherElements", graph, out, &LENGTHS)
}

/// How many columns a tensor has, as a number.
fn extents() -> Result<Case> {
    let (mut graph, x) = begun()?;
    let one = graph.constant("one", Tensor::from_f32(&[1, 1], &[1.0])?)?;
    let ones = graph.push("ones", Op::Expand { shape: vec![3.into(), WIDTH.into()] }, &[one])?;
    let sum = graph.push("sum", Op::Reduce { reduction: Reduction::Sum, axes: vec![0, 1] }, &[ones])?;
    let out = graph.push("difference", Op::Binary(Binary::Sub), &[x, sum])?;
    finish("extents", graph, out, &LENGTHS)
}

/// Self-attention of one sequence, op by op.
fn attention() -> Result<Case> {
    let mut random = Random::new(31);
    let (mut graph, x) = begun()?;
    let head_dim = WIDTH / HEADS;
    let mut project = |graph: &mut Graph, name: &str, perm: Vec<usize>| -> Result<NodeId> {
        let weight = graph.constant(name, random.tensor(&[WIDTH, WIDTH], 0.3)?)?;
        let product = graph.push(name, Op::MatMul, &[x, weight])?;
        let heads = graph.push(name, Op::Reshape { shape: padded(&[HEADS, head_dim]) }, &[product])?;
        Ok(graph.push(name, Op::Transpose { perm }, &[heads])?)
    };
    let q = project(&mut graph, "query", vec![0, 2, 1, 3])?;
    let k = project(&mut graph, "key", vec![0, 2, 3, 1])?;
    let v = project(&mut graph, "value", vec![0, 2, 1, 3])?;
    let scores = graph.push("scores", Op::MatMul, &[q, k])?;
    let weights = graph.push("weights", Op::Softmax, &[scores])?;
    let context = graph.push("context", Op::MatMul, &[weights, v])?;
    let merged = graph.push("merged", Op::Transpose { perm: vec![0, 2, 1, 3] }, &[context])?;
    let out = graph.push("rows", Op::Reshape { shape: padded(&[WIDTH]) }, &[merged])?;
    finish("attention", graph, out, &[140])
}
