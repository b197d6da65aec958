//! `Activation(Linear(x))` → `Linear` with the activation in its epilogue.

use centuple_graph::{Graph, GraphError, Op};

use crate::rewrite::{Outcome, rewrite};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    rewrite(graph, |state, _, node| {
        let Op::Activation(activation) = node.op else { return Ok(None) };
        let source = node.inputs[0];
        let linear = state.old.node(source);
        let Op::Linear { bias, activation: None, residual: false } = linear.op else { return Ok(None) };
        if !state.has_one_use(source) {
            state.refuse(node, "the Linear before it has other readers");
            return Ok(None);
        }
        let op = Op::Linear { bias, activation: Some(activation), residual: false };
        let inputs = state.images(&linear.inputs);
        state.new.push(linear.name.clone(), op, &inputs).map(Some)
    })
}
