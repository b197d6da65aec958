//! Whole encoders on a device: a graph, its plan, its outputs, against the reference evaluator.

pub(crate) mod answers;
pub(crate) mod fp8;

use std::collections::HashMap;

use centuple_cuda::{
    Architecture, CacheRoom, Capacity, Device, Format, Plan, Rows, Session, SessionOutput, Target, lower,
};
use centuple_graph::{Activation, Attention, Binary, Graph, NodeId, Op, Pooling, PositionScores};
use centuple_passes::{Channels, Moments, Quantization, optimize, quantize};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{DType, Dim, Layout, PAGE_TOKENS, Span, Symbol, Tensor};
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

/// The id whose last token a head pools.
const MARK: i64 = 7;

/// A classifier with a pooled layer, a pooled token of an id, labels of each token, and hidden states; positions that count what is no padding.
fn heads() -> Result<Graph, Failure> {
    let (mut builder, x) = Builder::encoder(Sizes { layers: 1, ..SMALL }, Some(1))?;
    let ids = builder.graph.iter().find_map(|(id, node)| (node.name == "input_ids").then_some(id)).ok_or("no ids")?;
    let hidden = builder.sizes.hidden;
    let cls = builder.graph.push("cls", Op::Pool(Pooling::Cls), &[x])?;
    let pooled = builder.linear("pooler", cls, [hidden, hidden])?;
    let pooled = builder.graph.push("tanh", Op::Activation(Activation::Tanh), &[pooled])?;
    let logits = builder.linear("classifier", pooled, [3, hidden])?;
    let marked = builder.graph.push("marked", Op::Pool(Pooling::LastEqual(MARK)), &[x, ids])?;
    let labels = builder.linear("labels", x, [5, hidden])?;
    builder.graph.output("logits", logits);
    builder.graph.output("marked", marked);
    builder.graph.output("labels", labels);
    builder.graph.output("hidden", x);
    Ok(builder.graph)
}

/// How a [`modern`] layer knows positions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Positions {
    /// Rotated queries and keys, and a window.
    Rotary { interleaved: bool },
    /// Scores by distance, and no key behind the query's own.
    Scores,
    /// Scores of content and position.
    Content,
}

impl Builder {
    /// RMS norms before attention and a gated feed-forward layer, three heads of queries to each head of keys where these
    /// have no scores of their own.
    fn modern_layer(
        &mut self,
        x: NodeId,
        positions: Positions,
        at: NodeId,
        cache: Option<usize>,
    ) -> Result<NodeId, Failure> {
        let Sizes { hidden, inner, heads, .. } = self.sizes;
        let (kv_heads, head_dim) = match positions {
            Positions::Content => (heads, 24),
            Positions::Rotary { .. } | Positions::Scores => (heads / 3, if hidden == SMALL.hidden { 32 } else { 64 }),
        };
        let normed = self.rms_norm("attention.norm", x)?;
        let [q, k, v] = [("q", heads), ("k", kv_heads), ("v", kv_heads)];
        let mut parts = Vec::new();
        for (name, heads) in [q, k, v] {
            let part = self.linear(name, normed, [heads * head_dim, hidden])?;
            parts.push(match positions {
                Positions::Rotary { interleaved } if name != "v" => {
                    let gamma = self.weight(&format!("{name}.gamma"), &[head_dim], 1.0)?;
                    let part = self.graph.push("head norm", Op::HeadNorm { heads, epsilon: 1e-6 }, &[part, gamma])?;
                    let table = self.weight("angles", &[self.sizes.positions, 24], 1.0)?;
                    self.graph.push("rotary", Op::Rotary { heads, head_dim, interleaved }, &[part, at, table])?
                }
                Positions::Rotary { .. } | Positions::Scores | Positions::Content => part,
            });
        }
        let (window, position) = match positions {
            Positions::Rotary { .. } => (Some(19), PositionScores::None),
            Positions::Scores => {
                parts.push(self.weight("scores", &[heads, 2 * 40 + 1], 1.0)?);
                (None, PositionScores::Bias)
            }
            Positions::Content => {
                let (buckets, farthest) = (14, 40i64);
                for (name, content) in [("c2p", parts[0]), ("p2c", parts[1])] {
                    let relative = self.weight(&format!("{name}.relative"), &[heads, buckets, head_dim], 0.5)?;
                    let op = Op::GroupedLinear { groups: heads };
                    parts.push(self.graph.push(name, op, &[content, relative])?);
                }
                let bucket = |distance: i64| (distance.clamp(-9, 9) + distance.signum() * 4) / 2 + 7;
                let bucket_of: Vec<i64> = (-farthest..=farthest).map(|at| bucket(at).clamp(0, 13)).collect();
                parts.push(self.graph.constant("buckets", Tensor::from_i64(&[bucket_of.len()], &bucket_of)?)?);
                let terms = PositionScores::Disentangled { content_to_position: true, position_to_content: true };
                (None, terms)
            }
        };
        let attention = Op::Attention(Attention {
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            soft_cap: matches!(positions, Positions::Rotary { .. }).then_some(2.0),
            causal: cache.is_some() || matches!(positions, Positions::Scores),
            window,
            position,
            cache,
        });
        let attended = self.graph.push("attention", attention, &parts)?;
        let projected = self.linear("projection", attended, [hidden, heads * head_dim])?;
        let x = self.sum(x, projected)?;
        let normed = self.rms_norm("inner.norm", x)?;
        let [gate, up] = [self.linear("gate", normed, [inner, hidden])?, self.linear("up", normed, [inner, hidden])?];
        let gated = self.graph.push("gated", Op::Gate { activation: Activation::Silu }, &[gate, up])?;
        let down = self.linear("down", gated, [hidden, inner])?;
        self.sum(x, down)
    }

    fn rms_norm(&mut self, name: &str, x: NodeId) -> Result<NodeId, Failure> {
        let gamma = self.weight(&format!("{name}.gamma"), &[self.sizes.hidden], 1.0)?;
        Ok(self.graph.push(name, Op::RmsNorm { epsilon: 1e-6, residual: false }, &[x, gamma])?)
    }
}

/// A pre-norm encoder, the logits of its selected tokens over the vocabulary, and a classifier with a norm in its head.
fn modern(positions: Positions) -> Result<Graph, Failure> {
    let mut builder = Builder { graph: Graph::new(), random: Random::new(9), sizes: MODERN };
    let tokens = || vec![Dim::from(Symbol::Tokens)];
    let ids = builder.graph.input("input_ids", DType::I64, tokens())?;
    let types = builder.graph.input("token_type_ids", DType::I64, tokens())?;
    let at = builder.graph.push("positions", Op::Positions { offset: 0, padding: None }, &[])?;
    let words = builder.weight("words", &[SMALL.vocabulary, SMALL.hidden], 1.0)?;
    let kinds = builder.weight("types", &[2, SMALL.hidden], 1.0)?;
    let mut x = builder.graph.push("embedding", Op::Embedding, &[words, ids, kinds, types])?;
    for _ in 0..SMALL.layers {
        x = builder.modern_layer(x, positions, at, None)?;
    }
    let selected = builder.graph.push("selected", Op::Select, &[x])?;
    let transformed = builder.linear("transform", selected, [SMALL.hidden; 2])?;
    let transformed = builder.graph.push("silu", Op::Activation(Activation::Silu), &[transformed])?;
    let transformed = builder.norm("transform.norm", transformed)?;
    let tokens = builder.linear("decoder", transformed, [SMALL.vocabulary, SMALL.hidden])?;
    let cls = builder.graph.push("cls", Op::Pool(Pooling::Cls), &[x])?;
    let head = builder.linear("head", cls, [SMALL.hidden; 2])?;
    let head = builder.graph.push("gelu", Op::Activation(Activation::Gelu), &[head])?;
    let head = builder.norm("head.norm", head)?;
    let classes = builder.linear("classifier", head, [3, SMALL.hidden])?;
    builder.graph.output("tokens", tokens);
    builder.graph.output("classes", classes);
    Ok(builder.graph)
}

/// Those of layers with six heads of queries.
const MODERN: Sizes = Sizes { heads: 6, ..SMALL };
/// Those of SmolLM2-135M, but for one layer and few ids.
const SMOLLM: Sizes = Sizes { layers: 1, hidden: 576, inner: 1536, heads: 9, vocabulary: 50, positions: 120 };

/// A decoder with a cache: the logits of its selected tokens, over an odd number of ids.
fn decoder(sizes: Sizes, positions: Positions) -> Result<Graph, Failure> {
    let mut builder = Builder { graph: Graph::new(), random: Random::new(12), sizes };
    let ids = builder.graph.input("input_ids", DType::I64, vec![Dim::from(Symbol::Tokens)])?;
    let at = builder.graph.push("positions", Op::Positions { offset: 0, padding: None }, &[])?;
    let words = builder.weight("words", &[sizes.vocabulary, sizes.hidden], 1.0)?;
    let mut x = builder.graph.push("embedding", Op::Embedding, &[words, ids])?;
    for slot in 0..sizes.layers {
        x = builder.modern_layer(x, positions, at, Some(slot))?;
    }
    let x = builder.rms_norm("norm", x)?;
    let selected = builder.graph.push("selected", Op::Select, &[x])?;
    let head = builder.weight("head", &[sizes.vocabulary + 1, sizes.hidden], 0.2)?;
    let op = Op::Linear { bias: false, activation: None, residual: false };
    let logits = builder.graph.push("logits", op, &[selected, head])?;
    builder.graph.output("logits", logits);
    Ok(builder.graph)
}

/// Two sequences step by step, in pages that lie anywhere, against the reference that reads each whole: prompts in parts,
/// tokens one by one, a page that is copied. However it is cut, the logits have the same bits.
pub(crate) fn steps_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    for positions in [Positions::Rotary { interleaved: false }, Positions::Scores] {
        let graph = decoder(MODERN, positions)?;
        let (optimised, _) = optimize(&graph)?;
        let target = Target { architecture: maker.architecture, multiprocessors: 6 };
        let room = CacheRoom { pages: 20, positions: 100 };
        let capacity = Capacity { tokens: 80, sequences: 4 };
        let make = || Session::new((maker.make)(), lower(&optimised, Format::F16)?, target, capacity, room);
        let sequences = [Input::new(&[70], 3)?.ids, Input::new(&[38], 4)?.ids];
        let pages: [Vec<u32>; 2] = [vec![7, 0, 12, 3, 19], vec![5, 18, 1]];
        let span = |sequence: usize, past: usize, tokens: usize| Span {
            tokens,
            past,
            pages: pages[sequence][..(past + tokens).div_ceil(PAGE_TOKENS)].to_vec(),
            selected: vec![tokens as u32 - 1],
            ..Span::default()
        };
        let run = |session: &mut Session<D>, spans: Vec<(usize, Span)>| -> Result<Vec<f32>, Failure> {
            let ids: Vec<i64> = spans
                .iter()
                .flat_map(|(sequence, span)| &sequences[*sequence][span.past..span.past + span.tokens])
                .copied()
                .collect();
            let layout = Layout::new(spans.into_iter().map(|(_, span)| span).collect())?;
            Ok(session.run(&layout, &[("input_ids", &ids)])?.remove(0).data)
        };
        let whole = |sequence: usize| run(&mut make()?, vec![(sequence, span(sequence, 0, sequences[sequence].len()))]);
        let whole = [whole(0)?, whole(1)?];
        let columns = SMALL.vocabulary + 1;

        let mut session = make()?;
        run(&mut session, vec![(0, span(0, 0, 50)), (1, span(1, 0, 20))])?;
        run(&mut session, vec![(0, span(0, 50, 18))])?;
        run(&mut session, vec![(1, span(1, 20, 17)), (0, span(0, 68, 1))])?;
        // The second page of the first sequence goes elsewhere, and the batch after it finds it there.
        session.copy_page(0, 9)?;
        let moved = |span: Span| Span {
            pages: span.pages.iter().map(|&page| if page == 0 { 9 } else { page }).collect(),
            ..span
        };
        let last = run(&mut session, vec![(0, moved(span(0, 69, 1))), (1, span(1, 37, 1))])?;
        assert_eq!(last, whole.concat(), "{positions:?}: the same bits, however it was cut");
        for (sequence, found) in last.chunks(columns).enumerate() {
            let ids = &sequences[sequence];
            let layout = Layout::new(vec![span(sequence, 0, ids.len())])?;
            let mut cache = Cache::new(SMALL.layers, room.pages);
            let mut batch = Batch { bindings: layout.bindings(), layout: &layout, cache: &mut cache };
            let expected = evaluate(&graph, &[("input_ids", Tensor::from_i64(&[ids.len()], ids)?)], &mut batch)?;
            let distance = distance(found, expected[0].as_f32()?);
            assert!(distance <= 2e-2, "{positions:?}, sequence {sequence}: {distance}");
        }
        let mut error = |span: Span| run(&mut session, vec![(0, span)]).map_err(|error| error.to_string()).unwrap_err();
        assert!(error(Span { pages: vec![20], ..span(0, 0, 3) }).contains("page 20"));
        assert!(error(Span { pages: vec![1; 8], ..span(0, 16, 1) }).contains("17 tokens in 8 pages"));
        assert!(error(Span { pages: vec![], ..span(0, 0, 3) }).contains("3 tokens in 0 pages"));
        assert!(session.copy_page(3, 20).is_err());
    }
    Ok(())
}

/// A decoder of a published model's sizes: a prompt, and a token behind it, against the reference that reads both at once.
pub(crate) fn published_sizes_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let graph = decoder(SMOLLM, Positions::Rotary { interleaved: false })?;
    let (optimised, _) = optimize(&graph)?;
    let target = Target { architecture: maker.architecture, multiprocessors: 6 };
    let (capacity, room) = (Capacity { tokens: 8, sequences: 1 }, CacheRoom { pages: 1, positions: 16 });
    let mut session = Session::new((maker.make)(), lower(&optimised, Format::F16)?, target, capacity, room)?;
    let ids = Input::new(&[8], 5)?.ids;
    let span = |past: usize, tokens: usize| {
        let selected = (0..tokens as u32).collect();
        Layout::new(vec![Span { tokens, past, pages: vec![0], selected, ..Span::default() }])
    };
    let mut found = session.run(&span(0, 7)?, &[("input_ids", &ids[..7])])?.remove(0).data;
    found.extend(session.run(&span(7, 1)?, &[("input_ids", &ids[7..])])?.remove(0).data);
    let layout = span(0, 8)?;
    let mut cache = Cache::new(SMOLLM.layers, room.pages);
    let mut batch = Batch { bindings: layout.bindings(), layout: &layout, cache: &mut cache };
    let expected = evaluate(&graph, &[("input_ids", Tensor::from_i64(&[8], &ids)?)], &mut batch)?;
    let distance = distance(&found, expected[0].as_f32()?);
    assert!(distance <= 2e-2, "{distance}");
    Ok(())
}

/// A batch of sequences of these lengths.
pub(crate) struct Input {
    pub(crate) layout: Layout,
    pub(crate) ids: Vec<i64>,
    pub(crate) types: Vec<i64>,
}

impl Input {
    pub(crate) fn new(lengths: &[usize], seed: u64) -> Result<Input, Failure> {
        let spans = lengths.iter().map(|&tokens| {
            let selected = (0..tokens as u32).step_by(4).collect();
            Span { tokens, pool_from: tokens / 5, selected, ..Span::default() }
        });
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

    fn run<D: Device>(&self, encoder: &mut Session<D>) -> Result<Vec<SessionOutput>, Failure> {
        Ok(encoder.run(&self.layout, &[("input_ids", &self.ids), ("token_type_ids", &self.types)])?)
    }
}

fn encoder<D: Device>(device: D, plan: Plan, architecture: Architecture) -> Result<Session<D>, Failure> {
    let target = Target { architecture, multiprocessors: 6 };
    let capacity = Capacity { tokens: 150, sequences: 5 };
    Ok(Session::new(device, plan, target, capacity, CacheRoom::default())?)
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
    check_plan(maker, lower(optimised, format)?, |input, found| {
        for (found, expected) in found.iter().zip(input.reference(graph)?) {
            let distance = distance(&found.data, expected.as_f32()?);
            assert!(distance <= tolerance, "{format:?} of {architecture}, {:?}: {distance}", input.layout);
        }
        Ok(())
    })
}

/// The same of a plan, whose outputs are judged.
fn check_plan<D: Device>(
    maker: &Maker<D>,
    plan: Plan,
    judge: impl Fn(&Input, &[SessionOutput]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut encoder = encoder((maker.make)(), plan, maker.architecture)?;
    for lengths in [&[5][..], &[9, 20], &[70, 1, 66]] {
        let input = Input::new(lengths, lengths.len() as u64)?;
        let found = input.run(&mut encoder)?;
        judge(&input, &found)?;
        for (sequence, span) in input.layout.spans().iter().enumerate() {
            let alone = input.alone(sequence)?.run(&mut encoder)?;
            for (found, alone) in found.iter().zip(&alone) {
                let of = |span: &Span| match found.rows {
                    Rows::Tokens => span.tokens,
                    Rows::Sequences => 1,
                    Rows::Selected => span.selected.len(),
                };
                let place = input.layout.spans()[..sequence].iter().map(of).sum::<usize>() * found.columns;
                let rows = &found.data[place..place + of(span) * found.columns];
                assert_eq!(rows, &alone.data[..], "sequence {sequence} of {lengths:?}");
            }
        }
    }
    Ok(())
}

pub(crate) fn embeddings_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    if maker.architecture.is_ampere() {
        let graph = embedding(SMALL)?;
        let (optimised, _) = optimize(&graph)?;
        check(maker, [&graph, &optimised], Format::Bf16, 1e-2)?;
    }
    embeddings_in_f16_are_the_references(maker)
}

pub(crate) fn embeddings_in_f16_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let graph = embedding(SMALL)?;
    let (optimised, _) = optimize(&graph)?;
    check(maker, [&graph, &optimised], Format::F16, 2e-3)
}

pub(crate) fn heads_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let graph = heads()?;
    let (optimised, _) = optimize(&graph)?;
    check(maker, [&graph, &optimised], Format::F16, 1e-2)
}

pub(crate) fn modern_layers_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let rotary = [false, true].map(|interleaved| Positions::Rotary { interleaved });
    for positions in [rotary[0], rotary[1], Positions::Scores, Positions::Content] {
        let graph = modern(positions)?;
        let (optimised, _) = optimize(&graph)?;
        check(maker, [&graph, &optimised], Format::F16, 1e-2)?;
    }
    Ok(())
}

/// An optimised graph with quantised layers, as if all channels had been alike.
pub(crate) fn quantised(optimised: &Graph, quantization: &Quantization) -> Result<Graph, Failure> {
    let channels = |width| Channels {
        largest: vec![3.0; width],
        mean: vec![0.1; width],
        square: vec![1.0; width],
        moments: Moments::default(),
    };
    let observations: HashMap<NodeId, Channels> = centuple_passes::observed_values(optimised)
        .into_iter()
        .map(|id| (id, channels(optimised.node(id).fact.shape[1].constant().unwrap_or(0))))
        .collect();
    Ok(quantize(optimised, &observations, quantization)?.0)
}

/// Quantised layers have the integers that the pass gave them: the reference on the same quantised graph.
pub(crate) fn quantised_layers_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let (optimised, _) = optimize(&embedding(SMALL)?)?;
    let of = |graph: &Graph, is: fn(&Op) -> bool| graph.nodes().iter().filter(|node| is(&node.op)).count();
    let graph = quantised(&optimised, &Quantization::default())?;
    let bytes = of(&graph, |op| matches!(op, Op::QuantizedLinear { bits: 7 | 8, .. }));
    assert!(bytes >= 6, "{bytes} layers are quantised");
    check(maker, [&graph, &graph], Format::F16, 2e-2)?;

    let coarse = Quantization { groups: Some(32), activated_bits: 12, ..Quantization::default() };
    let graph = quantised(&optimised, &coarse)?;
    let groups = of(&graph, |op| matches!(op, Op::GroupQuantizedLinear { .. }));
    let wide = of(&graph, |op| matches!(op, Op::QuantizedLinear { bits: 12, .. }));
    assert!(groups >= 4 && wide >= 2, "{groups} layers of 4 bits, {wide} of 12");
    check(maker, [&graph, &graph], Format::F16, 2e-2)
}

pub(crate) fn what_does_not_fit_is_an_error<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let (optimised, _) = optimize(&embedding(SMALL)?)?;
    let mut encoder = encoder((maker.make)(), lower(&optimised, Format::F16)?, maker.architecture)?;
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
