//! Cases of the primitive ops, as ONNX files have them.

use centuple_graph::{Binary, Graph, NodeId, Op, Reduction, Unary};
use centuple_tensor::{Bindings, DType, Dim, Layout, Shape, Symbol, Tensor};

use crate::{Case, CaseError, Random, Step};

type Result<T> = std::result::Result<T, CaseError>;

const BATCH: usize = 2;
const SEQUENCE: usize = 5;
const WIDTH: usize = 12;
const HEADS: usize = 3;

pub(crate) fn cases() -> Result<Vec<Case>> {
    let mut all = vec![attention()?, gathered()?, converted()?];
    for unary in
        [Unary::Neg, Unary::Abs, Unary::Exp, Unary::Log, Unary::Log1p, Unary::Sqrt, Unary::Reciprocal, Unary::Erf]
    {
        all.push(single(format!("{unary:?}"), Op::Unary(unary))?);
    }
    all.push(single("Softmax".to_owned(), Op::Softmax)?);
    for perm in [vec![0, 2, 1], vec![2, 0, 1], vec![1, 0, 2]] {
        all.push(single(format!("Transpose {perm:?}"), Op::Transpose { perm })?);
    }
    for reduction in [Reduction::Sum, Reduction::Mean, Reduction::Max] {
        for axes in [vec![2], vec![0, 1], vec![0, 1, 2]] {
            all.push(single(format!("{reduction:?} {axes:?}"), Op::Reduce { reduction, axes })?);
        }
    }
    all.push(single("Slice".to_owned(), Op::Slice { axis: 2, start: 2, end: 7 })?);
    let binaries = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Pow, Binary::Min, Binary::Max];
    for binary in binaries.into_iter().chain([Binary::Equal, Binary::Less]) {
        for other in [vec![BATCH, SEQUENCE, WIDTH], vec![WIDTH], vec![SEQUENCE, 1], vec![BATCH, 1, 1]] {
            all.push(paired(binary, other)?);
        }
    }
    all.push(chosen()?);
    all.push(joined()?);
    Ok(all)
}

fn bindings() -> Bindings {
    Bindings { batch: BATCH, sequence: SEQUENCE, ..Bindings::default() }
}

/// `[Batch, Sequence, WIDTH]`.
fn shape() -> Shape {
    vec![Symbol::Batch.into(), Symbol::Sequence.into(), WIDTH.into()]
}

fn finish(name: String, mut graph: Graph, out: NodeId, inputs: Vec<(&'static str, Tensor)>) -> Case {
    graph.output("output", out);
    let step = Step { inputs, layout: Layout::default(), bindings: bindings() };
    Case { name: format!("primitive {name}"), graph, steps: vec![step], cache_pages: 0, tolerance: 2e-5 }
}

/// Positive numbers, so that every function is defined.
fn positive(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut random = Random::new(seed);
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| 1.3 + random.float()).collect();
    Ok(Tensor::from_f32(shape, &data)?)
}

fn single(name: String, op: Op) -> Result<Case> {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, shape())?;
    let out = graph.push("op", op, &[x])?;
    Ok(finish(name, graph, out, vec![("x", positive(&[BATCH, SEQUENCE, WIDTH], 3)?)]))
}

fn paired(binary: Binary, other: Vec<usize>) -> Result<Case> {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, shape())?;
    let y = graph.constant("y", positive(&other, 3)?)?;
    let symbolic = shape();
    let (a, b) = if other.len() == 1 { (y, x) } else { (x, y) };
    // A constant has fixed dims; name them after the symbols that they stand for.
    let fixed: Shape = other
        .iter()
        .rev()
        .zip(symbolic.iter().rev())
        .map(|(&dim, symbol)| if dim == 1 { Dim::from(1) } else { symbol.clone() })
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    let constant_fits = fixed.iter().all(|dim| dim.constant().is_some());
    let mut inputs = vec![("x", positive(&[BATCH, SEQUENCE, WIDTH], 3)?)];
    let out = if constant_fits {
        graph.push("op", Op::Binary(binary), &[a, b])?
    } else {
        let z = graph.input("z", DType::F32, fixed)?;
        inputs.push(("z", positive(&other, 5)?));
        graph.push("op", Op::Binary(binary), &[x, z])?
    };
    Ok(finish(format!("{binary:?} {other:?}"), graph, out, inputs))
}

fn chosen() -> Result<Case> {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, shape())?;
    let limit = graph.constant("limit", Tensor::from_f32(&[1], &[1.3])?)?;
    let other = graph.constant("other", positive(&[WIDTH], 9)?)?;
    let condition = graph.push("less", Op::Binary(Binary::Less), &[x, limit])?;
    let out = graph.push("where", Op::Where, &[condition, x, other])?;
    Ok(finish("Where".to_owned(), graph, out, vec![("x", positive(&[BATCH, SEQUENCE, WIDTH], 3)?)]))
}

fn joined() -> Result<Case> {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, shape())?;
    let twice = graph.push("twice", Op::Concat { axis: 1 }, &[x, x])?;
    let out = graph.push("again", Op::Concat { axis: 2 }, &[twice, twice])?;
    Ok(finish("Concat".to_owned(), graph, out, vec![("x", positive(&[BATCH, SEQUENCE, WIDTH], 3)?)]))
}

fn gathered() -> Result<Case> {
    let mut random = Random::new(23);
    let mut graph = Graph::new();
    let ids = graph.input("ids", DType::I64, vec![Symbol::Batch.into(), Symbol::Sequence.into()])?;
    let table = graph.constant("table", random.tensor(&[9, WIDTH], 1.0)?)?;
    let rows = graph.push("rows", Op::Gather { axis: 0 }, &[table, ids])?;
    let columns = graph.push("columns", Op::Gather { axis: 1 }, &[table, ids])?;
    let total = graph.push("total", Op::Reduce { reduction: Reduction::Sum, axes: vec![0, 1, 2] }, &[columns])?;
    let out = graph.push("sum", Op::Binary(Binary::Add), &[rows, total])?;
    Ok(finish("Gather".to_owned(), graph, out, vec![("ids", random.ids(&[BATCH, SEQUENCE], 9)?)]))
}

fn converted() -> Result<Case> {
    let mut graph = Graph::new();
    let ids = graph.input("ids", DType::I64, vec![Symbol::Batch.into(), Symbol::Sequence.into()])?;
    let out = graph.push("float", Op::ToFloat, &[ids])?;
    Ok(finish(
        "ToFloat".to_owned(),
        graph,
        out,
        vec![("ids", Tensor::from_i64(&[BATCH, SEQUENCE], &[0, -3, 7, 99, -1, 5, 6, 1 << 40, 8, 9])?)],
    ))
}

/// Self-attention on `[Batch, Sequence]` with an additive mask, op by op as exporters write it.
fn attention() -> Result<Case> {
    let mut random = Random::new(31);
    let mut graph = Graph::new();
    let [batch, sequence] = [Symbol::Batch, Symbol::Sequence].map(Dim::from);
    let head_dim = WIDTH / HEADS;
    let x = graph.input("x", DType::F32, shape())?;
    let mask = graph.input("mask", DType::I64, vec![batch.clone(), sequence.clone()])?;
    let split: Shape = vec![batch.clone(), sequence.clone(), HEADS.into(), head_dim.into()];
    let mut project = |graph: &mut Graph, name: &str, perm: Vec<usize>| -> Result<NodeId> {
        let weight = graph.constant(name, random.tensor(&[WIDTH, WIDTH], 0.6)?)?;
        let bias = graph.constant(name, random.tensor(&[WIDTH], 0.6)?)?;
        let product = graph.push(name, Op::MatMul, &[x, weight])?;
        let sum = graph.push(name, Op::Binary(Binary::Add), &[product, bias])?;
        let heads = graph.push(name, Op::Reshape { shape: split.clone() }, &[sum])?;
        Ok(graph.push(name, Op::Transpose { perm }, &[heads])?)
    };
    let q = project(&mut graph, "query", vec![0, 2, 1, 3])?;
    let k = project(&mut graph, "key", vec![0, 2, 3, 1])?;
    let v = project(&mut graph, "value", vec![0, 2, 1, 3])?;
    let scores = graph.push("scores", Op::MatMul, &[q, k])?;
    let scale = graph.constant("scale", Tensor::from_f32(&[1], &[(head_dim as f32).sqrt()])?)?;
    let scaled = graph.push("scaled", Op::Binary(Binary::Div), &[scores, scale])?;
    let visible = graph.push("visible", Op::ToFloat, &[mask])?;
    let shape = vec![batch.clone(), 1.into(), 1.into(), sequence.clone()];
    let visible = graph.push("visible", Op::Reshape { shape }, &[visible])?;
    let one = graph.constant("one", Tensor::from_f32(&[1], &[1.0])?)?;
    let hidden = graph.push("hidden", Op::Binary(Binary::Sub), &[one, visible])?;
    let lowest = graph.constant("lowest", Tensor::from_f32(&[1], &[-1e30])?)?;
    let penalty = graph.push("penalty", Op::Binary(Binary::Mul), &[hidden, lowest])?;
    let masked = graph.push("masked", Op::Binary(Binary::Add), &[scaled, penalty])?;
    let weights = graph.push("weights", Op::Softmax, &[masked])?;
    let context = graph.push("context", Op::MatMul, &[weights, v])?;
    let merged = graph.push("merged", Op::Transpose { perm: vec![0, 2, 1, 3] }, &[context])?;
    let shape = vec![batch, sequence, WIDTH.into()];
    let out = graph.push("rows", Op::Reshape { shape }, &[merged])?;
    let mask = Tensor::from_i64(&[BATCH, SEQUENCE], &[1, 1, 1, 1, 1, 1, 1, 1, 0, 0])?;
    let x = random.tensor(&[BATCH, SEQUENCE, WIDTH], 1.0)?;
    Ok(finish("attention on [Batch, Sequence]".to_owned(), graph, out, vec![("x", x), ("mask", mask)]))
}
