//! Quantised rows, kept in f32 words so that they can live in any f32 buffer.
//!
//! A row is `2·⌈k/8⌉` words of codes (one byte each, zeros after the last), one word with the scale (f32)
//! and one with the zero point (i32). Element i of the row stands for `(code[i] - zero point) · scale`.
//! Codes that take two bytes have that many words for the high bytes, and as many after them for the low
//! ones.
//!
//! A row that is quantised in groups has as many words of codes (with a sign), then the scale (f32) of each group,
//! then the sum of the codes of each group (i32). Element i stands for `code[i] · scale[i / group]`.

use std::ops::Range;

use super::{ActivationBits, GROUP, SPLIT};
use crate::error::{KernelError, expect_dimension};
use crate::int4::check_group;
use crate::matrix::{Matrix, MatrixMut};

/// How a row is quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowCodes {
    /// As a whole, to codes of so many bits.
    Whole(ActivationBits),
    /// Each group of so many elements on its own, to codes of 8 bits with a sign: what goes with weights of 4 bits.
    Groups(usize),
}

impl From<ActivationBits> for RowCodes {
    fn from(bits: ActivationBits) -> Self {
        Self::Whole(bits)
    }
}

/// Words of a quantised row of `k` elements.
#[must_use]
pub fn quantized_columns(k: usize, codes: impl Into<RowCodes>) -> usize {
    match codes.into() {
        RowCodes::Whole(bits) => row_words(k, bits) + 2,
        RowCodes::Groups(group) => code_words(k) + 2 * k.div_ceil(group.max(1)),
    }
}

/// Errors unless rows of `k` elements have so many words.
fn check_columns(columns: usize, k: usize, codes: RowCodes) -> Result<(), KernelError> {
    const NAME: &str = "quantized rows";
    if let RowCodes::Groups(group) = codes {
        check_group(NAME, group)?;
    }
    expect_dimension(NAME, "words of a row", columns, quantized_columns(k, codes))
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
    form: RowCodes,
}

/// Rows of `k` elements to be quantised.
#[derive(Debug)]
pub struct QuantizedRowsMut<'a> {
    words: MatrixMut<'a>,
    k: usize,
    form: RowCodes,
    range: Option<[f32; 2]>,
}

impl<'a> QuantizedRows<'a> {
    /// A view of `words`, whose columns must be [`quantized_columns`]`(k, form)`. A group is a multiple of 8.
    pub fn new(words: Matrix<'a>, k: usize, form: impl Into<RowCodes>) -> Result<Self, KernelError> {
        let form = form.into();
        check_columns(words.columns(), k, form)?;
        Ok(Self { words, k, form })
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

    /// How the rows are quantised.
    #[must_use]
    pub fn form(&self) -> RowCodes {
        self.form
    }

    /// The view of some rows. Errors if the range is not in `0..rows`.
    pub fn slice_rows(self, range: Range<usize>) -> Result<Self, KernelError> {
        Ok(Self { words: self.words.slice_rows(range)?, ..self })
    }

    /// Codes of a row, or `None` past the last row.
    #[must_use]
    pub fn codes(&self, row: usize) -> Option<Vec<i16>> {
        let words = self.words.row(row)?;
        let bits = match self.form {
            RowCodes::Whole(bits) => bits,
            RowCodes::Groups(_) => {
                let codes: &[i8] = bytemuck::cast_slice(&words[..code_words(self.k)]);
                return Some(codes[..self.k].iter().map(|code| i16::from(*code)).collect());
            }
        };
        let mut codes = vec![0; self.k];
        for bytes in words[..row_words(self.k, bits)].chunks_exact(code_words(self.k).max(1)) {
            for (code, byte) in codes.iter_mut().zip(bytemuck::cast_slice::<f32, u8>(bytes)) {
                *code = (*code << SPLIT) + i16::from(*byte);
            }
        }
        Some(codes)
    }

    /// Words of codes in a row.
    fn code_words(&self) -> usize {
        match self.form {
            RowCodes::Whole(bits) => row_words(self.k, bits),
            RowCodes::Groups(_) => code_words(self.k),
        }
    }

    /// Scale of a row, or of its first group; `None` past the last row.
    #[must_use]
    pub fn scale(&self, row: usize) -> Option<f32> {
        self.words.row(row)?.get(self.code_words()).copied()
    }

    /// Scales of the groups of a row, one if it is quantised as a whole; `None` past the last row.
    #[must_use]
    pub fn scales(&self, row: usize) -> Option<&'a [f32]> {
        let groups = match self.form {
            RowCodes::Whole(_) => 1,
            RowCodes::Groups(group) => self.k.div_ceil(group),
        };
        self.words.row(row)?.get(self.code_words()..)?.get(..groups)
    }

    /// Zero point of a row, or `None` past the last row; 0 where codes have a sign.
    #[must_use]
    pub fn zero_point(&self, row: usize) -> Option<i32> {
        let words = self.words.row(row)?;
        match self.form {
            RowCodes::Whole(_) => words.get(self.code_words() + 1).map(|word| word.to_bits().cast_signed()),
            RowCodes::Groups(_) => Some(0),
        }
    }

    /// The words.
    pub(crate) fn words(&self) -> Matrix<'a> {
        self.words
    }
}

impl<'a> QuantizedRowsMut<'a> {
    /// A view of `words`, whose columns must be [`quantized_columns`]`(k, form)`, for rows to be quantised in that
    /// form. A group is a multiple of 8.
    pub fn new(words: MatrixMut<'a>, k: usize, form: impl Into<RowCodes>) -> Result<Self, KernelError> {
        let form = form.into();
        check_columns(words.columns(), k, form)?;
        Ok(Self { words, k, form, range: None })
    }

    /// The same rows, of which those that are quantised as a whole have this range `[low, high]` where there is one, and not each
    /// its own: it includes 0, has a size, and is finite.
    #[must_use]
    pub fn within(self, range: Option<[f32; 2]>) -> Self {
        Self { range, ..self }
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

    /// How the rows are quantised.
    #[must_use]
    pub fn form(&self) -> RowCodes {
        self.form
    }

    /// The range of all rows, where they don't have each its own.
    pub(crate) fn range(&self) -> Option<[f32; 2]> {
        self.range
    }

    /// The view of some rows. Errors if the range is not in `0..rows`.
    pub fn slice_rows(self, range: Range<usize>) -> Result<Self, KernelError> {
        Ok(Self { words: self.words.slice_rows(range)?, ..self })
    }

    /// A read-only view of the same rows.
    #[must_use]
    pub fn as_rows(&self) -> QuantizedRows<'_> {
        QuantizedRows { words: self.words.as_matrix(), k: self.k, form: self.form }
    }

    /// A shorter-lived view of the same rows.
    #[must_use]
    pub fn reborrow(&mut self) -> QuantizedRowsMut<'_> {
        QuantizedRowsMut { words: self.words.reborrow(), k: self.k, form: self.form, range: self.range }
    }

    /// Address of the first word of a row; to be accessed only if the row exists.
    #[inline(always)]
    pub(crate) fn row_pointer(&self, row: usize) -> *mut f32 {
        self.words.row_pointer(row)
    }
}
