//! Ops whose operands are all constants become constants.

use centuple_graph::{Graph, GraphError, Op};
use centuple_reference::fold;

use crate::rewrite::{Outcome, rewrite};

/// Results above this many elements stay computed, so that folding cannot blow up the weights.
const MAX_ELEMENTS: usize = 1 << 26;

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    rewrite(graph, |state, _, node| {
        if node.inputs.is_empty() || matches!(node.op, Op::Constant(_)) {
            return Ok(None);
        }
        let operands: Vec<_> = node.inputs.iter().map(|&input| state.image(input)).collect();
        let constants: Option<Vec<_>> = operands.iter().map(|&id| state.new.constant_of(id)).collect();
        let size = node.fact.shape.iter().try_fold(1usize, |size, dim| size.checked_mul(dim.constant()?));
        let (Some(constants), Some(0..=MAX_ELEMENTS)) = (constants, size) else { return Ok(None) };
        match fold(&node.op, &constants) {
            Some(tensor) => state.new.constant(node.name.clone(), tensor).map(Some),
            None => Ok(None),
        }
    })
}
