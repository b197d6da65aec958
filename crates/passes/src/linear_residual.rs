//! `Linear(x) + y` → `Linear` that adds the residual `y` in its epilogue.

use centuple_graph::{Graph, GraphError, Op};

use crate::rewrite::{Outcome, rewrite, sum_of};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    rewrite(graph, |state, _, node| {
        let Some([a, b]) = sum_of(node) else { return Ok(None) };
        for (source, residual) in [(a, b), (b, a)] {
            let linear = state.old.node(source);
            let Op::Linear { bias, activation, residual: false } = linear.op else { continue };
            if state.old.node(residual).fact != linear.fact {
                state.refuse(node, "the residual is broadcast");
                continue;
            }
            if !state.has_one_use(source) {
                state.refuse(node, "the Linear before it has other readers");
                continue;
            }
            let mut inputs = state.images(&linear.inputs);
            inputs.push(state.image(residual));
            let op = Op::Linear { bias, activation, residual: true };
            return state.new.push(linear.name.clone(), op, &inputs).map(Some);
        }
        Ok(None)
    })
}
