//! Attention stages: which queries and keys go to the kernel together.

use std::ops::Range;

use centuple_graph::Attention;
use centuple_kernels::{
    AttentionBlock, KernelError, KeyRun, Matrix, MatrixMut, PagedKeys, PositionScores, TokenAttention,
};
use centuple_tensor::{Layout, Span};

use crate::compute::{Block, Run};
use crate::kv_cache::KvCache;
use crate::plan::{Kernel, PositionTables, Stage, View};

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
                let [key, value] = [k, v].map(|view| self.read(*view, token..token + 1, block));
                let [key, value] = [key?, value?].map(|rows| rows.row(0).unwrap_or_default());
                cache.store(*slot, &span.pages, position, key, value)?;
            }
        }
        Ok(())
    }

    /// Asks for the memory that [`Run::append`] is going to write.
    pub(crate) fn expect_append(&self, stage: &Stage) {
        let (Kernel::AppendCache { slot, .. }, Some(cache)) = (&stage.kernel, self.cache) else { return };
        for span in self.layout.spans() {
            (span.past..span.past + span.tokens).for_each(|position| cache.expect(*slot, &span.pages, position));
        }
    }

    /// Some heads of keys and values for one block of queries, before the worker is likely to get the `next` block.
    pub(crate) fn attend_heads(
        &self,
        stage: &Stage,
        out: View,
        (queries, next): (&QueryBlock, Option<&QueryBlock>),
        heads: Range<usize>,
        block: &Block,
    ) -> Result<()> {
        let last = heads.end.saturating_sub(1);
        heads.into_iter().try_for_each(|head| {
            let next = if head < last { Some((queries, head + 1)) } else { next.map(|next| (next, 0)) };
            self.attend(stage, out, (queries, head), next, block)
        })
    }

    /// The heads that share one head of keys and values, for one block of queries.
    fn attend(
        &self,
        stage: &Stage,
        out: View,
        (queries, kv_head): (&QueryBlock, usize),
        next: Option<(&QueryBlock, usize)>,
        block: &Block,
    ) -> Result<()> {
        let Kernel::Attention { q, k, v, attention, position } = &stage.kernel else { return Ok(()) };
        let (width, group) = (attention.head_dim, attention.heads / attention.kv_heads);
        let span = queries.span;
        let scratch = self.scratch.write_slice(block.worker * self.scratch_length, self.scratch_length)?;
        let (runs, past) = match (attention.cache, self.cache) {
            (Some(slot), Some(cache)) => {
                let keys = queries.keys(attention, (cache, slot), kv_head)?;
                if queries.is_plain_token(attention) {
                    // Its queries share the keys, which pass by once.
                    let source = self.read(columns_of(*q, kv_head, group * width), queries.rows.clone(), block)?;
                    let mut target =
                        self.write(columns_of(out, kv_head, group * width), queries.rows.clone(), block)?;
                    let first_key = |keys: &PagedKeys| {
                        attention.window.map_or(0, |window| keys.tokens().saturating_sub(1 + window))
                    };
                    let next = next.map(|(next, head)| next.keys(attention, (cache, slot), head)).transpose()?;
                    let token = TokenAttention {
                        queries: Matrix::contiguous(source.row(0).unwrap_or_default(), group, width)?,
                        keys,
                        first_key: first_key(&keys),
                        next: next.map(|keys| (keys, first_key(&keys))),
                        scale: attention.scale,
                        soft_cap: attention.soft_cap,
                    };
                    let mut target = MatrixMut::contiguous(target.row_mut(0).unwrap_or_default(), group, width)?;
                    return self.kernels.attend_token(&token, scratch, &mut target);
                }
                (keys.pages().map(KeyRun::Page).collect(), span.past)
            }
            _ => {
                let rows = span.start..span.start + span.tokens;
                let keys = self.gather(columns_of(*k, kv_head, width), rows.clone())?;
                (vec![KeyRun::Rows { keys, values: self.gather(columns_of(*v, kv_head, width), rows)? }], 0)
            }
        };
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
        for head in kv_head * group..(kv_head + 1) * group {
            let source = self.read(columns_of(*q, head, width), queries.rows.clone(), block)?;
            let mut target = self.write(columns_of(out, head, width), queries.rows.clone(), block)?;
            let position = self.position_scores(position, attention.heads, head, queries, block)?;
            let first_position = past + queries.rows.start - span.start;
            self.kernels.attention(&problem(source, position, first_position), scratch, &mut target)?;
        }
        Ok(())
    }

    /// One head of attention to what an encoder has left in the pages of the sequence's source.
    pub(crate) fn attend_source(
        &self,
        stage: &Stage,
        out: View,
        queries: &QueryBlock,
        head: usize,
        block: &Block,
    ) -> Result<()> {
        let Kernel::CrossAttention { q, attention } = &stage.kernel else { return Ok(()) };
        let (scale, columns) = (attention.scale, columns_of(*q, head, attention.head_dim));
        let scratch = self.scratch.write_slice(block.worker * self.scratch_length, self.scratch_length)?;
        let queried = self.read(columns, queries.rows.clone(), block)?;
        let mut target = self.write(columns_of(out, head, attention.head_dim), queries.rows.clone(), block)?;
        let runs = match (&queries.span.source, self.cache) {
            (Some(source), Some(cache)) => {
                let keys = cache.keys(attention.slot, head, &source.pages, source.tokens)?;
                if queried.rows() == 1 {
                    let token =
                        TokenAttention { queries: queried, keys, first_key: 0, next: None, scale, soft_cap: None };
                    return self.kernels.attend_token(&token, scratch, &mut target);
                }
                keys.pages().map(KeyRun::Page).collect()
            }
            _ => Vec::new(),
        };
        let problem = AttentionBlock {
            queries: queried,
            runs: &runs,
            first_position: 0,
            causal: false,
            window: None,
            position: PositionScores::None,
            scale,
            soft_cap: None,
            mask: None,
        };
        self.kernels.attention(&problem, scratch, &mut target)
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

/// Queries of one sequence that are computed together: packed rows.
pub(crate) struct QueryBlock<'a> {
    span: &'a Span,
    rows: Range<usize>,
}

impl<'a> QueryBlock<'a> {
    /// The keys that it sees, of one head.
    fn keys(&self, attention: &Attention, (cache, slot): (&'a KvCache, usize), head: usize) -> Result<PagedKeys<'a>> {
        // Keys behind the last query are hidden from all.
        let seen = if attention.causal { self.rows.end - self.span.start } else { self.span.tokens };
        cache.keys(slot, head, &self.span.pages, self.span.past + seen)
    }

    /// Whether it is one token that sees the keys before it, or the last of them, whatever their positions.
    fn is_plain_token(&self, attention: &Attention) -> bool {
        let plain = attention.causal && attention.position == centuple_graph::PositionScores::None;
        self.rows.len() == 1 && plain
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
