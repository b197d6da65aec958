//! The weights of linear layers over tokens are stored as f16: half the bytes for shapes that memory bounds.
//!
//! Not in the pipeline, since it changes the numbers: the caller asks for it. Arithmetic stays f32.

use centuple_graph::{Graph, Node, Op};
use centuple_tensor::Symbol;

use crate::pipeline::{PassError, apply_alone};
use crate::rewrite::{Report, Rewrite, rewrite};

/// Stores every weight matrix over tokens as f16, unless one of its elements is too large for that.
///
/// # Errors
/// The rewritten graph does not verify.
pub fn halve_weights(graph: &Graph) -> Result<(Graph, Report), PassError> {
    let rule = |state: &mut Rewrite, _, node: &Node| {
        let over_tokens = node.fact.shape.first() == Some(&Symbol::Tokens.into());
        if !matches!(node.op, Op::Linear { .. }) || !over_tokens {
            return Ok(None);
        }
        let weight = state.old.constant_of(node.inputs[1]);
        let Some(Ok(Some(half))) = weight.map(|weight| weight.to_f16()) else {
            state.refuse(node, "its weight is computed, or too large for f16");
            return Ok(None);
        };
        let mut inputs = state.images(&node.inputs);
        inputs[1] = state.new.constant(state.old.node(node.inputs[1]).name.clone(), half)?;
        state.new.push(node.name.clone(), node.op.clone(), &inputs).map(Some)
    };
    apply_alone("half_weights", graph, |graph| rewrite(graph, rule))
}
