//! Rewriting: a rule looks at each node of the old graph and may put something else in its place.

use centuple_graph::{Graph, GraphError, Node, NodeId, Op};
use centuple_tensor::Symbol;

/// What a pass did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Name of the pass.
    pub pass: &'static str,
    /// How many places it changed.
    pub applied: usize,
    /// Places that resembled its pattern but did not fit.
    pub refused: Vec<Refusal>,
}

/// A place that resembled a pattern and why it was left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the node.
    pub node: String,
    /// What did not fit.
    pub reason: String,
}

/// The result of one pass.
pub(crate) struct Outcome {
    pub(crate) graph: Graph,
    pub(crate) applied: usize,
    pub(crate) refused: Vec<Refusal>,
}

/// The old graph beside the new one that grows from it.
pub(crate) struct Rewrite<'a> {
    pub(crate) old: &'a Graph,
    pub(crate) new: Graph,
    uses: Vec<usize>,
    image: Vec<Option<NodeId>>,
    refused: Vec<Refusal>,
}

impl Rewrite<'_> {
    /// The new node in place of an old one. Operands stand before their readers, so theirs is there.
    pub(crate) fn image(&self, old: NodeId) -> NodeId {
        self.image[old.index()].unwrap_or(old)
    }

    /// The new nodes in place of the operands of an old node.
    pub(crate) fn images(&self, olds: &[NodeId]) -> Vec<NodeId> {
        olds.iter().map(|&old| self.image(old)).collect()
    }

    /// Puts `new` in place of an old node that the walk has not reached yet.
    pub(crate) fn replace(&mut self, old: NodeId, new: NodeId) {
        self.image[old.index()] = Some(new);
    }

    /// Whether exactly one node (or output) reads `old`.
    pub(crate) fn has_one_use(&self, old: NodeId) -> bool {
        self.uses[old.index()] == 1
    }

    /// Records that a node resembled the pattern but did not fit.
    pub(crate) fn refuse(&mut self, node: &Node, reason: impl Into<String>) {
        self.refused.push(Refusal { node: node.name.clone(), reason: reason.into() });
    }
}

/// Walks `graph` in order. Where `rule` yields a node of the new graph it takes the old node's place, else
/// the old node is copied. Nodes that nothing reads any more are left to the dead-code pass.
pub(crate) fn rewrite(
    graph: &Graph,
    mut rule: impl FnMut(&mut Rewrite, NodeId, &Node) -> Result<Option<NodeId>, GraphError>,
) -> Result<Outcome, GraphError> {
    let image = vec![None; graph.nodes().len()];
    let mut state = Rewrite { old: graph, new: Graph::new(), uses: graph.use_counts(), image, refused: Vec::new() };
    let mut applied = 0;
    for (id, node) in graph.iter() {
        if state.image[id.index()].is_some() {
            continue;
        }
        let new = match rule(&mut state, id, node)? {
            Some(new) => {
                applied += 1;
                new
            }
            None => {
                let inputs = state.images(&node.inputs);
                state.new.push(node.name.clone(), node.op.clone(), &inputs)?
            }
        };
        state.replace(id, new);
    }
    for (name, id) in graph.outputs() {
        let new = state.image(*id);
        state.new.output(name, new);
    }
    Ok(Outcome { graph: state.new, applied, refused: state.refused })
}

/// Whether the node's result has a row for each token, or for each selected one.
pub(crate) fn is_over_tokens(node: &Node) -> bool {
    let rows = node.fact.shape.first();
    rows == Some(&Symbol::Tokens.into()) || rows == Some(&Symbol::Selected.into())
}

/// The sum of two values, in either order: the operands of an `Add`, if `node` is one.
pub(crate) fn sum_of(node: &Node) -> Option<[NodeId; 2]> {
    match (&node.op, node.inputs.as_slice()) {
        (Op::Binary(centuple_graph::Binary::Add), &[a, b]) => Some([a, b]),
        _ => None,
    }
}
