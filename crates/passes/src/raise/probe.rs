//! Probes: values of a graph for chosen inputs.

use std::collections::HashMap;

use centuple_graph::{Graph, NodeId, Op};
use centuple_reference::{Batch, Cache, apply};
use centuple_tensor::{Layout, Tensor};

use crate::work::work;

/// Most elements of a value that is looked at.
const MAX_ELEMENTS: usize = 1 << 26;
/// Most elements of all values of a probe.
const MAX_TOTAL: usize = 1 << 28;
/// Most multiplications for all of them.
const MAX_WORK: usize = 1 << 30;

/// Nodes that depend on the layout at most, and on no input of the graph, by node index.
pub(crate) fn ambient(graph: &Graph) -> Vec<bool> {
    let mut ambient: Vec<bool> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let is = !matches!(node.op, Op::Input { .. }) && node.inputs.iter().all(|input| ambient[input.index()]);
        ambient.push(is);
    }
    ambient
}

/// Evaluates values of a graph for sequences of given lengths, where some values are given.
pub(crate) struct Probe<'a> {
    graph: &'a Graph,
    layout: Layout,
    values: HashMap<NodeId, Tensor>,
    /// Elements that may still be computed.
    elements: usize,
    /// Multiplications that may still be done.
    work: usize,
}

impl<'a> Probe<'a> {
    /// A probe of sequences of so many tokens; `None` where one has none.
    pub(crate) fn new(graph: &'a Graph, lengths: &[usize]) -> Option<Probe<'a>> {
        Some(Probe {
            graph,
            layout: Layout::of_lengths(lengths).ok()?,
            values: HashMap::new(),
            elements: MAX_TOTAL,
            work: MAX_WORK,
        })
    }

    /// How the sequences lie.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The shape of a node's value here.
    pub(crate) fn shape(&self, id: NodeId) -> Option<Vec<usize>> {
        let bindings = self.layout.bindings();
        self.graph.node(id).fact.shape.iter().map(|dim| dim.evaluate(&bindings)).collect()
    }

    /// Takes `tensor`, which must have the type and shape of the node's value, as that value.
    pub(crate) fn give(&mut self, id: NodeId, tensor: Tensor) -> Option<()> {
        let fits = tensor.dtype() == self.graph.node(id).fact.dtype && tensor.shape() == self.shape(id)?;
        fits.then(|| self.values.insert(id, tensor)).map(|_| ())
    }

    /// The value of a node. `None` where it depends on an input that was not given, cannot be computed, or is too large.
    pub(crate) fn value(&mut self, id: NodeId) -> Option<Tensor> {
        let mut wanted = vec![id];
        while let Some(&next) = wanted.last() {
            if self.values.contains_key(&next) {
                wanted.pop();
                continue;
            }
            let node = self.graph.node(next);
            let missing = node.inputs.iter().filter(|input| !self.values.contains_key(input));
            let known = wanted.len();
            wanted.extend(missing);
            if wanted.len() > known {
                continue;
            }
            let volume = self.shape(next)?.iter().try_fold(1usize, |volume, &dim| volume.checked_mul(dim))?;
            if volume > MAX_ELEMENTS || matches!(node.op, Op::Input { .. }) {
                return None;
            }
            self.elements = self.elements.checked_sub(volume)?;
            let operands: Vec<&Tensor> = node.inputs.iter().filter_map(|input| self.values.get(input)).collect();
            self.work = self.work.checked_sub(work(&node.op, &operands, volume))?;
            let cache = &mut Cache::default();
            let mut batch = Batch { bindings: self.layout.bindings(), layout: &self.layout, cache };
            let value = apply(&node.op, &operands, &mut batch).ok()?;
            self.values.insert(next, value);
            wanted.pop();
        }
        self.values.get(&id).cloned()
    }
}

/// Whether two f32 tensors have one shape and are equal within `tolerance`, relative where numbers are beyond 1.
pub(crate) fn alike(a: &Tensor, b: &Tensor, tolerance: f32) -> bool {
    let (Ok(x), Ok(y)) = (a.as_f32(), b.as_f32()) else { return false };
    let near = |(x, y): (&f32, &f32)| x == y || (x - y).abs() <= tolerance * x.abs().max(1.0);
    a.shape() == b.shape() && x.iter().zip(y).all(near)
}

/// A number between -1 and 1 that looks random, by its index.
pub(crate) fn noise(index: usize) -> f32 {
    let mut bits = (index as u32).wrapping_mul(0x9e37_79b9) ^ 0x85eb_ca6b;
    bits = (bits ^ (bits >> 15)).wrapping_mul(0x2c1b_3c6d);
    bits = (bits ^ (bits >> 12)).wrapping_mul(0x297a_2d39);
    ((bits ^ (bits >> 15)) >> 8) as f32 / (1 << 23) as f32 - 1.0
}
