//! Attention of one token to keys and values in pages: what a step of generation spends its time on.
//!
//! Lanes are keys for the scores, which lie in pages as panels, and columns for the values. All heads that share keys and values
//! take each vector of them while it is in a register, so memory is read once, without a copy. Every element is the same
//! accumulator with the same order of additions as in [`Kernels::attention`], so both give the same bits.
#![allow(unsafe_code)]

use std::ops::Range;

use half::f16;

use super::pages::{KvPage, KvPrecision, PagedKeys};
use super::{CHAINS, cap_scores};
use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension, expect_length};
use crate::matrix::{Matrix, MatrixMut};
use crate::simd::{LANES, Simd, math};
use crate::softmax::LOWEST;
use crate::tile::Element;

/// Queries of one token, and the keys that they see.
#[derive(Debug, Clone, Copy)]
pub struct TokenAttention<'a> {
    /// `[heads, head_dim]`: those that share one head of keys and values.
    pub queries: Matrix<'a>,
    /// Keys and values up to the token's own.
    pub keys: PagedKeys<'a>,
    /// The first key that it sees.
    pub first_key: usize,
    /// Keys that the thread is likely to need next, and the first of them that is seen: asked for ahead, and not read.
    pub next: Option<(PagedKeys<'a>, usize)>,
    /// Factor of the scores, usually 1 / √head_dim.
    pub scale: f32,
    /// Scores `s` become `cap · tanh(s / cap)`.
    pub soft_cap: Option<f32>,
}

/// Queries that are computed together.
const QUERIES: usize = 4;
/// Pages whose values are added up before the next ones': they stay in the first-level cache for further queries.
const PAGES: usize = 4;
/// Pages between what is read and what is asked for: keys, then values, then the next keys.
const AHEAD: usize = 4;

/// Checked operands of [`attend`].
pub(crate) struct Job<'a> {
    token: &'a TokenAttention<'a>,
    scratch: *mut f32,
    out: MatrixMut<'a>,
}

impl TokenAttention<'_> {
    /// Pages with keys that it sees.
    fn pages(&self) -> Range<usize> {
        let tokens = self.keys.tokens();
        self.first_key.min(tokens) / LANES..tokens.div_ceil(LANES)
    }

    /// What to ask for while the keys of a page are read.
    #[inline(always)]
    fn ahead_of_keys<E>(&self, page: usize) -> *const E {
        let Range { start, end } = self.pages();
        let page = page + AHEAD;
        if page < end { self.keys.page(page).keys() } else { self.keys.page_or_last(start + page - end).values() }
    }

    /// What to ask for while the values of a page are read.
    #[inline(always)]
    fn ahead_of_values<E>(&self, page: usize) -> *const E {
        let end = self.pages().end;
        let page = page + AHEAD;
        match &self.next {
            Some((next, first)) if page >= end && next.tokens() > 0 => {
                next.page_or_last(first / LANES + page - end).keys()
            }
            _ => self.keys.page_or_last(page).values(),
        }
    }
}

impl Kernels {
    /// Writes the attention output of each query into a row of `out`, `[heads, head_dim]`, with the bits that
    /// [`Kernels::attention`] gives. `scratch` needs [`attention_scratch`](super::attention_scratch) elements; their contents do
    /// not matter.
    pub fn attend_token(
        self,
        token: &TokenAttention<'_>,
        scratch: &mut [f32],
        out: &mut MatrixMut<'_>,
    ) -> Result<(), KernelError> {
        const NAME: &str = "attention of a token";
        let head_dim = token.keys.head_dim();
        expect_dimension(NAME, "rows of out", out.rows(), token.queries.rows())?;
        expect_dimension(NAME, "columns of out", out.columns(), head_dim)?;
        expect_dimension(NAME, "columns of queries", token.queries.columns(), head_dim)?;
        // Scores, query and output of each query would fill more; a group of them is far below.
        expect_length(
            NAME,
            "scratch",
            scratch.len(),
            super::attention_scratch(token.keys.tokens(), head_dim, head_dim),
        )?;
        let mut heads = 0;
        while heads < out.rows() {
            // More queries than the scratch memory has room for read keys and values again.
            let some = heads..out.rows().min(heads + MOST);
            heads = some.end;
            let token = TokenAttention { queries: token.queries.slice_rows(some.clone())?, ..*token };
            let start = scratch.as_ptr().align_offset(LANES * size_of::<f32>()).min(LANES);
            let scratch = scratch.as_mut_ptr().wrapping_add(start);
            let job = Job { token: &token, scratch, out: out.reborrow().slice_rows(some)? };
            // SAFETY: all shapes agree, the pages hold the tokens, and the scratch memory is long enough for `MOST` queries.
            unsafe { (self.table.attend_token)(&job) };
        }
        Ok(())
    }
}

/// Queries that the scratch memory always has room for: each takes its scores, of whole pages, and two rows of columns.
const MOST: usize = 16;

/// The parts of the scratch memory.
#[derive(Clone, Copy)]
struct Parts {
    /// `[queries][head_dim]`
    queries: *mut f32,
    /// `[queries][pages][16]`
    scores: *mut f32,
    score_stride: usize,
    /// `[queries][head_dim rounded up]`
    outputs: *mut f32,
    output_stride: usize,
}

/// # Safety
/// The shapes of the job agree, and its scratch holds what [`Kernels::attend_token`] asks for.
#[inline(always)]
pub(crate) unsafe fn attend<S: Simd>(s: S, job: &Job<'_>) {
    // SAFETY: as promised by the caller; the precision is that of the pages.
    unsafe {
        match job.token.keys.precision() {
            KvPrecision::F32 => attend_to::<S, f32>(s, job),
            KvPrecision::F16 => attend_to::<S, f16>(s, job),
            KvPrecision::Int8 => attend_to::<S, i8>(s, job),
        }
    }
}

/// An element of a page.
trait Kept: Element {
    /// Whether scales stand behind the elements.
    const SCALED: bool;
    /// Vectors in a cache line.
    const OF_LINE: usize = size_of::<f32>() / size_of::<Self>();
}

impl Kept for f32 {
    const SCALED: bool = false;
}

impl Kept for f16 {
    const SCALED: bool = false;
}

impl Kept for i8 {
    const SCALED: bool = true;
}

/// # Safety
/// As [`attend`], with pages of `E`.
#[inline(always)]
unsafe fn attend_to<S: Simd, E: Kept>(s: S, job: &Job<'_>) {
    let token = job.token;
    let (heads, head_dim) = (token.queries.rows(), token.keys.head_dim());
    let total = token.keys.tokens();
    let seen = token.first_key.min(total)..total;
    let pages = token.pages();
    let output_stride = head_dim.next_multiple_of(LANES);
    let score_stride = pages.len() * LANES;
    let outputs = job.scratch;
    let scores = outputs.wrapping_add(heads * output_stride);
    let queries = scores.wrapping_add(heads * score_stride);
    let parts = Parts { queries, scores, score_stride, outputs, output_stride };
    // SAFETY: the parts of the scratch memory are disjoint and long enough; the rest is promised by the caller.
    unsafe {
        scale_queries(s, token, &parts);
        for some in groups(pages.clone(), PAGES) {
            for queries in groups(0..heads, QUERIES) {
                score::<S, E>(s, token, &parts, queries, some.clone(), pages.start);
            }
        }
        let mut inverse = [0.0; MOST];
        for (query, inverse) in inverse.iter_mut().enumerate().take(heads) {
            let scores = parts.scores.add(query * score_stride);
            if let Some(cap) = token.soft_cap {
                cap_scores(s, scores, pages.len(), cap);
            }
            let hidden = |key: usize| scores.add(key - pages.start * LANES).write(f32::NEG_INFINITY);
            (pages.start * LANES..seen.start).for_each(hidden);
            (seen.end..pages.end * LANES).for_each(hidden);
            *inverse = soften(s, scores, pages.len());
        }
        for at in 0..heads * output_stride / LANES {
            s.store(s.splat(0.0), parts.outputs.add(at * LANES));
        }
        for some in groups(pages.clone(), PAGES) {
            for queries in groups(0..heads, QUERIES) {
                weigh::<S, E>(s, token, &parts, queries, some.clone(), pages.start);
            }
        }
        for (query, inverse) in inverse.iter().enumerate().take(heads) {
            store_output(s, job, &parts, query, *inverse);
        }
    }
}

/// Pieces of a range, `size` long but for the last.
#[inline(always)]
fn groups(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size).map(move |start| start..end.min(start + size))
}

/// # Safety
/// The queries exist, and have a place.
#[inline(always)]
unsafe fn scale_queries<S: Simd>(s: S, token: &TokenAttention<'_>, parts: &Parts) {
    let columns = token.queries.columns();
    for query in 0..token.queries.rows() {
        for start in (0..columns).step_by(LANES) {
            // SAFETY: as promised by the caller.
            unsafe {
                let row = s.load_up_to(token.queries.row_pointer(query).add(start), columns - start);
                let to = parts.queries.add(query * columns + start);
                s.store_up_to(s.mul(row, s.splat(token.scale)), to, columns - start);
            }
        }
    }
}

/// Vectors whose sums for so many queries fit the registers: 4, 2 or 1.
const fn wide<S: Simd>(queries: usize) -> usize {
    match S::TILE_ROWS * S::TILE_PANELS / queries {
        0 | 1 => 1,
        2 | 3 => 2,
        _ => 4,
    }
}

/// Calls a function for some queries and, from each `$at` on, as many of `$vectors` vectors as fit the registers, else for one.
macro_rules! in_registers {
    ($s:ty, $queries:expr, $vectors:expr, |$at:ident| $function:ident::<$($type:ty),*>($($argument:expr),*)) => {
        let mut $at = 0;
        macro_rules! of_queries {
            ($count:literal: $wide:literal) => {
                if const { wide::<$s>($count) == $wide } {
                    while $vectors - $at >= $wide {
                        $function::<$($type,)* $count, $wide>($($argument),*);
                        $at += $wide;
                    }
                }
            };
            ($count:literal) => {{
                of_queries!($count: 4);
                of_queries!($count: 2);
                while $at < $vectors {
                    $function::<$($type,)* $count, 1>($($argument),*);
                    $at += 1;
                }
            }};
        }
        match $queries {
            1 => of_queries!(1),
            2 => of_queries!(2),
            3 => of_queries!(3),
            _ => of_queries!(4),
        }
    };
}

/// Scores of some queries and all keys of some pages.
///
/// # Safety
/// There are at most 4 queries and 4 pages, they exist, and their scores have a place.
#[inline(always)]
unsafe fn score<S: Simd, E: Kept>(
    s: S,
    token: &TokenAttention<'_>,
    parts: &Parts,
    queries: Range<usize>,
    pages: Range<usize>,
    first_page: usize,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let from = parts.queries.add(queries.start * token.keys.head_dim());
        let to = parts.scores.add(queries.start * parts.score_stride + (pages.start - first_page) * LANES);
        in_registers!(S, queries.len(), pages.len(), |at| score_pages::<S, E>(
            s,
            token,
            pages.start + at,
            from,
            to.add(at * LANES),
            parts.score_stride
        ));
    }
}

/// # Safety
/// `COUNT` pages and `HEADS` queries exist, and their scores have a place.
#[inline(always)]
unsafe fn score_pages<S: Simd, E: Kept, const HEADS: usize, const COUNT: usize>(
    s: S,
    token: &TokenAttention<'_>,
    first_page: usize,
    queries: *const f32,
    scores: *mut f32,
    score_stride: usize,
) {
    let head_dim = token.keys.head_dim();
    let pages: [KvPage<'_>; COUNT] = std::array::from_fn(|index| token.keys.page(first_page + index));
    let panels: [*const E; COUNT] = pages.map(|page| page.keys());
    let ahead: [*const E; COUNT] = std::array::from_fn(|index| token.ahead_of_keys(first_page + index));
    let mut sums = [[s.splat(0.0); COUNT]; HEADS];
    // SAFETY: a panel has `head_dim` rows of 16 elements; the rest is promised by the caller.
    unsafe {
        let mut scales = [s.splat(1.0); COUNT];
        if E::SCALED {
            for (scale, page) in scales.iter_mut().zip(&pages) {
                *scale = s.load(page.scales());
            }
        }
        for d in 0..head_dim {
            if d % E::OF_LINE == 0 {
                ahead.iter().for_each(|panel| s.prefetch(panel.wrapping_add(d * LANES).cast()));
            }
            let mut columns = [s.splat(0.0); COUNT];
            for ((column, panel), scale) in columns.iter_mut().zip(panels).zip(scales) {
                *column = E::load(s, panel.add(d * LANES));
                if E::SCALED {
                    *column = s.mul(*column, scale);
                }
            }
            for (head, sums) in sums.iter_mut().enumerate() {
                let x = s.splat(*queries.add(head * head_dim + d));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = s.mul_add(column, x, *sum);
                }
            }
        }
        for (head, sums) in sums.into_iter().enumerate() {
            for (page, sum) in sums.into_iter().enumerate() {
                s.store(sum, scores.add(head * score_stride + page * LANES));
            }
        }
    }
}

/// Replaces the scores of one query by e^(score - maximum) and returns one over their sum, or 0 where that is 0.
///
/// # Safety
/// `scores` holds 16 elements for each page.
#[inline(always)]
unsafe fn soften<S: Simd>(s: S, scores: *mut f32, pages: usize) -> f32 {
    let mut sums = [0.0_f32; CHAINS];
    // SAFETY: as promised by the caller.
    unsafe {
        let mut maximum = s.splat(LOWEST);
        for page in 0..pages {
            maximum = s.max(maximum, s.load(scores.add(page * LANES)));
        }
        let maximum = s.splat(s.maximum(maximum));
        for page in 0..pages {
            let at = scores.add(page * LANES);
            s.store(math::exp_of_negative(s, s.sub(s.load(at), maximum)), at);
            let powers = std::slice::from_raw_parts(at, LANES);
            for powers in powers.chunks_exact(CHAINS) {
                for (sum, power) in sums.iter_mut().zip(powers) {
                    *sum += power;
                }
            }
        }
    }
    let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if sum == 0.0 { 0.0 } else { 1.0 / sum }
}

/// Adds the weighted values of some pages to the outputs of some queries.
///
/// # Safety
/// As [`score`]; the weights are there.
#[inline(always)]
unsafe fn weigh<S: Simd, E: Kept>(
    s: S,
    token: &TokenAttention<'_>,
    parts: &Parts,
    queries: Range<usize>,
    pages: Range<usize>,
    first_page: usize,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let weights = parts.scores.add(queries.start * parts.score_stride).cast_const();
        let outputs = parts.outputs.add(queries.start * parts.output_stride);
        in_registers!(S, queries.len(), parts.output_stride / LANES, |at| weigh_pages::<S, E>(
            s,
            token,
            (first_page, pages.clone()),
            (weights, parts.score_stride),
            (outputs.add(at * LANES), parts.output_stride),
            at * LANES
        ));
    }
}

/// # Safety
/// The pages are there, weights (from the first page on) and outputs of `HEADS` queries exist, the latter with `COUNT` vectors.
#[inline(always)]
unsafe fn weigh_pages<S: Simd, E: Kept, const HEADS: usize, const COUNT: usize>(
    s: S,
    token: &TokenAttention<'_>,
    (first_page, pages): (usize, Range<usize>),
    (weights, weight_stride): (*const f32, usize),
    (outputs, output_stride): (*mut f32, usize),
    column: usize,
) {
    let mut sums = [[s.splat(0.0); COUNT]; HEADS];
    // SAFETY: as promised by the caller; a value has all columns, rounded up to 16.
    unsafe {
        for (head, sums) in sums.iter_mut().enumerate() {
            for (vector, sum) in sums.iter_mut().enumerate() {
                *sum = s.load(outputs.add(head * output_stride + vector * LANES));
            }
        }
        for index in pages {
            let page = token.keys.page(index);
            let (rows, scales) = (page.values::<E>(), page.scales().wrapping_add(LANES));
            let ahead = token.ahead_of_values::<E>(index);
            for key in token.first_key.saturating_sub(index * LANES)..page.tokens() {
                let row = rows.add(key * page.value_stride() + column);
                let weight = weights.add((index - first_page) * LANES + key);
                let mut values = [s.splat(0.0); COUNT];
                for (vector, value) in values.iter_mut().enumerate() {
                    if vector % E::OF_LINE == 0 {
                        s.prefetch(ahead.wrapping_add(key * page.value_stride() + column + vector * LANES).cast());
                    }
                    *value = E::load(s, row.add(vector * LANES));
                    if E::SCALED {
                        *value = s.mul(*value, s.splat(*scales.add(key)));
                    }
                }
                for (head, sums) in sums.iter_mut().enumerate() {
                    let weight = s.splat(*weight.add(head * weight_stride));
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = s.mul_add(value, weight, *sum);
                    }
                }
            }
        }
        for (head, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                s.store(sum, outputs.add(head * output_stride + vector * LANES));
            }
        }
    }
}

/// # Safety
/// The output of the query is there, and its row of `out` exists.
#[inline(always)]
unsafe fn store_output<S: Simd>(s: S, job: &Job<'_>, parts: &Parts, query: usize, inverse: f32) {
    for start in (0..job.out.columns()).step_by(LANES) {
        // SAFETY: as promised by the caller.
        unsafe {
            let sum = s.load(parts.outputs.add(query * parts.output_stride + start));
            let row = s.mul_add(sum, s.splat(inverse), s.splat(0.0));
            s.store_up_to(row, job.out.row_pointer(query).add(start), job.out.columns() - start);
        }
    }
}
