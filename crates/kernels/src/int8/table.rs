//! Embedding tables of bytes, in f32 words: each row is its codes, four in a word, and its scale.

use crate::error::{KernelError, expect_dimension};
use crate::matrix::Matrix;

/// Words of a table's row of `columns` elements.
#[must_use]
pub fn int8_table_columns(columns: usize) -> usize {
    columns.div_ceil(4) + 1
}

/// Lays out codes, `[rows, columns]`, and a scale per row in `words`, whose length must be
/// rows × [`int8_table_columns`].
pub fn pack_table(codes: &[i8], scales: &[f32], columns: usize, words: &mut [f32]) -> Result<(), KernelError> {
    const NAME: &str = "pack_table";
    let width = int8_table_columns(columns);
    expect_dimension(NAME, "number of codes", codes.len(), scales.len().saturating_mul(columns))?;
    expect_dimension(NAME, "length of the packed table", words.len(), scales.len().saturating_mul(width))?;
    for (row, (out, scale)) in words.chunks_exact_mut(width).zip(scales).enumerate() {
        out.fill(0.0);
        let bytes: &mut [i8] = bytemuck::cast_slice_mut(&mut out[..width - 1]);
        bytes[..columns].copy_from_slice(&codes[row * columns..(row + 1) * columns]);
        out[width - 1] = *scale;
    }
    Ok(())
}

/// The codes `[rows, columns]` and scales `[rows]` that [`pack_table`] has laid out.
#[must_use]
pub fn unpack_table(words: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    let rows = words.chunks_exact(int8_table_columns(columns));
    let scales = rows.clone().filter_map(|row| row.last().copied()).collect();
    let codes = rows.flat_map(|row| bytemuck::cast_slice::<f32, i8>(row)[..columns].iter().copied());
    (codes.collect(), scales)
}

/// A table that [`pack_table`] laid out.
#[derive(Debug, Clone, Copy)]
pub struct Int8Table<'a> {
    words: Matrix<'a>,
    columns: usize,
}

impl<'a> Int8Table<'a> {
    /// A view of `words` as `rows` rows of `columns` elements. Errors if there are too few words.
    pub fn new(words: &'a [f32], rows: usize, columns: usize) -> Result<Self, KernelError> {
        Ok(Self { words: Matrix::contiguous(words, rows, int8_table_columns(columns))?, columns })
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.words.rows()
    }

    /// Elements in a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Codes and scale of a row, or `None` past the end: element i is `code[i] · scale`.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<(&'a [i8], f32)> {
        let (scale, words) = self.words.row(index)?.split_last()?;
        Some((bytemuck::cast_slice(words).get(..self.columns)?, *scale))
    }
}
