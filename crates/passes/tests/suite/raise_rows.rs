//! Layers, embeddings and poolings spelt out in primitive ops are recognised on packed rows, and compute the same.

use centuple_graph::{Activation, Binary, Graph, GraphError, NodeId, Op, Pooling, Reduction, Unary};
use centuple_passes::{RaiseOptions, Report, raise};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{DType, Dim, Layout, Shape, Span, Symbol, Tensor};

type Error = Box<dyn std::error::Error>;

const WIDTH: usize = 12;
const VOCABULARY: usize = 30;
const LONGEST: usize = 24;

fn random(shape: &[usize], seed: usize) -> Tensor {
    let number = |index: usize| {
        let bits = (index * 7919 + seed * 104_729 + 13).wrapping_mul(2_654_435_761) >> 8;
        (bits % 2001) as f32 / 1000.0 - 1.0
    };
    Tensor::from_f32(shape, &(0..shape.iter().product()).map(number).collect::<Vec<f32>>()).expect("fits")
}

/// A graph that is written as exporters write it.
struct Spelling {
    graph: Graph,
    /// Rows `[Sequences, Sequence, WIDTH]`.
    x: NodeId,
    /// Ids `[Sequences, Sequence]`.
    ids: NodeId,
    /// Ones `[Sequences, Sequence]`.
    mask: NodeId,
}

impl Spelling {
    fn new() -> Result<Spelling, Error> {
        let mut graph = Graph::new();
        let tokens = || vec![Dim::from(Symbol::Tokens)];
        let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), WIDTH.into()])?;
        let x = graph.push("x", Op::Pad, &[x])?;
        let ids = graph.input("ids", DType::I64, tokens())?;
        let ids = graph.push("ids", Op::ToFloat, &[ids])?;
        let ids = graph.push("ids", Op::Pad, &[ids])?;
        let one = graph.constant("one", Tensor::from_f32(&[], &[1.0])?)?;
        let mask = graph.push("mask", Op::Expand { shape: tokens() }, &[one])?;
        let mask = graph.push("mask", Op::Pad, &[mask])?;
        Ok(Spelling { graph, x, ids, mask })
    }

    fn op(&mut self, op: Op, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        self.graph.push("node", op, inputs)
    }

    fn constant(&mut self, tensor: Tensor) -> Result<NodeId, GraphError> {
        self.graph.constant("constant", tensor)
    }

    fn number(&mut self, value: f32) -> Result<NodeId, Error> {
        Ok(self.constant(Tensor::from_f32(&[], &[value])?)?)
    }

    fn unary(&mut self, unary: Unary, x: NodeId) -> Result<NodeId, GraphError> {
        self.op(Op::Unary(unary), &[x])
    }

    fn add(&mut self, a: NodeId, b: NodeId) -> Result<NodeId, GraphError> {
        self.op(Op::Binary(Binary::Add), &[a, b])
    }

    fn sub(&mut self, a: NodeId, b: NodeId) -> Result<NodeId, GraphError> {
        self.op(Op::Binary(Binary::Sub), &[a, b])
    }

    fn mul(&mut self, a: NodeId, b: NodeId) -> Result<NodeId, GraphError> {
        self.op(Op::Binary(Binary::Mul), &[a, b])
    }

    fn div(&mut self, a: NodeId, b: NodeId) -> Result<NodeId, GraphError> {
        self.op(Op::Binary(Binary::Div), &[a, b])
    }

    fn pow(&mut self, a: NodeId, exponent: f32) -> Result<NodeId, Error> {
        let exponent = self.number(exponent)?;
        Ok(self.op(Op::Binary(Binary::Pow), &[a, exponent])?)
    }

    fn scaled(&mut self, a: NodeId, factor: f32) -> Result<NodeId, Error> {
        let factor = self.number(factor)?;
        Ok(self.mul(a, factor)?)
    }

    fn shifted(&mut self, a: NodeId, by: f32) -> Result<NodeId, Error> {
        let by = self.number(by)?;
        Ok(self.add(a, by)?)
    }

    fn reduce(&mut self, reduction: Reduction, x: NodeId, axis: usize) -> Result<NodeId, GraphError> {
        self.op(Op::Reduce { reduction, axes: vec![axis] }, &[x])
    }

    fn mean(&mut self, x: NodeId) -> Result<NodeId, GraphError> {
        self.reduce(Reduction::Mean, x, 2)
    }

    fn reshape(&mut self, x: NodeId, shape: Shape) -> Result<NodeId, GraphError> {
        self.op(Op::Reshape { shape }, &[x])
    }

    fn gather(&mut self, x: NodeId, indices: NodeId, axis: usize) -> Result<NodeId, GraphError> {
        self.op(Op::Gather { axis }, &[x, indices])
    }

    /// The mask as `[Sequences, Sequence, WIDTH]`.
    fn wide_mask(&mut self) -> Result<NodeId, GraphError> {
        let column = self.reshape(self.mask, vec![n(), s(), 1.into()])?;
        self.op(Op::Expand { shape: rows() }, &[column])
    }
}

fn n() -> Dim {
    Symbol::Sequences.into()
}

fn s() -> Dim {
    Symbol::Sequence.into()
}

fn rows() -> Shape {
    vec![n(), s(), WIDTH.into()]
}

/// A graph that was raised, and what was said about it.
struct Raised {
    graph: Graph,
    reports: Vec<Report>,
}

impl Raised {
    /// Raises what `build` makes: rows of tokens, packed as the importer does, or anything else as it is.
    fn of(build: impl Fn(&mut Spelling) -> Result<NodeId, Error>) -> Result<Raised, Error> {
        let mut spelling = Spelling::new()?;
        let mut out = build(&mut spelling)?;
        if spelling.graph.node(out).fact.shape.starts_with(&[n(), s()]) {
            out = spelling.op(Op::Pack, &[out])?;
        }
        spelling.graph.output("output", out);
        let (graph, reports) = raise(&spelling.graph, &RaiseOptions { max_tokens: LONGEST })?;
        let raised = Raised { graph, reports };
        for lengths in [&[1][..], &[2], &[7], &[LONGEST]] {
            raised.agrees(&spelling.graph, lengths)?;
        }
        if raised.is_packed() {
            raised.agrees(&raised.graph, &[3, 1, 5])?;
        }
        Ok(raised)
    }

    /// Compares with `graph` run on one sequence after the other.
    fn agrees(&self, graph: &Graph, lengths: &[usize]) -> Result<(), Error> {
        let together = run(&self.graph, lengths, 0)?;
        let mut apart = Vec::new();
        let mut start = 0;
        for &length in lengths {
            apart.extend(run(graph, &[length], start)?);
            start += length;
        }
        assert_eq!(together.len(), apart.len(), "{}", self.graph);
        for (a, b) in together.iter().zip(&apart) {
            assert!((a - b).abs() <= 2e-5 * b.abs().max(1.0), "{a} {b} {lengths:?}\n{}", self.graph);
        }
        Ok(())
    }

    fn count(&self, is: impl Fn(&Op) -> bool) -> usize {
        self.graph.nodes().iter().filter(|node| is(&node.op)).count()
    }

    /// Whether nothing is padded.
    fn is_packed(&self) -> bool {
        let sequence = Dim::from(Symbol::Sequence);
        self.graph.nodes().iter().all(|node| !node.fact.shape.contains(&sequence))
    }

    /// The ops by name, without inputs and constants.
    fn ops(&self) -> Vec<&'static str> {
        let is_computed = |op: &&Op| !matches!(op, Op::Input { .. } | Op::Constant(_));
        self.graph.nodes().iter().map(|node| &node.op).filter(is_computed).map(Op::name).collect()
    }
}

/// The output for sequences whose tokens count from `start` on.
fn run(graph: &Graph, lengths: &[usize], start: usize) -> Result<Vec<f32>, Error> {
    let spans = lengths.iter().map(|&tokens| {
        let selected = (0..tokens as u32).filter(|token| token % 2 == 0).collect();
        Span { tokens, selected, ..Span::default() }
    });
    let layout = Layout::new(spans.collect())?;
    let tokens = layout.tokens();
    let x = random(&[100 * WIDTH], 3).as_f32()?[start * WIDTH..(start + tokens) * WIDTH].to_vec();
    let ids: Vec<i64> = (start..start + tokens).map(|token| (token * 7 % 5 * token + 1) as i64 % 9).collect();
    let inputs = [("x", Tensor::from_f32(&[tokens, WIDTH], &x)?), ("ids", Tensor::from_i64(&[tokens], &ids)?)];
    let cache = &mut Cache::default();
    let mut batch = Batch { bindings: layout.bindings(), layout: &layout, cache };
    Ok(evaluate(graph, &inputs, &mut batch)?[0].as_f32()?.to_vec())
}

#[test]
fn linear_layers_in_every_spelling() -> Result<(), Error> {
    type Layer = fn(&mut Spelling) -> Result<NodeId, Error>;
    let bias_first: Layer = |g| {
        let (weight, bias) = (g.constant(random(&[WIDTH, 5], 1))?, g.constant(random(&[5], 2))?);
        let product = g.op(Op::MatMul, &[g.x, weight])?;
        Ok(g.add(bias, product)?)
    };
    let turned: Layer = |g| {
        let (weight, bias) = (g.constant(random(&[5, WIDTH], 1))?, g.constant(random(&[1, 1, 5], 2))?);
        let weight = g.op(Op::Transpose { perm: vec![1, 0] }, &[weight])?;
        let product = g.op(Op::MatMul, &[g.x, weight])?;
        Ok(g.add(product, bias)?)
    };
    let flat: Layer = |g| {
        let (weight, bias) = (g.constant(random(&[WIDTH, 5], 1))?, g.constant(random(&[5], 2))?);
        let x = g.reshape(g.x, vec![n() * s(), WIDTH.into()])?;
        let product = g.op(Op::MatMul, &[x, weight])?;
        let product = g.reshape(product, vec![n(), s(), 5.into()])?;
        Ok(g.add(product, bias)?)
    };
    for layer in [bias_first, turned, flat] {
        let raised = Raised::of(layer)?;
        assert_eq!(raised.ops(), ["Linear"], "{}", raised.graph);
        assert_eq!(raised.count(|op| matches!(op, Op::Linear { bias: true, .. })), 1);
    }
    Ok(())
}

#[test]
fn weights_that_are_read_twice_stay_shared() -> Result<(), Error> {
    let raised = Raised::of(|g| {
        let weight = g.constant(random(&[WIDTH, WIDTH], 1))?;
        let first = g.op(Op::MatMul, &[g.x, weight])?;
        Ok(g.op(Op::MatMul, &[first, weight])?)
    })?;
    let is_linear = |op: &Op| matches!(op, Op::Linear { .. });
    let nodes = raised.graph.nodes().iter().filter(|node| is_linear(&node.op));
    let weights: Vec<_> =
        nodes.filter_map(|node| raised.graph.constant_of(node.inputs[1])?.identity().into()).collect();
    assert!(weights.len() == 2 && weights[0] == weights[1]);
    Ok(())
}

/// A norm of `x` that is spelt in some way, without gamma and beta.
type Norm = fn(&mut Spelling, f32) -> Result<NodeId, Error>;

fn centred(g: &mut Spelling) -> Result<NodeId, GraphError> {
    let mean = g.mean(g.x)?;
    g.sub(g.x, mean)
}

#[test]
fn layer_norms_in_every_spelling() -> Result<(), Error> {
    let divided: Norm = |g, epsilon| {
        let centred = centred(g)?;
        let squares = g.pow(centred, 2.0)?;
        let variance = g.mean(squares)?;
        let variance = g.shifted(variance, epsilon)?;
        let deviation = g.unary(Unary::Sqrt, variance)?;
        Ok(g.div(centred, deviation)?)
    };
    let multiplied: Norm = |g, epsilon| {
        let (centred, again) = (centred(g)?, centred(g)?);
        let squares = g.mul(centred, centred)?;
        let variance = g.mean(squares)?;
        let variance = g.shifted(variance, epsilon)?;
        let deviation = g.unary(Unary::Sqrt, variance)?;
        let factor = g.unary(Unary::Reciprocal, deviation)?;
        Ok(g.mul(factor, again)?)
    };
    let of_squares: Norm = |g, epsilon| {
        let mean = g.mean(g.x)?;
        let squares = g.mul(g.x, g.x)?;
        let squares = g.mean(squares)?;
        let square = g.mul(mean, mean)?;
        let variance = g.sub(squares, square)?;
        let variance = g.shifted(variance, epsilon)?;
        let factor = g.pow(variance, -0.5)?;
        let (scaled, centre) = (g.mul(g.x, factor)?, g.mul(mean, factor)?);
        Ok(g.sub(scaled, centre)?)
    };
    let of_sums: Norm = |g, epsilon| {
        let sum = g.reduce(Reduction::Sum, g.x, 2)?;
        let mean = g.scaled(sum, 1.0 / WIDTH as f32)?;
        let centred = g.sub(g.x, mean)?;
        let squares = g.mul(centred, centred)?;
        let sum = g.reduce(Reduction::Sum, squares, 2)?;
        let count = g.number(WIDTH as f32)?;
        let variance = g.div(sum, count)?;
        let variance = g.shifted(variance, epsilon)?;
        let deviation = g.unary(Unary::Sqrt, variance)?;
        Ok(g.div(centred, deviation)?)
    };
    for (spelling, epsilon) in [divided, multiplied, of_squares, of_sums].into_iter().zip([1e-12, 1e-5, 1e-3, 1e-6]) {
        for parameters in 0..4 {
            let raised = Raised::of(|g| {
                let mut y = spelling(g, epsilon)?;
                if parameters & 1 > 0 {
                    let gamma = g.constant(random(&[1, 1, WIDTH], 5))?;
                    y = g.mul(gamma, y)?;
                }
                if parameters & 2 > 0 {
                    let beta = g.constant(random(&[WIDTH], 6))?;
                    y = g.add(y, beta)?;
                }
                Ok(y)
            })?;
            assert_eq!(raised.ops(), ["LayerNorm"], "{}", raised.graph);
            assert_eq!(raised.count(|op| *op == Op::LayerNorm { epsilon, residual: false }), 1, "{}", raised.graph);
        }
    }
    Ok(())
}

#[test]
fn norms_without_a_mean() -> Result<(), Error> {
    let squares = |g: &mut Spelling, reduction| {
        let squares = g.pow(g.x, 2.0)?;
        Ok::<_, Error>(g.reduce(reduction, squares, 2)?)
    };
    let raised = Raised::of(|g| {
        let square = squares(g, Reduction::Mean)?;
        let square = g.shifted(square, 1e-6)?;
        let root = g.unary(Unary::Sqrt, square)?;
        let factor = g.unary(Unary::Reciprocal, root)?;
        let normal = g.mul(g.x, factor)?;
        let gamma = g.constant(random(&[WIDTH], 5))?;
        Ok(g.mul(gamma, normal)?)
    })?;
    assert_eq!(raised.count(|op| *op == Op::RmsNorm { epsilon: 1e-6, residual: false }), 1, "{}", raised.graph);
    let raised = Raised::of(|g| {
        let square = squares(g, Reduction::Sum)?;
        let root = g.unary(Unary::Sqrt, square)?;
        let least = g.number(1e-12)?;
        let norm = g.op(Op::Binary(Binary::Max), &[root, least])?;
        let norm = g.op(Op::Expand { shape: rows() }, &[norm])?;
        Ok(g.div(g.x, norm)?)
    })?;
    assert_eq!(raised.ops(), ["L2Normalize"], "{}", raised.graph);
    assert_eq!(raised.count(|op| *op == Op::L2Normalize { epsilon: 1e-12 }), 1, "{}", raised.graph);
    Ok(())
}

#[test]
fn activations_in_every_spelling() -> Result<(), Error> {
    type Function = fn(&mut Spelling) -> Result<NodeId, Error>;
    let gelu: Function = |g| {
        let root = g.number(std::f32::consts::SQRT_2)?;
        let inner = g.div(g.x, root)?;
        let erf = g.unary(Unary::Erf, inner)?;
        let sum = g.shifted(erf, 1.0)?;
        let product = g.mul(g.x, sum)?;
        g.scaled(product, 0.5)
    };
    let gelu_by_half: Function = |g| {
        let half = g.scaled(g.x, 0.5)?;
        let inner = g.scaled(g.x, std::f32::consts::FRAC_1_SQRT_2)?;
        let erf = g.unary(Unary::Erf, inner)?;
        let product = g.mul(half, erf)?;
        Ok(g.add(half, product)?)
    };
    let tanh: Function = |g| {
        let cube = g.pow(g.x, 3.0)?;
        let cube = g.scaled(cube, 0.044715)?;
        let sum = g.add(g.x, cube)?;
        let inner = g.scaled(sum, 0.797_884_6)?;
        let tanh = g.op(Op::Activation(Activation::Tanh), &[inner])?;
        let sum = g.shifted(tanh, 1.0)?;
        let half = g.scaled(g.x, 0.5)?;
        Ok(g.mul(half, sum)?)
    };
    let quick: Function = |g| {
        let inner = g.scaled(g.x, 1.702)?;
        let sigmoid = g.op(Op::Activation(Activation::Sigmoid), &[inner])?;
        Ok(g.mul(g.x, sigmoid)?)
    };
    let silu: Function = |g| {
        let negative = g.unary(Unary::Neg, g.x)?;
        let exp = g.unary(Unary::Exp, negative)?;
        let sum = g.shifted(exp, 1.0)?;
        Ok(g.div(g.x, sum)?)
    };
    let relu: Function = |g| {
        let zero = g.number(0.0)?;
        Ok(g.op(Op::Binary(Binary::Max), &[zero, g.x])?)
    };
    use Activation::{Gelu, GeluTanh, QuickGelu, Relu, Silu};
    let functions =
        [(gelu, Gelu), (gelu_by_half, Gelu), (tanh, GeluTanh), (quick, QuickGelu), (silu, Silu), (relu, Relu)];
    for (function, activation) in functions {
        let raised = Raised::of(function)?;
        assert_eq!(raised.ops(), ["Activation"], "{}", raised.graph);
        assert_eq!(raised.count(|op| *op == Op::Activation(activation)), 1, "{}", raised.graph);
    }
    let raised = Raised::of(|g| {
        let least = g.number(1e-9)?;
        Ok(g.op(Op::Binary(Binary::Max), &[g.x, least])?)
    })?;
    assert_eq!(raised.ops(), ["Binary"], "a lower bound is no ReLU");
    Ok(())
}

#[test]
fn embeddings_of_ids_and_positions() -> Result<(), Error> {
    let raised = Raised::of(|g| {
        let words = g.constant(random(&[VOCABULARY, WIDTH], 1))?;
        let words = g.gather(words, g.ids, 0)?;
        let buffer: Vec<f32> = (0..LONGEST + 8).map(|position| position as f32).collect();
        let buffer = g.constant(Tensor::from_f32(&[1, buffer.len()], &buffer)?)?;
        let iota = g.op(Op::Iota { size: s() }, &[])?;
        let positions = g.gather(buffer, iota, 1)?;
        let table = g.constant(random(&[LONGEST + 8, WIDTH], 2))?;
        let positions = g.gather(table, positions, 0)?;
        let zero = g.number(0.0)?;
        let types = g.op(Op::Expand { shape: vec![n(), s()] }, &[zero])?;
        let table = g.constant(random(&[2, WIDTH], 3))?;
        let types = g.gather(table, types, 0)?;
        let sum = g.add(words, types)?;
        Ok(g.add(sum, positions)?)
    })?;
    assert!(raised.is_packed(), "{}", raised.graph);
    assert_eq!(raised.count(|op| *op == Op::Embedding), 3, "{}", raised.graph);
    Ok(())
}

#[test]
fn positions_that_skip_padding() -> Result<(), Error> {
    let raised = Raised::of(|g| {
        let padding = g.number(1.0)?;
        let is_padding = g.op(Op::Binary(Binary::Equal), &[g.ids, padding])?;
        let zero = g.number(0.0)?;
        let counts = g.op(Op::Binary(Binary::Equal), &[is_padding, zero])?;
        let sum = g.op(Op::CumSum { axis: 1 }, &[counts])?;
        let masked = g.mul(sum, counts)?;
        let positions = g.add(masked, padding)?;
        let table = g.constant(random(&[LONGEST + 2, WIDTH], 2))?;
        Ok(g.gather(table, positions, 0)?)
    })?;
    assert_eq!(raised.ops(), ["Positions", "Embedding"], "{}", raised.graph);
    assert_eq!(raised.count(|op| *op == Op::Positions { offset: 2, padding: Some(1) }), 1);
    Ok(())
}

/// Mean over a mask with a lower bound of the count.
fn mean(g: &mut Spelling) -> Result<NodeId, Error> {
    let mask = g.wide_mask()?;
    let masked = g.mul(g.x, mask)?;
    let (sum, count) = (g.reduce(Reduction::Sum, masked, 1)?, g.reduce(Reduction::Sum, mask, 1)?);
    let shape = vec![n(), WIDTH.into()];
    let (sum, count) = (g.reshape(sum, shape.clone())?, g.reshape(count, shape)?);
    let least = g.number(1e-9)?;
    let count = g.op(Op::Binary(Binary::Max), &[count, least])?;
    Ok(g.div(sum, count)?)
}

#[test]
fn poolings() -> Result<(), Error> {
    type Pool = fn(&mut Spelling) -> Result<NodeId, Error>;
    let first: Pool = |g| {
        let zero = g.number(0.0)?;
        Ok(g.gather(g.x, zero, 1)?)
    };
    let largest: Pool = |g| {
        let (mask, hidden) = (g.wide_mask()?, g.number(-1e9)?);
        let zero = g.number(0.0)?;
        let hides = g.op(Op::Binary(Binary::Equal), &[mask, zero])?;
        let masked = g.op(Op::Where, &[hides, hidden, g.x])?;
        let largest = g.reduce(Reduction::Max, masked, 1)?;
        Ok(g.reshape(largest, vec![n(), WIDTH.into()])?)
    };
    let last: Pool = |g| {
        let count = g.reduce(Reduction::Sum, g.mask, 1)?;
        let count = g.reshape(count, vec![n()])?;
        let index = g.shifted(count, -1.0)?;
        let index = g.reshape(index, vec![n(), 1.into(), 1.into()])?;
        let index = g.op(Op::Expand { shape: vec![n(), 1.into(), WIDTH.into()] }, &[index])?;
        Ok(g.op(Op::GatherElements { axis: 1 }, &[g.x, index])?)
    };
    let root: Pool = |g| {
        let mask = g.wide_mask()?;
        let masked = g.mul(mask, g.x)?;
        let (sum, count) = (g.reduce(Reduction::Sum, masked, 1)?, g.reduce(Reduction::Sum, mask, 1)?);
        let root = g.unary(Unary::Sqrt, count)?;
        Ok(g.div(sum, root)?)
    };
    let weighted: Pool = |g| {
        let iota = g.op(Op::Iota { size: s() }, &[])?;
        let weights = g.shifted(iota, 1.0)?;
        let weights = g.reshape(weights, vec![1.into(), s(), 1.into()])?;
        let mask = g.wide_mask()?;
        let weights = g.mul(weights, mask)?;
        let product = g.mul(g.x, weights)?;
        let (sum, total) = (g.reduce(Reduction::Sum, product, 1)?, g.reduce(Reduction::Sum, weights, 1)?);
        let least = g.number(1e-9)?;
        let total = g.op(Op::Binary(Binary::Max), &[total, least])?;
        Ok(g.div(sum, total)?)
    };
    let pools = [
        (first, Pooling::Cls),
        (mean as Pool, Pooling::Mean),
        (largest, Pooling::Max),
        (last, Pooling::LastToken),
        (root, Pooling::MeanSqrtLength),
        (weighted, Pooling::WeightedMean),
    ];
    for (pool, pooling) in pools {
        let raised = Raised::of(pool)?;
        assert!(raised.is_packed(), "{pooling:?}\n{}", raised.graph);
        assert_eq!(raised.count(|op| *op == Op::Pool(pooling)), 1, "{}", raised.graph);
        assert!(raised.ops().iter().all(|op| ["Pool", "Reshape"].contains(op)), "{}", raised.graph);
    }
    Ok(())
}

#[test]
fn a_pooled_row_goes_through_ordinary_layers() -> Result<(), Error> {
    let raised = Raised::of(|g| {
        let pooled = mean(g)?;
        let weight = g.constant(random(&[WIDTH, 3], 1))?;
        let logits = g.op(Op::MatMul, &[pooled, weight])?;
        let bias = g.constant(random(&[3], 2))?;
        Ok(g.add(logits, bias)?)
    })?;
    assert_eq!(raised.ops(), ["Pool", "Linear"], "{}", raised.graph);
    Ok(())
}

#[test]
fn the_largest_is_taken_before_functions_that_ascend() -> Result<(), Error> {
    let raised = Raised::of(|g| {
        let zero = g.number(0.0)?;
        let positive = g.op(Op::Binary(Binary::Max), &[g.x, zero])?;
        let more = g.shifted(positive, 1.0)?;
        let log = g.unary(Unary::Log, more)?;
        let mask = g.reshape(g.mask, vec![n(), s(), 1.into()])?;
        let masked = g.mul(log, mask)?;
        let largest = g.reduce(Reduction::Max, masked, 1)?;
        Ok(g.reshape(largest, vec![n(), WIDTH.into()])?)
    })?;
    assert_eq!(raised.ops(), ["Pool", "Activation", "Unary"], "{}", raised.graph);
    Ok(())
}

#[test]
fn selected_rows_go_through_the_head_alone() -> Result<(), Error> {
    let mut spelling = Spelling::new()?;
    let g = &mut spelling;
    let weights = [1, 2].map(|seed| random(&[WIDTH, WIDTH], seed));
    let mut x = g.scaled(g.x, 0.5)?;
    for weight in weights {
        let weight = g.constant(weight)?;
        let product = g.op(Op::MatMul, &[x, weight])?;
        x = g.unary(Unary::Abs, product)?;
    }
    let packed = g.op(Op::Pack, &[x])?;
    let selected = g.op(Op::Select, &[packed])?;
    g.graph.output("output", selected);
    let (graph, reports) = raise(&spelling.graph, &RaiseOptions { max_tokens: LONGEST })?;
    let raised = Raised { graph, reports };
    assert_eq!(raised.ops(), ["Binary", "Select", "Linear", "Unary", "Linear", "Unary"], "{}", raised.graph);
    raised.agrees(&spelling.graph, &[7])?;
    raised.agrees(&spelling.graph, &[3, 1, 4])
}

#[test]
fn what_mixes_tokens_is_an_island_with_a_reason() -> Result<(), Error> {
    let raised = Raised::of(|g| {
        let weight = g.constant(random(&[WIDTH, WIDTH], 1))?;
        let before = g.op(Op::MatMul, &[g.x, weight])?;
        let mixed = g.op(Op::CumSum { axis: 1 }, &[before])?;
        Ok(g.op(Op::MatMul, &[mixed, weight])?)
    })?;
    assert_eq!(raised.ops(), ["Linear", "Pad", "CumSum", "Pack", "Linear"], "{}", raised.graph);
    let refused: Vec<_> = raised.reports.iter().flat_map(|report| &report.refused).collect();
    assert!(refused.iter().any(|refusal| refusal.reason.contains("CumSum")), "{refused:?}");
    Ok(())
}
