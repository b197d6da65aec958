//! What each stage does with its rows: views of memory go to kernels.

use std::borrow::Cow;
use std::ops::Range;

use centuple_graph::{Activation, Attention, Pooling};
use centuple_kernels as kernels;
use centuple_kernels::{
    AttentionBlock, EmbeddingTable, Epilogue, KernelError, Kernels, KeyRun, LayerNorm, Matrix, MatrixMut, PackedMatrix,
    attention_scratch,
};
use centuple_tensor::{Bindings, Layout, PAGE_TOKENS, Span};

use crate::kv_cache::{KvCache, Side};
use crate::plan::{Ids, Kernel, Packed, Place, Plan, Stage, Table, View};
use crate::shared::{Region, SharedFloats};

type Result<T> = std::result::Result<T, KernelError>;

/// Queries of one head that are computed together.
const QUERIES: usize = 32;
/// Work items per thread when a stage's columns are split: enough that a slow core is made up for.
const ITEMS_PER_THREAD: usize = 4;

/// Everything that stays the same while one batch runs.
pub(crate) struct Run<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) kernels: Kernels,
    pub(crate) weights: &'a [f32],
    pub(crate) arena: &'a SharedFloats,
    pub(crate) locals: &'a SharedFloats,
    pub(crate) scratch: &'a SharedFloats,
    pub(crate) scratch_length: usize,
    pub(crate) slot_starts: &'a [usize],
    pub(crate) bindings: Bindings,
    pub(crate) layout: &'a Layout,
    /// Ids of every input.
    pub(crate) ids: &'a [IdBuffer],
    /// Position of every token.
    pub(crate) positions: &'a IdBuffer,
    pub(crate) cache: Option<&'a KvCache>,
}

/// The integers of one input of the running batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdBuffer {
    /// As they were given.
    pub(crate) values: Vec<i64>,
    /// As rows of a table; what is negative or beyond 32 bits becomes a row that no table has.
    pub(crate) rows: Vec<u32>,
}

impl IdBuffer {
    /// Takes new integers, without allocating once the largest batch was seen.
    pub(crate) fn set(&mut self, values: impl Iterator<Item = i64>) {
        self.values.clear();
        self.values.extend(values);
        self.rows.clear();
        self.rows.extend(self.values.iter().map(|&id| u32::try_from(id).unwrap_or(u32::MAX)));
    }
}

/// The rows that a worker computes, and the private memory it uses for them.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) rows: Range<usize>,
    pub(crate) worker: usize,
    /// First float of the private memory, whose first row is the block's first.
    pub(crate) local_start: usize,
    pub(crate) local_rows: usize,
}

/// Floats of scratch that one worker needs for the largest batch.
pub(crate) fn scratch_length(plan: &Plan, capacity: &Bindings) -> usize {
    let of = |stage: &Stage| match &stage.kernel {
        Kernel::Attention { attention, .. } => {
            let keys = capacity.tokens.saturating_add(capacity.past);
            attention_scratch(keys, attention.head_dim, attention.head_dim)
        }
        Kernel::Embedding { .. }
        | Kernel::Linear { .. }
        | Kernel::LayerNorm { .. }
        | Kernel::Activation { .. }
        | Kernel::AppendCache { .. }
        | Kernel::Pool { .. }
        | Kernel::L2Normalize { .. }
        | Kernel::Columns { .. }
        | Kernel::Primitive { .. } => 0,
    };
    plan.stages.iter().map(of).max().unwrap_or(0)
}

impl<'a> Run<'a> {
    /// Runs a stage on all rows of a block.
    pub(crate) fn stage(&self, stage: &Stage, block: &Block) -> Result<()> {
        match (&stage.kernel, stage.out) {
            (Kernel::Linear { weight, .. }, Some(out)) => {
                let panels = kernels::panels(weight.n);
                self.linear(stage, out, 0..panels, block)
            }
            (Kernel::Attention { attention, .. }, Some(out)) => {
                for queries in query_blocks(self.layout, block.rows.clone()) {
                    for head in 0..attention.heads {
                        self.attend(stage, out, &queries, head, block)?;
                    }
                }
                Ok(())
            }
            (Kernel::Primitive { kind, operands, shape }, Some(out)) => self.primitive(kind, operands, shape, out),
            (_, out) => self.rows(stage, out, block.rows.clone(), block),
        }
    }

    /// How many items a stage falls into when its columns are split over `threads`.
    pub(crate) fn items(&self, stage: &Stage, rows: usize, threads: usize) -> usize {
        match &stage.kernel {
            Kernel::Linear { weight, .. } => kernels::panels(weight.n).div_ceil(2).min(threads * ITEMS_PER_THREAD),
            Kernel::Attention { attention, .. } => query_blocks(self.layout, 0..rows).count() * attention.heads,
            Kernel::Embedding { .. }
            | Kernel::LayerNorm { .. }
            | Kernel::Activation { .. }
            | Kernel::AppendCache { .. }
            | Kernel::Pool { .. }
            | Kernel::L2Normalize { .. }
            | Kernel::Columns { .. }
            | Kernel::Primitive { .. } => rows.min(threads),
        }
    }

    /// Runs one of `items` items of a stage.
    pub(crate) fn item(&self, stage: &Stage, item: usize, items: usize, block: &Block) -> Result<()> {
        match (&stage.kernel, stage.out) {
            (Kernel::Linear { weight, .. }, Some(out)) => {
                // Panels are dealt in pairs, the width of the widest kernel.
                let pairs = kernels::panels(weight.n).div_ceil(2);
                let at = |item: usize| (item * pairs / items * 2).min(kernels::panels(weight.n));
                self.linear(stage, out, at(item)..at(item + 1), block)
            }
            (Kernel::Attention { attention, .. }, Some(out)) => {
                let (index, head) = (item / attention.heads, item % attention.heads);
                match query_blocks(self.layout, block.rows.clone()).nth(index) {
                    Some(queries) => self.attend(stage, out, &queries, head, block),
                    None => Ok(()),
                }
            }
            (_, out) => {
                let at = |item: usize| item * block.rows.len() / items;
                self.rows(stage, out, at(item)..at(item + 1), block)
            }
        }
    }

    fn linear(&self, stage: &Stage, out: View, panels: Range<usize>, block: &Block) -> Result<()> {
        let Kernel::Linear { x, weight, bias, activation, residual } = &stage.kernel else { return Ok(()) };
        let rows = block.rows.clone();
        let epilogue = Epilogue {
            bias: bias.map(|offset| self.weight(offset, weight.n)).transpose()?,
            activation: activation.map(kernel_activation),
            residual: residual.map(|view| self.read(view, rows.clone(), block)).transpose()?,
        };
        let x = self.read(*x, rows.clone(), block)?;
        self.kernels.gemm(x, self.packed(*weight)?, panels, &epilogue, &mut self.write(out, rows, block)?)
    }

    /// The stages that are nothing but rows.
    fn rows(&self, stage: &Stage, out: Option<View>, rows: Range<usize>, block: &Block) -> Result<()> {
        let Some(out) = out else { return self.append(stage, rows, block) };
        let mut target = self.write(out, rows.clone(), block)?;
        match &stage.kernel {
            Kernel::Embedding { tables } => self.embed(tables, rows, &mut target),
            Kernel::LayerNorm { x, residual, gamma, beta, epsilon } => {
                let norm = LayerNorm {
                    gamma: self.weight(*gamma, x.columns)?,
                    beta: Some(self.weight(*beta, x.columns)?),
                    epsilon: *epsilon,
                };
                let residual = residual.map(|view| self.read(view, rows.clone(), block)).transpose()?;
                self.kernels.layer_norm(self.read(*x, rows, block)?, residual, &norm, &mut target)
            }
            Kernel::Activation { x, activation } => {
                copy(self.read(*x, rows, block)?, &mut target);
                for row in 0..target.rows() {
                    if let Some(row) = target.row_mut(row) {
                        self.kernels.activate(kernel_activation(*activation), row);
                    }
                }
                Ok(())
            }
            Kernel::L2Normalize { x, epsilon } => {
                copy(self.read(*x, rows, block)?, &mut target);
                kernels::l2_normalize(&mut target, *epsilon);
                Ok(())
            }
            Kernel::Pool { x, pooling } => self.pool(*x, *pooling, rows, &mut target),
            Kernel::Columns { parts } => {
                let mut start = 0;
                for part in parts {
                    let from = self.read(*part, rows.clone(), block)?;
                    let end = start + part.columns;
                    copy(
                        from,
                        &mut self.write(
                            View { start: out.start + start, columns: end - start, ..out },
                            rows.clone(),
                            block,
                        )?,
                    );
                    start = end;
                }
                Ok(())
            }
            // These are dispatched before.
            Kernel::Linear { .. }
            | Kernel::Attention { .. }
            | Kernel::AppendCache { .. }
            | Kernel::Primitive { .. } => Ok(()),
        }
    }

    fn embed(&self, tables: &[Table], rows: Range<usize>, out: &mut MatrixMut) -> Result<()> {
        let columns = out.columns();
        let mut entries = Vec::with_capacity(tables.len());
        let shifted: Vec<Cow<[u32]>> = tables.iter().map(|table| self.table_rows(&table.ids, &rows)).collect();
        for (table, ids) in tables.iter().zip(&shifted) {
            let floats = self.weight(table.offset, table.rows * columns)?;
            entries.push(EmbeddingTable { table: Matrix::contiguous(floats, table.rows, columns)?, ids });
        }
        kernels::embed(&entries, out)
    }

    fn pool(&self, x: View, pooling: Pooling, rows: Range<usize>, out: &mut MatrixMut) -> Result<()> {
        let first = rows.start;
        for sequence in rows {
            let Some(span) = self.layout.spans().get(sequence) else { continue };
            let tokens = self.gather(x, span.start..span.start + span.tokens)?;
            if let Some(row) = out.row_mut(sequence - first) {
                kernels::pool(kernel_pooling(pooling), tokens, span.pool_from, row)?;
            }
        }
        Ok(())
    }

    /// Writes new keys and values to their pages.
    fn append(&self, stage: &Stage, rows: Range<usize>, block: &Block) -> Result<()> {
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

    fn attend(&self, stage: &Stage, out: View, queries: &QueryBlock, head: usize, block: &Block) -> Result<()> {
        let Kernel::Attention { q, k, v, attention } = &stage.kernel else { return Ok(()) };
        let width = attention.head_dim;
        let of_head = |view: View, head: usize| View { start: view.start + head * width, columns: width, ..view };
        let kv_head = head / (attention.heads / attention.kv_heads);
        let span = queries.span;
        let mut target = self.write(of_head(out, head), queries.rows.clone(), block)?;
        let source = self.read(of_head(*q, head), queries.rows.clone(), block)?;
        let offset = queries.rows.start - span.start;
        let scratch = self.scratch.write_slice(block.worker * self.scratch_length, self.scratch_length)?;
        let mut compute = |runs: &[KeyRun], first_position: usize| {
            let causal = attention.causal;
            let problem =
                AttentionBlock { queries: source, runs, first_position, causal, scale: attention.scale, mask: None };
            self.kernels.attention(&problem, scratch, &mut target)
        };
        match (attention.cache, self.cache) {
            (Some(slot), Some(cache)) => {
                compute(&cached_runs(cache, slot, span, attention, kv_head)?, span.past + offset)
            }
            _ => {
                let rows = span.start..span.start + span.tokens;
                let keys = self.gather(of_head(*k, kv_head), rows.clone())?;
                compute(&[KeyRun { keys, values: self.gather(of_head(*v, kv_head), rows)? }], offset)
            }
        }
    }

    /// The rows of a table that tokens look up.
    fn table_rows(&self, ids: &Ids, tokens: &Range<usize>) -> Cow<'a, [u32]> {
        let of = |buffer: &'a IdBuffer| buffer.rows.get(tokens.clone()).unwrap_or_default();
        match ids {
            Ids::Input(index) => Cow::Borrowed(self.ids.get(*index).map(of).unwrap_or_default()),
            Ids::Positions { offset: 0 } => Cow::Borrowed(of(self.positions)),
            Ids::Positions { offset } => {
                let shift = |&row: &u32| u32::try_from(i64::from(row) + offset).unwrap_or(u32::MAX);
                of(self.positions).iter().map(shift).collect()
            }
        }
    }

    /// The integers behind ids.
    pub(crate) fn integers(&self, ids: &Ids) -> Cow<'a, [i64]> {
        match ids {
            Ids::Input(index) => {
                Cow::Borrowed(self.ids.get(*index).map(|buffer| buffer.values.as_slice()).unwrap_or_default())
            }
            Ids::Positions { offset } => self.positions.values.iter().map(|position| position + offset).collect(),
        }
    }

    /// Weights from `offset` on.
    pub(crate) fn weight(&self, offset: usize, length: usize) -> Result<&'a [f32]> {
        self.weights.get(offset..offset + length).ok_or(KernelError::TooSmall {
            kernel: "plan",
            what: "weights",
            found: self.weights.len(),
            needed: offset + length,
        })
    }

    fn packed(&self, weight: Packed) -> Result<PackedMatrix<'a>> {
        let data = self.weight(weight.offset, kernels::packed_len(weight.n, weight.k))?;
        PackedMatrix::new(data, weight.n, weight.k)
    }

    /// Rows of a view to read, at the block's own rows.
    fn read(&self, view: View, rows: Range<usize>, block: &Block) -> Result<Matrix<'a>> {
        let value = &self.plan.values[view.value];
        let count = rows.len();
        match value.place {
            Place::Weights { offset } => {
                let floats = self.weight(offset + rows.start * view.stride, count * view.stride)?;
                Matrix::new(floats, count, value.columns, view.stride)?
                    .slice_columns(view.start..view.start + view.columns)
            }
            Place::Shared { slot } => self.arena.read(region(view, self.slot_starts[slot], &rows)),
            Place::Local { column } => self.locals.read(local_region(view, column, rows, block)),
            Place::Unplaced => Err(KernelError::Empty { kernel: "plan", what: "place of a value" }),
        }
    }

    /// Any rows of a view in the shared arena.
    fn gather(&self, view: View, rows: Range<usize>) -> Result<Matrix<'a>> {
        let block = Block { rows: rows.clone(), worker: 0, local_start: 0, local_rows: 0 };
        self.read(view, rows, &block)
    }

    /// Rows of a view to write.
    fn write(&self, view: View, rows: Range<usize>, block: &Block) -> Result<MatrixMut<'a>> {
        match self.plan.values[view.value].place {
            Place::Shared { slot } => self.arena.write(region(view, self.slot_starts[slot], &rows)),
            Place::Local { column } => self.locals.write(local_region(view, column, rows, block)),
            Place::Weights { .. } | Place::Unplaced => {
                Err(KernelError::Empty { kernel: "plan", what: "writable place of a value" })
            }
        }
    }
}

fn region(view: View, slot: usize, rows: &Range<usize>) -> Region {
    let start = slot + rows.start * view.stride + view.start;
    Region { start, rows: rows.len(), columns: view.columns, stride: view.stride }
}

fn local_region(view: View, column: usize, rows: Range<usize>, block: &Block) -> Region {
    let first = rows.start.saturating_sub(block.rows.start);
    let start = block.local_start + column * block.local_rows + first * view.stride + view.start;
    Region { start, rows: rows.len(), columns: view.columns, stride: view.stride }
}

fn copy(from: Matrix, to: &mut MatrixMut) {
    for row in 0..from.rows() {
        if let (Some(source), Some(target)) = (from.row(row), to.row_mut(row)) {
            target.copy_from_slice(source);
        }
    }
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
struct QueryBlock<'a> {
    span: &'a Span,
    rows: Range<usize>,
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

/// The query blocks that cover a range of rows.
fn query_blocks(layout: &Layout, rows: Range<usize>) -> impl Iterator<Item = QueryBlock<'_>> {
    spans_within(layout, rows).flat_map(|(span, part)| {
        let end = part.end;
        part.step_by(QUERIES).map(move |start| QueryBlock { span, rows: start..end.min(start + QUERIES) })
    })
}

/// The kernel's name of an activation.
pub(crate) fn kernel_activation(activation: Activation) -> kernels::Activation {
    match activation {
        Activation::Gelu => kernels::Activation::Gelu,
        Activation::GeluTanh => kernels::Activation::GeluTanh,
        Activation::QuickGelu => kernels::Activation::QuickGelu,
        Activation::Relu => kernels::Activation::Relu,
        Activation::Silu => kernels::Activation::Silu,
        Activation::Tanh => kernels::Activation::Tanh,
        Activation::Sigmoid => kernels::Activation::Sigmoid,
    }
}

fn kernel_pooling(pooling: Pooling) -> kernels::Pooling {
    match pooling {
        Pooling::Cls => kernels::Pooling::Cls,
        Pooling::Mean => kernels::Pooling::Mean,
        Pooling::Max => kernels::Pooling::Max,
        Pooling::MeanSqrtLength => kernels::Pooling::MeanSqrtLen,
        Pooling::WeightedMean => kernels::Pooling::WeightedMean,
        Pooling::LastToken => kernels::Pooling::LastToken,
    }
}
