//! Wide linear layers whose results are only pooled: the largest of each column is kept, nothing is written out per token.

use std::ops::Range;

use centuple_kernels::{self as kernels, KernelError, MatrixMut, PANEL, row_stride};

use crate::compute::{Block, Run};
use crate::plan::{Kernel, Packed, PackedCodes, PackedNibbles, View};

/// Tokens whose results are held at once.
const TOKENS: usize = 48;
/// Panels of columns that are computed for all tokens before the next ones: their weights stay in the second-level cache.
const PANELS: usize = 16;

/// Columns of a linear layer's result.
pub(crate) fn columns(linear: &Kernel) -> usize {
    if let Kernel::Linear { weight: Packed { n, .. }, .. }
    | Kernel::QuantizedLinear { weight: PackedCodes { n, .. }, .. }
    | Kernel::GroupQuantizedLinear { weight: PackedNibbles { n, .. }, .. } = linear
    {
        *n
    } else {
        0
    }
}

/// Floats of scratch that a worker needs.
pub(crate) fn scratch_length(linear: &Kernel) -> usize {
    TOKENS * row_stride(columns(linear))
}

impl Run<'_> {
    /// The largest results of each of the block's sequences, for the columns in `panels`.
    pub(crate) fn pooled_linear(
        &self,
        linear: &Kernel,
        out: View,
        panels: Range<usize>,
        block: &Block,
    ) -> Result<(), KernelError> {
        let (n, end) = (columns(linear), panels.end);
        let spans = self.layout.spans().get(block.rows.clone()).unwrap_or_default();
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return Ok(()) };
        let tokens = first.start..last.start + last.tokens;
        let scratch = self.scratch.write_slice(block.worker * self.scratch_length, self.scratch_length)?;
        for first in panels.step_by(PANELS) {
            let panels = first..end.min(first + PANELS);
            let columns = PANEL * panels.start..n.min(PANEL * panels.end);
            let part = View { start: out.start + columns.start, columns: columns.len(), ..out };
            let mut largest = self.write(part, block.rows.clone(), block)?;
            for row in 0..spans.len() {
                largest.row_mut(row).unwrap_or_default().fill(0.0);
            }
            for start in tokens.clone().step_by(TOKENS) {
                let rows = start..tokens.end.min(start + TOKENS);
                let mut results = MatrixMut::new(scratch, rows.len(), n, row_stride(n))?;
                self.product(linear, rows.clone(), panels.clone(), block, &mut results)?;
                let results = results.as_matrix().slice_columns(columns.clone())?;
                let before = spans.partition_point(|span| span.start + span.tokens <= rows.start);
                for (row, span) in spans.iter().enumerate().skip(before) {
                    let pooled = span.start + span.pool_from.min(span.tokens);
                    let from = pooled.max(rows.start);
                    let to = rows.end.min(span.start + span.tokens);
                    if span.start >= rows.end {
                        break;
                    }
                    if from < to {
                        let of_span = results.slice_rows(from - rows.start..to - rows.start)?;
                        kernels::maximum(of_span, from == pooled, largest.row_mut(row).unwrap_or_default());
                    }
                }
            }
        }
        Ok(())
    }
}
