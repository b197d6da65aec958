//! Rows of codes, times the scale of each row looked up by the same ids → `Embedding` of the numbers.

use centuple_graph::{Binary, Graph, GraphError, Node, NodeId, Op};
use centuple_tensor::{DType, Tensor};

use crate::rewrite::{Outcome, rewrite};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    rewrite(graph, |state, _, node| {
        let (Op::Binary(Binary::Mul), &[a, b]) = (&node.op, node.inputs.as_slice()) else { return Ok(None) };
        let found = [(a, b), (b, a)].into_iter().find_map(|(rows, factors)| scaled(graph, rows, factors));
        let Some((ids, numbers)) = found else { return Ok(None) };
        let table = state.new.constant(format!("{}.table", node.name), numbers)?;
        let ids = state.image(ids);
        state.new.push(node.name.clone(), Op::Embedding, &[table, ids]).map(Some)
    })
}

/// The ids, and the table times its scales, where `factors` are the scales of `rows`.
fn scaled(graph: &Graph, rows: NodeId, factors: NodeId) -> Option<(NodeId, Tensor)> {
    let (Op::Embedding, &[table, ids]) = operands(graph, rows) else { return None };
    let (Op::Reshape { .. }, &[looked_up]) = operands(graph, factors) else { return None };
    let (Op::Gather { axis: 0 }, &[scales, indices]) = operands(graph, looked_up) else { return None };
    let (Op::ToFloat, &[by]) = operands(graph, indices) else { return None };
    let (table, scales) = (graph.constant_of(table)?, graph.constant_of(scales)?);
    let of_rows = |node: &Node| matches!(node.fact.shape.as_slice(), [_, one] if one.constant() == Some(1));
    let fits = by == ids
        && of_rows(graph.node(factors))
        && table.dtype() == DType::F32
        && scales.shape() == &table.shape()[..1];
    if !fits {
        return None;
    }
    let (codes, scales) = (table.as_f32().ok()?, scales.as_f32().ok()?);
    let width = *table.shape().get(1)?;
    let rows = codes.chunks(width.max(1)).zip(scales);
    let numbers: Vec<f32> = rows.flat_map(|(row, scale)| row.iter().map(move |code| code * scale)).collect();
    Some((ids, Tensor::from_f32(table.shape(), &numbers).ok()?))
}

fn operands(graph: &Graph, id: NodeId) -> (&Op, &[NodeId]) {
    let node = graph.node(id);
    (&node.op, &node.inputs)
}

#[cfg(test)]
mod tests {
    use centuple_tensor::Symbol;

    use super::*;

    /// Rows of `[3, 2]` codes by ids, times scales that are looked up by the same ids or by others.
    fn graph(same: bool) -> Result<Graph, Box<dyn std::error::Error>> {
        let mut graph = Graph::new();
        let [ids, others] = ["ids", "others"].map(|name| graph.input(name, DType::I64, vec![Symbol::Tokens.into()]));
        let (ids, others) = (ids?, others?);
        let codes = graph.constant("codes", Tensor::from_f32(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?)?;
        let scales = graph.constant("scales", Tensor::from_f32(&[3], &[0.5, 2.0, 10.0])?)?;
        let rows = graph.push("rows", Op::Embedding, &[codes, ids])?;
        let indices = graph.push("indices", Op::ToFloat, &[if same { ids } else { others }])?;
        let factors = graph.push("factors", Op::Gather { axis: 0 }, &[scales, indices])?;
        let factors = graph.push("column", Op::Reshape { shape: vec![Symbol::Tokens.into(), 1.into()] }, &[factors])?;
        let product = graph.push("product", Op::Binary(Binary::Mul), &[factors, rows])?;
        graph.output("output", product);
        Ok(graph)
    }

    #[test]
    fn scales_are_multiplied_into_their_table() -> Result<(), Box<dyn std::error::Error>> {
        let outcome = run(&graph(true)?)?;
        outcome.graph.verify()?;
        let node = outcome.graph.node(outcome.graph.outputs()[0].1);
        let table = outcome.graph.constant_of(node.inputs[0]).ok_or("no table")?;
        assert_eq!((outcome.applied, &node.op), (1, &Op::Embedding));
        assert_eq!(table.as_f32()?, [0.5, 1.0, 6.0, 8.0, 50.0, 60.0]);
        Ok(())
    }

    #[test]
    fn scales_of_other_ids_stay() -> Result<(), Box<dyn std::error::Error>> {
        assert_eq!(run(&graph(false)?)?.applied, 0);
        Ok(())
    }
}
