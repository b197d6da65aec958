//! The query, key and value projections of one attention → one `Linear` and three slices of its columns.
//!
//! The slices become views of the merged result when the graph is lowered; nothing is copied.

use centuple_graph::{Graph, GraphError, Node, NodeId, Op};
use centuple_tensor::Tensor;

use crate::rewrite::{Outcome, Rewrite, rewrite};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let attentions: Vec<&Node> = graph.nodes().iter().filter(|node| matches!(node.op, Op::Attention(_))).collect();
    rewrite(graph, |state, id, node| {
        let Op::Linear { .. } = node.op else { return Ok(None) };
        let Some(attention) = attentions.iter().find(|attention| attention.inputs.first() == Some(&id)) else {
            return Ok(None);
        };
        merge(state, attention)
    })
}

/// Emits the merged projection in place of the query's; `None` (with a reason) where it does not fit.
fn merge(state: &mut Rewrite, attention: &Node) -> Result<Option<NodeId>, GraphError> {
    let old = state.old;
    let projections: Vec<&Node> = attention.inputs.iter().map(|&input| old.node(input)).collect();
    let query = projections[0];
    let fits = |node: &&Node| node.op == query.op && node.inputs.first() == query.inputs.first();
    let Op::Linear { bias, activation: None, residual: false } = query.op else {
        state.refuse(attention, "the query projection has an activation or a residual");
        return Ok(None);
    };
    if !projections.iter().all(fits) || !attention.inputs.iter().all(|&input| state.has_one_use(input)) {
        state.refuse(attention, "query, key and value are not projections of one value for this attention alone");
        return Ok(None);
    }
    let Some(weight) = joined(old, &projections, 1) else {
        state.refuse(attention, "a projection's weight is not an f32 constant");
        return Ok(None);
    };
    let name = format!("{}.qkv", attention.name);
    let mut inputs = vec![state.image(query.inputs[0]), state.new.constant(format!("{name}.weight"), weight)?];
    if bias {
        let Some(joined) = joined(old, &projections, 2) else {
            state.refuse(attention, "a projection's bias is not an f32 constant");
            return Ok(None);
        };
        inputs.push(state.new.constant(format!("{name}.bias"), joined)?);
    }
    let merged = state.new.push(name, query.op.clone(), &inputs)?;
    let mut start = 0;
    let mut first = None;
    for (projection, &id) in projections.iter().zip(&attention.inputs) {
        let width = projection.fact.shape.last().and_then(|dim| dim.constant()).unwrap_or(0);
        let axis = projection.fact.shape.len() - 1;
        let op = Op::Slice { axis, start, end: start + width };
        let slice = state.new.push(projection.name.clone(), op, &[merged])?;
        state.replace(id, slice);
        first.get_or_insert(slice);
        start += width;
    }
    Ok(first)
}

/// One operand of every projection, joined along the first dimension.
fn joined(graph: &Graph, projections: &[&Node], operand: usize) -> Option<Tensor> {
    let mut data = Vec::new();
    let mut shape: Option<Vec<usize>> = None;
    for projection in projections {
        let tensor = graph.constant_of(*projection.inputs.get(operand)?)?;
        data.extend_from_slice(tensor.as_f32().ok()?);
        match &mut shape {
            Some(shape) => shape[0] += tensor.shape()[0],
            None => shape = Some(tensor.shape().to_vec()),
        }
    }
    Tensor::from_f32(&shape?, &data).ok()
}
