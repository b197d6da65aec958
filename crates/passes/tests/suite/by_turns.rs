//! A graph in segments, as weights are rounded layer after layer, computes what it does as a whole.

use centuple_graph::{Activation, Binary, Graph, NodeId, Op};
use centuple_passes::{observed_values, segment_value, segments};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{DType, Layout, Span, Symbol, Tensor};

type Error = Box<dyn std::error::Error>;

const WIDTH: usize = 12;

fn random(shape: &[usize], seed: usize) -> Tensor {
    let number = |index: usize| {
        let bits = (index * 7919 + seed * 104_729 + 13).wrapping_mul(2_654_435_761) >> 8;
        (bits % 2001) as f32 / 1000.0 - 1.0
    };
    Tensor::from_f32(shape, &(0..shape.iter().product()).map(number).collect::<Vec<f32>>()).expect("fits")
}

/// Layers behind norms of both kinds, and residuals around them.
fn graph() -> Result<Graph, Error> {
    let mut graph = Graph::new();
    let mut constants = 0;
    let mut constant = |graph: &mut Graph, shape: &[usize]| {
        constants += 1;
        graph.constant(format!("constant.{constants}"), random(shape, constants))
    };
    let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), WIDTH.into()])?;
    let mut x = graph.push("scaled", Op::Activation(Activation::Tanh), &[x])?;
    for layer in 0..3 {
        let gamma = constant(&mut graph, &[WIDTH])?;
        let normed = if layer == 1 {
            let beta = constant(&mut graph, &[WIDTH])?;
            graph.push("norm", Op::LayerNorm { epsilon: 1e-5, residual: false }, &[x, gamma, beta])?
        } else {
            graph.push("norm", Op::RmsNorm { epsilon: 1e-5, residual: false }, &[x, gamma])?
        };
        let up = constant(&mut graph, &[2 * WIDTH, WIDTH])?;
        let linear = Op::Linear { bias: false, activation: Some(Activation::Gelu), residual: false };
        let up = graph.push(format!("up.{layer}"), linear, &[normed, up])?;
        let down = constant(&mut graph, &[WIDTH, 2 * WIDTH])?;
        let linear = Op::Linear { bias: false, activation: None, residual: true };
        // The last norm is a residual too.
        let residual = if layer == 2 { normed } else { x };
        x = graph.push(format!("down.{layer}"), linear, &[up, down, residual])?;
    }
    x = graph.push("twice", Op::Binary(Binary::Add), &[x, x])?;
    graph.output("output", x);
    graph.verify()?;
    Ok(graph)
}

fn outputs(graph: &Graph, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>, Error> {
    let layout = Layout::new(vec![Span { tokens: 5, ..Span::default() }])?;
    let mut cache = Cache::default();
    let mut batch = Batch { bindings: layout.bindings(), layout: &layout, cache: &mut cache };
    Ok(evaluate(graph, inputs, &mut batch)?)
}

#[test]
fn segments_compute_what_the_whole_does() -> Result<(), Error> {
    let graph = graph()?;
    let x = random(&[5, WIDTH], 99);
    let whole = outputs(&graph, &[("x", x.clone())])?;
    let ends = observed_values(&graph);
    assert_eq!(ends.len(), 6);
    let parts = segments(&graph, &ends)?;
    let mut values: Vec<(NodeId, Tensor)> = Vec::new();
    let count = parts.len();
    for (number, part) in parts.into_iter().enumerate() {
        part.graph.verify()?;
        let names: Vec<String> = part.given.iter().map(|(value, _)| segment_value(*value)).collect();
        let mut inputs = vec![("x", x.clone())];
        for ((value, _), name) in part.given.iter().zip(&names) {
            let given = values.iter().find(|(known, _)| known == value).ok_or("a value that was yielded")?;
            inputs.push((name, given.1.clone()));
        }
        let mut cut = part.graph.clone();
        if number + 1 == count {
            let last = cut.iter().last().ok_or("nodes")?.0;
            cut.output("output", last);
            assert_eq!(outputs(&cut, &inputs)?, whole);
        } else {
            let layers = cut.nodes().iter().filter(|node| matches!(node.op, Op::Linear { .. })).count();
            assert_eq!(layers, usize::from(number > 0), "the layer that reads the last value");
            values.extend(part.yields.iter().copied().zip(outputs(&cut, &inputs)?));
        }
        values.retain(|(value, _)| !part.spent.contains(value));
    }
    assert!(values.len() <= 2, "nothing is kept that nobody reads");
    Ok(())
}
