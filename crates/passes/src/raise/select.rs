//! `Select` of what layers made of rows → the layers on selected rows only.
//!
//! It moves up as far as to the first linear layer of the chain that ends in it, where a native head has it.

use std::collections::HashMap;

use centuple_graph::{Graph, GraphError, NodeId, Op};

use crate::rewrite::{Outcome, Rewrite, rewrite};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let mut selected: HashMap<NodeId, NodeId> = HashMap::new();
    let uses = graph.use_counts();
    rewrite(graph, |state, _, node| {
        if node.op != Op::Select {
            return Ok(None);
        }
        let chain = chain(graph, &uses, node.inputs[0]);
        let Some((&top, below)) = chain.split_last() else { return Ok(None) };
        if below.is_empty() {
            return Ok(None);
        }
        let mut value = match selected.get(&top) {
            Some(&value) => value,
            None => {
                let rows = state.image(top);
                state.new.push(node.name.clone(), Op::Select, &[rows])?
            }
        };
        selected.insert(top, value);
        for &id in below.iter().rev() {
            value = on_selected(state, id, value)?;
        }
        Ok(Some(value))
    })
}

/// The layers from `end` up, and the value before the first linear one among them as the last element.
fn chain(graph: &Graph, uses: &[usize], end: NodeId) -> Vec<NodeId> {
    let (mut chain, mut next, mut length) = (vec![end], end, 0);
    while uses[next.index()] <= 1 {
        let Some(source) = row_wise(graph, next) else { break };
        chain.push(source);
        next = source;
        let node = graph.node(chain[chain.len() - 2]);
        if matches!(node.op, Op::Linear { .. } | Op::QuantizedLinear { .. }) {
            length = chain.len();
        }
    }
    chain.truncate(length);
    chain
}

/// The one value with rows that a layer reads, if it treats each row alone.
fn row_wise(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let node = graph.node(id);
    let is_layer =
        matches!(node.op, Op::Activation(_) | Op::Unary(_) | Op::Binary(_) | Op::Softmax | Op::L2Normalize { .. })
            || matches!(node.op, Op::Linear { residual: false, .. } | Op::QuantizedLinear { residual: false, .. })
            || matches!(node.op, Op::LayerNorm { residual: false, .. } | Op::RmsNorm { residual: false, .. });
    let rows = graph.node(id).fact.shape.first()?;
    let mut sources = node.inputs.iter().filter(|input| graph.node(**input).fact.shape.first() == Some(rows));
    let (&source, None) = (sources.next()?, sources.next()) else { return None };
    (is_layer && node.fact.shape.len() == 2 && graph.node(source).fact.shape.len() == 2).then_some(source)
}

/// A layer of the chain on the selected rows.
fn on_selected(state: &mut Rewrite, id: NodeId, value: NodeId) -> Result<NodeId, GraphError> {
    let node = state.old.node(id);
    let source = row_wise(state.old, id);
    let inputs: Vec<NodeId> =
        node.inputs.iter().map(|&input| if Some(input) == source { value } else { state.image(input) }).collect();
    state.new.push(node.name.clone(), node.op.clone(), &inputs)
}
