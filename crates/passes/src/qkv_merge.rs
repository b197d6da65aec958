//! The query, key and value projections of one attention → one `Linear` and slices of its columns.
//!
//! The slices become views of the merged result when the graph is lowered; nothing is copied. Queries and keys may pass
//! through norms of their heads and rotations. Where the query comes from another value (cross attention), key and value are merged.

use std::collections::{HashMap, HashSet};

use centuple_graph::{Graph, GraphError, Node, NodeId, Op};
use centuple_tensor::Tensor;

use crate::joined::{Joined, width};
use crate::rewrite::{Outcome, Rewrite, rewrite};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let columns_suffice = columns_suffice(graph);
    let (mut merges, mut misfits) = (HashMap::new(), HashMap::new());
    let (mut taken, mut joined) = (HashSet::new(), Joined::default());
    for (id, attention) in graph.iter().filter(|(_, node)| matches!(node.op, Op::Attention(_))) {
        match Merge::new(graph, attention, &columns_suffice, &mut joined) {
            Ok(merge) if merge.projections.iter().all(|&projection| taken.insert(projection)) => {
                let first = merge.projections.iter().copied().min();
                merges.insert(first.unwrap_or(id), merge);
            }
            Ok(_) => drop(misfits.insert(id, "a projection is part of another attention")),
            Err(misfit) => drop(misfits.insert(id, misfit)),
        }
    }
    rewrite(graph, |state, id, node| {
        if let Some(misfit) = misfits.get(&id) {
            state.refuse(node, *misfit);
        }
        let Some(merge) = merges.remove(&id) else { return Ok(None) };
        merge.emit(state)?;
        Ok(Some(state.image(id)))
    })
}

/// By node: whether all its readers take columns of a wider matrix as they take a matrix.
fn columns_suffice(graph: &Graph) -> Vec<bool> {
    let mut suffice = vec![true; graph.nodes().len()];
    for node in graph.nodes() {
        if !matches!(node.op, Op::Attention(_) | Op::Rotary { .. } | Op::HeadNorm { .. } | Op::GroupedLinear { .. }) {
            node.inputs.iter().for_each(|input| suffice[input.index()] = false);
        }
    }
    graph.outputs().iter().for_each(|(_, id)| suffice[id.index()] = false);
    suffice
}

/// Why the projections of an attention stay apart.
type Misfit = &'static str;

/// Projections of one value that become one.
struct Merge<'a> {
    attention: &'a Node,
    /// Those of query, key and value, or of key and value.
    projections: Vec<NodeId>,
    weight: Tensor,
    bias: Option<Tensor>,
}

impl<'a> Merge<'a> {
    fn new(
        graph: &'a Graph,
        attention: &'a Node,
        columns_suffice: &[bool],
        joined: &mut Joined,
    ) -> Result<Merge<'a>, Misfit> {
        let projection = |mut id: NodeId| {
            while matches!(graph.node(id).op, Op::Rotary { .. } | Op::HeadNorm { .. }) {
                id = graph.node(id).inputs[0];
            }
            id
        };
        let [query, key, value] = [0, 1, 2].map(|operand| projection(attention.inputs[operand]));
        let fits = |id: NodeId| {
            let node = graph.node(id);
            let is_float = |id: &NodeId| graph.constant_of(*id).is_some_and(|tensor| tensor.as_f32().is_ok());
            if !matches!(node.op, Op::Linear { activation: None, residual: false, .. }) {
                Err("key or value is no plain projection")
            } else if !columns_suffice[id.index()] {
                Err("key or value is read by more than attention")
            } else if !node.inputs[1..].iter().all(is_float) {
                Err("the weight of key or value is not an f32 constant")
            } else {
                Ok(node.inputs[0])
            }
        };
        let source = fits(key)?;
        if fits(value)? != source || key == value {
            return Err("key and value are not two projections of one value");
        }
        let with_query = fits(query) == Ok(source) && query != key && query != value;
        let projections = if with_query { vec![query, key, value] } else { vec![key, value] };
        let nodes: Vec<&Node> = projections.iter().map(|&id| graph.node(id)).collect();
        let biased = nodes.iter().any(|node| node.inputs.len() > 2);
        let misfit = "the joined weight is too large";
        let weight = joined.operand(graph, &nodes, 1).ok_or(misfit)?;
        let bias = if biased { Some(joined.operand(graph, &nodes, 2).ok_or(misfit)?) } else { None };
        Ok(Merge { attention, projections, weight, bias })
    }

    /// Emits the merged projection, and slices of it in place of the projections.
    fn emit(self, state: &mut Rewrite) -> Result<(), GraphError> {
        let name = format!("{}.{}", self.attention.name, if self.projections.len() == 3 { "qkv" } else { "kv" });
        let source = state.old.node(self.projections[0]).inputs[0];
        let mut inputs = vec![state.image(source), state.new.constant(format!("{name}.weight"), self.weight)?];
        let op = Op::Linear { bias: self.bias.is_some(), activation: None, residual: false };
        if let Some(bias) = self.bias {
            inputs.push(state.new.constant(format!("{name}.bias"), bias)?);
        }
        let merged = state.new.push(name, op, &inputs)?;
        let mut start = 0;
        for id in self.projections {
            let projection = state.old.node(id);
            let end = start + width(projection);
            let slice = Op::Slice { axis: projection.fact.shape.len() - 1, start, end };
            let slice = state.new.push(projection.name.clone(), slice, &[merged])?;
            state.replace(id, slice);
            start = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use centuple_graph::{Attention, PositionScores};
    use centuple_tensor::{DType, Symbol};

    use super::*;

    const PLAIN: Op = Op::Linear { bias: false, activation: None, residual: false };

    fn attention() -> Op {
        let (window, position) = (None, PositionScores::None);
        Op::Attention(Attention {
            heads: 2,
            kv_heads: 2,
            head_dim: 2,
            scale: 1.0,
            soft_cap: None,
            causal: false,
            window,
            position,
            cache: None,
        })
    }

    fn weight(value: f32) -> Tensor {
        Tensor::from_f32(&[4, 4], &[value; 16]).unwrap()
    }

    fn linears(graph: &Graph) -> Vec<&Node> {
        graph.nodes().iter().filter(|node| matches!(node.op, Op::Linear { .. })).collect()
    }

    /// Two layers with the same weights, of which the first rotates queries and keys.
    #[test]
    fn layers_that_share_weights_share_the_joined_one() {
        let mut graph = Graph::new();
        let mut x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), 4.into()]).unwrap();
        let positions = graph.push("positions", Op::Positions { offset: 0, padding: None }, &[]).unwrap();
        let angles = graph.constant("angles", Tensor::from_f32(&[9, 2], &[0.5; 18]).unwrap()).unwrap();
        let weights = [1.0, 2.0, 3.0].map(weight);
        let bias = Tensor::from_f32(&[4], &[7.0; 4]).unwrap();
        for layer in 0..2 {
            let mut projections = [0, 1, 2].map(|index| {
                let mut inputs = vec![x, graph.constant("w", weights[index].clone()).unwrap()];
                if index == 2 {
                    inputs.push(graph.constant("b", bias.clone()).unwrap());
                }
                let op = Op::Linear { bias: index == 2, activation: None, residual: false };
                graph.push(format!("{index}"), op, &inputs).unwrap()
            });
            if layer == 0 {
                for projection in &mut projections[..2] {
                    let op = Op::Rotary { heads: 2, head_dim: 2, interleaved: false };
                    *projection = graph.push("rotary", op, &[*projection, positions, angles]).unwrap();
                }
            }
            x = graph.push(format!("attention {layer}"), attention(), &projections).unwrap();
        }
        graph.output("out", x);
        let outcome = run(&graph).unwrap();
        outcome.graph.verify().unwrap();
        let merged: Vec<&Node> =
            linears(&outcome.graph).into_iter().filter(|node| node.name.ends_with(".qkv")).collect();
        assert_eq!((outcome.applied, merged.len(), outcome.refused.len()), (2, 2, 0), "{}", outcome.graph);
        for operand in [1, 2] {
            let [a, b] = [0, 1].map(|layer| outcome.graph.constant_of(merged[layer].inputs[operand]).unwrap());
            assert_eq!(a.identity(), b.identity());
        }
        let bias = outcome.graph.constant_of(merged[0].inputs[2]).unwrap();
        assert_eq!(bias.as_f32().unwrap(), [[0.0; 8].as_slice(), &[7.0; 4]].concat());
    }

    #[test]
    fn keys_and_values_of_another_value_are_merged() {
        let mut graph = Graph::new();
        let shape = vec![Symbol::Tokens.into(), 4.into()];
        let [x, y] = ["x", "y"].map(|name| graph.input(name, DType::F32, shape.clone()).unwrap());
        let w = graph.constant("w", weight(1.0)).unwrap();
        let [k, q, v] = [y, x, y].map(|source| graph.push("projection", PLAIN, &[source, w]).unwrap());
        let out = graph.push("cross", attention(), &[q, k, v]).unwrap();
        graph.output("out", out);
        let outcome = run(&graph).unwrap();
        outcome.graph.verify().unwrap();
        assert_eq!(outcome.applied, 1);
        assert!(linears(&outcome.graph).iter().any(|node| node.name == "cross.kv"), "{}", outcome.graph);
    }

    #[test]
    fn projections_with_other_readers_stay_apart() {
        let mut graph = Graph::new();
        let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), 4.into()]).unwrap();
        let w = graph.constant("w", weight(1.0)).unwrap();
        let [q, k, v] = [0, 1, 2].map(|_| graph.push("projection", PLAIN, &[x, w]).unwrap());
        let out = graph.push("attention", attention(), &[q, k, v]).unwrap();
        graph.output("out", out);
        graph.output("keys", k);
        let outcome = run(&graph).unwrap();
        assert_eq!((outcome.applied, outcome.refused.len()), (0, 1), "{}", outcome.graph);
    }
}
