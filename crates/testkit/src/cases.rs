//! Cases of the transformer ops on packed tokens.

use centuple_graph::{Activation, Attention, Graph, NodeId, Op, Pooling};
use centuple_tensor::{DType, Layout, PAGE_TOKENS, Span, Symbol, Tensor};

use crate::{Case, CaseError, Random, Step};

/// Lengths of the sequences of most cases: single tokens, odd numbers, more than a block of queries.
const LENGTHS: [usize; 5] = [1, 7, 40, 3, 130];

const ACTIVATIONS: [Activation; 7] = [
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Relu,
    Activation::Silu,
    Activation::Tanh,
    Activation::Sigmoid,
];

const POOLINGS: [Pooling; 6] =
    [Pooling::Cls, Pooling::Mean, Pooling::Max, Pooling::MeanSqrtLength, Pooling::WeightedMean, Pooling::LastToken];

type Result<T> = std::result::Result<T, CaseError>;

pub(crate) fn cases() -> Result<Vec<Case>> {
    let mut all = vec![embedding()?, layer_norm(false)?, layer_norm(true)?, normalise()?, columns()?];
    for activation in ACTIVATIONS {
        all.push(activated(activation)?);
        all.push(linear(Some(activation), true, false, [33, 20])?);
    }
    for (bias, residual, size) in
        [(false, false, [1, 1]), (true, true, [17, 5]), (false, true, [64, 48]), (true, false, [100, 384])]
    {
        all.push(linear(None, bias, residual, size)?);
    }
    all.push(half_weights()?);
    for (bits, activation, residual, size) in [
        (7, None, false, [33, 21]),
        (7, Some(Activation::Gelu), true, [48, 64]),
        (8, Some(Activation::Relu), false, [17, 100]),
        (8, None, true, [1, 1]),
        (12, None, false, [33, 21]),
        (12, Some(Activation::Gelu), true, [48, 64]),
        (12, None, true, [1, 1]),
        (12, None, false, [40, 1030]),
    ] {
        all.push(quantized_linear(bits, activation, residual, size)?);
    }
    for bits in [[7, 7], [7, 12], [12, 12]] {
        all.push(quantized_behind_layer_norm(bits)?);
    }
    all.push(quantized_twice()?);
    all.push(quantized_embedding()?);
    for pooling in POOLINGS {
        all.push(pool(pooling)?);
    }
    for (heads, kv_heads, head_dim, causal) in [(3, 3, 8, false), (4, 2, 32, false), (2, 1, 20, true), (1, 1, 64, true)]
    {
        all.push(attention(heads, kv_heads, head_dim, causal)?);
    }
    all.push(two_steps_with_a_past()?);
    Ok(all)
}

/// A graph with the input `x [Tokens, width]`.
fn packed(width: usize) -> Result<(Graph, NodeId)> {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), width.into()])?;
    Ok((graph, x))
}

/// The case of a graph over `x [Tokens, width]` whose last node is the output.
fn case(name: String, mut graph: Graph, width: usize, out: NodeId) -> Result<Case> {
    graph.output("output", out);
    let mut random = Random::new(width as u64 + 1);
    let layout = Layout::of_lengths(&LENGTHS)?;
    let x = random.tensor(&[layout.tokens(), width], 3.0)?;
    let step = Step { inputs: vec![("x", x)], bindings: layout.bindings(), layout };
    Ok(Case { name, graph, steps: vec![step], cache_pages: 0, tolerance: 2e-5 })
}

fn embedding() -> Result<Case> {
    let mut random = Random::new(7);
    let mut graph = Graph::new();
    let ids = graph.input("ids", DType::I64, vec![Symbol::Tokens.into()])?;
    let positions = graph.push("positions", Op::Positions { offset: 2 }, &[])?;
    let words = graph.constant("words", random.tensor(&[50, 24], 1.0)?)?;
    let places = graph.constant("places", random.tensor(&[140, 24], 1.0)?)?;
    let out = graph.push("embedding", Op::Embedding, &[words, ids, places, positions])?;
    graph.output("output", out);
    let layout = Layout::of_lengths(&LENGTHS)?;
    let inputs = vec![("ids", random.ids(&[layout.tokens()], 50)?)];
    let step = Step { inputs, bindings: layout.bindings(), layout };
    Ok(Case { name: "embedding".to_owned(), graph, steps: vec![step], cache_pages: 0, tolerance: 1e-6 })
}

fn linear(activation: Option<Activation>, bias: bool, residual: bool, [n, k]: [usize; 2]) -> Result<Case> {
    let mut random = Random::new(11);
    let (mut graph, x) = packed(k)?;
    let mut inputs = vec![x, graph.constant("weight", random.tensor(&[n, k], 0.5)?)?];
    if bias {
        inputs.push(graph.constant("bias", random.tensor(&[n], 1.0)?)?);
    }
    if residual {
        let plain = Op::Linear { bias: false, activation: None, residual: false };
        let other = graph.constant("other", random.tensor(&[n, k], 0.5)?)?;
        inputs.push(graph.push("residual", plain, &[x, other])?);
    }
    let out = graph.push("linear", Op::Linear { bias, activation, residual }, &inputs)?;
    case(format!("linear {activation:?} bias {bias} residual {residual} {n}x{k}"), graph, k, out)
}

/// A weight that is stored as f16.
fn half_weights() -> Result<Case> {
    let (mut graph, x) = packed(52)?;
    let weight = Random::new(47).tensor(&[35, 52], 0.5)?.to_f16()?;
    let weight = weight.ok_or_else(|| CaseError("a weight is too large for f16".to_owned()))?;
    let weight = graph.constant("weight", weight)?;
    let op = Op::Linear { bias: false, activation: Some(Activation::Silu), residual: false };
    let out = graph.push("linear", op, &[x, weight])?;
    case("linear with f16 weights".to_owned(), graph, 52, out)
}

/// Codes of magnitudes up to `largest`, and scales that bring them back to the size of weights.
fn codes(random: &mut Random, largest: i8, [n, k]: [usize; 2]) -> Result<[Tensor; 3]> {
    let count = 2 * usize::from(largest.unsigned_abs()) + 1;
    let codes: Vec<i8> = (0..n * k).map(|_| (random.below(count) as i16 - i16::from(largest)) as i8).collect();
    let scales: Vec<f32> = (0..n).map(|_| (1.5 + random.float()) / (1.7 * f32::from(largest))).collect();
    let factor: Vec<f32> = (0..k).map(|_| 1.3 + random.float()).collect();
    Ok([Tensor::from_i8(&[n, k], &codes)?, Tensor::from_f32(&[n], &scales)?, Tensor::from_f32(&[k], &factor)?])
}

/// A code so small that no 16-bit lane can overflow.
fn largest_code(bits: u8) -> i8 {
    if bits == 12 { 127 } else { 60 }
}

/// An integer layer over `x`, whose input and output have other readers too.
fn quantized(
    graph: &mut Graph,
    x: NodeId,
    bits: u8,
    activation: Option<Activation>,
    residual: bool,
    size: [usize; 2],
) -> Result<NodeId> {
    let mut random = Random::new(37);
    let [codes, scales, factor] = codes(&mut random, largest_code(bits), size)?;
    let mut inputs = vec![
        x,
        graph.constant("codes", codes)?,
        graph.constant("scales", scales)?,
        graph.constant("factor", factor)?,
        graph.constant("bias", random.tensor(&[size[0]], 1.0)?)?,
    ];
    if residual {
        let plain = Op::Linear { bias: false, activation: None, residual: false };
        let other = graph.constant("other", random.tensor(&size, 0.5)?)?;
        inputs.push(graph.push("residual", plain, &[x, other])?);
    }
    Ok(graph.push("quantized", Op::QuantizedLinear { bits, bias: true, activation, residual }, &inputs)?)
}

fn quantized_linear(bits: u8, activation: Option<Activation>, residual: bool, size: [usize; 2]) -> Result<Case> {
    let (mut graph, x) = packed(size[1])?;
    let out = quantized(&mut graph, x, bits, activation, residual, size)?;
    case(format!("quantized {bits} bits {activation:?} residual {residual} {size:?}"), graph, size[1], out)
}

/// The layer norm's result is read by an integer layer and, as floats, by the sum behind it.
fn quantized_behind_layer_norm(bits: [u8; 2]) -> Result<Case> {
    let mut random = Random::new(41);
    let (mut graph, x) = packed(40)?;
    let gamma = graph.constant("gamma", random.tensor(&[40], 2.0)?)?;
    let beta = graph.constant("beta", random.tensor(&[40], 2.0)?)?;
    let norm = graph.push("norm", Op::LayerNorm { epsilon: 1e-5, residual: false }, &[x, gamma, beta])?;
    let layer = quantized(&mut graph, norm, bits[0], None, false, [40, 40])?;
    let sum = graph.push("sum", Op::LayerNorm { epsilon: 1e-5, residual: true }, &[layer, norm, gamma, beta])?;
    let out = quantized(&mut graph, sum, bits[1], None, false, [24, 40])?;
    let mut case = case(format!("quantized behind layer_norm {bits:?} bits"), graph, 40, out)?;
    // Where a value lies between two codes, the last bit of the layer norm decides; of 7 bits one code is 1 % of a
    // row's range, of 12 bits a 32nd of that.
    case.tolerance = if bits == [12, 12] { 5e-2 / 32.0 } else { 5e-2 };
    Ok(case)
}

/// Layers of all bits that read the same value by the same factors, and have the same weights.
fn quantized_twice() -> Result<Case> {
    let (mut graph, x) = packed(30)?;
    let [codes, scales, factor] = codes(&mut Random::new(53), 60, [20, 30])?;
    let inputs =
        [x, graph.constant("codes", codes)?, graph.constant("scales", scales)?, graph.constant("factor", factor)?];
    let mut layers = Vec::new();
    for bits in [12, 7, 8, 12] {
        let op = Op::QuantizedLinear { bits, bias: false, activation: None, residual: false };
        layers.push(graph.push(format!("of {bits} bits"), op, &inputs)?);
    }
    let out = graph.push("columns", Op::Concat { axis: 1 }, &layers)?;
    case("quantized twice".to_owned(), graph, 30, out)
}

fn quantized_embedding() -> Result<Case> {
    let mut random = Random::new(43);
    let mut graph = Graph::new();
    let ids = graph.input("ids", DType::I64, vec![Symbol::Tokens.into()])?;
    let [codes, scales, _] = codes(&mut random, 60, [50, 23])?;
    let (codes, scales) = (graph.constant("codes", codes)?, graph.constant("scales", scales)?);
    let words = graph.push("words", Op::Dequantize, &[codes, scales])?;
    let positions = graph.push("positions", Op::Positions { offset: 0 }, &[])?;
    let places = graph.constant("places", random.tensor(&[140, 23], 1.0)?)?;
    let out = graph.push("embedding", Op::Embedding, &[words, ids, places, positions])?;
    graph.output("output", out);
    let layout = Layout::of_lengths(&LENGTHS)?;
    let inputs = vec![("ids", random.ids(&[layout.tokens()], 50)?)];
    let step = Step { inputs, bindings: layout.bindings(), layout };
    Ok(Case { name: "quantized embedding".to_owned(), graph, steps: vec![step], cache_pages: 0, tolerance: 1e-6 })
}

fn layer_norm(residual: bool) -> Result<Case> {
    let mut random = Random::new(13);
    let (mut graph, x) = packed(37)?;
    let gamma = graph.constant("gamma", random.tensor(&[37], 2.0)?)?;
    let beta = graph.constant("beta", random.tensor(&[37], 2.0)?)?;
    let inputs = if residual { vec![x, x, gamma, beta] } else { vec![x, gamma, beta] };
    let out = graph.push("norm", Op::LayerNorm { epsilon: 1e-5, residual }, &inputs)?;
    case(format!("layer_norm residual {residual}"), graph, 37, out)
}

fn normalise() -> Result<Case> {
    let (mut graph, x) = packed(19)?;
    let out = graph.push("normalise", Op::L2Normalize { epsilon: 1e-12 }, &[x])?;
    case("l2_normalize".to_owned(), graph, 19, out)
}

/// Slices of columns that stay views, joined again.
fn columns() -> Result<Case> {
    let (mut graph, x) = packed(50)?;
    let left = graph.push("left", Op::Slice { axis: 1, start: 3, end: 20 }, &[x])?;
    let right = graph.push("right", Op::Slice { axis: 1, start: 20, end: 50 }, &[x])?;
    let active = graph.push("active", Op::Activation(Activation::Tanh), &[left])?;
    let out = graph.push("columns", Op::Concat { axis: 1 }, &[right, active, left])?;
    case("columns".to_owned(), graph, 50, out)
}

fn activated(activation: Activation) -> Result<Case> {
    let (mut graph, x) = packed(21)?;
    let out = graph.push("activation", Op::Activation(activation), &[x])?;
    case(format!("activation {activation:?}"), graph, 21, out)
}

fn pool(pooling: Pooling) -> Result<Case> {
    let (mut graph, x) = packed(18)?;
    let out = graph.push("pool", Op::Pool(pooling), &[x])?;
    let mut case = case(format!("pool {pooling:?}"), graph, 18, out)?;
    for step in &mut case.steps {
        let mut spans = step.layout.spans().to_vec();
        spans.iter_mut().for_each(|span| span.pool_from = span.tokens / 3);
        step.layout = Layout::new(spans)?;
    }
    Ok(case)
}

/// Projections of `x` and attention over them.
fn attend(graph: &mut Graph, x: NodeId, width: usize, attention: Attention) -> Result<NodeId> {
    let mut random = Random::new(17);
    let mut project = |name: &str, heads: usize| -> Result<NodeId> {
        let weight = graph.constant(name, random.tensor(&[heads * attention.head_dim, width], 0.6)?)?;
        Ok(graph.push(name, Op::Linear { bias: false, activation: None, residual: false }, &[x, weight])?)
    };
    let q = project("query", attention.heads)?;
    let k = project("key", attention.kv_heads)?;
    let v = project("value", attention.kv_heads)?;
    Ok(graph.push("attention", Op::Attention(attention), &[q, k, v])?)
}

fn attention(heads: usize, kv_heads: usize, head_dim: usize, causal: bool) -> Result<Case> {
    let (mut graph, x) = packed(24)?;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let out = attend(&mut graph, x, 24, Attention { heads, kv_heads, head_dim, scale, causal, cache: None })?;
    case(format!("attention {heads}/{kv_heads}x{head_dim} causal {causal}"), graph, 24, out)
}

/// Causal attention whose second step sees the keys and values of the first in cache pages.
fn two_steps_with_a_past() -> Result<Case> {
    let (mut graph, x) = packed(16)?;
    let attention = Attention { heads: 2, kv_heads: 1, head_dim: 12, scale: 0.3, causal: true, cache: Some(0) };
    let out = attend(&mut graph, x, 16, attention)?;
    graph.output("output", out);
    let mut random = Random::new(19);
    let mut steps = Vec::new();
    for (past, tokens) in [([0, 0], [21, 5]), ([21, 5], [1, 13])] {
        let pages = [vec![4, 0, 2], vec![1, 3]];
        let spans = (0..2).map(|index| Span {
            tokens: tokens[index],
            past: past[index],
            pages: pages[index].clone(),
            ..Span::default()
        });
        let layout = Layout::new(spans.collect())?;
        let x = random.tensor(&[layout.tokens(), 16], 2.0)?;
        steps.push(Step { inputs: vec![("x", x)], bindings: layout.bindings(), layout });
    }
    let name = format!("two steps with a past in pages of {PAGE_TOKENS}");
    Ok(Case { name, graph, steps, cache_pages: 5, tolerance: 2e-5 })
}
