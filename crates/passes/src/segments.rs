//! A graph in segments that are computed one after the other, so that what is computed in one can be changed before the next.

use std::collections::HashMap;

use centuple_graph::{Graph, GraphError, NodeId, Op};
use centuple_tensor::DType;

use crate::rewrite::is_over_tokens;

/// A part of a graph. Its inputs are those of the whole that it reads, and the values that earlier segments have yielded.
pub struct Segment {
    /// What it computes. Names of nodes are those of the whole, constants are the same tensors.
    pub graph: Graph,
    /// Values of the whole that it is given, with the nodes of `graph` that stand for them.
    pub given: Vec<(NodeId, NodeId)>,
    /// Values of the whole that later segments read, the outputs of `graph` in order.
    pub yields: Vec<NodeId>,
    /// Values of the whole that no later segment reads.
    pub spent: Vec<NodeId>,
}

/// The name by which a segment is given a value of the whole, and yields it.
pub fn segment_value(value: NodeId) -> String {
    format!("value.{}", value.index())
}

/// Cuts a graph behind each of `ends`, which ascend; the last segment has what is behind all of them.
///
/// Rows of tokens are handed from segment to segment. What is none, as positions, is computed again where it is read.
///
/// # Errors
/// None for a graph that verifies.
pub fn segments(graph: &Graph, ends: &[NodeId]) -> Result<Vec<Segment>, GraphError> {
    let mut last_reads = vec![0; graph.nodes().len()];
    for (reader, node) in graph.iter() {
        node.inputs.iter().for_each(|input| last_reads[input.index()] = reader.index());
    }
    graph.outputs().iter().for_each(|(_, value)| last_reads[value.index()] = graph.nodes().len());
    let mut start = 0;
    let mut segments = Vec::with_capacity(ends.len() + 1);
    for end in ends.iter().map(|end| end.index() + 1).chain([graph.nodes().len()]) {
        let mut cutting = Cutting { whole: graph, start, part: Graph::new(), image: HashMap::new(), given: Vec::new() };
        let is_last = end == graph.nodes().len();
        let (mut yields, mut spent) = (Vec::new(), Vec::new());
        for (id, _) in graph.iter().take(end).filter(|(id, _)| is_row(graph, *id)) {
            let read_later = last_reads[id.index()] >= end && !is_last;
            if id.index() >= start {
                if read_later {
                    let node = cutting.node(id)?;
                    cutting.part.output(&segment_value(id), node);
                    yields.push(id);
                } else if is_last {
                    cutting.node(id)?;
                }
            } else if !read_later && last_reads[id.index()] >= start {
                spent.push(id);
            }
        }
        segments.push(Segment { graph: cutting.part, given: cutting.given, yields, spent });
        start = end;
    }
    Ok(segments)
}

/// Whether a value has rows of numbers, one for each token or selected token, and is computed.
fn is_row(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    is_over_tokens(node) && node.fact.dtype == DType::F32 && !matches!(node.op, Op::Input { .. } | Op::Constant(_))
}

/// A segment that is being made.
struct Cutting<'a> {
    whole: &'a Graph,
    /// Rows before it are given.
    start: usize,
    part: Graph,
    image: HashMap<NodeId, NodeId>,
    given: Vec<(NodeId, NodeId)>,
}

impl Cutting<'_> {
    /// The node that computes a value of the whole, or is given it.
    fn node(&mut self, id: NodeId) -> Result<NodeId, GraphError> {
        if let Some(&image) = self.image.get(&id) {
            return Ok(image);
        }
        let node = self.whole.node(id);
        let image = if id.index() < self.start && is_row(self.whole, id) {
            let image = self.part.input(&segment_value(id), node.fact.dtype, node.fact.shape.clone())?;
            self.given.push((id, image));
            image
        } else {
            let inputs = node.inputs.iter().map(|&input| self.node(input)).collect::<Result<Vec<_>, _>>()?;
            self.part.push(node.name.clone(), node.op.clone(), &inputs)?
        };
        self.image.insert(id, image);
        Ok(image)
    }
}
