//! Layers of 8-bit codes read activations of 8 bits instead of 12, for what sums any products of bytes exactly.
//!
//! Not in the pipeline, since it changes the numbers: the caller asks for it. The codes and scales of weights stay.

use centuple_graph::{Graph, Node, Op};

use crate::pipeline::{PassError, apply_alone};
use crate::rewrite::{Report, Rewrite, rewrite};

/// Bits of activations that sums of products with any bytes take on CPUs.
const WIDE: u8 = 12;

/// Gives each quantised layer whose activations have 12 bits activations of 8.
///
/// # Errors
/// The rewritten graph does not verify.
pub fn byte_activations(graph: &Graph) -> Result<(Graph, Report), PassError> {
    let rule = |state: &mut Rewrite, _, node: &Node| {
        let Op::QuantizedLinear { bits: WIDE, range, bias, activation, residual } = node.op else { return Ok(None) };
        let inputs = state.images(&node.inputs);
        let op = Op::QuantizedLinear { bits: 8, range, bias, activation, residual };
        state.new.push(node.name.clone(), op, &inputs).map(Some)
    };
    apply_alone("byte_activations", graph, |graph| rewrite(graph, rule))
}

#[cfg(test)]
mod tests {
    use centuple_tensor::{DType, Symbol, Tensor};

    use super::*;

    #[test]
    fn only_wide_activations_become_bytes() -> Result<(), Box<dyn std::error::Error>> {
        let mut graph = Graph::new();
        let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), 2.into()])?;
        let codes = graph.constant("codes", Tensor::from_i8_with(&[3, 2], |codes| codes.fill(-128))?)?;
        let scales = graph.constant("scales", Tensor::from_f32(&[3], &[0.5; 3])?)?;
        let factor = graph.constant("factor", Tensor::from_f32(&[2], &[1.0; 2])?)?;
        for bits in [7, 8, 12] {
            let op =
                Op::QuantizedLinear { bits, range: Some([-1.0, 2.0]), bias: false, activation: None, residual: false };
            let y = graph.push("y", op, &[x, codes, scales, factor])?;
            graph.output(&format!("{bits} bits"), y);
        }
        let (narrowed, report) = byte_activations(&graph)?;
        let bits: Vec<u8> = narrowed
            .nodes()
            .iter()
            .filter_map(|node| if let Op::QuantizedLinear { bits, .. } = node.op { Some(bits) } else { None })
            .collect();
        assert_eq!((bits, report.applied), (vec![7, 8, 8], 1));
        Ok(())
    }
}
