//! Quantised rows, kept in f32 words so that they can live in any f32 buffer.
//!
//! A row is `2·⌈k/8⌉` words of codes (one byte each, zeros after the last), one word with the scale (f32)
//! and one with the zero point (i32). Element i of the row stands for `(code[i] - zero point) · scale`.

use std::ops::Range;

use super::{ActivationBits, GROUP};
use crate::error::{KernelError, expect_dimension};
use crate::matrix::{Matrix, MatrixMut};

/// Words of a quantised row of `k` elements.
#[must_use]
pub fn quantized_columns(k: usize) -> usize {
    code_words(k) + 2
}

/// Words of codes in a row of `k` elements.
pub(crate) fn code_words(k: usize) -> usize {
    k.div_ceil(GROUP) * (GROUP / 4)
}

/// Rows of `k` quantised elements.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedRows<'a> {
    words: Matrix<'a>,
    k: usize,
    bits: ActivationBits,
}

/// Rows of `k` elements to be quantised.
#[derive(Debug)]
pub struct QuantizedRowsMut<'a> {
    words: MatrixMut<'a>,
    k: usize,
    bits: ActivationBits,
}

impl<'a> QuantizedRows<'a> {
    /// A view of `words`, whose columns must be [`quantized_columns`]`(k)`.
    pub fn new(words: Matrix<'a>, k: usize, bits: ActivationBits) -> Result<Self, KernelError> {
        expect_dimension("quantized rows", "words of a row", words.columns(), quantized_columns(k))?;
        Ok(Self { words, k, bits })
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.words.rows()
    }

    /// Elements in a row.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bits of a code.
    #[must_use]
    pub fn bits(&self) -> ActivationBits {
        self.bits
    }

    /// The view of some rows. Errors if the range is not in `0..rows`.
    pub fn slice_rows(self, range: Range<usize>) -> Result<Self, KernelError> {
        Ok(Self { words: self.words.slice_rows(range)?, ..self })
    }

    /// Codes of a row, or `None` past the last row.
    #[must_use]
    pub fn codes(&self, row: usize) -> Option<&'a [u8]> {
        bytemuck::cast_slice(self.words.row(row)?).get(..self.k)
    }

    /// Scale of a row, or `None` past the last row.
    #[must_use]
    pub fn scale(&self, row: usize) -> Option<f32> {
        self.words.row(row)?.get(code_words(self.k)).copied()
    }

    /// Zero point of a row, or `None` past the last row.
    #[must_use]
    pub fn zero_point(&self, row: usize) -> Option<i32> {
        self.words.row(row)?.get(code_words(self.k) + 1).map(|word| word.to_bits().cast_signed())
    }

    /// The words.
    pub(crate) fn words(&self) -> Matrix<'a> {
        self.words
    }
}

impl<'a> QuantizedRowsMut<'a> {
    /// A view of `words`, whose columns must be [`quantized_columns`]`(k)`. Codes will have `bits`.
    pub fn new(words: MatrixMut<'a>, k: usize, bits: ActivationBits) -> Result<Self, KernelError> {
        expect_dimension("quantized rows", "words of a row", words.columns(), quantized_columns(k))?;
        Ok(Self { words, k, bits })
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.words.rows()
    }

    /// Elements in a row.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bits of a code.
    #[must_use]
    pub fn bits(&self) -> ActivationBits {
        self.bits
    }

    /// The view of some rows. Errors if the range is not in `0..rows`.
    pub fn slice_rows(self, range: Range<usize>) -> Result<Self, KernelError> {
        Ok(Self { words: self.words.slice_rows(range)?, ..self })
    }

    /// A read-only view of the same rows.
    #[must_use]
    pub fn as_rows(&self) -> QuantizedRows<'_> {
        QuantizedRows { words: self.words.as_matrix(), k: self.k, bits: self.bits }
    }

    /// A shorter-lived view of the same rows.
    #[must_use]
    pub fn reborrow(&mut self) -> QuantizedRowsMut<'_> {
        QuantizedRowsMut { words: self.words.reborrow(), k: self.k, bits: self.bits }
    }

    /// Address of the first word of a row; to be accessed only if the row exists.
    #[inline(always)]
    pub(crate) fn row_pointer(&self, row: usize) -> *mut f32 {
        self.words.row_pointer(row)
    }
}
