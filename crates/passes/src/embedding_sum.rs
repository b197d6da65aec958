//! `Embedding(…) + Embedding(…)` → one `Embedding` that sums its tables in the same order.

use centuple_graph::{Graph, GraphError, NodeId, Op};

use crate::rewrite::{Outcome, Rewrite, rewrite, sum_of};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    rewrite(graph, |state, _, node| {
        let Some([a, b]) = sum_of(node) else { return Ok(None) };
        let (Some(first), Some(second)) = (embedding(state, a), embedding(state, b)) else { return Ok(None) };
        // The second sum would be taken before it is added to the first.
        if second.len() > 2 {
            state.refuse(node, "the right operand is itself a sum of embeddings");
            return Ok(None);
        }
        let inputs = [first, second].concat();
        state.new.push(node.name.clone(), Op::Embedding, &inputs).map(Some)
    })
}

/// The operands in the new graph of an embedding that only this sum reads.
fn embedding(state: &Rewrite, old: NodeId) -> Option<Vec<NodeId>> {
    let new = state.new.node(state.image(old));
    (state.has_one_use(old) && new.op == Op::Embedding).then(|| new.inputs.clone())
}
