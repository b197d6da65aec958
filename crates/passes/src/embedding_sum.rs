//! `Embedding(…) + Embedding(…)` → one `Embedding` that sums its tables in the same order.

use centuple_graph::{Graph, GraphError, NodeId, Op};

use crate::rewrite::{Outcome, Rewrite, rewrite, sum_of};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    rewrite(graph, |state, _, node| {
        let Some([a, b]) = sum_of(node) else { return Ok(None) };
        let (Some(first), Some(second)) = (embedding(state, a), embedding(state, b)) else { return Ok(None) };
        if state.old.node(a).fact != state.old.node(b).fact {
            state.refuse(node, "the rows of one table are broadcast");
            return Ok(None);
        }
        // The second sum would be taken before it is added to the first.
        if second.len() > 2 {
            state.refuse(node, "the right operand is itself a sum of embeddings");
            return Ok(None);
        }
        let inputs = [first, second].concat();
        state.new.push(node.name.clone(), Op::Embedding, &inputs).map(Some)
    })
}

/// The operands in the new graph of an embedding that only this sum reads.
fn embedding(state: &Rewrite, old: NodeId) -> Option<Vec<NodeId>> {
    let new = state.new.node(state.image(old));
    (state.has_one_use(old) && new.op == Op::Embedding).then(|| new.inputs.clone())
}

#[cfg(test)]
mod tests {
    use centuple_graph::Binary;
    use centuple_tensor::{DType, Symbol, Tensor};

    use super::*;

    #[test]
    fn tables_of_different_widths_stay_apart() -> Result<(), Box<dyn std::error::Error>> {
        for (width, applied) in [(4, 1), (1, 0)] {
            let mut graph = Graph::new();
            let ids = graph.input("ids", DType::I64, vec![Symbol::Tokens.into()])?;
            let mut looked_up = Vec::new();
            for width in [4, width] {
                let table = graph.constant("table", Tensor::from_f32(&[3, width], &vec![0.5; 3 * width])?)?;
                looked_up.push(graph.push("rows", Op::Embedding, &[table, ids])?);
            }
            let sum = graph.push("sum", Op::Binary(Binary::Add), &looked_up)?;
            graph.output("out", sum);
            let outcome = run(&graph)?;
            outcome.graph.verify()?;
            assert_eq!((outcome.applied, outcome.refused.len()), (applied, 1 - applied), "{}", outcome.graph);
        }
        Ok(())
    }
}
