//! Few rows: how often workers meet, and that neither that nor their number changes a bit.

use std::sync::Arc;

use centuple_graph::{Activation, Graph, NodeId, Op};
use centuple_kernels::{Isa, ThreadPool};
use centuple_passes::{Channels, Quantization, halve_weights, observed_values, optimize, quantize};
use centuple_runtime::{Batch, InputData, Plan, Session, lower};
use centuple_tensor::{DType, Layout, Span, Symbol};
use centuple_testkit::Random;

const WIDTH: usize = 48;
const INNER: usize = 112;
const LAYERS: usize = 3;

/// Layers of a norm, a gated unit and a sum.
fn graph() -> Graph {
    let (mut graph, mut random) = (Graph::new(), Random::new(41));
    let mut push = |name: String, op: Op, inputs: &[NodeId]| graph.push(name, op, inputs).expect("the shapes fit");
    let mut tensor = |shape: &[usize]| Op::Constant(random.tensor(shape, 0.3).expect("a tensor"));
    let linear = |residual| Op::Linear { bias: false, activation: None, residual };
    let ids = push("ids".into(), Op::Input { dtype: DType::I64, shape: vec![Symbol::Tokens.into()] }, &[]);
    let words = push("words".into(), tensor(&[100, WIDTH]), &[]);
    let mut x = push("embedding".into(), Op::Embedding, &[words, ids]);
    for layer in 0..LAYERS {
        let of = |name: &str| format!("{layer}.{name}");
        let gamma = push(of("gamma"), tensor(&[WIDTH]), &[]);
        let norm = push(of("norm"), Op::RmsNorm { epsilon: 1e-6, residual: false }, &[x, gamma]);
        let [gate, up] = ["gate", "up"].map(|name| {
            let weight = push(of("weight"), tensor(&[INNER, WIDTH]), &[]);
            push(of(name), linear(false), &[norm, weight])
        });
        let gated = push(of("gated"), Op::Gate { activation: Activation::Silu }, &[gate, up]);
        let down = push(of("weight"), tensor(&[WIDTH, INNER]), &[]);
        x = push(of("down"), linear(true), &[gated, down, x]);
    }
    let picked = push("picked".into(), Op::Select, &[x]);
    let head = push("head".into(), tensor(&[200, WIDTH]), &[]);
    let logits = push("logits".into(), linear(false), &[picked, head]);
    graph.output("logits", logits);
    graph
}

/// The graph in f32, f16, int8 and int4.
fn plans() -> Vec<Arc<Plan>> {
    let (plain, _) = optimize(&graph()).expect("passes keep graphs valid");
    let (half, _) = halve_weights(&plain).expect("halves");
    let observed = observed_values(&plain).into_iter().map(|value| {
        let width = plain.node(value).fact.shape[1].constant().expect("a width");
        let all = |number: f32| vec![number; width];
        (value, Channels { largest: all(1.0), mean: all(0.1), square: all(0.1), ..Channels::default() })
    });
    let observed = observed.collect();
    let quantized = [None, Some(16)].map(|groups| {
        let quantization = Quantization { groups, ..Quantization::default() };
        quantize(&plain, &observed, &quantization).expect("quantises").0
    });
    let graphs = [plain, half].into_iter().chain(quantized);
    graphs.map(|graph| Arc::new(lower(&graph, Isa::best()).expect("lowers"))).collect()
}

fn logits(plan: &Arc<Plan>, threads: usize, tokens: usize) -> Vec<u32> {
    let pool = Arc::new(ThreadPool::new(threads).expect("threads"));
    let selected = (0..tokens as u32).collect();
    let layout = Layout::new(vec![Span { tokens, selected, ..Span::default() }]).expect("a layout");
    let bindings = layout.bindings();
    let mut session = Session::new(Arc::clone(plan), pool, bindings).expect("memory");
    let ids: Vec<i64> = (0..tokens as i64).map(|token| token * 37 % 100).collect();
    let inputs = [("ids", InputData::I64(&ids))];
    let batch = Batch { inputs: &inputs, layout: &layout, bindings, cache: None };
    let mut bits = Vec::new();
    for _ in 0..3 {
        session.run(&batch).expect("runs");
        let rows = session.output(0).expect("an output");
        bits = (0..rows.rows()).flat_map(|row| rows.row(row).to_vec()).map(f32::to_bits).collect();
    }
    bits
}

#[test]
fn threads_change_no_bit_of_few_rows() {
    for plan in plans() {
        for tokens in [1, 2, 4, 5, 9] {
            let alone = logits(&plan, 1, tokens);
            for threads in [2, 3, 5] {
                assert!(logits(&plan, threads, tokens) == alone, "{tokens} tokens on {threads} threads");
            }
        }
    }
}
