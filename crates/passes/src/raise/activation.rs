//! Elementwise regions of one variable → `Activation`: a function is known by its values on a grid.

use std::collections::{HashMap, HashSet};

use centuple_graph::{Activation, Graph, GraphError, NodeId, Op};
use centuple_reference::fold;
use centuple_tensor::{DType, Tensor};

use super::probe::ambient;
use super::region::{Kind, Region, readers};
use crate::rewrite::{Outcome, rewrite};

/// Every function that is looked for.
const FUNCTIONS: [Activation; 7] = [
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Silu,
    Activation::Relu,
    Activation::Tanh,
    Activation::Sigmoid,
];
/// Most elements that are computed in search of functions.
const MAX_WORK: usize = 1 << 31;

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let found = find(graph);
    rewrite(graph, |state, id, node| {
        let Some(&(source, activation)) = found.get(&id) else { return Ok(None) };
        let source = state.image(source);
        state.new.push(node.name.clone(), Op::Activation(activation), &[source]).map(Some)
    })
}

/// The nodes that are an activation function of another one.
fn find(graph: &Graph) -> HashMap<NodeId, (NodeId, Activation)> {
    let (readers, ambient) = (readers(graph), ambient(graph));
    let (mut found, mut covered, mut work) = (HashMap::new(), HashSet::new(), MAX_WORK);
    let Some(known) = Known::new() else { return found };
    for (source, node) in graph.iter() {
        if ambient[source.index()] || node.fact.dtype != DType::F32 || readers[source.index()].is_empty() {
            continue;
        }
        let region = Region::behind(graph, &readers, source, Kind::Elements);
        let cost = region.nodes.len() * known.grid.len();
        if !region.is_curved() || cost > work {
            continue;
        }
        work -= cost;
        let Some(values) = region.values(&known.grid) else { continue };
        let tolerance = tolerance(&region);
        for &root in region.nodes.iter().rev() {
            let is_there = matches!(graph.node(root).op, Op::Activation(_)) && graph.node(root).inputs == [source];
            if is_there || covered.contains(&root) || found.contains_key(&root) {
                continue;
            }
            let Some(activation) = values.get(&root).and_then(|value| known.name(value, tolerance)) else { continue };
            found.insert(root, (source, activation));
            covered.extend(region.above(root));
        }
    }
    found
}

/// Most that a region may differ from a function by, relative to its variable: what is spelt `x · (1 + erf(…))` cancels
/// where x is far below 0. In files of half precision the constants are rounded, √2 to 1.4141; no two functions are as close
/// as that.
fn tolerance(region: &Region) -> f32 {
    let is_half = |tensor: &Tensor| tensor.to_f16().is_ok_and(|half| half.is_some_and(|half| widens_to(&half, tensor)));
    let halves = region.constants().iter().all(|(_, tensor)| is_half(tensor));
    if halves { 1e-4 } else { 1e-6 }
}

fn widens_to(half: &Tensor, tensor: &Tensor) -> bool {
    matches!((half.to_f32(), tensor.as_f32()), (Ok(widened), Ok(data)) if *widened == *data)
}

/// The functions by their values.
struct Known {
    grid: Tensor,
    functions: Vec<(Activation, Tensor)>,
}

impl Known {
    /// The values on a grid, wide and fine enough to tell them from each other, and with numbers close to 0.
    fn new() -> Option<Known> {
        let steps = (-160..=160).map(|step| step as f32 * 0.0625);
        let points: Vec<f32> = steps.chain([-18.0, 18.0, 1e-4, -1e-4, 1e-8, -1e-8]).collect();
        let grid = Tensor::from_f32(&[1, points.len()], &points).ok()?;
        let function = |activation| Some((activation, fold(&Op::Activation(activation), &[&grid])?));
        let functions = FUNCTIONS.into_iter().map(function).collect::<Option<_>>()?;
        Some(Known { grid, functions })
    }

    /// The function that has these values.
    fn name(&self, values: &Tensor, tolerance: f32) -> Option<Activation> {
        let (grid, values) = (self.grid.as_f32().ok()?, values.as_f32().ok()?);
        let is = |(activation, own): &&(Activation, Tensor)| {
            // A lower bound that is nearly 0 is no ReLU.
            let tolerance = if *activation == Activation::Relu { 0.0 } else { tolerance };
            own.as_f32().is_ok_and(|own| {
                let near = |((x, y), own): ((&f32, &f32), &f32)| (y - own).abs() <= tolerance * x.abs().max(1.0);
                own.len() == values.len() && grid.iter().zip(values).zip(own).all(near)
            })
        };
        self.functions.iter().find(is).map(|(activation, _)| *activation)
    }
}
