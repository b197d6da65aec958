//! Embedding look-up.

use crate::error::{KernelError, expect_dimension};
use crate::int8::Int8Table;
use crate::matrix::{Matrix, MatrixMut};

/// A table and the row to take from it for each token.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingTable<'a> {
    /// `[vocabulary, hidden]`
    pub table: Table<'a>,
    /// One id per token.
    pub ids: &'a [u32],
}

/// A table of f32 or of bytes.
#[derive(Debug, Clone, Copy)]
pub enum Table<'a> {
    /// As it is.
    Float(Matrix<'a>),
    /// Quantised row by row.
    Int8(Int8Table<'a>),
}

impl<'a> From<Matrix<'a>> for Table<'a> {
    fn from(table: Matrix<'a>) -> Self {
        Self::Float(table)
    }
}

impl<'a> From<Int8Table<'a>> for Table<'a> {
    fn from(table: Int8Table<'a>) -> Self {
        Self::Int8(table)
    }
}

impl Table<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::Float(table) => table.rows(),
            Self::Int8(table) => table.rows(),
        }
    }

    fn columns(&self) -> usize {
        match self {
            Self::Float(table) => table.columns(),
            Self::Int8(table) => table.columns(),
        }
    }

    /// Adds row `index` to `sum`, or puts it there if it is the `first`; `None` past the end.
    fn add_row(&self, index: usize, first: bool, sum: &mut [f32]) -> Option<()> {
        match self {
            Self::Float(table) => add(table.row(index)?.iter().copied(), first, sum),
            Self::Int8(table) => {
                let (codes, scale) = table.row(index)?;
                add(codes.iter().map(|code| f32::from(*code) * scale), first, sum);
            }
        }
        Some(())
    }
}

fn add(row: impl Iterator<Item = f32>, first: bool, sum: &mut [f32]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum = if first { value } else { *sum + value };
    }
}

/// Row `t` of `out`, `[tokens, hidden]`, becomes the sum over all tables of the rows that their `t`-th
/// ids name (words + positions + token types), in the order of the tables. An id beyond its table is
/// an error.
pub fn embed(tables: &[EmbeddingTable<'_>], out: &mut MatrixMut<'_>) -> Result<(), KernelError> {
    const NAME: &str = "embed";
    if tables.is_empty() {
        return Err(KernelError::Empty { kernel: NAME, what: "list of tables" });
    }
    for entry in tables {
        expect_dimension(NAME, "number of ids", entry.ids.len(), out.rows())?;
        expect_dimension(NAME, "columns of table", entry.table.columns(), out.columns())?;
    }
    for token in 0..out.rows() {
        let Some(sum) = out.row_mut(token) else { continue };
        for (number, entry) in tables.iter().enumerate() {
            let id = entry.ids[token];
            entry.table.add_row(id as usize, number == 0, sum).ok_or(KernelError::IndexOutOfRange {
                kernel: NAME,
                what: "id",
                position: token,
                index: i64::from(id),
                limit: entry.table.rows(),
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_summed_and_ids_checked() {
        let words = Matrix::contiguous(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2).unwrap();
        let kinds = Matrix::contiguous(&[10.0, 20.0], 1, 2).unwrap();
        let mut data = [0.0; 4];
        let mut out = MatrixMut::contiguous(&mut data, 2, 2).unwrap();
        let kinds = EmbeddingTable { table: kinds.into(), ids: &[0, 0] };
        embed(&[EmbeddingTable { table: words.into(), ids: &[2, 0] }, kinds], &mut out).unwrap();
        let error = embed(&[EmbeddingTable { table: words.into(), ids: &[0, 3] }, kinds], &mut out).unwrap_err();
        assert!(error.to_string().contains("id 3 at position 1 is not in 0..3"), "{error}");
        assert!(embed(&[], &mut out).is_err());
        embed(&[EmbeddingTable { table: words.into(), ids: &[2, 0] }, kinds], &mut out).unwrap();
        assert_eq!(data, [15.0, 26.0, 11.0, 22.0]);
    }
}
