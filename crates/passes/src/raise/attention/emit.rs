//! The graph of a recognised attention, and the proof that it computes what its region does.

use centuple_graph::{Binary, Graph, GraphError, NodeId, Op};
use centuple_reference::{Batch, Cache, evaluate};
use centuple_tensor::{DType, Dim, Symbol, Tensor};

use super::operand::Operand;
use super::region::row_width;
use super::scores::Position;
use super::{Found, Reason};
use crate::raise::probe::{Probe, noise};

/// Most that a region may differ from the attention by.
const TOLERANCE: f32 = 1e-4;
/// Most tokens that they are compared on.
const MAX_TOKENS: usize = 300;

/// Packed rows of tokens, from `[Sequences, Sequence, W]` or `[Sequences·Sequence, W]`.
fn packed(graph: &mut Graph, rows: NodeId) -> Result<NodeId, GraphError> {
    let node = graph.node(rows);
    let name = node.name.clone();
    let padded = match node.fact.shape.as_slice() {
        [first, _] if *first == Dim::from(Symbol::Tokens) => return Ok(rows),
        [_, width] => {
            let shape = vec![Symbol::Sequences.into(), Symbol::Sequence.into(), width.clone()];
            graph.push(name.clone(), Op::Reshape { shape }, &[rows])?
        }
        _ => rows,
    };
    graph.push(name, Op::Pack, &[padded])
}

impl Operand {
    /// The columns that the heads read, before they are rotated.
    fn columns(&self, graph: &mut Graph, name: &str, source: NodeId) -> Result<NodeId, GraphError> {
        let rows = packed(graph, source)?;
        let width = graph.node(rows).fact.shape.last().and_then(Dim::constant);
        let start = self.columns.first().copied().unwrap_or(0);
        let count = self.columns.len();
        let chosen = if let Some(picked) = &self.picked {
            let indices = graph.constant(format!("{name}.columns"), picked.clone())?;
            graph.push(name, Op::Gather { axis: 1 }, &[rows, indices])?
        } else if width == Some(count) {
            rows
        } else {
            graph.push(name, Op::Slice { axis: 1, start, end: start + count }, &[rows])?
        };
        let Some(offset) = &self.offset else { return Ok(chosen) };
        let offset = graph.constant(format!("{name}.offset"), offset.clone())?;
        graph.push(name, Op::Binary(Binary::Add), &[chosen, offset])
    }

    fn rotated(&self, graph: &mut Graph, name: &str, rows: NodeId) -> Result<NodeId, GraphError> {
        let Some(rotation) = &self.rotation else { return Ok(rows) };
        let positions = graph.push("positions", Op::Positions { offset: 0, padding: None }, &[])?;
        let table = graph.constant(format!("{name}.angles"), rotation.table.clone())?;
        let (heads, head_dim, interleaved) = (self.heads, self.head_dim, rotation.interleaved);
        graph.push(name, Op::Rotary { heads, head_dim, interleaved }, &[rows, positions, table])
    }
}

impl Found {
    /// The rows of tokens of queries, keys and values.
    pub(super) fn sources(&self) -> [NodeId; 3] {
        [self.queries.source, self.keys.source, self.values.source]
    }

    /// Appends the attention over rows of tokens; its result is packed.
    pub(super) fn emit(&self, graph: &mut Graph, name: &str, sources: [NodeId; 3]) -> Result<NodeId, GraphError> {
        let queries = self.queries.columns(graph, &format!("{name}.query"), sources[0])?;
        let keys = self.keys.columns(graph, &format!("{name}.key"), sources[1])?;
        let values = self.values.columns(graph, &format!("{name}.value"), sources[2])?;
        let mut inputs = vec![
            self.queries.rotated(graph, &format!("{name}.query"), queries)?,
            self.keys.rotated(graph, &format!("{name}.key"), keys)?,
            self.values.rotated(graph, &format!("{name}.value"), values)?,
        ];
        match &self.position {
            Position::None => {}
            Position::Bias(table) => inputs.push(graph.constant(format!("{name}.bias"), table.clone())?),
            Position::Disentangled(terms) => {
                let parts = [("c2p", &terms.content_to_position, queries), ("p2c", &terms.position_to_content, keys)];
                for (part, table, rows) in parts {
                    let Some(table) = table else { continue };
                    let weight = graph.constant(format!("{name}.{part}"), table.clone())?;
                    let op = Op::GroupedLinear { groups: self.attention.heads };
                    inputs.push(graph.push(format!("{name}.{part}"), op, &[rows, weight])?);
                }
                inputs.push(graph.constant(format!("{name}.buckets"), terms.buckets.clone())?);
            }
        }
        graph.push(name, Op::Attention(self.attention.clone()), &inputs)
    }

    /// Compares the region with the attention on random rows, so many that each distance that is hidden or seen occurs.
    pub(super) fn check(&self, graph: &Graph, max_tokens: usize) -> Result<(), Reason> {
        let tokens = self.attention.window.map_or(9, |window| window + 9).min(MAX_TOKENS).min(max_tokens).max(1);
        for tokens in [1.min(tokens), tokens] {
            let near = self.agrees(graph, tokens).ok_or("it can't be computed on a probe")?;
            if !near {
                return Err(format!("on {tokens} random tokens it is not the attention that it resembles"));
            }
        }
        Ok(())
    }

    fn agrees(&self, graph: &Graph, tokens: usize) -> Option<bool> {
        let mut probe = Probe::new(graph, &[tokens])?;
        let mut own = Graph::new();
        let (mut inputs, mut sources) = (Vec::new(), Vec::new());
        for (index, source) in self.sources().into_iter().enumerate() {
            let name = format!("rows of {source}");
            let known = own.inputs().find(|(_, node)| node.name == name).map(|(id, _)| id);
            if let Some(known) = known {
                sources.push(known);
                continue;
            }
            let width = row_width(&graph.node(source).fact.shape)?;
            let data: Vec<f32> = (0..tokens * width).map(|at| noise(at + index * 7919)).collect();
            probe.give(source, Tensor::from_f32(&probe.shape(source)?, &data).ok()?)?;
            sources.push(own.input(&name, DType::F32, vec![Symbol::Tokens.into(), width.into()]).ok()?);
            inputs.push((name, Tensor::from_f32(&[tokens, width], &data).ok()?));
        }
        let output = self.emit(&mut own, "attention", sources.try_into().ok()?).ok()?;
        own.output("output", output);
        let inputs: Vec<(&str, Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let layout = probe.layout().clone();
        let mut batch = Batch { bindings: layout.bindings(), layout: &layout, cache: &mut Cache::default() };
        let expected = evaluate(&own, &inputs, &mut batch).ok()?.pop()?;
        let found = probe.value(self.region.result)?;
        let (found, expected) = (found.as_f32().ok()?, expected.as_f32().ok()?);
        let largest = expected.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * largest;
        Some(found.len() == expected.len() && found.iter().zip(expected).all(near))
    }
}
