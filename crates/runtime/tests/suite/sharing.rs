//! Weights that layers share are held once, in every precision.

use centuple_graph::{Activation, Binary, Graph, NodeId, Op, Pooling};
use std::sync::Arc;

use centuple_kernels::{Isa, ThreadPool};
use centuple_passes::{Channels, Quantization, halve_weights, observed_values, optimize, quantize};
use centuple_runtime::{Batch, InputData, Plan, Session, WeightStore, lower};
use centuple_tensor::{DType, Layout, Span, Symbol, Tensor};
use centuple_testkit::Random;

const WIDTH: usize = 64;
const INNER: usize = 192;

/// One layer's weights, and a table of words.
struct Weights {
    words: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    bias: Tensor,
    gamma: Tensor,
}

impl Weights {
    fn random(random: &mut Random) -> Weights {
        let mut tensor = |shape: &[usize]| random.tensor(shape, 0.3).expect("a tensor");
        Weights {
            words: tensor(&[500, WIDTH]),
            gate: tensor(&[INNER, WIDTH]),
            up: tensor(&[INNER, WIDTH]),
            down: tensor(&[WIDTH, INNER]),
            bias: tensor(&[WIDTH]),
            gamma: tensor(&[WIDTH]),
        }
    }
}

/// An encoder that applies the same gated unit again and again, and ends with the table as decoder.
fn graph(weights: &Weights, layers: usize) -> Graph {
    let mut graph = Graph::new();
    let mut push = |name: &str, op: Op, inputs: &[NodeId]| graph.push(name, op, inputs).expect("the shapes fit");
    let constant = |tensor: &Tensor| Op::Constant(tensor.clone());
    let linear = |bias: bool| Op::Linear { bias, activation: None, residual: false };
    let ids = push("ids", Op::Input { dtype: DType::I64, shape: vec![Symbol::Tokens.into()] }, &[]);
    let words = push("words", constant(&weights.words), &[]);
    let mut x = push("embedding", Op::Embedding, &[words, ids]);
    for layer in 0..layers {
        let of = |name: &str| format!("{layer}.{name}");
        let gamma = push(&of("gamma"), constant(&weights.gamma), &[]);
        let norm = push(&of("norm"), Op::RmsNorm { epsilon: 1e-6, residual: false }, &[x, gamma]);
        let [gate, up, down, bias] = [&weights.gate, &weights.up, &weights.down, &weights.bias]
            .map(|tensor| push(&of("weight"), constant(tensor), &[]));
        let gate = push(&of("gate"), linear(false), &[norm, gate]);
        let up = push(&of("up"), linear(false), &[norm, up]);
        let active = push(&of("active"), Op::Activation(Activation::GeluTanh), &[gate]);
        let product = push(&of("product"), Op::Binary(Binary::Mul), &[active, up]);
        let down = push(&of("down"), linear(true), &[product, down, bias]);
        x = push(&of("sum"), Op::Binary(Binary::Add), &[x, down]);
    }
    let picked = push("picked", Op::Select, &[x]);
    let again = push("again", constant(&weights.words), &[]);
    let logits = push("logits", linear(false), &[picked, again]);
    let pooled = push("pooled", Op::Pool(Pooling::Cls), &[x]);
    graph.output("logits", logits);
    graph.output("pooled", pooled);
    graph
}

#[test]
fn shared_layers_take_the_bytes_of_one() {
    let weights = Weights::random(&mut Random::new(97));
    let bytes = |layers: usize| {
        let (optimised, _) = optimize(&graph(&weights, layers)).expect("passes keep graphs valid");
        let observations = observed_values(&optimised).into_iter().enumerate().map(|(index, value)| {
            let width = optimised.node(value).fact.shape[1].constant().expect("a width");
            // Each use shows something else.
            let channels = Channels {
                largest: vec![1.0 + index as f32; width],
                mean: vec![0.1; width],
                square: vec![0.1; width],
                ..Channels::default()
            };
            (value, channels)
        });
        let (halved, _) = halve_weights(&optimised).expect("halves");
        let (quantized, report) =
            quantize(&optimised, &observations.collect(), &Quantization::default()).expect("quantises");
        assert!(report.refused.is_empty(), "{:?}", report.refused);
        let left = quantized.nodes().iter().filter(|node| matches!(node.op, Op::Linear { .. })).count();
        assert_eq!(left, 0, "every layer is quantised");
        [optimised, halved, quantized].map(|graph| lower(&graph, Isa::Portable).expect("lowers").weight_bytes())
    };
    let (one, twelve) = (bytes(1), bytes(12));
    assert_eq!(one, twelve);
    // The table lies there as rows and as a packed matrix, the rest once.
    let floats = 4 * (2 * 500 * WIDTH + 3 * INNER * WIDTH);
    assert!(one[0] < floats + floats / 8 && one[2] < one[0] / 3, "{one:?} of {floats}");
}

/// What a plan of [`graph`] gives for a few ids.
fn pooled(plan: &Arc<Plan>) -> Vec<u32> {
    let pool = Arc::new(ThreadPool::new(2).expect("threads"));
    let spans = [5, 3].map(|tokens| Span { tokens, selected: vec![1], ..Span::default() });
    let layout = Layout::new(spans.into()).expect("a layout");
    let bindings = layout.bindings();
    let mut session = Session::new(Arc::clone(plan), pool, bindings).expect("memory");
    let ids = [3, 499, 0, 7, 7, 100, 2, 250];
    let inputs = [("ids", InputData::I64(&ids))];
    let batch = Batch { inputs: &inputs, layout: &layout, bindings, cache: None };
    session.run(&batch).expect("runs");
    let rows = session.output(1).expect("the second output");
    (0..rows.rows()).flat_map(|row| rows.row(row).to_vec()).map(f32::to_bits).collect()
}

#[test]
fn plans_of_one_base_share_what_is_equal() {
    let mut random = Random::new(98);
    let (base, other) = (Weights::random(&mut random), Weights::random(&mut random));
    // Equal in value and not in identity, as when it is read from another file.
    let again = |tensor: &Tensor| Tensor::from_f32(tensor.shape(), tensor.as_f32().expect("floats")).expect("a tensor");
    let [words, gate, up, gamma] = [&base.words, &base.gate, &base.up, &base.gamma].map(again);
    let tuned = Weights { words, gate, up, gamma, ..other };
    for halved in [false, true] {
        let plan = |weights: &Weights| {
            let (mut graph, _) = optimize(&graph(weights, 2)).expect("passes keep graphs valid");
            if halved {
                graph = halve_weights(&graph).expect("halves").0;
            }
            lower(&graph, Isa::best()).expect("lowers")
        };
        let expected = [&base, &tuned].map(|weights| pooled(&Arc::new(plan(weights))));
        let store = WeightStore::default();
        let [first, second, third] = [&base, &tuned, &tuned].map(|weights| {
            let mut plan = plan(weights);
            let all = plan.weight_bytes();
            plan.share(&store);
            assert!(plan.weight_bytes() + plan.shared_weight_bytes() <= all);
            (Arc::new(plan), all)
        });
        let shared = |plan: &(Arc<Plan>, usize)| plan.0.shared_weight_bytes();
        assert_eq!(shared(&first), 0);
        // All but one matrix and one bias.
        let matrix = if halved { 2 } else { 4 } * INNER * WIDTH;
        assert!(second.0.weight_bytes() < matrix + 8192, "{} of {}", second.0.weight_bytes(), second.1);
        assert!(third.0.weight_bytes() < 8192 && shared(&third) > shared(&second));
        let mut stored = [Vec::new(), Vec::new()];
        second.0.write_weights(&mut stored[0]).expect("a vector");
        plan(&tuned).write_weights(&mut stored[1]).expect("a vector");
        assert!(stored[0] == stored[1], "the file is that of a plan that shares nothing");
        assert_eq!(pooled(&first.0), expected[0]);
        // What it shares outlives the plan that brought it.
        drop(first);
        assert_eq!([pooled(&second.0), pooled(&third.0)], [expected[1].clone(), expected[1].clone()]);
    }
}
