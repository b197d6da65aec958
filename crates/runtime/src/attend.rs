//! Attention stages: which queries and keys go to the kernel together.

use std::ops::Range;

use centuple_graph::Attention;
use centuple_kernels::{AttentionBlock, KernelError, KeyRun, Matrix, MatrixMut, PositionScores};
use centuple_tensor::{Layout, PAGE_TOKENS, Span};

use crate::compute::{Block, Run};
use crate::kv_cache::{KvCache, Side};
use crate::plan::{Kernel, PositionTables, Stage, View};
use crate::views::copy;

type Result<T> = std::result::Result<T, KernelError>;

/// Queries of one head that are one piece of work when few rows are shared out; as many as the kernel computes together,
/// or a multiple.
pub(crate) const FEW_QUERIES: usize = 32;

impl Run<'_> {
    /// Writes new keys and values to their pages.
    pub(crate) fn append(&self, stage: &Stage, rows: Range<usize>, block: &Block) -> Result<()> {
        let (Kernel::AppendCache { k, v, slot }, Some(cache)) = (&stage.kernel, self.cache) else { return Ok(()) };
        for (span, part) in spans_within(self.layout, rows) {
            for token in part {
                let position = span.past + token - span.start;
                for (view, side) in [(k, Side::Keys), (v, Side::Values)] {
                    let mut row = cache.row(*slot, side, span, position)?;
                    copy(self.read(*view, token..token + 1, block)?, &mut row);
                }
            }
        }
        Ok(())
    }

    /// The heads that share one head of keys and values, for one block of queries.
    pub(crate) fn attend(
        &self,
        stage: &Stage,
        out: View,
        queries: &QueryBlock,
        kv_head: usize,
        block: &Block,
    ) -> Result<()> {
        let Kernel::Attention { q, k, v, attention, position } = &stage.kernel else { return Ok(()) };
        let (width, group) = (attention.head_dim, attention.heads / attention.kv_heads);
        let span = queries.span;
        let (runs, past) = match (attention.cache, self.cache) {
            (Some(slot), Some(cache)) => (cached_runs(cache, slot, span, attention, kv_head)?, span.past),
            _ => {
                let rows = span.start..span.start + span.tokens;
                let keys = self.gather(columns_of(*k, kv_head, width), rows.clone())?;
                (vec![KeyRun { keys, values: self.gather(columns_of(*v, kv_head, width), rows)? }], 0)
            }
        };
        let scratch = self.scratch.write_slice(block.worker * self.scratch_length, self.scratch_length)?;
        let problem = |queries_of_head, position, first_position| AttentionBlock {
            queries: queries_of_head,
            runs: &runs,
            first_position,
            causal: attention.causal,
            window: attention.window,
            position,
            scale: attention.scale,
            soft_cap: attention.soft_cap,
            mask: None,
        };
        if group > 1 && queries.sees_all(attention) {
            // Queries of one token stand in the kernel's lanes side by side, and the keys pass by once.
            let source = self.read(columns_of(*q, kv_head, group * width), queries.rows.clone(), block)?;
            let source = Matrix::contiguous(source.row(0).unwrap_or_default(), group, width)?;
            let mut target = self.write(columns_of(out, kv_head, group * width), queries.rows.clone(), block)?;
            let mut target = MatrixMut::contiguous(target.row_mut(0).unwrap_or_default(), group, width)?;
            let problem = AttentionBlock { causal: false, ..problem(source, PositionScores::None, 0) };
            return self.kernels.attention(&problem, scratch, &mut target);
        }
        for head in kv_head * group..(kv_head + 1) * group {
            let source = self.read(columns_of(*q, head, width), queries.rows.clone(), block)?;
            let mut target = self.write(columns_of(out, head, width), queries.rows.clone(), block)?;
            let position = self.position_scores(position, attention.heads, head, queries, block)?;
            let first_position = past + queries.rows.start - span.start;
            self.kernels.attention(&problem(source, position, first_position), scratch, &mut target)?;
        }
        Ok(())
    }
}

impl<'a> Run<'a> {
    /// What positions add to the scores of one head.
    fn position_scores(
        &self,
        tables: &PositionTables,
        heads: usize,
        head: usize,
        queries: &QueryBlock,
        block: &Block,
    ) -> Result<PositionScores<'a>> {
        match *tables {
            PositionTables::None => Ok(PositionScores::None),
            PositionTables::Bias { offset, distances } => {
                Ok(PositionScores::Bias(self.weight(offset + head * distances, distances)?))
            }
            PositionTables::Disentangled { offset, distances, content_to_position, position_to_content } => {
                let of_head = |view: View| columns_of(view, head, view.columns / heads);
                let span = queries.span;
                let keys = span.start..span.start + span.tokens;
                let c2p = content_to_position.map(|view| self.read(of_head(view), queries.rows.clone(), block));
                let p2c = position_to_content.map(|view| self.gather(of_head(view), keys));
                Ok(PositionScores::Disentangled {
                    buckets: self.indices(offset, distances)?,
                    content_to_position: c2p.transpose()?,
                    position_to_content: p2c.transpose()?,
                })
            }
        }
    }
}

/// The columns of one head, or one group.
pub(crate) fn columns_of(view: View, head: usize, width: usize) -> View {
    View { start: view.start + head * width, columns: width, ..view }
}

/// Keys and values of a sequence, page by page.
fn cached_runs<'a>(
    cache: &'a KvCache,
    slot: usize,
    span: &Span,
    attention: &Attention,
    kv_head: usize,
) -> Result<Vec<KeyRun<'a>>> {
    let total = span.past + span.tokens;
    let columns = kv_head * attention.head_dim..(kv_head + 1) * attention.head_dim;
    let mut runs = Vec::with_capacity(span.pages.len());
    for (index, &page) in span.pages.iter().enumerate() {
        let tokens = total.saturating_sub(index * PAGE_TOKENS).min(PAGE_TOKENS);
        if tokens > 0 {
            let keys = cache.page(slot, Side::Keys, page, tokens)?.slice_columns(columns.clone())?;
            let values = cache.page(slot, Side::Values, page, tokens)?.slice_columns(columns.clone())?;
            runs.push(KeyRun { keys, values });
        }
    }
    Ok(runs)
}

/// Queries of one sequence that are computed together: packed rows.
pub(crate) struct QueryBlock<'a> {
    span: &'a Span,
    rows: Range<usize>,
}

impl QueryBlock<'_> {
    /// Whether it is one query that sees all keys, whatever their positions.
    fn sees_all(&self, attention: &Attention) -> bool {
        let last = self.rows.end == self.span.start + self.span.tokens;
        let everything = attention.window.is_none() && attention.position == centuple_graph::PositionScores::None;
        self.rows.len() == 1 && last && everything
    }
}

/// The sequences that have rows in a range, each with those rows.
fn spans_within(layout: &Layout, rows: Range<usize>) -> impl Iterator<Item = (&Span, Range<usize>)> {
    let spans = layout.spans();
    let first = spans.partition_point(|span| span.start + span.tokens <= rows.start);
    spans[first..].iter().take_while(move |span| span.start < rows.end).map({
        let rows = rows.clone();
        move |span| (span, span.start.max(rows.start)..(span.start + span.tokens).min(rows.end))
    })
}

/// The row next to `row` at which a sequence starts or ends, or has a multiple of [`FEW_QUERIES`] before it.
pub(crate) fn whole_queries(layout: &Layout, row: usize) -> usize {
    let spans = layout.spans();
    let Some(span) = spans.get(spans.partition_point(|span| span.start + span.tokens <= row)) else {
        return layout.tokens();
    };
    let before = (row - span.start) / FEW_QUERIES * FEW_QUERIES;
    let after = span.tokens.min(before + FEW_QUERIES);
    span.start + if 2 * (row - span.start) < before + after { before } else { after }
}

/// The query blocks of at most `size` rows that cover a range of rows.
pub(crate) fn query_blocks(layout: &Layout, rows: Range<usize>, size: usize) -> impl Iterator<Item = QueryBlock<'_>> {
    spans_within(layout, rows).flat_map(move |(span, part)| {
        let end = part.end;
        part.step_by(size).map(move |start| QueryBlock { span, rows: start..end.min(start.saturating_add(size)) })
    })
}
