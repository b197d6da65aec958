//! Keys and values of earlier tokens, in pages of 16 tokens, as f32 or narrower.
//!
//! A page holds for each head of keys and values: the keys as a panel `[head_dim][16]`, one lane per token; the values
//! `[16][head_dim]`, rows rounded up to 16 columns; and, if they are 8 bits, a scale for each token's key and for each token's
//! value. What is narrower than f32 is rounded when it is stored; every reader widens it to the same f32, exactly for
//! f16, and by one multiplication for 8 bits.
#![allow(unsafe_code)]

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::{KernelError, expect_dimension};
use crate::matrix::MatrixMut;
use crate::simd::{LANES, Simd};
use crate::tile::Element;

/// The numbers that keys and values are kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvPrecision {
    /// As they are computed.
    #[default]
    F32,
    /// Rounded to f16; what is beyond its range becomes its largest number.
    F16,
    /// Whole numbers of 8 bits, with a scale for each token and head.
    Int8,
}

/// What a page of keys and values holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvForm {
    /// The numbers.
    pub precision: KvPrecision,
    /// Heads of keys and values.
    pub heads: usize,
    /// Elements of a key, and of a value.
    pub head_dim: usize,
}

impl KvForm {
    /// Tokens of a page.
    pub const TOKENS: usize = LANES;

    fn element_bytes(self) -> usize {
        match self.precision {
            KvPrecision::F32 => size_of::<f32>(),
            KvPrecision::F16 => size_of::<f16>(),
            KvPrecision::Int8 => size_of::<i8>(),
        }
    }

    /// Elements from a value to the next.
    fn value_stride(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Floats before the values of a head.
    fn key_words(self) -> usize {
        self.head_dim * LANES * self.element_bytes() / size_of::<f32>()
    }

    /// Floats before the scales of a head.
    fn scale_start(self) -> usize {
        self.key_words() + self.value_stride() * LANES * self.element_bytes() / size_of::<f32>()
    }

    /// Floats that a head takes in a page.
    #[must_use]
    pub fn head_words(self) -> usize {
        let scales = if self.precision == KvPrecision::Int8 { 2 * LANES } else { 0 };
        self.scale_start() + scales
    }

    /// Floats of a page.
    #[must_use]
    pub fn page_words(self) -> usize {
        self.heads.saturating_mul(self.head_words())
    }

    /// A float of each cache line of a head that [`KvForm::store`] writes for a token, but for scales.
    pub fn written(self, token: usize) -> impl Iterator<Item = usize> {
        let (elements, line) = (size_of::<f32>() / self.element_bytes(), LINE / self.element_bytes());
        let keys = (0..self.head_dim).map(move |row| row * LANES + token).step_by((line / LANES).max(1));
        let value = self.head_dim * LANES + token * self.value_stride();
        keys.chain((value..value + self.head_dim).step_by(line)).map(move |element| element / elements)
    }

    /// Writes the key and value of a token, `[heads · head_dim]` each, to its place in a page, `[heads, head_words]`.
    ///
    /// # Errors
    /// There is no such place, or a length is another one.
    pub fn store(self, page: &mut MatrixMut<'_>, token: usize, key: &[f32], value: &[f32]) -> Result<(), KernelError> {
        const NAME: &str = "page of keys and values";
        expect_dimension(NAME, "heads", page.rows(), self.heads)?;
        expect_dimension(NAME, "floats of a head", page.columns(), self.head_words())?;
        expect_dimension(NAME, "elements of a key", key.len(), self.heads * self.head_dim)?;
        expect_dimension(NAME, "elements of a value", value.len(), self.heads * self.head_dim)?;
        if token >= LANES {
            let (position, index) = (0, token as i64);
            return Err(KernelError::IndexOutOfRange { kernel: NAME, what: "token", position, index, limit: LANES });
        }
        if self.head_dim == 0 {
            return Ok(());
        }
        let heads = key.chunks_exact(self.head_dim).zip(value.chunks_exact(self.head_dim));
        for (head, (key, value)) in heads.enumerate() {
            let first = page.row_pointer(head);
            // SAFETY: the head has `head_words` writable floats, and `token` is one of 16.
            unsafe {
                match self.precision {
                    KvPrecision::F32 => {
                        self.write(
                            first.cast::<f32>(),
                            token,
                            key,
                            value,
                            <[f32]>::copy_from_slice,
                            <[f32]>::copy_from_slice,
                        );
                    }
                    KvPrecision::F16 => self.write(first.cast::<f16>(), token, key, value, to_halves, to_halves),
                    KvPrecision::Int8 => {
                        let scales = first.add(self.scale_start() + token);
                        let [of_key, of_value] = [Rounding::new(key), Rounding::new(value)];
                        scales.write(of_key.scale);
                        scales.add(LANES).write(of_value.scale);
                        let codes = |rounding: &Rounding, to: &mut [i8], values: &[f32]| {
                            to.iter_mut().zip(values).for_each(|(to, x)| *to = rounding.code(*x));
                        };
                        let key_codes = |to: &mut [i8], values: &[f32]| codes(&of_key, to, values);
                        let value_codes = |to: &mut [i8], values: &[f32]| codes(&of_value, to, values);
                        self.write(first.cast::<i8>(), token, key, value, key_codes, value_codes);
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes one head's key and value, converted.
    ///
    /// # Safety
    /// The head's elements at `first` are writable, and `token < 16`.
    unsafe fn write<E: Copy + Default>(
        self,
        first: *mut E,
        token: usize,
        key: &[f32],
        value: &[f32],
        key_codes: impl Fn(&mut [E], &[f32]),
        value_codes: impl Fn(&mut [E], &[f32]),
    ) {
        let mut codes = [E::default(); CONVERTED];
        // SAFETY: keys take `head_dim` rows of 16 elements, values 16 rows of `value_stride` behind them.
        unsafe {
            for (start, key) in (0..).step_by(CONVERTED).zip(key.chunks(CONVERTED)) {
                key_codes(&mut codes[..key.len()], key);
                for (row, code) in codes[..key.len()].iter().enumerate() {
                    first.add((start + row) * LANES + token).write(*code);
                }
            }
            let row = first.add(self.head_dim * LANES + token * self.value_stride());
            let row = std::slice::from_raw_parts_mut(row, value.len());
            value_codes(row, value);
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Elements that are converted together.
const CONVERTED: usize = 64;

/// The nearest f16s, finite where `values` are.
fn to_halves(to: &mut [f16], values: &[f32]) {
    let kept = |x: f32| if x.is_finite() { x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()) } else { x };
    let mut room = [0.0; CONVERTED];
    for (to, values) in to.chunks_mut(CONVERTED).zip(values.chunks(CONVERTED)) {
        let room = &mut room[..values.len()];
        room.iter_mut().zip(values).for_each(|(room, x)| *room = kept(*x));
        to.convert_from_f32_slice(room);
    }
}

/// How a row becomes whole numbers in -127..=127: by its largest magnitude.
struct Rounding {
    scale: f32,
    inverse: f32,
}

impl Rounding {
    fn new(row: &[f32]) -> Rounding {
        let largest = row.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        // A row with a number that is none is none as a whole.
        let scale = if row.iter().all(|x| x.is_finite()) { largest / 127.0 } else { f32::NAN };
        let inverse = 1.0 / scale;
        Rounding { scale, inverse: if inverse.is_finite() { inverse } else { 0.0 } }
    }

    fn code(&self, x: f32) -> i8 {
        (x * self.inverse).round_ties_even() as i8
    }
}

/// Keys and values of one head of one sequence, in pages.
#[derive(Clone, Copy, Debug)]
pub struct PagedKeys<'a> {
    memory: &'a [f32],
    form: KvForm,
    head: usize,
    pages: &'a [u32],
    tokens: usize,
}

impl<'a> PagedKeys<'a> {
    /// The first `tokens` tokens of the sequence whose pages, in order of position, are `pages` of those in `memory`.
    ///
    /// # Errors
    /// There is no such head or page, or the pages hold fewer tokens.
    pub fn new(
        memory: &'a [f32],
        form: KvForm,
        head: usize,
        pages: &'a [u32],
        tokens: usize,
    ) -> Result<Self, KernelError> {
        const NAME: &str = "pages of keys and values";
        let count = tokens.div_ceil(LANES);
        let found = pages.len();
        let missing = KernelError::Shape { kernel: NAME, what: "number of pages", found, expected: count };
        let pages = pages.get(..count).ok_or(missing)?;
        let limit = memory.len() / form.page_words().max(1);
        let out_of_range =
            |what, position, index, limit| KernelError::IndexOutOfRange { kernel: NAME, what, position, index, limit };
        if let Some(position) = pages.iter().position(|page| *page as usize >= limit) {
            return Err(out_of_range("page", position, i64::from(pages[position]), limit));
        }
        if head >= form.heads {
            return Err(out_of_range("head", 0, head as i64, form.heads));
        }
        Ok(Self { memory, form, head, pages, tokens })
    }

    /// Number of tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Elements of a key.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.form.head_dim
    }

    pub(super) fn precision(&self) -> KvPrecision {
        self.form.precision
    }

    /// One of the pages that have tokens.
    #[inline(always)]
    pub(super) fn page(&self, index: usize) -> KvPage<'a> {
        let page = self.pages[index] as usize * self.form.page_words() + self.head * self.form.head_words();
        let tokens = (self.tokens - index * LANES).min(LANES);
        KvPage { words: &self.memory[page..page + self.form.head_words()], form: self.form, tokens }
    }

    /// The page, or the last one behind it.
    #[inline(always)]
    pub(super) fn page_or_last(&self, index: usize) -> KvPage<'a> {
        self.page(index.min(self.pages.len() - 1))
    }

    /// The pages, for [`KeyRun::Page`](super::KeyRun).
    pub fn pages(self) -> impl ExactSizeIterator<Item = KvPage<'a>> {
        (0..self.pages.len()).map(move |index| self.page(index))
    }
}

/// Keys and values of one head in one page.
#[derive(Clone, Copy, Debug)]
pub struct KvPage<'a> {
    words: &'a [f32],
    form: KvForm,
    tokens: usize,
}

impl KvPage<'_> {
    /// Number of tokens, at most 16.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Elements of a key.
    pub(super) fn head_dim(&self) -> usize {
        self.form.head_dim
    }

    /// The panel of keys.
    #[inline(always)]
    pub(super) fn keys<E>(&self) -> *const E {
        self.words.as_ptr().cast()
    }

    /// The rows of values.
    #[inline(always)]
    pub(super) fn values<E>(&self) -> *const E {
        self.words.as_ptr().wrapping_add(self.form.key_words()).cast()
    }

    /// Elements from a value to the next.
    #[inline(always)]
    pub(super) fn value_stride(&self) -> usize {
        self.form.value_stride()
    }

    /// The scale of each key, and behind these of each value; only to be read for 8 bits.
    #[inline(always)]
    pub(super) fn scales(&self) -> *const f32 {
        self.words.as_ptr().wrapping_add(self.form.scale_start())
    }

    /// The panel of keys in f32: as it lies, or written to `room`.
    ///
    /// # Safety
    /// `room` holds [`page_room`] elements.
    #[inline(always)]
    pub(super) unsafe fn widened_keys<S: Simd>(&self, s: S, room: *mut f32) -> *const f32 {
        let rows = self.form.head_dim;
        // SAFETY: the panel has `head_dim` rows of 16 elements, and so has `room`.
        unsafe {
            match self.form.precision {
                KvPrecision::F32 => return self.keys(),
                KvPrecision::F16 => widen(s, self.keys::<f16>(), room, rows, |_, x| x),
                KvPrecision::Int8 => {
                    let scales = s.load(self.scales());
                    widen(s, self.keys::<i8>(), room, rows, |_, x| s.mul(x, scales));
                }
            }
        }
        room
    }

    /// The rows of values in f32: as they lie, or written to `room`.
    ///
    /// # Safety
    /// `room` holds [`page_room`] elements.
    #[inline(always)]
    pub(super) unsafe fn widened_values<S: Simd>(&self, s: S, room: *mut f32) -> *const f32 {
        let vectors = self.value_stride() / LANES;
        let rows = self.tokens * vectors;
        // SAFETY: each token has a row of `vectors` times 16 elements, and a scale behind those of the keys.
        unsafe {
            match self.form.precision {
                KvPrecision::F32 => return self.values(),
                KvPrecision::F16 => widen(s, self.values::<f16>(), room, rows, |_, x| x),
                KvPrecision::Int8 => {
                    let scales = self.scales().add(LANES);
                    let scaled = |row: usize, x| s.mul(x, s.splat(*scales.add(row / vectors)));
                    widen(s, self.values::<i8>(), room, rows, scaled);
                }
            }
        }
        room
    }
}

/// Elements of room for what [`KvPage::widened_keys`] and [`KvPage::widened_values`] write.
pub(super) const fn page_room(head_dim: usize) -> usize {
    head_dim.saturating_add(LANES).saturating_mul(LANES)
}

/// Widens rows of 16 elements.
///
/// # Safety
/// `from` and `to` have so many.
#[inline(always)]
unsafe fn widen<S: Simd, E: Element>(
    s: S,
    from: *const E,
    to: *mut f32,
    rows: usize,
    scaled: impl Fn(usize, S::Vector) -> S::Vector,
) {
    for row in 0..rows {
        // SAFETY: as promised by the caller.
        unsafe { s.store(scaled(row, E::load(s, from.add(row * LANES))), to.add(row * LANES)) };
    }
}
