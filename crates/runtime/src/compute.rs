//! What each stage does with its rows: views of memory go to kernels.

use std::borrow::Cow;
use std::ops::Range;

use centuple_graph::{Activation, Pooling};
use centuple_kernels as kernels;
use centuple_kernels::{
    EmbeddingTable, Epilogue, Gate, Int8Table, KernelError, Kernels, LayerNorm, Matrix, MatrixMut, PackedInt4,
    PackedInt8, Quantization, QuantizedRows, QuantizedRowsMut, RmsNorm, RowCodes, attention_scratch,
};
use centuple_tensor::{Bindings, Layout};

use crate::attend::{FEW_QUERIES, columns_of, query_blocks};
use crate::ids::BatchIds;
use crate::kv_cache::KvCache;
use crate::plan::{Ids, Kernel, Packed, PackedNibbles, Plan, Quantized, RowOperand, Stage, Table, View};
use crate::pooled::{self, columns};
use crate::primitive::{self, kernel_binary, kernel_unary};
use crate::shared::SharedFloats;
use crate::store::Weights;
use crate::views::copy;

/// Query blocks for each thread from which on a thread takes all heads of one at once.
const MANY_BLOCKS: usize = 8;

type Result<T> = std::result::Result<T, KernelError>;

/// Everything that stays the same while one batch runs.
pub(crate) struct Run<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) kernels: Kernels,
    pub(crate) weights: &'a Weights,
    pub(crate) arena: &'a SharedFloats,
    pub(crate) locals: &'a SharedFloats,
    pub(crate) scratch: &'a SharedFloats,
    pub(crate) scratch_length: usize,
    pub(crate) slot_starts: &'a [usize],
    pub(crate) bindings: Bindings,
    /// Threads that share the work.
    pub(crate) threads: usize,
    pub(crate) layout: &'a Layout,
    pub(crate) ids: &'a BatchIds,
    pub(crate) cache: Option<&'a KvCache>,
}

/// The rows that a worker computes, and the private memory it uses for them.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) rows: Range<usize>,
    pub(crate) worker: usize,
    /// First float of the private memory, whose first row is the block's first.
    pub(crate) local_start: usize,
    /// The same for what the worker computes for itself.
    pub(crate) own_start: usize,
    pub(crate) local_rows: usize,
}

/// Floats of scratch that one worker needs for the largest batch.
pub(crate) fn scratch_length(plan: &Plan, capacity: &Bindings) -> usize {
    let of = |stage: &Stage| {
        if let Kernel::PooledLinear { linear } = &stage.kernel {
            return pooled::scratch_length(linear);
        }
        if let Kernel::Primitive { kind, operands, .. } = &stage.kernel {
            return primitive::scratch_length(kind, operands, capacity);
        }
        let keys = capacity.tokens.saturating_add(capacity.past);
        if let Kernel::CrossAttention { attention, .. } = &stage.kernel {
            return attention_scratch(keys, attention.head_dim, attention.head_dim);
        }
        let Kernel::Attention { attention, .. } = &stage.kernel else { return 0 };
        attention_scratch(keys, attention.head_dim, attention.head_dim)
    };
    plan.stages.iter().map(of).max().unwrap_or(0)
}

impl<'a> Run<'a> {
    /// Runs a stage on all rows of a block.
    pub(crate) fn stage(&self, stage: &Stage, block: &Block) -> Result<()> {
        match (&stage.kernel, stage.out) {
            (
                Kernel::Linear { .. } | Kernel::QuantizedLinear { .. } | Kernel::GroupQuantizedLinear { .. },
                Some(out),
            ) => self.linear(stage, out, 0..kernels::panels(columns(&stage.kernel)), block),
            (Kernel::PooledLinear { linear }, Some(out)) => {
                self.pooled_linear(linear, out, 0..kernels::panels(columns(linear)), block)
            }
            (Kernel::GroupedLinear { groups, .. }, Some(out)) => self.grouped_linear(stage, out, 0..*groups, block),
            (Kernel::Attention { attention, .. }, Some(out)) => {
                // All queries of a sequence at once: the keys and values of a head are brought to the core once.
                let mut blocks = query_blocks(self.layout, block.rows.clone(), usize::MAX).peekable();
                while let Some(queries) = blocks.next() {
                    self.attend_heads(stage, out, (&queries, blocks.peek()), 0..attention.kv_heads, block)?;
                }
                Ok(())
            }
            (Kernel::CrossAttention { attention, .. }, Some(out)) => {
                for queries in query_blocks(self.layout, block.rows.clone(), usize::MAX) {
                    for head in 0..attention.heads {
                        self.attend_source(stage, out, &queries, head, block)?;
                    }
                }
                Ok(())
            }
            (_, out) => self.rows(stage, out, block.rows.clone(), block),
        }
    }

    /// How many items a stage falls into when its columns are split over `threads`.
    pub(crate) fn items(&self, stage: &Stage, rows: usize, threads: usize) -> usize {
        match &stage.kernel {
            // One for each thread: more of them cost more than a slow core does, which is left out when it begins nothing.
            Kernel::Linear { .. } | Kernel::QuantizedLinear { .. } | Kernel::GroupQuantizedLinear { .. } => {
                kernels::panels(columns(&stage.kernel)).div_ceil(2).min(threads)
            }
            Kernel::PooledLinear { linear } => kernels::panels(columns(linear)).div_ceil(2).min(threads),
            Kernel::GroupedLinear { groups, .. } => (*groups).min(threads),
            Kernel::Attention { attention, .. } => {
                let blocks = query_blocks(self.layout, 0..rows, FEW_QUERIES).count();
                // The heads of a sequence lie side by side.
                if blocks >= MANY_BLOCKS * threads { blocks } else { blocks * attention.kv_heads }
            }
            Kernel::CrossAttention { attention, .. } => {
                query_blocks(self.layout, 0..rows, FEW_QUERIES).count() * attention.heads
            }
            Kernel::Embedding { .. }
            | Kernel::Quantize { .. }
            | Kernel::LayerNorm { .. }
            | Kernel::RmsNorm { .. }
            | Kernel::HeadNorm { .. }
            | Kernel::Activation { .. }
            | Kernel::Gate { .. }
            | Kernel::Unary { .. }
            | Kernel::Binary { .. }
            | Kernel::AppendCache { .. }
            | Kernel::Pool { .. }
            | Kernel::Select { .. }
            | Kernel::L2Normalize { .. }
            | Kernel::Rotary { .. }
            | Kernel::Columns { .. }
            | Kernel::Primitive { .. } => rows.min(threads),
        }
    }

    /// Runs one of `items` items of a stage.
    pub(crate) fn item(&self, stage: &Stage, item: usize, items: usize, block: &Block) -> Result<()> {
        match (&stage.kernel, stage.out) {
            (
                Kernel::Linear { .. } | Kernel::QuantizedLinear { .. } | Kernel::GroupQuantizedLinear { .. },
                Some(out),
            ) => self.linear(stage, out, panels_of(columns(&stage.kernel), item, items), block),
            (Kernel::PooledLinear { linear }, Some(out)) => {
                self.pooled_linear(linear, out, panels_of(columns(linear), item, items), block)
            }
            (Kernel::GroupedLinear { groups, .. }, Some(out)) => {
                let at = |item: usize| item * groups / items;
                self.grouped_linear(stage, out, at(item)..at(item + 1), block)
            }
            (Kernel::Attention { attention, .. }, Some(out)) => {
                let blocks = || query_blocks(self.layout, block.rows.clone(), FEW_QUERIES);
                if items > blocks().count() {
                    let (index, head) = (item / attention.kv_heads, item % attention.kv_heads);
                    let Some(queries) = blocks().nth(index) else { return Ok(()) };
                    return self.attend_heads(stage, out, (&queries, None), head..head + 1, block);
                }
                let mut blocks = blocks().skip(item);
                let Some(queries) = blocks.next() else { return Ok(()) };
                // Workers that are equally fast take turns.
                let next = blocks.nth(self.threads.saturating_sub(1));
                self.attend_heads(stage, out, (&queries, next.as_ref()), 0..attention.kv_heads, block)
            }
            (Kernel::CrossAttention { attention, .. }, Some(out)) => {
                let (index, head) = (item / attention.heads, item % attention.heads);
                match query_blocks(self.layout, block.rows.clone(), FEW_QUERIES).nth(index) {
                    Some(queries) => self.attend_source(stage, out, &queries, head, block),
                    None => Ok(()),
                }
            }
            (_, out) => {
                let at = |item: usize| item * block.rows.len() / items;
                self.rows(stage, out, at(item)..at(item + 1), block)
            }
        }
    }

    /// Some columns of a linear layer's result.
    fn linear(&self, stage: &Stage, out: View, panels: Range<usize>, block: &Block) -> Result<()> {
        let rows = block.rows.clone();
        let mut target = self.write(out, rows.clone(), block)?;
        self.product(&stage.kernel, rows, panels, block, &mut target)
    }

    /// Some rows and columns of a linear layer's result, to be put into `target`, which has all columns.
    pub(crate) fn product(
        &self,
        linear: &Kernel,
        rows: Range<usize>,
        panels: Range<usize>,
        block: &Block,
        target: &mut MatrixMut,
    ) -> Result<()> {
        let epilogue = |bias: Option<usize>, n, activation: Option<Activation>, residual: Option<View>| {
            Ok::<_, KernelError>(Epilogue {
                bias: bias.map(|offset| self.weight(offset, n)).transpose()?,
                activation: activation.map(kernel_activation),
                residual: residual.map(|view| self.read(view, rows.clone(), block)).transpose()?,
            })
        };
        if let Kernel::Linear { x, weight, bias, activation, residual } = linear {
            let epilogue = epilogue(*bias, weight.n, *activation, *residual)?;
            let x = self.read(*x, rows.clone(), block)?;
            if weight.half {
                return self.kernels.gemm_half(x, self.packed_half(*weight)?, panels, &epilogue, target);
            }
            return self.kernels.gemm(x, self.packed(*weight)?, panels, &epilogue, target);
        }
        if let Kernel::GroupQuantizedLinear { x, weight, bias, activation, residual } = linear {
            let epilogue = epilogue(*bias, weight.n, *activation, *residual)?;
            let PackedNibbles { offset, n, k, group, zero_points } = *weight;
            let x = QuantizedRows::new(self.read(*x, rows.clone(), block)?, k, RowCodes::Groups(group))?;
            let words = self.weight(offset, kernels::packed_int4_len(n, k, group, zero_points))?;
            let codes = PackedInt4::new(words, n, k, group, zero_points)?;
            return self.kernels.gemm_int4(x, codes, panels, &epilogue, target);
        }
        let Kernel::QuantizedLinear { x, weight, bias, activation, residual } = linear else { return Ok(()) };
        let epilogue = epilogue(*bias, weight.n, *activation, *residual)?;
        let x = QuantizedRows::new(self.read(*x, rows.clone(), block)?, weight.k, weight.bits)?;
        let words = self.weight(weight.offset, kernels::packed_int8_len(weight.n, weight.k))?;
        let codes = PackedInt8::new(words, weight.n, weight.k, weight.bits)?;
        self.kernels.gemm_int8(x, codes, panels, &epilogue, target)
    }

    fn grouped_linear(&self, stage: &Stage, out: View, groups: Range<usize>, block: &Block) -> Result<()> {
        let Kernel::GroupedLinear { x, weight, .. } = &stage.kernel else { return Ok(()) };
        for group in groups {
            let offset = weight.offset + group * kernels::packed_len(weight.n, weight.k);
            let packed = self.packed(Packed { offset, ..*weight })?;
            let x = self.read(columns_of(*x, group, weight.k), block.rows.clone(), block)?;
            let mut target = self.write(columns_of(out, group, weight.n), block.rows.clone(), block)?;
            self.kernels.gemm(x, packed, 0..packed.panels(), &Epilogue::default(), &mut target)?;
        }
        Ok(())
    }

    /// How and where rows of a block are quantised.
    fn quantization(&self, quantized: &Quantized, rows: Range<usize>, block: &Block) -> Result<Quantization<'a>> {
        let words = self.write(quantized.out, rows, block)?;
        Ok(Quantization {
            factor: quantized.factor.map(|factor| self.weight(factor, quantized.k)).transpose()?,
            rows: QuantizedRowsMut::new(words, quantized.k, quantized.form)?.within(quantized.range),
        })
    }

    /// The stages that are nothing but rows.
    fn rows(&self, stage: &Stage, out: Option<View>, rows: Range<usize>, block: &Block) -> Result<()> {
        let Some(out) = out else { return self.append(stage, rows, block) };
        let mut target = self.write(out, rows.clone(), block)?;
        match &stage.kernel {
            Kernel::Embedding { tables } => self.embed(tables, rows, &mut target),
            Kernel::Quantize { x, quantized } => {
                let mut quantization = self.quantization(quantized, rows.clone(), block)?;
                let x = self.read(*x, rows, block)?;
                self.kernels.quantize_rows(x, quantization.factor, &mut quantization.rows)
            }
            Kernel::LayerNorm { x, residual, gamma, beta, epsilon, quantized } => {
                let norm = LayerNorm {
                    gamma: self.weight(*gamma, x.columns)?,
                    beta: Some(self.weight(*beta, x.columns)?),
                    epsilon: *epsilon,
                };
                let residual = residual.map(|view| self.read(view, rows.clone(), block)).transpose()?;
                let x = self.read(*x, rows.clone(), block)?;
                let Some(quantized) = quantized else {
                    return self.kernels.layer_norm(x, residual, &norm, &mut target);
                };
                let mut quantization = self.quantization(quantized, rows, block)?;
                self.kernels.layer_norm_quantize(x, residual, &norm, &mut target, &mut quantization)
            }
            Kernel::RmsNorm { x, residual, gamma, epsilon, quantized } => {
                let norm = RmsNorm { gamma: self.weight(*gamma, x.columns)?, epsilon: *epsilon };
                let residual = residual.map(|view| self.read(view, rows.clone(), block)).transpose()?;
                let x = self.read(*x, rows.clone(), block)?;
                let Some(quantized) = quantized else {
                    return self.kernels.rms_norm(x, residual, &norm, &mut target);
                };
                let mut quantization = self.quantization(quantized, rows, block)?;
                self.kernels.rms_norm_quantize(x, residual, &norm, &mut target, &mut quantization)
            }
            Kernel::HeadNorm { x, heads, gamma, epsilon } => {
                let head_dim = x.columns / heads;
                let norm = RmsNorm { gamma: self.weight(*gamma, head_dim)?, epsilon: *epsilon };
                for head in 0..*heads {
                    let x = self.read(columns_of(*x, head, head_dim), rows.clone(), block)?;
                    let mut target = self.write(columns_of(out, head, head_dim), rows.clone(), block)?;
                    self.kernels.rms_norm(x, None, &norm, &mut target)?;
                }
                Ok(())
            }
            Kernel::Gate { a, b, activation, quantized } => {
                let [a, b] = [a, b].map(|view| self.read(*view, rows.clone(), block));
                let gate = Gate { a: a?, b: b?, activation: kernel_activation(*activation) };
                let Some(quantized) = quantized else { return self.kernels.gate(&gate, &mut target) };
                let mut quantization = self.quantization(quantized, rows, block)?;
                self.kernels.gate_quantize(&gate, &mut target, &mut quantization)
            }
            Kernel::Unary { x, unary } => {
                copy(self.read(*x, rows, block)?, &mut target);
                for row in 0..target.rows() {
                    if let Some(row) = target.row_mut(row) {
                        self.kernels.unary(kernel_unary(*unary), row);
                    }
                }
                Ok(())
            }
            Kernel::Binary { binary, a, b } => {
                let [a, b] = [a, b].map(|operand| self.row_operand(*operand, out.columns, rows.clone(), block));
                self.kernels.combine(kernel_binary(*binary), a?, b?, &mut target)
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
            Kernel::Rotary { x, rotary } => {
                let table = self.weight(rotary.offset, rotary.rows * rotary.columns)?;
                let rotary = kernels::Rotary {
                    head_dim: rotary.head_dim,
                    interleaved: rotary.interleaved,
                    table: Matrix::contiguous(table, rotary.rows, rotary.columns)?,
                    positions: &self.ids.rows(&rotary.positions, &rows),
                };
                self.kernels.rotary(self.read(*x, rows, block)?, &rotary, &mut target)
            }
            Kernel::Pool { x, pooling, ids } => self.pool(*x, *pooling, ids.as_ref(), rows, &mut target),
            Kernel::Select { x } => {
                let selected = self.ids.selected().get(rows).unwrap_or_default();
                for (index, &token) in selected.iter().enumerate() {
                    let source = self.gather(*x, token..token + 1)?;
                    if let (Some(source), Some(row)) = (source.row(0), target.row_mut(index)) {
                        row.copy_from_slice(source);
                    }
                }
                Ok(())
            }
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
            | Kernel::QuantizedLinear { .. }
            | Kernel::GroupQuantizedLinear { .. }
            | Kernel::PooledLinear { .. }
            | Kernel::GroupedLinear { .. }
            | Kernel::Attention { .. }
            | Kernel::CrossAttention { .. }
            | Kernel::AppendCache { .. }
            | Kernel::Primitive { .. } => Ok(()),
        }
    }

    fn embed(&self, tables: &[Table], rows: Range<usize>, out: &mut MatrixMut) -> Result<()> {
        let columns = out.columns();
        let mut entries = Vec::with_capacity(tables.len());
        let shifted: Vec<Cow<[u32]>> = tables.iter().map(|table| self.ids.rows(&table.ids, &rows)).collect();
        for (table, ids) in tables.iter().zip(&shifted) {
            let table = if table.codes {
                let words = self.weight(table.offset, table.rows * kernels::int8_table_columns(columns))?;
                kernels::Table::from(Int8Table::new(words, table.rows, columns)?)
            } else {
                let floats = self.weight(table.offset, table.rows * columns)?;
                kernels::Table::from(Matrix::contiguous(floats, table.rows, columns)?)
            };
            entries.push(EmbeddingTable { table, ids });
        }
        kernels::embed(&entries, out)
    }

    fn row_operand(
        &self,
        operand: RowOperand,
        columns: usize,
        rows: Range<usize>,
        block: &Block,
    ) -> Result<kernels::RowOperand<'a>> {
        Ok(match operand {
            RowOperand::Rows(view) => kernels::RowOperand::Rows(self.read(view, rows, block)?),
            RowOperand::Row { offset } => kernels::RowOperand::Row(self.weight(offset, columns)?),
            RowOperand::Number { offset } => kernels::RowOperand::Number(self.weight(offset, 1)?[0]),
        })
    }

    fn pool(
        &self,
        x: View,
        pooling: Pooling,
        ids: Option<&Ids>,
        rows: Range<usize>,
        out: &mut MatrixMut,
    ) -> Result<()> {
        let first = rows.start;
        let ids = ids.map(|ids| self.ids.integers(ids)).unwrap_or_default();
        for sequence in rows {
            let Some(span) = self.layout.spans().get(sequence) else { continue };
            let tokens = self.gather(x, span.start..span.start + span.tokens)?;
            if let Some(row) = out.row_mut(sequence - first) {
                let ids = ids.get(span.start..span.start + span.tokens).unwrap_or_default();
                kernels::pool(kernel_pooling(pooling, ids), tokens, span.pool_from, row)?;
            }
        }
        Ok(())
    }
}

/// The panels of one of `items` parts; they are dealt in pairs, the width of the widest kernel.
pub(crate) fn panels_of(n: usize, item: usize, items: usize) -> Range<usize> {
    let pairs = kernels::panels(n).div_ceil(2);
    let at = |item: usize| (item * pairs / items * 2).min(kernels::panels(n));
    at(item)..at(item + 1)
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

/// The kernel's name of a pooling; `ids` are those of the sequence.
fn kernel_pooling(pooling: Pooling, ids: &[i64]) -> kernels::Pooling {
    match pooling {
        Pooling::Cls => kernels::Pooling::Cls,
        Pooling::Mean => kernels::Pooling::Mean,
        Pooling::Max => kernels::Pooling::Max,
        Pooling::MeanSqrtLength => kernels::Pooling::MeanSqrtLen,
        Pooling::WeightedMean => kernels::Pooling::WeightedMean,
        Pooling::LastToken => kernels::Pooling::LastToken,
        Pooling::LastEqual(id) => {
            let last = ids.iter().rposition(|&found| found == id);
            last.map_or(kernels::Pooling::LastToken, kernels::Pooling::Token)
        }
    }
}
