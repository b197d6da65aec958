//! Quantised rows, kept in f32 words so that they can live in any f32 buffer.
//!
//! A row is `2·⌈k/8⌉` words of codes (one byte each, zeros after the last), one word with the scale (f32)
//! and one with the zero point (i32). Element i of the row stands for `(code[i] - zero point) · scale`.
//! Codes that take two bytes have that many words for the high bytes, and as many after them for the low
//! ones.

use std::ops::Range;

use super::{ActivationBits, GROUP, SPLIT};
use crate::error::{KernelError, expect_dimension};
use crate::matrix::{Matrix, MatrixMut};

/// Words of a quantised row of `k` elements of so many bits.
#[must_use]
pub fn quantized_columns(k: usize, bits: ActivationBits) -> usize {
    row_words(k, bits) + 2
}

/// Words of codes in a row of `k` elements of so many bits.
pub(crate) fn row_words(k: usize, bits: ActivationBits) -> usize {
    bits.bytes() * code_words(k)
}

/// Words of `k` codes of a byte each, padded to whole groups.
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
    /// A view of `words`, whose columns must be [`quantized_columns`]`(k, bits)`.
    pub fn new(words: Matrix<'a>, k: usize, bits: ActivationBits) -> Result<Self, KernelError> {
        expect_dimension("quantized rows", "words of a row", words.columns(), quantized_columns(k, bits))?;
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
    pub fn codes(&self, row: usize) -> Option<Vec<u16>> {
        let words = &self.words.row(row)?[..row_words(self.k, self.bits)];
        let mut codes = vec![0; self.k];
        for bytes in words.chunks_exact(code_words(self.k).max(1)) {
            for (code, byte) in codes.iter_mut().zip(bytemuck::cast_slice::<f32, u8>(bytes)) {
                *code = (*code << SPLIT) + u16::from(*byte);
            }
        }
        Some(codes)
    }

    /// Scale of a row, or `None` past the last row.
    #[must_use]
    pub fn scale(&self, row: usize) -> Option<f32> {
        self.words.row(row)?.get(row_words(self.k, self.bits)).copied()
    }

    /// Zero point of a row, or `None` past the last row.
    #[must_use]
    pub fn zero_point(&self, row: usize) -> Option<i32> {
        self.words.row(row)?.get(row_words(self.k, self.bits) + 1).map(|word| word.to_bits().cast_signed())
    }

    /// The words.
    pub(crate) fn words(&self) -> Matrix<'a> {
        self.words
    }
}

impl<'a> QuantizedRowsMut<'a> {
    /// A view of `words`, whose columns must be [`quantized_columns`]`(k, bits)`. Codes will have `bits`.
    pub fn new(words: MatrixMut<'a>, k: usize, bits: ActivationBits) -> Result<Self, KernelError> {
        expect_dimension("quantized rows", "words of a row", words.columns(), quantized_columns(k, bits))?;
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
