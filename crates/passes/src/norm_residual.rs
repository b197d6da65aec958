//! `LayerNorm(x + y)` → `LayerNorm` that takes the sum itself; the same for `RmsNorm`.
//!
//! Runs after `linear_residual`, so only sums that no Linear could take are left.

use centuple_graph::{Graph, GraphError, Op};

use crate::rewrite::{Outcome, rewrite, sum_of};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    rewrite(graph, |state, _, node| {
        let op = if let Op::LayerNorm { epsilon, residual: false } = node.op {
            Op::LayerNorm { epsilon, residual: true }
        } else if let Op::RmsNorm { epsilon, residual: false } = node.op {
            Op::RmsNorm { epsilon, residual: true }
        } else {
            return Ok(None);
        };
        let source = state.old.node(node.inputs[0]);
        let Some([a, b]) = sum_of(source) else { return Ok(None) };
        if state.old.node(a).fact != state.old.node(b).fact {
            state.refuse(node, "the sum before it broadcasts");
            return Ok(None);
        }
        if !state.has_one_use(node.inputs[0]) {
            state.refuse(node, "the sum before it has other readers");
            return Ok(None);
        }
        let inputs = [&state.images(&[a, b]), &state.images(&node.inputs[1..])[..]].concat();
        state.new.push(node.name.clone(), op, &inputs).map(Some)
    })
}
