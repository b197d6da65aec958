//! Encoders whose linear layers multiply 8-bit floats.

use centuple_cuda::contract::{Codes, from_e4m3};
use centuple_cuda::{Device, Format, SessionOutput, lower_fp8};
use centuple_graph::{Graph, Node, NodeId, Op};
use centuple_passes::optimize;
use centuple_reference::{Batch, Cache, apply};
use centuple_tensor::{Symbol, Tensor};

use super::{Failure, Input, Maker, Positions, SMALL, check_plan, embedding, encoder, heads, modern};

/// The least cosine to the model in f32. Products of e4m3 floats are off by 4 % each, and random weights add up errors as they add up
/// everything else.
const LEAST_TO_F32: f64 = 0.99;

pub(crate) fn layers_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    embeddings_are_the_references(maker)?;
    check(maker, &embedding(SMALL)?, Format::Bf16, 0.997)?;
    check(maker, &heads()?, Format::F16, 0.999)?;
    check(maker, &modern(Positions::Rotary { interleaved: false })?, Format::F16, 0.995)
}

pub(crate) fn embeddings_are_the_references<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    check(maker, &embedding(SMALL)?, Format::F16, 0.999)
}

pub(crate) fn needs_a_newer_gpu<D: Device>(maker: &Maker<D>) -> Result<(), Failure> {
    let (optimised, _) = optimize(&embedding(SMALL)?)?;
    let made = encoder((maker.make)(), lower_fp8(&optimised, Format::F16)?, maker.architecture);
    let error = made.err().ok_or("it has no 8-bit floats")?.to_string();
    assert!(error.contains("fp8") && error.contains("8.9"), "{error}");
    Ok(())
}

/// Cosines to the reference, and at `least` to the one whose operands are rounded in the same places: where 16 bits lead to another code,
/// that leads to more of them.
fn check<D: Device>(maker: &Maker<D>, graph: &Graph, format: Format, least: f64) -> Result<(), Failure> {
    let (optimised, _) = optimize(graph)?;
    check_plan(maker, lower_fp8(&optimised, format)?, |input, found| {
        let judge = |expected: &[Tensor], least: f64| -> Result<(), Failure> {
            for (found, expected) in found.iter().zip(expected) {
                let cosine = cosine(found, expected.as_f32()?);
                let lengths: Vec<usize> = input.layout.spans().iter().map(|span| span.tokens).collect();
                assert!(cosine >= least, "{} in {format:?} of {lengths:?}: {cosine}", found.name);
            }
            Ok(())
        };
        judge(&rounded_reference(&optimised, input)?, least)?;
        judge(&input.reference(graph)?, LEAST_TO_F32)
    })
}

fn cosine(found: &SessionOutput, expected: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(&found.data, expected) / (dot(&found.data, &found.data) * dot(expected, expected)).sqrt()
}

/// The reference's outputs where linear layers over tokens have operands of e4m3 floats.
fn rounded_reference(graph: &Graph, input: &Input) -> Result<Vec<Tensor>, Failure> {
    let mut cache = Cache::default();
    let mut batch = Batch { bindings: input.layout.bindings(), layout: &input.layout, cache: &mut cache };
    let mut values: Vec<Tensor> = Vec::new();
    for (id, node) in graph.iter() {
        let rounds = |place: usize| place < 2 && multiplies_fp8(graph, id, node);
        let operands = node.inputs.iter().enumerate().map(|(place, input)| match &values[input.index()] {
            value if rounds(place) => rounded(value),
            value => Ok(value.clone()),
        });
        let operands = operands.collect::<Result<Vec<Tensor>, Failure>>()?;
        values.push(if matches!(node.op, Op::Input { .. }) {
            let ids = if node.name == "input_ids" { &input.ids } else { &input.types };
            Tensor::from_i64(&[ids.len()], ids)?
        } else {
            apply(&node.op, &operands.iter().collect::<Vec<_>>(), &mut batch)?
        });
    }
    Ok(graph.outputs().iter().map(|(_, id)| values[id.index()].clone()).collect())
}

fn multiplies_fp8(graph: &Graph, id: NodeId, node: &Node) -> bool {
    let sixteens =
        |shape: &[centuple_tensor::Dim]| shape.iter().all(|dim| dim.constant().is_none_or(|size| size % 16 == 0));
    matches!(node.op, Op::Linear { .. })
        && node.fact.shape[0] == Symbol::Tokens.into()
        && sixteens(&node.fact.shape)
        && sixteens(&graph.node(node.inputs[0]).fact.shape)
        && graph.outputs().iter().all(|(_, output)| *output != id)
}

/// The e4m3 floats of a matrix, with a scale per row.
fn rounded(matrix: &Tensor) -> Result<Tensor, Failure> {
    let (shape, width) = (matrix.shape(), matrix.shape()[1]);
    let codes = Codes::e4m3(matrix.as_f32()?, width);
    let floats = codes.codes.iter().enumerate().map(|(place, &code)| from_e4m3(code) * codes.scales[place / width]);
    Ok(Tensor::from_f32(shape, &floats.collect::<Vec<_>>())?)
}
