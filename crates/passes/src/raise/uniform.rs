//! Values whose elements are all one number, whatever the batch.
//!
//! What a graph means is what it yields for one sequence alone, without padding: plans with padded values run that way, and what
//! is unpadded doesn't know padding. So `Pad` of ones is one everywhere, and the masks that files make of it vanish.

use centuple_graph::{Graph, Node, Op, Reduction};
use centuple_reference::fold;
use centuple_tensor::Tensor;

/// Constants beyond this many elements are weights.
const MAX_ELEMENTS: usize = 1 << 20;

/// By node: the number, if there is one.
pub(crate) fn uniform(graph: &Graph) -> Vec<Option<f32>> {
    let mut numbers: Vec<Option<f32>> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let operands: Vec<Option<f32>> = node.inputs.iter().map(|input| numbers[input.index()]).collect();
        numbers.push(number(graph, node, &operands));
    }
    numbers
}

fn number(graph: &Graph, node: &Node, operands: &[Option<f32>]) -> Option<f32> {
    let first = operands.first().copied().flatten();
    match &node.op {
        Op::Constant(tensor) if tensor.len() > MAX_ELEMENTS => None,
        Op::Constant(tensor) => {
            let (first, rest) = tensor.as_f32().ok()?.split_first()?;
            rest.iter().all(|element| element == first).then_some(*first)
        }
        Op::Pad
        | Op::Pack
        | Op::Select
        | Op::Expand { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::Reduce { reduction: Reduction::Mean | Reduction::Max, axes: _ } => first,
        Op::Reduce { reduction: Reduction::Sum, axes } => {
            let shape = &graph.node(node.inputs[0]).fact.shape;
            let mut counts = axes.iter().map(|&axis| shape.get(axis)?.constant());
            let count = counts.try_fold(1.0, |count, size| Some(count * size? as f32))?;
            Some(first? * count)
        }
        Op::Concat { axis: _ } => operands.iter().all(|number| *number == first).then_some(first?),
        Op::Where => match operands {
            [Some(condition), a, b] => *if *condition == 0.0 { b } else { a },
            [None, a, b] if a == b => *a,
            _ => None,
        },
        Op::Unary(_) | Op::Binary(_) | Op::Activation(_) => {
            let scalar = |number: &Option<f32>| Tensor::from_f32(&[], &[(*number)?]).ok();
            let scalars: Vec<Tensor> = operands.iter().map(scalar).collect::<Option<_>>()?;
            fold(&node.op, &scalars.iter().collect::<Vec<_>>())?.as_f32().ok()?.first().copied()
        }
        Op::Input { .. }
        | Op::Positions { .. }
        | Op::ShiftRight { .. }
        | Op::Embedding
        | Op::Linear { .. }
        | Op::QuantizedLinear { .. }
        | Op::GroupQuantizedLinear { .. }
        | Op::GroupedLinear { .. }
        | Op::Dequantize
        | Op::LayerNorm { .. }
        | Op::RmsNorm { .. }
        | Op::HeadNorm { .. }
        | Op::Gate { .. }
        | Op::Attention(_)
        | Op::CrossAttention(_)
        | Op::Rotary { .. }
        | Op::Pool(_)
        | Op::L2Normalize { .. }
        | Op::MatMul
        | Op::Softmax
        | Op::ToFloat
        | Op::CumSum { .. }
        | Op::Iota { .. } => None,
    }
}
