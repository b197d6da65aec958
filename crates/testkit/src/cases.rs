//! Cases of the transformer ops on packed tokens.

use centuple_graph::{Activation, Binary, Graph, NodeId, Op, Pooling, Unary};
use centuple_tensor::{DType, Layout, Span, Symbol, Tensor};

use crate::{Case, CaseError, Random, Step, attention_cases};

/// Lengths of the sequences of most cases: single tokens, odd numbers, more than a block of queries.
pub(crate) const LENGTHS: [usize; 5] = [1, 7, 40, 3, 130];

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

pub(crate) type Result<T> = std::result::Result<T, CaseError>;

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
    for (group, zero_points, activation, residual, size) in [
        (16, false, None, false, [33, 21]),
        (32, true, Some(Activation::Gelu), true, [48, 64]),
        (128, false, Some(Activation::Silu), false, [65, 576]),
        (8, true, None, true, [1, 1]),
    ] {
        all.push(group_quantized_linear((group, zero_points), activation, residual, size)?);
    }
    all.push(group_quantized_behind_norm()?);
    all.extend([
        ids_of_ids()?,
        rms_norm(false)?,
        rms_norm(true)?,
        select()?,
        wide_pool(None)?,
        wide_pool(Some(7))?,
        last_equal()?,
        arithmetic()?,
    ]);
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu] {
        all.push(gate(activation, true)?);
        all.push(gate(activation, false)?);
    }
    for bits in [7, 8, 12] {
        all.push(quantized_behind_rms_norm(bits)?);
        all.push(quantized_behind_gate(bits)?);
    }
    for bits in [[7, 7], [7, 12], [12, 12]] {
        all.push(quantized_behind_layer_norm(bits)?);
    }
    all.push(quantized_twice()?);
    all.push(quantized_embedding()?);
    for pooling in POOLINGS {
        all.push(pool(pooling)?);
    }
    all.extend(attention_cases::cases()?);
    Ok(all)
}

/// A graph with the input `x [Tokens, width]`.
pub(crate) fn packed(width: usize) -> Result<(Graph, NodeId)> {
    let mut graph = Graph::new();
    let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), width.into()])?;
    Ok((graph, x))
}

/// The case of a graph over `x [Tokens, width]` whose last node is the output.
pub(crate) fn case(name: String, mut graph: Graph, width: usize, out: NodeId) -> Result<Case> {
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
    let positions = graph.push("positions", Op::Positions { offset: 2, padding: None }, &[])?;
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
    Ok(graph.push("quantized", Op::QuantizedLinear { bits, range: None, bias: true, activation, residual }, &inputs)?)
}

fn quantized_linear(bits: u8, activation: Option<Activation>, residual: bool, size: [usize; 2]) -> Result<Case> {
    let (mut graph, x) = packed(size[1])?;
    let out = quantized(&mut graph, x, bits, activation, residual, size)?;
    case(format!("quantized {bits} bits {activation:?} residual {residual} {size:?}"), graph, size[1], out)
}

/// Nibbles of the given shape.
fn nibbles(random: &mut Random, shape: [usize; 2]) -> Result<Tensor> {
    let codes: Vec<i8> = (0..shape[0] * shape[1]).map(|_| random.below(16) as i8 - 8).collect();
    Ok(Tensor::from_i8(&shape, &codes)?)
}

/// A layer over `x` whose weights have 4 bits in groups.
fn group_quantized(
    graph: &mut Graph,
    x: NodeId,
    (group, zero_points): (usize, bool),
    activation: Option<Activation>,
    residual: bool,
    size: [usize; 2],
) -> Result<NodeId> {
    let mut random = Random::new(89);
    let groups = [size[0], size[1].div_ceil(group)];
    let mut inputs = vec![
        x,
        graph.constant("codes", nibbles(&mut random, size)?)?,
        graph.constant("scales", random.tensor(&groups, 0.2)?)?,
    ];
    if zero_points {
        inputs.push(graph.constant("zero_points", nibbles(&mut random, groups)?)?);
    }
    inputs.push(graph.constant("bias", random.tensor(&[size[0]], 1.0)?)?);
    if residual {
        let plain = Op::Linear { bias: false, activation: None, residual: false };
        let other = graph.constant("other", random.tensor(&size, 0.5)?)?;
        inputs.push(graph.push("residual", plain, &[x, other])?);
    }
    let op = Op::GroupQuantizedLinear { bits: 4, group, zero_points, bias: true, activation, residual };
    Ok(graph.push("quantized", op, &inputs)?)
}

fn group_quantized_linear(
    groups: (usize, bool),
    activation: Option<Activation>,
    residual: bool,
    size: [usize; 2],
) -> Result<Case> {
    let (mut graph, x) = packed(size[1])?;
    let out = group_quantized(&mut graph, x, groups, activation, residual, size)?;
    case(format!("4 bits by {groups:?} {activation:?} residual {residual} {size:?}"), graph, size[1], out)
}

/// Two layers with other groups read what a norm has yielded, and so does an integer one.
fn group_quantized_behind_norm() -> Result<Case> {
    let (mut graph, x) = packed(40)?;
    let gamma = graph.constant("gamma", Random::new(97).tensor(&[40], 2.0)?)?;
    let norm = graph.push("norm", Op::RmsNorm { epsilon: 1e-6, residual: true }, &[x, x, gamma])?;
    let by_16 = group_quantized(&mut graph, norm, (16, false), None, false, [24, 40])?;
    let by_32 = group_quantized(&mut graph, norm, (32, true), None, false, [24, 40])?;
    let whole = quantized(&mut graph, norm, 8, None, false, [24, 40])?;
    let out = graph.push("out", Op::Concat { axis: 1 }, &[by_16, by_32, whole, norm])?;
    let mut case = case("4 bits behind rms_norm".to_owned(), graph, 40, out)?;
    case.tolerance = one_code(8);
    Ok(case)
}

/// Positions that leave out a padding id, and ids shifted in both ways, as rows of tables.
fn ids_of_ids() -> Result<Case> {
    let mut random = Random::new(59);
    let mut graph = Graph::new();
    let ids = graph.input("ids", DType::I64, vec![Symbol::Tokens.into()])?;
    let padded = graph.push("padded", Op::Positions { offset: 2, padding: Some(1) }, &[ids])?;
    let started = graph.push("started", Op::ShiftRight { first: Some(5) }, &[ids])?;
    let wrapped = graph.push("wrapped", Op::ShiftRight { first: None }, &[started])?;
    let counted = graph.push("counted", Op::Positions { offset: 1, padding: Some(4) }, &[wrapped])?;
    let mut inputs = Vec::new();
    for (name, rows, ids) in [
        ("words", 6, ids),
        ("places", 140, padded),
        ("starts", 6, started),
        ("wraps", 6, wrapped),
        ("counts", 140, counted),
    ] {
        inputs.extend([graph.constant(name, random.tensor(&[rows, 17], 1.0)?)?, ids]);
    }
    let out = graph.push("embedding", Op::Embedding, &inputs)?;
    graph.output("output", out);
    let layout = Layout::of_lengths(&LENGTHS)?;
    let inputs = vec![("ids", random.ids(&[layout.tokens()], 6)?)];
    let step = Step { inputs, bindings: layout.bindings(), layout };
    Ok(Case { name: "ids of ids".to_owned(), graph, steps: vec![step], cache_pages: 0, tolerance: 1e-6 })
}

fn rms_norm(residual: bool) -> Result<Case> {
    let (mut graph, x) = packed(37)?;
    let gamma = graph.constant("gamma", Random::new(61).tensor(&[37], 2.0)?)?;
    let inputs = if residual { vec![x, x, gamma] } else { vec![x, gamma] };
    let out = graph.push("norm", Op::RmsNorm { epsilon: 1e-6, residual }, &inputs)?;
    case(format!("rms_norm residual {residual}"), graph, 37, out)
}

/// A layer `x · weightᵀ` with random weights.
fn project(graph: &mut Graph, x: NodeId, name: &str, [n, k]: [usize; 2]) -> Result<NodeId> {
    let weight = graph.constant(format!("{name}.weight"), Random::new(n as u64 + 67).tensor(&[n, k], 0.5)?)?;
    let linear = Op::Linear { bias: false, activation: None, residual: false };
    Ok(graph.push(name, linear, &[x, weight])?)
}

/// A gated unit as families write it: halves of one layer, or two layers of one value.
fn gate(activation: Activation, halves: bool) -> Result<Case> {
    let (mut graph, x) = packed(24)?;
    let [a, b] = if halves {
        let both = project(&mut graph, x, "both", [66, 24])?;
        let mut half = |start| graph.push("half", Op::Slice { axis: 1, start, end: start + 33 }, &[both]);
        [half(0)?, half(33)?]
    } else {
        [project(&mut graph, x, "gate", [33, 24])?, project(&mut graph, x, "up", [33, 24])?]
    };
    let active = graph.push("active", Op::Activation(activation), &[a])?;
    // Either order.
    let inputs = if halves { [active, b] } else { [b, active] };
    let product = graph.push("product", Op::Binary(Binary::Mul), &inputs)?;
    let plain = graph.push("plain", Op::Gate { activation }, &[b, a])?;
    let out = if halves { graph.push("out", Op::Concat { axis: 1 }, &[product, plain])? } else { product };
    case(format!("gate {activation:?} halves {halves}"), graph, 24, out)
}

/// Rows that are picked and computed on, by some sequences, by none, and by all.
fn select() -> Result<Case> {
    let (mut graph, x) = packed(20)?;
    let hidden = project(&mut graph, x, "hidden", [24, 20])?;
    let picked = graph.push("picked", Op::Select, &[hidden])?;
    let gamma = graph.constant("gamma", Random::new(71).tensor(&[24], 2.0)?)?;
    let norm = graph.push("norm", Op::RmsNorm { epsilon: 1e-6, residual: false }, &[picked, gamma])?;
    let logits = project(&mut graph, norm, "logits", [50, 24])?;
    let codes = quantized(&mut graph, norm, 12, None, false, [24, 24])?;
    let out = graph.push("out", Op::Concat { axis: 1 }, &[logits, codes])?;
    let mut case = case("select".to_owned(), graph, 20, out)?;
    let step = case.steps.remove(0);
    let some = |span: &Span| (0..span.tokens as u32).filter(|token| token % 3 == 1).collect();
    let all = |span: &Span| (0..span.tokens.min(12) as u32).collect();
    type Selection<'a> = &'a dyn Fn(&Span) -> Vec<u32>;
    let selections: [Selection; 3] = [&some, &|_| Vec::new(), &all];
    for selection in selections {
        let mut spans = step.layout.spans().to_vec();
        spans.iter_mut().for_each(|span| span.selected = selection(span));
        let layout = Layout::new(spans)?;
        case.steps.push(Step { inputs: step.inputs.clone(), bindings: layout.bindings(), layout });
    }
    case.tolerance = 5e-2 / 32.0;
    Ok(case)
}

/// The largest logit of each word, on a scale of logarithms (SPLADE, arXiv:2109.10086).
fn wide_pool(bits: Option<u8>) -> Result<Case> {
    let (mut graph, x) = packed(16)?;
    let logits = match bits {
        None => project(&mut graph, x, "logits", [4099, 16])?,
        Some(bits) => quantized(&mut graph, x, bits, None, false, [4099, 16])?,
    };
    let largest = graph.push("largest", Op::Pool(Pooling::Max), &[logits])?;
    let positive = graph.push("positive", Op::Activation(Activation::Relu), &[largest])?;
    let out = graph.push("out", Op::Unary(Unary::Log1p), &[positive])?;
    let mut case = case(format!("wide pool {bits:?}"), graph, 16, out)?;
    for step in &mut case.steps {
        let mut spans = step.layout.spans().to_vec();
        spans.iter_mut().for_each(|span| span.pool_from = span.tokens / 3);
        spans[3].pool_from = 3;
        step.layout = Layout::new(spans)?;
    }
    Ok(case)
}

fn last_equal() -> Result<Case> {
    let mut random = Random::new(73);
    let (mut graph, x) = packed(18)?;
    let ids = graph.input("ids", DType::I64, vec![Symbol::Tokens.into()])?;
    let out = graph.push("pool", Op::Pool(Pooling::LastEqual(2)), &[x, ids])?;
    let mut case = case("pool LastEqual".to_owned(), graph, 18, out)?;
    for step in &mut case.steps {
        step.inputs.push(("ids", random.ids(&[step.layout.tokens()], 9)?));
    }
    Ok(case)
}

/// Sums, products and functions over columns, rows and numbers.
fn arithmetic() -> Result<Case> {
    let mut random = Random::new(79);
    let (mut graph, x) = packed(50)?;
    let row = graph.constant("row", random.tensor(&[23], 2.0)?)?;
    let number = graph.constant("number", random.tensor(&[1], 2.0)?)?;
    let scalar = graph.constant("scalar", random.tensor(&[], 2.0)?)?;
    let mut slice = |start: usize| graph.push("columns", Op::Slice { axis: 1, start, end: start + 23 }, &[x]);
    let (left, right) = (slice(3)?, slice(27)?);
    let mut apply = |op: Op, inputs: &[NodeId]| graph.push("step", op, inputs);
    let sum = apply(Op::Binary(Binary::Add), &[left, right])?;
    let scaled = apply(Op::Binary(Binary::Mul), &[row, sum])?;
    let shifted = apply(Op::Binary(Binary::Sub), &[scaled, number])?;
    let ratio = apply(Op::Binary(Binary::Mul), &[scalar, shifted])?;
    let smaller = apply(Op::Binary(Binary::Min), &[ratio, right])?;
    let size = apply(Op::Unary(Unary::Abs), &[left])?;
    let grown = apply(Op::Unary(Unary::Log1p), &[size])?;
    let power = apply(Op::Binary(Binary::Pow), &[size, grown])?;
    let out = apply(Op::Concat { axis: 1 }, &[smaller, grown, power])?;
    case("arithmetic".to_owned(), graph, 50, out)
}

fn quantized_behind_rms_norm(bits: u8) -> Result<Case> {
    let (mut graph, x) = packed(40)?;
    let gamma = graph.constant("gamma", Random::new(83).tensor(&[40], 2.0)?)?;
    let norm = graph.push("norm", Op::RmsNorm { epsilon: 1e-6, residual: true }, &[x, x, gamma])?;
    let layer = quantized(&mut graph, norm, bits, None, false, [24, 40])?;
    let out = graph.push("out", Op::Concat { axis: 1 }, &[layer, norm])?;
    let mut case = case(format!("quantized behind rms_norm {bits} bits"), graph, 40, out)?;
    case.tolerance = one_code(bits);
    Ok(case)
}

fn quantized_behind_gate(bits: u8) -> Result<Case> {
    let (mut graph, x) = packed(48)?;
    let mut half = |start| graph.push("half", Op::Slice { axis: 1, start, end: start + 24 }, &[x]);
    let (a, b) = (half(0)?, half(24)?);
    let gate = graph.push("gate", Op::Gate { activation: Activation::Gelu }, &[a, b])?;
    let out = quantized(&mut graph, gate, bits, None, false, [30, 24])?;
    let mut case = case(format!("quantized behind gate {bits} bits"), graph, 48, out)?;
    case.tolerance = one_code(bits);
    Ok(case)
}

/// Where a value lies between two codes, the last bit of what is before decides; of 7 bits one code is 1 % of a row's
/// range, of 12 bits a 32nd of that.
fn one_code(bits: u8) -> f32 {
    if bits == 12 { 5e-2 / 32.0 } else { 5e-2 }
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
    case.tolerance = one_code(bits[0].min(bits[1]));
    Ok(case)
}

/// Layers of all bits and ranges that read the same value by the same factors, and have the same weights.
fn quantized_twice() -> Result<Case> {
    let (mut graph, x) = packed(30)?;
    let [codes, scales, factor] = codes(&mut Random::new(53), 60, [20, 30])?;
    let inputs =
        [x, graph.constant("codes", codes)?, graph.constant("scales", scales)?, graph.constant("factor", factor)?];
    let mut layers = Vec::new();
    let own = [12, 7, 8, 12].map(|bits| (bits, None));
    let given = [(12, [-0.7, 1.1]), (8, [-0.7, 1.1]), (8, [-9.0, 0.0])].map(|(bits, range)| (bits, Some(range)));
    for (bits, range) in own.into_iter().chain(given) {
        let op = Op::QuantizedLinear { bits, range, bias: false, activation: None, residual: false };
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
    let positions = graph.push("positions", Op::Positions { offset: 0, padding: None }, &[])?;
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
