//! Where an attention begins and ends.

use centuple_graph::{Graph, NodeId, Op};
use centuple_tensor::{Dim, Symbol};

use super::Reason;
use crate::raise::probe::ambient;

/// The parts of an attention.
pub(super) struct Region {
    /// The product of queries and keys.
    pub(super) content: NodeId,
    /// Its operands `[..., S, D]` and `[..., D, S]`.
    pub(super) content_operands: [NodeId; 2],
    /// The softmax's operand.
    pub(super) scores: NodeId,
    /// The values that are weighted, `[..., S, D]`.
    pub(super) values: NodeId,
    /// Rows of tokens in which the heads stand side by side.
    pub(super) result: NodeId,
}

/// What is known of every node of a graph.
pub(super) struct Survey<'a> {
    pub(super) graph: &'a Graph,
    /// Whether it depends on the layout at most.
    pub(super) ambient: Vec<bool>,
    readers: Vec<Vec<NodeId>>,
}

/// Width of rows of tokens: `[Sequences, Sequence, W]` or `[Sequences·Sequence, W]`.
pub(super) fn row_width(shape: &[Dim]) -> Option<usize> {
    let (sequences, sequence) = (Dim::from(Symbol::Sequences), Dim::from(Symbol::Sequence));
    match shape {
        [first, second, width] if *first == sequences && *second == sequence => width.constant(),
        [rows, width] if *rows == sequences * sequence => width.constant(),
        _ => None,
    }
}

impl<'a> Survey<'a> {
    pub(super) fn new(graph: &'a Graph) -> Survey<'a> {
        let mut readers = vec![Vec::new(); graph.nodes().len()];
        for (id, node) in graph.iter() {
            node.inputs.iter().for_each(|input| readers[input.index()].push(id));
        }
        Survey { graph, ambient: ambient(graph), readers }
    }

    pub(super) fn is_ambient(&self, id: NodeId) -> bool {
        self.ambient[id.index()]
    }

    /// The operands that depend on the batch's tokens.
    pub(super) fn live_inputs(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.graph.node(id).inputs.iter().copied().filter(|&input| !self.is_ambient(input))
    }

    /// The attention around a softmax.
    pub(super) fn region(&self, softmax: NodeId) -> Result<Region, Reason> {
        let scores = self.graph.node(softmax).inputs[0];
        let (weighted, values) = self.weighted(softmax).ok_or("nothing is weighted by it")?;
        let content = self.content(scores)?;
        let operands = &self.graph.node(content).inputs;
        let result = self.result(weighted).ok_or("what it weights doesn't become rows of tokens again")?;
        Ok(Region { content, content_operands: [operands[0], operands[1]], scores, values, result })
    }

    /// The product of the softmax's weights with values, and these.
    fn weighted(&self, softmax: NodeId) -> Option<(NodeId, NodeId)> {
        let mut weights = softmax;
        loop {
            let product = self.readers[weights.index()].iter().copied().find(|&reader| {
                let node = self.graph.node(reader);
                node.op == Op::MatMul && node.inputs[0] == weights && !self.is_ambient(node.inputs[1])
            });
            if let Some(product) = product {
                return Some((product, self.graph.node(product).inputs[1]));
            }
            // Where weights are cleaned of what isn't a number.
            let shape = &self.graph.node(weights).fact.shape;
            weights = self.readers[weights.index()].iter().copied().find(|&reader| {
                let node = self.graph.node(reader);
                let reshaped = matches!(node.op, Op::Where | Op::Reshape { .. });
                reshaped && (node.fact.shape == *shape || matches!(node.op, Op::Reshape { .. }))
            })?;
        }
    }

    /// The one product behind the scores both of whose operands are of the batch.
    fn content(&self, scores: NodeId) -> Result<NodeId, Reason> {
        let (mut found, mut wanted, mut seen) = (None, vec![scores], vec![scores]);
        while let Some(id) = wanted.pop() {
            let node = self.graph.node(id);
            let live: Vec<NodeId> = self.live_inputs(id).collect();
            if row_width(&node.fact.shape).is_some() {
                return Err("its scores depend on tokens in other ways than by their products".to_owned());
            }
            if node.op == Op::MatMul && live.len() == 2 {
                if found.is_some_and(|found| found != id) {
                    return Err("its scores are sums of several products".to_owned());
                }
                found = Some(id);
                continue;
            }
            if node.op == Op::MatMul {
                continue;
            }
            for input in live.into_iter().filter(|input| !seen.contains(input)).collect::<Vec<_>>() {
                seen.push(input);
                wanted.push(input);
            }
        }
        found.ok_or_else(|| "its scores are no products of queries and keys".to_owned())
    }

    /// The first rows of tokens behind a node, which only moves elements.
    fn result(&self, weighted: NodeId) -> Option<NodeId> {
        let mut at = weighted;
        loop {
            let &[reader] = self.readers[at.index()].as_slice() else { return None };
            let node = self.graph.node(reader);
            if !matches!(node.op, Op::Reshape { .. } | Op::Transpose { .. }) {
                return None;
            }
            if row_width(&node.fact.shape).is_some() {
                return Some(reader);
            }
            at = reader;
        }
    }

    /// The rows of tokens that a value is made of; an error where there are several or none.
    pub(super) fn source(&self, id: NodeId) -> Result<NodeId, Reason> {
        let (mut found, mut wanted, mut seen) = (None, vec![id], vec![id]);
        while let Some(id) = wanted.pop() {
            if row_width(&self.graph.node(id).fact.shape).is_some() {
                if found.is_some_and(|found| found != id) {
                    return Err("one of its operands is made of several rows of tokens".to_owned());
                }
                found = Some(id);
                continue;
            }
            for input in self.live_inputs(id).filter(|input| !seen.contains(input)).collect::<Vec<_>>() {
                seen.push(input);
                wanted.push(input);
            }
        }
        found
            .map(|found| self.behind_scaling(found))
            .ok_or_else(|| "one of its operands is no row of tokens".to_owned())
    }

    /// The rows behind multiplications by one number.
    fn behind_scaling(&self, mut id: NodeId) -> NodeId {
        loop {
            let node = self.graph.node(id);
            let scaled = matches!(node.op, Op::Binary(centuple_graph::Binary::Mul | centuple_graph::Binary::Div));
            let [x, factor] = node.inputs.as_slice() else { return id };
            let one_number = self.graph.constant_of(*factor).is_some_and(|factor| factor.len() == 1);
            let same = self.graph.node(*x).fact.shape == node.fact.shape;
            if !(scaled && one_number && same) {
                return id;
            }
            id = *x;
        }
    }

    /// Values of the layout that a value reads on the way from `source`, and their number of readers there.
    pub(super) fn ambient_leaves(&self, id: NodeId, sources: &[NodeId]) -> Vec<NodeId> {
        let (mut leaves, mut wanted, mut seen) = (Vec::new(), vec![id], vec![id]);
        while let Some(id) = wanted.pop() {
            if sources.contains(&id) {
                continue;
            }
            for &input in &self.graph.node(id).inputs {
                if self.is_ambient(input) {
                    leaves.push(input);
                } else if !seen.contains(&input) {
                    seen.push(input);
                    wanted.push(input);
                }
            }
        }
        leaves
    }
}
