//! How much computing an op takes: what is computed ahead of time is bounded by it.

use centuple_graph::Op;
use centuple_tensor::Tensor;

/// Elements that an op reads and multiplications that it does for a result of `elements` elements, at least one for each.
pub(crate) fn work(op: &Op, operands: &[&Tensor], elements: usize) -> usize {
    let first = operands.first().map_or(&[][..], |tensor| tensor.shape());
    let is_product =
        matches!(op, Op::MatMul | Op::Linear { .. } | Op::QuantizedLinear { .. } | Op::GroupedLinear { .. });
    let depth = if is_product {
        first.last()
    } else if matches!(op, Op::Attention(_)) {
        first.first()
    } else {
        None
    };
    let read = operands.iter().map(|tensor| tensor.len()).fold(0, usize::saturating_add);
    elements.saturating_mul(depth.copied().unwrap_or(1).max(1)).saturating_add(read)
}
