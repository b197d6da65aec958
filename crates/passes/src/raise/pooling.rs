//! From the rows of a sequence's tokens to one row → `Pool`.
//!
//! Wherever the dimension of the tokens vanishes, the region around it is evaluated on probe rows of sequences of several lengths,
//! and compared with every kind of pooling.

use std::collections::{BTreeSet, HashMap, HashSet};

use centuple_graph::{Activation, Graph, GraphError, NodeId, Op, Pooling, Unary};
use centuple_reference::{Batch, Cache, apply};
use centuple_tensor::{DType, Dim, Shape, Symbol, Tensor};

use super::probe::{Probe, alike, ambient, noise};
use super::region::readers;
use crate::rewrite::{Outcome, rewrite};

/// Kinds that need no ids.
const KINDS: [Pooling; 6] =
    [Pooling::Cls, Pooling::LastToken, Pooling::Mean, Pooling::Max, Pooling::MeanSqrtLength, Pooling::WeightedMean];
/// Lengths of the probe sequences.
const LENGTHS: [usize; 4] = [1, 2, 5, 9];
/// Most ops between the rows and what the pooling ends with, each way from where the dimension vanishes.
const STEPS: usize = 8;
/// Widest rows that are looked at; vocabularies are as wide.
const MAX_WIDTH: usize = 1 << 20;
/// Most places that are looked at.
const MAX_PLACES: usize = 32;

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let Found { pooled, missed } = find(graph);
    rewrite(graph, |state, id, node| {
        if missed.contains(&id) {
            let reason = format!("{} ends the dimension of the tokens, but is no known pooling", node.op.name());
            state.refuse(node, reason);
        }
        let Some(&(source, pooling)) = pooled.get(&id) else { return Ok(None) };
        let name = node.name.clone();
        let (mut rows, mut functions) = (source, Vec::new());
        while pooling == Pooling::Max && ascends(&graph.node(rows).op) {
            functions.push(rows);
            rows = graph.node(rows).inputs[0];
        }
        let rows = state.image(rows);
        let packed = state.new.push(name.clone(), Op::Pack, &[rows])?;
        let mut row = state.new.push(name.clone(), Op::Pool(pooling), &[packed])?;
        for function in functions.into_iter().rev() {
            let function = graph.node(function);
            row = state.new.push(function.name.clone(), function.op.clone(), &[row])?;
        }
        if state.new.node(row).fact == node.fact {
            return Ok(Some(row));
        }
        state.new.push(name, Op::Reshape { shape: node.fact.shape.clone() }, &[row]).map(Some)
    })
}

/// Whether an op of one value is a function that never descends: the function of the largest element is then the largest of
/// its values, and cheaper.
fn ascends(op: &Op) -> bool {
    matches!(op, Op::Activation(Activation::Relu | Activation::Tanh | Activation::Sigmoid))
        || matches!(op, Op::Unary(Unary::Exp | Unary::Log | Unary::Log1p | Unary::Sqrt))
}

/// What a look at the graph yields.
struct Found {
    /// The ends of regions that pool, the rows that they pool, and how.
    pooled: HashMap<NodeId, (NodeId, Pooling)>,
    /// Where the dimension vanishes in another way.
    missed: HashSet<NodeId>,
}

fn find(graph: &Graph) -> Found {
    let (readers, ambient) = (readers(graph), ambient(graph));
    let mut found = Found { pooled: HashMap::new(), missed: HashSet::new() };
    for (id, node) in graph.iter() {
        let loses = |input: &NodeId| !ambient[input.index()] && has_tokens(&graph.node(*input).fact.shape);
        let is_packed = matches!(node.op, Op::Pool(_) | Op::Pack | Op::Select);
        if ambient[id.index()] || is_packed || has_tokens(&node.fact.shape) || !node.inputs.iter().any(loses) {
            continue;
        }
        let is_one_of_few = found.pooled.len() + found.missed.len() < MAX_PLACES;
        match is_one_of_few.then(|| pooling(graph, &readers, &ambient, id)).flatten() {
            Some((end, source, pooling)) => drop(found.pooled.insert(end, (source, pooling))),
            None => drop(found.missed.insert(id)),
        }
    }
    found
}

fn has_tokens(shape: &Shape) -> bool {
    let rows = Dim::from(Symbol::Sequences) * Dim::from(Symbol::Sequence);
    shape.iter().any(|dim| *dim == Dim::from(Symbol::Sequence) || *dim == rows)
}

/// The longest region around `vanishing` that pools: its end, the rows before it, and how.
fn pooling(
    graph: &Graph,
    readers: &[Vec<NodeId>],
    ambient: &[bool],
    vanishing: NodeId,
) -> Option<(NodeId, NodeId, Pooling)> {
    let ends = ends(graph, readers, ambient, vanishing);
    for source in sources(graph, ambient, vanishing) {
        let width = graph.node(source).fact.shape.last()?.constant().filter(|&width| width <= MAX_WIDTH)?;
        let Some(samples) = LENGTHS.iter().map(|&length| Sample::new(graph, source, &ends, length, width)).collect()
        else {
            continue;
        };
        let samples: Vec<Sample> = samples;
        for &end in ends.iter().rev() {
            let is = |kind: &&Pooling| samples.iter().all(|sample| sample.is(end, **kind));
            if let Some(&kind) = KINDS.iter().find(is) {
                return Some((end, source, kind));
            }
        }
    }
    None
}

/// Values `[Sequences, Sequence, W]` that the vanishing one is made of, by elementwise ops and changes of the shape only,
/// the nearest first.
fn sources(graph: &Graph, ambient: &[bool], vanishing: NodeId) -> Vec<NodeId> {
    let padded = [Symbol::Sequences, Symbol::Sequence].map(Dim::from);
    let (mut sources, mut waiting) = (Vec::new(), vec![vanishing]);
    let mut seen = HashSet::new();
    for _ in 0..STEPS {
        let mut next = Vec::new();
        for id in waiting {
            for &input in &graph.node(id).inputs {
                let node = graph.node(input);
                if ambient[input.index()] || node.fact.dtype != DType::F32 || !seen.insert(input) {
                    continue;
                }
                if matches!(node.fact.shape.as_slice(), [a, b, w] if padded == [a.clone(), b.clone()] && w.constant().is_some())
                {
                    sources.push(input);
                }
                if is_light(&node.op) {
                    next.push(input);
                }
            }
        }
        waiting = next;
    }
    sources
}

/// Values `[Sequences, W]` or `[Sequences, 1, W]` behind the vanishing one that are made of it and of nothing else but what
/// the layout says, in topological order.
fn ends(graph: &Graph, readers: &[Vec<NodeId>], ambient: &[bool], vanishing: NodeId) -> Vec<NodeId> {
    let mut inside = BTreeSet::from([vanishing]);
    let mut waiting: BTreeSet<NodeId> = readers[vanishing.index()].iter().copied().collect();
    while let Some(id) = waiting.pop_first() {
        let node = graph.node(id);
        let is_known = |input: &NodeId| inside.contains(input) || ambient[input.index()];
        if inside.len() < STEPS && is_light(&node.op) && node.inputs.iter().all(is_known) {
            inside.insert(id);
            waiting.extend(&readers[id.index()]);
        }
    }
    let is_row = |id: &NodeId| {
        let shape = &graph.node(*id).fact.shape;
        shape.first() == Some(&Symbol::Sequences.into())
            && shape.len() >= 2
            && shape[1..].iter().all(|dim| dim.constant().is_some())
    };
    inside.into_iter().filter(is_row).collect()
}

/// Whether an op may be part of a pooling besides the one that ends the dimension.
fn is_light(op: &Op) -> bool {
    matches!(
        op,
        Op::Binary(_)
            | Op::Unary(_)
            | Op::Where
            | Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Expand { .. }
            | Op::Slice { .. }
    ) || matches!(op, Op::Reduce { .. } | Op::Concat { .. })
}

/// What the region makes of the rows of one sequence.
struct Sample<'a> {
    probe: Probe<'a>,
    rows: Tensor,
    ends: HashMap<NodeId, Tensor>,
}

impl<'a> Sample<'a> {
    fn new(graph: &'a Graph, source: NodeId, ends: &[NodeId], length: usize, width: usize) -> Option<Sample<'a>> {
        let data: Vec<f32> = (0..length * width).map(|index| 2.0 * noise(index + length)).collect();
        let rows = Tensor::from_f32(&[length, width], &data).ok()?;
        let mut probe = Probe::new(graph, &[length])?;
        probe.give(source, rows.reshaped(&[1, length, width]).ok()?)?;
        let mut values = HashMap::new();
        for &end in ends {
            let value = probe.value(end)?;
            if value.len() == width {
                values.insert(end, value.reshaped(&[1, width]).ok()?);
            }
        }
        Some(Sample { probe, rows, ends: values })
    }

    fn is(&self, end: NodeId, pooling: Pooling) -> bool {
        let cache = &mut Cache::default();
        let mut batch = Batch { bindings: self.probe.layout().bindings(), layout: self.probe.layout(), cache };
        let pooled = apply(&Op::Pool(pooling), &[&self.rows], &mut batch);
        let (Ok(pooled), Some(value)) = (pooled, self.ends.get(&end)) else { return false };
        alike(&pooled, value, 1e-5)
    }
}
