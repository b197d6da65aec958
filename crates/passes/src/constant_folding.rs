//! Ops whose operands are all constants become constants.

use std::collections::HashMap;

use centuple_graph::{Graph, GraphError, Op};
use centuple_reference::fold;

use crate::rewrite::{Outcome, rewrite};
use crate::work::work;

/// Results above this many elements stay computed, so that folding cannot blow up the weights.
const MAX_ELEMENTS: usize = 1 << 26;
/// Most multiplications for each element of the given constants: projections of as many relative positions are folded.
const MAX_WORK: usize = 2048;
/// Most elements of all results, for each element of the given constants.
const MAX_GROWTH: usize = 4;
/// What is allowed besides.
const ANYWAY: usize = 1 << 26;

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let given = elements(graph);
    let mut work_left = given.saturating_mul(MAX_WORK).saturating_add(ANYWAY * 8);
    let mut elements_left = given.saturating_mul(MAX_GROWTH).saturating_add(ANYWAY);
    rewrite(graph, |state, _, node| {
        if node.inputs.is_empty() || matches!(node.op, Op::Constant(_)) {
            return Ok(None);
        }
        let operands: Vec<_> = node.inputs.iter().map(|&input| state.image(input)).collect();
        let constants: Option<Vec<_>> = operands.iter().map(|&id| state.new.constant_of(id)).collect();
        let size = node.fact.shape.iter().try_fold(1usize, |size, dim| size.checked_mul(dim.constant()?));
        let (Some(constants), Some(size @ 0..=MAX_ELEMENTS)) = (constants, size) else { return Ok(None) };
        let work = work(&node.op, &constants, size);
        if work > work_left || size > elements_left {
            state.refuse(node, "folding takes more than weights of this size ask for");
            return Ok(None);
        }
        match fold(&node.op, &constants) {
            Some(tensor) => {
                work_left -= work;
                elements_left -= size;
                state.new.constant(node.name.clone(), tensor).map(Some)
            }
            None => Ok(None),
        }
    })
}

/// Elements of the constants, those that share their bytes counted once.
fn elements(graph: &Graph) -> usize {
    let constants = graph.iter().filter_map(|(id, _)| graph.constant_of(id));
    let sizes: HashMap<_, usize> = constants.map(|tensor| (tensor.identity(), tensor.len())).collect();
    sizes.into_values().fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use centuple_tensor::Tensor;

    use super::*;

    type Error = Box<dyn std::error::Error>;

    /// Products of squares of `size` that are ones, each with the one before.
    fn products(size: usize, count: usize) -> Result<Graph, Error> {
        let mut graph = Graph::new();
        let one = graph.constant("one", Tensor::from_f32(&[1, 1], &[1.0])?)?;
        let ones = graph.push("ones", Op::Expand { shape: vec![size.into(), size.into()] }, &[one])?;
        let mut product = ones;
        for index in 0..count {
            product = graph.push(format!("product.{index}"), Op::MatMul, &[product, ones])?;
        }
        graph.output("product", product);
        Ok(graph)
    }

    #[test]
    fn small_products_are_folded() -> Result<(), Error> {
        let outcome = run(&products(4, 3)?)?;
        assert_eq!((outcome.applied, outcome.refused.len()), (4, 0));
        let (_, id) = &outcome.graph.outputs()[0];
        assert!(outcome.graph.constant_of(*id).is_some_and(|tensor| tensor.as_f32().is_ok_and(|data| data[0] == 64.0)));
        Ok(())
    }

    #[test]
    fn products_without_weights_behind_them_stay() -> Result<(), Error> {
        let outcome = run(&products(4096, 200)?)?;
        assert_eq!((outcome.applied, outcome.refused.len()), (1, 1));
        Ok(())
    }
}
