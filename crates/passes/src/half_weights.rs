//! The weights of linear layers over tokens are stored as f16: half the bytes for shapes that memory bounds.
//!
//! Not in the pipeline, since it changes the numbers: the caller asks for it. Arithmetic stays f32.

use std::collections::HashMap;

use centuple_graph::{Graph, Node, Op};
use centuple_tensor::Tensor;

use crate::joined::Part;
use crate::pipeline::{PassError, apply_alone};
use crate::rewrite::{Report, Rewrite, is_over_tokens, rewrite};

/// Stores every weight matrix over tokens as f16, unless one of its elements is too large for that. What layers share
/// stays shared.
///
/// # Errors
/// The rewritten graph does not verify.
pub fn halve_weights(graph: &Graph) -> Result<(Graph, Report), PassError> {
    let mut known: HashMap<Part, Option<Tensor>> = HashMap::new();
    let rule = |state: &mut Rewrite, _, node: &Node| {
        if !matches!(node.op, Op::Linear { .. }) || !is_over_tokens(node) {
            return Ok(None);
        }
        let weight = state.old.constant_of(node.inputs[1]);
        let half = weight.and_then(|weight| {
            let key = (Some(weight.identity()), weight.shape().to_vec());
            known.entry(key).or_insert_with(|| weight.to_f16().ok().flatten()).clone()
        });
        let Some(half) = half else {
            state.refuse(node, "its weight is computed, or too large for f16");
            return Ok(None);
        };
        let mut inputs = state.images(&node.inputs);
        inputs[1] = state.new.constant(state.old.node(node.inputs[1]).name.clone(), half)?;
        state.new.push(node.name.clone(), node.op.clone(), &inputs).map(Some)
    };
    apply_alone("half_weights", graph, |graph| rewrite(graph, rule))
}
