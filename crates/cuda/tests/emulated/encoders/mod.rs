//! Whole encoders on a device: a graph, its plan, its outputs, against the reference evaluator.

use std::collections::HashMap;

use centuple_cuda::{Architecture, Capacity, Device, Encoder, Format, Target, lower};
use centuple_graph::{Activation, Attention, Binary, Graph, NodeId, Op, Pooling, PositionScores};
use centuple_passes::{Channels, Moments, Quantization, optimize, quantize};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{DType, Dim, Layout, Span, Symbol, Tensor};
use centuple_testkit::{Random, distance};

pub(crate) type Failure = Box<dyn std::error::Error>;

/// Sizes of an encoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    pub(crate) vocabulary: usize,
    pub(crate) positions: usize,
}

pub(crate) const SMALL: Sizes = Sizes { layers: 2, hidden: 128, inner: 256, heads: 4, vocabulary: 50, positions: 120 };

/// A post-norm encoder of random weights as the families emit it, before any pass.
struct Builder {
    graph: Graph,
    random: Random,
    sizes: Sizes,
}

impl Builder {
    fn weight(&mut self, name: &str, shape: &[usize], scale: f32) -> Result<NodeId, Failure> {
        let tensor = self.random.tensor(shape, scale)?;
        Ok(self.graph.constant(name, tensor)?)
    }

    fn linear(&mut self, name: &str, x: NodeId, [n, k]: [usize; 2]) -> Result<NodeId, Failure> {
        let weight = self.weight(&format!("{name}.weight"), &[n, k], 2.0 / (k as f32).sqrt())?;
        let bias = self.weight(&format!("{name}.bias"), &[n], 0.3)?;
        let op = Op::Linear { bias: true, activation: None, residual: false };
        Ok(self.graph.push(name, op, &[x, weight, bias])?)
    }

    fn norm(&mut self, name: &str, x: NodeId) -> Result<NodeId, Failure> {
        let gamma: Vec<f32> = (0..self.sizes.hidden).map(|_| 1.0 + 0.3 * self.random.float()).collect();
        let gamma = self.graph.constant(format!("{name}.gamma"), Tensor::from_f32(&[self.sizes.hidden], &gamma)?)?;
        let beta = self.weight(&format!("{name}.beta"), &[self.sizes.hidden], 0.2)?;
        Ok(self.graph.push(name, Op::LayerNorm { epsilon: 1e-12, residual: false }, &[x, gamma, beta])?)
    }

    fn sum(&mut self, a: NodeId, b: NodeId) -> Result<NodeId, Failure> {
        Ok(self.graph.push("sum", Op::Binary(Binary::Add), &[a, b])?)
    }

    fn layer(&mut self, x: NodeId) -> Result<NodeId, Failure> {
        let Sizes { hidden, inner: inner_width, heads, .. } = self.sizes;
        let square = [hidden, hidden];
        let [q, k, v] = [self.linear("q", x, square)?, self.linear("k", x, square)?, self.linear("v", x, square)?];
        let head_dim = hidden / heads;
        let attention = Op::Attention(Attention {
            heads,
            kv_heads: heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            soft_cap: None,
            causal: false,
            window: None,
            position: PositionScores::None,
            cache: None,
        });
        let attended = self.graph.push("attention", attention, &[q, k, v])?;
        let projected = self.linear("projection", attended, square)?;
        let sum = self.sum(projected, x)?;
        let x = self.norm("attention.norm", sum)?;
        let inner = self.linear("inner", x, [inner_width, hidden])?;
        let inner = self.graph.push("gelu", Op::Activation(Activation::Gelu), &[inner])?;
        let outer = self.linear("outer", inner, [hidden, inner_width])?;
        let sum = self.sum(outer, x)?;
        self.norm("norm", sum)
    }

    /// Embeddings and layers: `[Tokens, hidden]`.
    fn encoder(sizes: Sizes, padding: Option<i64>) -> Result<(Builder, NodeId), Failure> {
        let mut builder = Builder { graph: Graph::new(), random: Random::new(7), sizes };
        let tokens = || vec![Dim::from(Symbol::Tokens)];
        let ids = builder.graph.input("input_ids", DType::I64, tokens())?;
        let types = builder.graph.input("token_type_ids", DType::I64, tokens())?;
        let positions = Op::Positions { offset: i64::from(padding.is_some()) * 2, padding };
        let counted = if padding.is_some() { vec![ids] } else { vec![] };
        let positions = builder.graph.push("positions", positions, &counted)?;
        let mut sum = None;
        for (name, rows, ids) in
            [("words", sizes.vocabulary, ids), ("types", 2, types), ("positions", sizes.positions, positions)]
        {
            let table = builder.weight(name, &[rows, sizes.hidden], 1.0)?;
            let found = builder.graph.push(name, Op::Embedding, &[table, ids])?;
            sum = Some(if let Some(sum) = sum { builder.sum(sum, found)? } else { found });
        }
        let mut x = builder.norm("embeddings.norm", sum.ok_or("no tables")?)?;
        for _ in 0..sizes.layers {
            x = builder.layer(x)?;
        }
        Ok((builder, x))
    }
}

/// A sentence embedding.
pub(crate) fn embedding(sizes: Sizes) -> Result<Graph, Failure> {
    let (mut builder, x) = Builder::encoder(sizes, None)?;
    let pooled = builder.graph.push("pool", Op::Pool(Pooling::Mean), &[x])?;
    let normalised = builder.graph.push("normalise", Op::L2Normalize { epsilon: 1e-12 }, &[pooled])?;
    builder.graph.output("embedding", normalised);
    Ok(builder.graph)
}

/// A classifier with a pooled layer, labels of each token, and hidden states; positions that count what is no padding.
fn heads() -> Result<Graph, Failure> {
    let (mut builder, x) = Builder::encoder(Sizes { layers: 1, ..SMALL }, Some(1))?;
    let hidden = builder.sizes.hidden;
    let cls = builder.graph.push("cls", Op::Pool(Pooling::Cls), &[x])?;
    let pooled = builder.linear("pooler", cls, [hidden, hidden])?;
    let pooled = builder.graph.push("tanh", Op::Activation(Activation::Tanh), &[pooled])?;
    let logits = builder.linear("classifier", pooled, [3, hidden])?;
    let labels = builder.linear("labels", x, [5, hidden])?;
    builder.graph.output("logits", logits);
    builder.graph.output("labels", labels);
    builder.graph.output("hidden", x);
    Ok(builder.graph)
}

/// A batch of sequences of these lengths.
pub(crate) struct Input {
    pub(crate) layout: Layout,
    pub(crate) ids: Vec<i64>,
    pub(crate) types: Vec<i64>,
}

impl Input {
    pub(crate) fn new(lengths: &[usize], seed: u64) -> Result<Input, Failure> {
        let spans = lengths.iter().map(|&tokens| Span { tokens, pool_from: tokens / 5, ..Span::default() });
        let layout = Layout::new(spans.collect())?;
        let mut random = Random::new(seed);
        let mut ids = |limit| (0..layout.tokens()).map(|_| random.below(limit) as i64).collect();
        Ok(Input { ids: ids(SMALL.vocabulary), types: ids(2), layout })
    }

    /// One sequence of it alone.
    fn alone(&self, sequence: usize) -> Result<Input, Failure> {
        let span = &self.layout.spans()[sequence];
        let rows = span.start..span.start + span.tokens;
        let layout = Layout::new(vec![Span { start: 0, ..span.clone() }])?;
        Ok(Input { layout, ids: self.ids[rows.clone()].to_vec(), types: self.types[rows].to_vec() })
    }

    fn reference(&self, graph: &Graph) -> Result<Vec<Tensor>, Failure> {
        let tensor = |ids: &[i64]| Tensor::from_i64(&[ids.len()], ids);
        let inputs = [("input_ids", tensor(&self.ids)?), ("token_type_ids", tensor(&self.types)?)];
        let mut cache = Cache::default();
        let mut batch = Batch { bindings: self.layout.bindings(), layout: &self.layout, cache: &mut cache };
        Ok(evaluate(graph, &inputs, &mut batch)?)
    }

    fn run<D: Device>(&self, encoder: &mut Encoder<D>) -> Result<Vec<Vec<f32>>, Failure> {
        let outputs = encoder.run(&self.layout, &[("input_ids", &self.ids), ("token_type_ids", &self.types)])?;
        Ok(outputs.into_iter().map(|output| output.data).collect())
    }
}

fn encoder<D: Device>(
    device: D,
    graph: &Graph,
    format: Format,
    architecture: Architecture,
) -> Result<Encoder<D>, Failure> {
    let target = Target { architecture, multiprocessors: 6 };
    let capacity = Capacity { tokens: 150, sequences: 5 };
    Ok(Encoder::new(device, lower(graph, format)?, target, capacity)?)
}

/// Makes a device for each encoder; its kernels are compiled for an architecture.
pub(crate) struct Maker<'a, D> {
    pub(crate) make: &'a dyn Fn() -> D,
    pub(crate) architecture: Architecture,
}

/// Batches of each bucket's size against the reference, and each sequence alone against its rows of the batch.
fn check<D: Device>(
    maker: &Maker<D>,
    [graph, optimised]: [&Graph; 2],
    format: Format,
    tolerance: f32,
) -> Result<(), Failure> {
    let architecture = maker.architecture;
    let mut encoder = encoder((maker.make)(), optimised, format, architecture)?;
    for lengths in [&[5][..], &[9, 20], &[70, 1, 66]] {
        let input = Input::new(lengths, lengths.len() as u64)?;
        let found = input.run(&mut encoder)?;
        for (found, expected) in found.iter().zip(input.reference(graph)?) {
            let distance = distance(found, expected.as_f32()?);
            assert!(distance <= tolerance, "{format:?} of {architecture}, {lengths:?}: {distance}");
        }
        for (sequence, span) in input.layout.spans().iter().enumerate() {
            let alone = input.alone(sequence)?.run(&mut encoder)?;
            for (found, alone) in found.iter().zip(&alone) {
                let per_token = alone.len() / span.tokens * input.layout.tokens() == found.len();
                let row = if per_token { span.start * (alone.len() / span.tokens) } else { sequence * alone.len() };
                assert_eq!(&found[row..row + alone.len()], &alone[..], "sequence {sequence} of {lengths:?}");
            }
        }
    }
    Ok(())
}

pub(crate) fn embeddings_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let graph = embedding(SMALL)?;
    let (optimised, _) = optimize(&graph)?;
    if maker.architecture.is_ampere() {
        check(maker, [&graph, &optimised], Format::Bf16, 1e-2)?;
    }
    check(maker, [&graph, &optimised], Format::F16, 2e-3)
}

pub(crate) fn heads_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let graph = heads()?;
    let (optimised, _) = optimize(&graph)?;
    check(maker, [&graph, &optimised], Format::F16, 1e-2)
}

/// Quantised layers have the integers that the pass gave them: the reference on the same quantised graph.
pub(crate) fn quantised_layers_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let (optimised, _) = optimize(&embedding(SMALL)?)?;
    let channels = |width| Channels {
        largest: vec![3.0; width],
        mean: vec![0.1; width],
        square: vec![1.0; width],
        moments: Moments::default(),
    };
    let observations: HashMap<NodeId, Channels> = centuple_passes::observed_values(&optimised)
        .into_iter()
        .map(|id| (id, channels(optimised.node(id).fact.shape[1].constant().unwrap_or(0))))
        .collect();
    let (quantised, _) = quantize(&optimised, &observations, &Quantization::default())?;
    let layers = quantised.nodes().iter().filter(|node| matches!(node.op, Op::QuantizedLinear { .. })).count();
    assert!(layers >= 6, "{layers} layers are quantised");
    check(maker, [&quantised, &quantised], Format::F16, 2e-2)
}

pub(crate) fn what_does_not_fit_is_an_error<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let (optimised, _) = optimize(&embedding(SMALL)?)?;
    let mut encoder = encoder((maker.make)(), &optimised, Format::F16, maker.architecture)?;
    let mut error = |input: Input| input.run(&mut encoder).map_err(|error| error.to_string()).unwrap_err();
    assert!(error(Input::new(&[151], 1)?).contains("151 tokens"));
    assert!(error(Input::new(&[1; 6], 1)?).contains("6 sequences"));
    let mut input = Input::new(&[4], 1)?;
    input.ids[2] = SMALL.vocabulary as i64;
    assert!(error(input).contains("50 rows"));
    let mut input = Input::new(&[4], 1)?;
    input.types.pop();
    assert!(error(input).contains("token_type_ids"));
    // More positions than the table has rows.
    assert!(error(Input::new(&[SMALL.positions + 1], 1)?).contains("120 rows"));

    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, vec![Dim::from(Symbol::Tokens), Dim::from(8)])?;
    graph.output("x", x);
    let error = lower(&graph, Format::F16).unwrap_err().to_string();
    assert!(error.contains("Input `x`"), "{error}");
    Ok(())
}
