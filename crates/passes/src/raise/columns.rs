//! `Gather(Linear(x), columns)` → a `Linear` with the rows of the weight picked: columns are picked once and not in each batch.

use centuple_graph::{Graph, GraphError, NodeId, Op};
use centuple_tensor::Tensor;

use crate::rewrite::{Outcome, rewrite};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    rewrite(graph, |state, _, node| {
        let Op::Gather { axis } = node.op else { return Ok(None) };
        let [rows, indices] = node.inputs[..] else { return Ok(None) };
        let layer = graph.node(rows);
        let Op::Linear { bias, activation, residual: false } = layer.op else { return Ok(None) };
        let (Some(indices), true) = (graph.constant_of(indices), axis + 1 == layer.fact.shape.len()) else {
            return Ok(None);
        };
        let operands = &layer.inputs[1..];
        let picked: Option<Vec<Tensor>> = operands.iter().map(|&operand| pick(graph, operand, indices)).collect();
        let Some(picked) = picked else {
            state.refuse(node, "its weight can't be picked from");
            return Ok(None);
        };
        let mut inputs = vec![state.image(layer.inputs[0])];
        for (tensor, &operand) in picked.into_iter().zip(operands) {
            inputs.push(state.new.constant(graph.node(operand).name.clone(), tensor)?);
        }
        let op = Op::Linear { bias, activation, residual: false };
        state.new.push(node.name.clone(), op, &inputs).map(Some)
    })
}

/// The rows of a constant at indices that are whole numbers within it.
fn pick(graph: &Graph, id: NodeId, indices: &Tensor) -> Option<Tensor> {
    let tensor = graph.constant_of(id)?;
    let values = tensor.to_f32().ok()?;
    let (count, rest) = tensor.shape().split_first()?;
    let width: usize = rest.iter().product();
    let mut out = Vec::with_capacity(indices.len() * width);
    for &index in indices.as_f32().ok()? {
        let row = index as usize;
        if index < 0.0 || row >= *count {
            return None;
        }
        out.extend_from_slice(values.get(row * width..(row + 1) * width)?);
    }
    Tensor::from_f32(&[&[indices.len()], rest].concat(), &out).ok()
}
