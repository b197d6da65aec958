//! From a plan's views to memory.

use std::ops::Range;

use centuple_kernels::{KernelError, Matrix, MatrixMut, PackedHalf, PackedMatrix, packed_half_len, packed_len};

use crate::compute::{Block, Run};
use crate::plan::{Packed, Place, View};
use crate::shared::Region;

type Result<T> = std::result::Result<T, KernelError>;

impl<'a> Run<'a> {
    /// Weights from `offset` on.
    pub(crate) fn weight(&self, offset: usize, length: usize) -> Result<&'a [f32]> {
        self.weights.get(offset..offset.saturating_add(length)).ok_or(KernelError::TooSmall {
            kernel: "plan",
            what: "weights",
            found: self.weights.len(),
            needed: offset.saturating_add(length),
        })
    }

    /// Integers among the weights.
    pub(crate) fn indices(&self, offset: usize, length: usize) -> Result<&'a [u32]> {
        self.weight(offset, length).map(bytemuck::cast_slice)
    }

    pub(crate) fn packed_half(&self, weight: Packed) -> Result<PackedHalf<'a>> {
        PackedHalf::from_words(self.weight(weight.offset, packed_half_len(weight.n, weight.k))?, weight.n, weight.k)
    }

    pub(crate) fn packed(&self, weight: Packed) -> Result<PackedMatrix<'a>> {
        let data = self.weight(weight.offset, packed_len(weight.n, weight.k))?;
        PackedMatrix::new(data, weight.n, weight.k)
    }

    /// Rows of a view to read, at the block's own rows.
    pub(crate) fn read(&self, view: View, rows: Range<usize>, block: &Block) -> Result<Matrix<'a>> {
        let value = &self.plan.values[view.value];
        let count = rows.len();
        match value.place {
            Place::Weights { offset } => {
                let floats = self.weight(offset + rows.start * view.stride, count * view.stride)?;
                Matrix::new(floats, count, value.columns, view.stride)?
                    .slice_columns(view.start..view.start + view.columns)
            }
            Place::Shared { slot } => self.arena.read(region(view, self.slot_starts[slot], &rows)),
            Place::Local { column, own } => self.locals.read(local_region(view, (column, own), rows, block)),
            Place::Unplaced => Err(KernelError::Empty { kernel: "plan", what: "place of a value" }),
        }
    }

    /// Any rows of a view in the shared arena.
    pub(crate) fn gather(&self, view: View, rows: Range<usize>) -> Result<Matrix<'a>> {
        let block = Block { rows: rows.clone(), worker: 0, local_start: 0, own_start: 0, local_rows: 0 };
        self.read(view, rows, &block)
    }

    /// Rows of a view to write.
    pub(crate) fn write(&self, view: View, rows: Range<usize>, block: &Block) -> Result<MatrixMut<'a>> {
        match self.plan.values[view.value].place {
            Place::Shared { slot } => self.arena.write(region(view, self.slot_starts[slot], &rows)),
            Place::Local { column, own } => self.locals.write(local_region(view, (column, own), rows, block)),
            Place::Weights { .. } | Place::Unplaced => {
                Err(KernelError::Empty { kernel: "plan", what: "writable place of a value" })
            }
        }
    }
}

fn region(view: View, slot: usize, rows: &Range<usize>) -> Region {
    let start = slot + rows.start * view.stride + view.start;
    Region { start, rows: rows.len(), columns: view.columns, stride: view.stride }
}

fn local_region(view: View, (column, own): (usize, bool), rows: Range<usize>, block: &Block) -> Region {
    let first = rows.start.saturating_sub(block.rows.start);
    let memory = if own { block.own_start } else { block.local_start };
    let start = memory + column * block.local_rows + first * view.stride + view.start;
    Region { start, rows: rows.len(), columns: view.columns, stride: view.stride }
}

/// Copies rows of equal length.
pub(crate) fn copy(from: Matrix, to: &mut MatrixMut) {
    for row in 0..from.rows() {
        if let (Some(source), Some(target)) = (from.row(row), to.row_mut(row)) {
            target.copy_from_slice(source);
        }
    }
}
