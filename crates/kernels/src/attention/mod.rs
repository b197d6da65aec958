//! Softmax attention of one head: `softmax(scale · Q Kᵀ + mask) V`, nothing of it materialised but the
//! scores of a few queries.
//!
//! Lanes are queries. A block of queries is transposed once; then scores, softmax and output are
//! computed without horizontal sums: `Sᵀ = K Qᵀ` and `Oᵀ = Vᵀ Pᵀ` are matrix tiles whose scalar side
//! comes straight from the rows of K and V, and the softmax runs down the lanes. Keys are taken in
//! order of their position, so a query's result is bit-identical whatever other queries stand beside it
//! and however the keys are cut into runs. Keys that no query of a block sees are not computed; hidden ones
//! that are add exact zeros.
#![allow(unsafe_code)]

mod pages;
mod position;
mod token;

use std::ops::Range;

use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension, expect_length};
use crate::matrix::{Matrix, MatrixMut};
use crate::simd::{LANE_NUMBERS, LANES, Simd, math};
use crate::softmax::LOWEST;
use crate::tile::{self, Pieces, Tile};

pub use pages::{KvForm, KvPage, KvPrecision, PagedKeys};
pub use position::PositionScores;
pub use token::TokenAttention;
pub(crate) use token::{Job as TokenJob, attend as attend_token};

/// Consecutive keys of one head and their values.
#[derive(Debug, Clone, Copy)]
pub enum KeyRun<'a> {
    /// Rows.
    Rows {
        /// `[keys, head_dim]`
        keys: Matrix<'a>,
        /// `[keys, value_dim]`
        values: Matrix<'a>,
    },
    /// The tokens of a page; those of all but the last one are 16.
    Page(KvPage<'a>),
}

impl KeyRun<'_> {
    /// Number of keys.
    fn len(&self) -> usize {
        match self {
            KeyRun::Rows { keys, .. } => keys.rows(),
            KeyRun::Page(page) => page.tokens(),
        }
    }

    /// Errors unless keys and values have these lengths.
    fn check(&self, kernel: &'static str, head_dim: usize, value_dim: usize) -> Result<(), KernelError> {
        let [found_keys, found_values] = match self {
            KeyRun::Rows { keys, values } => {
                expect_dimension(kernel, "rows of values", values.rows(), keys.rows())?;
                [keys.columns(), values.columns()]
            }
            KeyRun::Page(page) => [page.head_dim(); 2],
        };
        expect_dimension(kernel, "columns of keys", found_keys, head_dim)?;
        expect_dimension(kernel, "columns of values", found_values, value_dim)
    }
}

/// Queries of one head of one sequence, and all keys that they may see.
#[derive(Debug, Clone, Copy)]
pub struct AttentionBlock<'a> {
    /// `[queries, head_dim]`
    pub queries: Matrix<'a>,
    /// Keys in the order of their position: pages of the past, then the current tokens.
    pub runs: &'a [KeyRun<'a>],
    /// Position of the first query among the keys; matters to the next three.
    pub first_position: usize,
    /// Whether a query sees only the keys up to its own position.
    pub causal: bool,
    /// How many keys a query sees at most on either side of its own position.
    pub window: Option<usize>,
    /// What the positions of query and key add to the score.
    pub position: PositionScores<'a>,
    /// Factor of the scores, usually 1 / √head_dim.
    pub scale: f32,
    /// Scores `s` become `cap · tanh(s / cap)` before any mask.
    pub soft_cap: Option<f32>,
    /// Added to the scaled scores: `[1, keys]` for all queries, or `[queries, keys]`.
    pub mask: Option<Matrix<'a>>,
}

impl AttentionBlock<'_> {
    /// How many keys behind its own position a query sees, if that is limited.
    fn reach_behind(&self) -> Option<usize> {
        if self.causal { Some(0) } else { self.window }
    }

    /// The keys of `total` that at least one of the queries sees. The first is a multiple of [`CHAINS`], so each key is in
    /// the chain of its position.
    fn reach(&self, queries: &Range<usize>, total: usize) -> Range<usize> {
        let position = |query: usize| self.first_position.saturating_add(query);
        let end = self.reach_behind().map_or(total, |behind| total.min(position(queries.end).saturating_add(behind)));
        let start = self.window.map_or(0, |window| position(queries.start).saturating_sub(window)).min(end);
        start - start % CHAINS..end
    }
}

/// Panels of queries in the largest block of any instruction set.
const MAX_PANELS: usize = 2;

/// Elements of scratch memory that [`Kernels::attention`] needs for that many keys, whatever the
/// number of queries; `usize::MAX` if that overflows.
#[must_use]
pub fn attention_scratch(keys: usize, head_dim: usize, value_dim: usize) -> usize {
    let rows = keys.saturating_add(head_dim.saturating_add(LANES)).saturating_add(value_dim.saturating_add(LANES));
    let tables = position::table_length(keys).saturating_mul(2);
    let page = pages::page_room(head_dim.max(value_dim));
    rows.saturating_mul(MAX_PANELS * LANES).saturating_add(tables).saturating_add(page).saturating_add(LANES)
}

/// Checked operands of [`attend`].
pub(crate) struct Job<'a> {
    block: &'a AttentionBlock<'a>,
    total_keys: usize,
    scratch: *mut f32,
    out: MatrixMut<'a>,
}

impl Kernels {
    /// Writes the attention output of each query into a row of `out`, `[queries, value_dim]`. A query
    /// that sees no key gets zeros.
    ///
    /// `scratch` needs [`attention_scratch`] elements; their contents do not matter.
    pub fn attention(
        self,
        block: &AttentionBlock<'_>,
        scratch: &mut [f32],
        out: &mut MatrixMut<'_>,
    ) -> Result<(), KernelError> {
        const NAME: &str = "attention";
        let (head_dim, value_dim) = (block.queries.columns(), out.columns());
        expect_dimension(NAME, "rows of out", out.rows(), block.queries.rows())?;
        let mut total_keys = 0usize;
        for run in block.runs {
            run.check(NAME, head_dim, value_dim)?;
            total_keys = total_keys.saturating_add(run.len());
        }
        if let Some(mask) = block.mask {
            expect_dimension(NAME, "columns of mask", mask.columns(), total_keys)?;
            if mask.rows() != 1 {
                expect_dimension(NAME, "rows of mask", mask.rows(), out.rows())?;
            }
        }
        block.position.check(NAME, out.rows(), total_keys)?;
        let needed = attention_scratch(total_keys, head_dim, value_dim);
        expect_length(NAME, "scratch", scratch.len(), needed)?;
        let start = scratch.as_ptr().align_offset(LANES * size_of::<f32>()).min(LANES);
        let scratch = scratch.as_mut_ptr().wrapping_add(start);
        let job = Job { block, total_keys, scratch, out: out.reborrow() };
        // SAFETY: all shapes agree, the views vouch for their elements, and `scratch` is long enough
        // also after skipping up to 16 elements for alignment.
        unsafe { (self.table.attention)(&job) };
        Ok(())
    }
}

/// The queries that are computed together, and the parts of the scratch memory: panels of 16 lanes,
/// one lane per query.
struct Lanes {
    queries: Range<usize>,
    panels: usize,
    /// Keys that at least one of the queries sees, and up to three before them.
    keys: Range<usize>,
    /// `[panels][head_dim rounded up][16]`
    query_panels: *mut f32,
    query_stride: usize,
    /// `[panels][keys][16]`
    scores: *mut f32,
    score_stride: usize,
    /// `[panels][value_dim rounded up][16]`
    outputs: *mut f32,
    output_stride: usize,
    /// What [`position::prepare`] writes out by distance.
    distances: *mut f32,
    ascents: *mut f32,
    /// Room for keys or values of a page.
    page: *mut f32,
}

/// # Safety
/// The shapes of the job agree, and its scratch holds [`attention_scratch`] elements.
#[inline(always)]
pub(crate) unsafe fn attend<S: Simd>(s: S, job: &Job<'_>) {
    let block = job.block;
    let width = LANES * S::TILE_PANELS;
    let query_stride = block.queries.columns().next_multiple_of(LANES) * LANES;
    let output_stride = job.out.columns().next_multiple_of(LANES) * LANES;
    let outputs = job.scratch.wrapping_add(query_stride * S::TILE_PANELS);
    let scores = outputs.wrapping_add(output_stride * S::TILE_PANELS);
    let distances = scores.wrapping_add(job.total_keys * LANES * S::TILE_PANELS);
    let ascents = distances.wrapping_add(position::table_length(job.total_keys));
    let page = ascents.wrapping_add(position::table_length(job.total_keys));
    for (_, rows, run) in visible(block.runs, block.reach(&(0..block.queries.rows()), job.total_keys)) {
        if let KeyRun::Rows { keys, values } = run {
            prefetch_rows(s, keys, rows.clone());
            prefetch_rows(s, values, rows);
        }
    }
    let mut first = 0;
    while first < block.queries.rows() {
        let queries = first..block.queries.rows().min(first + width);
        first = queries.end;
        let keys = block.reach(&queries, job.total_keys);
        let lanes = Lanes {
            panels: queries.len().div_ceil(LANES),
            queries,
            query_panels: job.scratch,
            query_stride,
            scores,
            score_stride: keys.len() * LANES,
            keys,
            outputs,
            output_stride,
            distances,
            ascents,
            page,
        };
        // SAFETY: the parts of the scratch memory are disjoint and long enough; the rest is promised
        // by the caller.
        unsafe {
            pack_queries(s, job, &lanes);
            score(s, job, &lanes);
            position::prepare(block, &lanes);
            let mut scales = [s.splat(0.0); MAX_PANELS];
            for (panel, scale) in scales.iter_mut().enumerate().take(lanes.panels) {
                let scores = lanes.scores.add(panel * lanes.score_stride);
                position::add(s, block, &lanes, panel, scores);
                if let Some(cap) = block.soft_cap {
                    cap_scores(s, scores, lanes.keys.len(), cap);
                }
                apply_masks(s, block, &lanes, panel, scores);
                *scale = soften(s, scores, lanes.keys.len());
            }
            weigh_values(s, job, &lanes);
            for (panel, scale) in scales.iter().enumerate().take(lanes.panels) {
                store_outputs(s, job, &lanes, panel, *scale);
            }
        }
    }
}

/// Fetches rows from afar. A head's keys and values are short pieces far apart, which the CPU's own prefetching
/// does not foresee.
#[inline(always)]
fn prefetch_rows<S: Simd>(s: S, matrix: &Matrix<'_>, rows: Range<usize>) {
    for row in rows {
        for column in (0..matrix.columns()).step_by(LANES) {
            s.prefetch(matrix.row_pointer(row).wrapping_add(column));
        }
    }
}

/// The visible rows of each run that has any, and the number of visible keys before them.
#[inline(always)]
fn visible<'a>(
    runs: &'a [KeyRun<'a>],
    keys: Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>, &'a KeyRun<'a>)> {
    let mut end = 0;
    runs.iter().filter_map(move |run| {
        let start = end;
        end += run.len();
        let within = keys.start.clamp(start, end)..keys.end.clamp(start, end);
        let rows = within.start - start..within.end - start;
        (!rows.is_empty()).then(|| (within.start - keys.start, rows, run))
    })
}

/// Transposes the scaled queries into panels.
///
/// # Safety
/// The queries exist and the panels are writable.
#[inline(always)]
unsafe fn pack_queries<S: Simd>(s: S, job: &Job<'_>, lanes: &Lanes) {
    let head_dim = job.block.queries.columns();
    let scale = s.splat(job.block.scale);
    for panel in 0..lanes.panels {
        let mut column = 0;
        while column < head_dim {
            let count = LANES.min(head_dim - column);
            let mut rows = [s.splat(0.0); LANES];
            let first = lanes.queries.start + panel * LANES;
            let present = LANES.min(lanes.queries.end - first);
            // SAFETY: row `first + i` exists and has `count` elements from `column` on; the panel has
            // `head_dim` rounded up to 16 rows.
            unsafe {
                for (i, row) in rows.iter_mut().enumerate().take(present) {
                    let from = job.block.queries.row_pointer(first + i).add(column);
                    *row = s.mul(s.load_up_to(from, count), scale);
                }
                let to = lanes.query_panels.add(panel * lanes.query_stride + column * LANES);
                for (i, row) in s.transpose(rows).iter().enumerate() {
                    s.store(*row, to.add(i * LANES));
                }
            }
            column += LANES;
        }
    }
}

/// Scores of all visible keys: one row of lanes per key.
///
/// # Safety
/// The query panels are filled and the score panels are writable.
#[inline(always)]
unsafe fn score<S: Simd>(s: S, job: &Job<'_>, lanes: &Lanes) {
    for (before, visible, run) in visible(job.block.runs, lanes.keys.clone()) {
        let panel = match run {
            KeyRun::Rows { .. } => std::ptr::null(),
            // SAFETY: `lanes.page` is room for a page.
            KeyRun::Page(page) => unsafe { page.widened_keys(s, lanes.page) },
        };
        for rows in Pieces::new(visible.clone(), S::TILE_ROWS) {
            let mut tile = Tile {
                depth: job.block.queries.columns(),
                a: panel.wrapping_add(rows.start),
                a_stride: LANES,
                b: lanes.query_panels,
                b_panel: lanes.query_stride,
                c: lanes.scores.wrapping_add((before + rows.start - visible.start) * LANES),
                c_row: LANES,
                c_panel: lanes.score_stride,
                prefetch: std::ptr::null(),
                prefetch_lines: 0,
                resume: false,
            };
            // SAFETY: the keys exist, and their scores have a place.
            unsafe {
                match run {
                    KeyRun::Rows { keys, .. } => {
                        (tile.a, tile.a_stride) = (keys.row_pointer(rows.start), keys.stride());
                        tile::compute::<S, f32, false>(s, &tile, rows.len(), lanes.panels);
                    }
                    KeyRun::Page(_) => tile::compute::<S, f32, true>(s, &tile, rows.len(), lanes.panels),
                }
            }
        }
    }
}

/// Bounds the scores of one panel by a tanh.
///
/// # Safety
/// `scores` holds 16 elements for each key.
#[inline(always)]
unsafe fn cap_scores<S: Simd>(s: S, scores: *mut f32, keys: usize, cap: f32) {
    let cap = s.splat(cap);
    for key in 0..keys {
        // SAFETY: as promised by the caller.
        unsafe {
            let at = scores.add(key * LANES);
            s.store(s.mul(math::tanh(s, s.div(s.load(at), cap)), cap), at);
        }
    }
}

/// Adds the mask to the scores of one panel and hides the keys that its queries do not see.
///
/// # Safety
/// `scores` holds the scores of the panel.
#[inline(always)]
unsafe fn apply_masks<S: Simd>(s: S, block: &AttentionBlock<'_>, lanes: &Lanes, panel: usize, scores: *mut f32) {
    let first = lanes.queries.start + panel * LANES;
    let keys = lanes.keys.clone();
    // SAFETY: `key` is one of those in reach, which have scores and mask columns; mask rows are those of
    // queries that exist, or the only one.
    unsafe {
        if let Some(mask) = block.mask {
            let present = LANES.min(lanes.queries.end - first);
            for key in keys.clone() {
                let mut values = [0.0; LANES];
                if mask.rows() == 1 {
                    values = [*mask.row_pointer(0).add(key); LANES];
                } else {
                    for (i, value) in values.iter_mut().enumerate().take(present) {
                        *value = *mask.row_pointer(first + i).add(key);
                    }
                }
                let at = scores.add((key - keys.start) * LANES);
                s.store(s.add(s.load(at), s.load(values.as_ptr())), at);
            }
        }
        let numbers = s.load(LANE_NUMBERS.as_ptr());
        let nothing = s.splat(f32::NEG_INFINITY);
        let position = block.first_position.saturating_add(first);
        if let Some(behind) = block.reach_behind() {
            let last = position.saturating_add(behind);
            for key in last.saturating_add(1).max(keys.start)..keys.end {
                let hidden = s.splat((key - last).min(LANES) as f32);
                let at = scores.add((key - keys.start) * LANES);
                s.store(s.select_less(numbers, hidden, nothing, s.load(at)), at);
            }
        }
        if let Some(window) = block.window {
            let first_of_last = position.saturating_add(LANES - 1).saturating_sub(window);
            for key in keys.start..first_of_last.min(keys.end) {
                // The last lane that sees the key; -1 where none does.
                let seeing = key.saturating_add(window).saturating_add(1).saturating_sub(position).min(LANES);
                let at = scores.add((key - keys.start) * LANES);
                s.store(s.select_less(s.splat(seeing as f32 - 1.0), numbers, nothing, s.load(at)), at);
            }
        }
    }
}

/// Independent chains of maxima and sums. A key's chain is its position modulo this number, so the
/// order of additions does not depend on how many keys follow.
const CHAINS: usize = 4;

/// Replaces the scores of a panel by e^(score - maximum of the lane) and returns one over the sum of
/// each lane, or 0 where the sum is 0.
///
/// # Safety
/// `scores` holds 16 elements for each key.
#[inline(always)]
unsafe fn soften<S: Simd>(s: S, scores: *mut f32, keys: usize) -> S::Vector {
    let mut maxima = [s.splat(LOWEST); CHAINS];
    let mut sums = [s.splat(0.0); CHAINS];
    // SAFETY: every access is to the 16 elements of a key below `keys`.
    unsafe {
        let mut key = 0;
        while key < keys {
            for (i, maximum) in maxima.iter_mut().enumerate().take(keys - key) {
                *maximum = s.max(*maximum, s.load(scores.add((key + i) * LANES)));
            }
            key += CHAINS;
        }
        let maximum = s.max(s.max(maxima[0], maxima[1]), s.max(maxima[2], maxima[3]));
        key = 0;
        while key < keys {
            for (i, sum) in sums.iter_mut().enumerate().take(keys - key) {
                let at = scores.add((key + i) * LANES);
                let power = math::exp_of_negative(s, s.sub(s.load(at), maximum));
                s.store(power, at);
                *sum = s.add(*sum, power);
            }
            key += CHAINS;
        }
    }
    let sum = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
    let zero = s.splat(0.0);
    let one = s.splat(1.0);
    let inverse = s.div(one, s.select_less(zero, sum, sum, s.add(sum, one)));
    s.select_less(zero, sum, inverse, s.sub(inverse, one))
}

/// Sums of the values, weighted by the softened scores.
///
/// # Safety
/// The score panels are filled and the output panels are writable.
#[inline(always)]
unsafe fn weigh_values<S: Simd>(s: S, job: &Job<'_>, lanes: &Lanes) {
    // SAFETY: the values exist, and their sums have a place. Without keys, zeros are stored.
    unsafe {
        if lanes.keys.is_empty() {
            weigh_rows(s, job, lanes, (std::ptr::null(), 0), 0..0);
        }
        for (before, visible, run) in visible(job.block.runs, lanes.keys.clone()) {
            let (values, stride) = match run {
                KeyRun::Rows { values, .. } => (values.row_pointer(0), values.stride()),
                KeyRun::Page(page) => (page.widened_values(s, lanes.page), page.value_stride()),
            };
            let first = values.wrapping_add(visible.start * stride);
            weigh_rows(s, job, lanes, (first, stride), before..before + visible.len());
        }
    }
}

/// Adds the weighted values of some of the visible keys to the sums, which start with the first ones.
///
/// # Safety
/// As [`weigh_values`]; the keys' values stand at the pointer, so many elements apart.
#[inline(always)]
unsafe fn weigh_rows<S: Simd>(
    s: S,
    job: &Job<'_>,
    lanes: &Lanes,
    (values, stride): (*const f32, usize),
    keys: Range<usize>,
) {
    for columns in Pieces::new(0..job.out.columns(), S::TILE_ROWS) {
        let tile = Tile {
            depth: keys.len(),
            a: values.wrapping_add(columns.start),
            a_stride: stride,
            b: lanes.scores.wrapping_add(keys.start * LANES).cast_const(),
            b_panel: lanes.score_stride,
            c: lanes.outputs.wrapping_add(columns.start * LANES),
            c_row: LANES,
            c_panel: lanes.output_stride,
            prefetch: std::ptr::null(),
            prefetch_lines: 0,
            resume: keys.start > 0,
        };
        // SAFETY: as promised by the caller.
        unsafe { tile::compute::<S, f32, true>(s, &tile, columns.len(), lanes.panels) };
    }
}

/// Scales the outputs of a panel and transposes them into the rows of `out`.
///
/// # Safety
/// The output panels are filled.
#[inline(always)]
unsafe fn store_outputs<S: Simd>(s: S, job: &Job<'_>, lanes: &Lanes, panel: usize, scale: S::Vector) {
    let first = lanes.queries.start + panel * LANES;
    let present = LANES.min(lanes.queries.end - first);
    let mut column = 0;
    while column < job.out.columns() {
        let count = LANES.min(job.out.columns() - column);
        let mut rows = [s.splat(0.0); LANES];
        // SAFETY: the panel has `value_dim` rounded up to 16 rows; row `first + i` of `out` exists and
        // has `count` elements from `column` on.
        unsafe {
            let from = lanes.outputs.add(panel * lanes.output_stride + column * LANES);
            for (i, row) in rows.iter_mut().enumerate().take(count) {
                // Adding +0 makes -0 impossible, which hidden keys could otherwise turn into +0.
                *row = s.mul_add(s.load(from.add(i * LANES)), scale, s.splat(0.0));
            }
            for (i, row) in s.transpose(rows).iter().enumerate().take(present) {
                let to = job.out.row_pointer(first + i).add(column);
                s.store_up_to(*row, to, count);
            }
        }
        column += LANES;
    }
}
