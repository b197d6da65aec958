//! What each stage does with its rows: views of memory go to kernels.

use std::borrow::Cow;
use std::ops::Range;

use centuple_graph::{Activation, Pooling};
use centuple_kernels as kernels;
use centuple_kernels::{
    EmbeddingTable, Epilogue, Int8Table, KernelError, Kernels, LayerNorm, Matrix, MatrixMut, PackedInt8, Quantization,
    QuantizedRows, QuantizedRowsMut, attention_scratch,
};
use centuple_tensor::{Bindings, Layout};

use crate::attend::{FEW_QUERIES, query_blocks};
use crate::kv_cache::KvCache;
use crate::plan::{Ids, Kernel, Packed, PackedCodes, Plan, Quantized, Stage, Table, View};
use crate::shared::SharedFloats;
use crate::views::copy;

type Result<T> = std::result::Result<T, KernelError>;

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
    let of = |stage: &Stage| {
        let Kernel::Attention { attention, .. } = &stage.kernel else { return 0 };
        let keys = capacity.tokens.saturating_add(capacity.past);
        attention_scratch(keys, attention.head_dim, attention.head_dim)
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
            (Kernel::QuantizedLinear { weight, .. }, Some(out)) => {
                self.quantized_linear(stage, out, 0..kernels::panels(weight.n), block)
            }
            (Kernel::Attention { attention, .. }, Some(out)) => {
                // All queries of a sequence at once: the keys and values of a head are brought to the core once.
                for queries in query_blocks(self.layout, block.rows.clone(), usize::MAX) {
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
            Kernel::Linear { weight: Packed { n, .. }, .. }
            | Kernel::QuantizedLinear { weight: PackedCodes { n, .. }, .. } => {
                // One for each thread: more of them cost more than a slow core does, which is left out when it begins nothing.
                kernels::panels(*n).div_ceil(2).min(threads)
            }
            Kernel::Attention { attention, .. } => {
                query_blocks(self.layout, 0..rows, FEW_QUERIES).count() * attention.heads
            }
            Kernel::Embedding { .. }
            | Kernel::Quantize { .. }
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
                self.linear(stage, out, panels_of(weight.n, item, items), block)
            }
            (Kernel::QuantizedLinear { weight, .. }, Some(out)) => {
                self.quantized_linear(stage, out, panels_of(weight.n, item, items), block)
            }
            (Kernel::Attention { attention, .. }, Some(out)) => {
                let (index, head) = (item / attention.heads, item % attention.heads);
                match query_blocks(self.layout, block.rows.clone(), FEW_QUERIES).nth(index) {
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
        let mut target = self.write(out, rows, block)?;
        if weight.half {
            return self.kernels.gemm_half(x, self.packed_half(*weight)?, panels, &epilogue, &mut target);
        }
        self.kernels.gemm(x, self.packed(*weight)?, panels, &epilogue, &mut target)
    }

    fn quantized_linear(&self, stage: &Stage, out: View, panels: Range<usize>, block: &Block) -> Result<()> {
        let Kernel::QuantizedLinear { x, weight, bias, activation, residual } = &stage.kernel else { return Ok(()) };
        let rows = block.rows.clone();
        let epilogue = Epilogue {
            bias: bias.map(|offset| self.weight(offset, weight.n)).transpose()?,
            activation: activation.map(kernel_activation),
            residual: residual.map(|view| self.read(view, rows.clone(), block)).transpose()?,
        };
        let x = QuantizedRows::new(self.read(*x, rows.clone(), block)?, weight.k, weight.bits)?;
        let words = self.weight(weight.offset, kernels::packed_int8_len(weight.n, weight.k))?;
        let codes = PackedInt8::new(words, weight.n, weight.k, weight.bits)?;
        self.kernels.gemm_int8(x, codes, panels, &epilogue, &mut self.write(out, rows, block)?)
    }

    /// How and where rows of a block are quantised.
    fn quantization(&self, quantized: &Quantized, rows: Range<usize>, block: &Block) -> Result<Quantization<'a>> {
        let words = self.write(quantized.out, rows, block)?;
        Ok(Quantization {
            factor: Some(self.weight(quantized.factor, quantized.k)?),
            rows: QuantizedRowsMut::new(words, quantized.k, quantized.bits)?,
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
            | Kernel::QuantizedLinear { .. }
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
}

/// The panels of one of `items` parts; they are dealt in pairs, the width of the widest kernel.
fn panels_of(n: usize, item: usize, items: usize) -> Range<usize> {
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
