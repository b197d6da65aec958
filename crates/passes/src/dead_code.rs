//! Nodes that no output depends on disappear. Inputs stay: they are the graph's signature.

use std::collections::HashMap;

use centuple_graph::{Graph, GraphError, NodeId, Op};

use crate::rewrite::Outcome;

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let mut alive = vec![false; graph.nodes().len()];
    for (_, id) in graph.outputs() {
        alive[id.index()] = true;
    }
    for (index, node) in graph.nodes().iter().enumerate().rev() {
        alive[index] |= matches!(node.op, Op::Input { .. });
        if alive[index] {
            node.inputs.iter().for_each(|input| alive[input.index()] = true);
        }
    }
    let mut new = Graph::new();
    let mut image: HashMap<NodeId, NodeId> = HashMap::new();
    for (id, node) in graph.iter().filter(|(id, _)| alive[id.index()]) {
        let inputs: Vec<NodeId> = node.inputs.iter().filter_map(|input| image.get(input).copied()).collect();
        image.insert(id, new.push(node.name.clone(), node.op.clone(), &inputs)?);
    }
    for (name, id) in graph.outputs() {
        if let Some(&id) = image.get(id) {
            new.output(name, id);
        }
    }
    let applied = graph.nodes().len() - new.nodes().len();
    Ok(Outcome { graph: new, applied, refused: Vec::new() })
}
