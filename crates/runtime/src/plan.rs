//! The plan: a flat list of stages over numbered values. Pure data; `session` runs it.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use centuple_graph::{Activation, Attention, Binary, CrossAttention, Pooling, Reduction, Unary};
use centuple_kernels::{ActivationBits, Isa, RowCodes};
use centuple_tensor::{DType, Dim, Layout, Shape, Span};

use crate::kv_cache::CacheSlot;
use crate::steps::Step;
use crate::store::{WeightStore, Weights};
use crate::weights::{self, StoredPart};

/// A compiled graph. Made by [`lower`](crate::lower()), run by a [`Session`](crate::Session).
#[derive(Debug)]
pub struct Plan {
    /// Instruction set that the stages run on.
    pub(crate) isa: Isa,
    pub(crate) inputs: Vec<Input>,
    /// Ids that are computed from others before the first stage, each from inputs or earlier ones.
    pub(crate) derived: Vec<DerivedIds>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) values: Vec<Value>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) phases: Vec<Phase>,
    /// Blocks of the shared arena; their offsets are sums of these sizes and so linear in the symbols' products.
    pub(crate) slots: Vec<Slot>,
    /// Floats that one row of a worker's private block takes.
    pub(crate) local_stride: usize,
    /// Every weight: packed matrices, tables, biases.
    pub(crate) weights: Arc<Weights>,
    /// What the weights consist of, in their order.
    pub(crate) parts: Vec<StoredPart>,
    /// What each cached attention keeps.
    pub(crate) cache_slots: Vec<CacheSlot>,
    /// Whether any shape depends on the length that sequences are padded to.
    pub(crate) padded: bool,
}

/// An input that each batch must give.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    /// The value that an f32 input is copied to.
    pub(crate) value: Option<usize>,
}

/// A named output.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) view: View,
    pub(crate) shape: Shape,
}

/// Memory of one intermediate result: `rows` rows, `stride` floats apart.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) rows: Dim,
    pub(crate) columns: usize,
    pub(crate) stride: usize,
    pub(crate) place: Place,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a slot of the arena that all workers share.
    Shared { slot: usize },
    /// In each worker's private block, as it never leaves a phase: floats before it in a row of the block.
    /// `own` values only live in the [`Step`] in which each worker computes them for itself.
    Local { column: usize, own: bool },
    /// Among the weights, at this float.
    Weights { offset: usize },
    /// Nowhere yet; only while the plan is built.
    Unplaced,
}

/// A block of the shared arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) rows: Dim,
    pub(crate) stride: usize,
}

/// Columns of a value: what a stage reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) value: usize,
    /// First column.
    pub(crate) start: usize,
    pub(crate) columns: usize,
    /// Floats from row to row.
    pub(crate) stride: usize,
}

/// Stages that run without a barrier between them.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    pub(crate) stages: Range<usize>,
    pub(crate) rows: Dim,
    /// Whether rows are independent, so that workers can take blocks of them; else one worker runs it all.
    pub(crate) row_wise: bool,
    /// The stages once more, as workers take them where columns are split.
    pub(crate) steps: Vec<Step>,
}

impl Stage {
    /// Every view that it writes.
    pub(crate) fn writes(&self) -> impl Iterator<Item = View> {
        self.out.into_iter().chain(self.kernel.second_write())
    }
}

/// One kernel call over all rows of its domain.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Name of the graph's node, for reports and messages.
    pub(crate) name: String,
    pub(crate) rows: Dim,
    pub(crate) kernel: Kernel,
    /// What it writes; `None` for a stage that only appends to a cache.
    pub(crate) out: Option<View>,
}

/// Where token ids come from.
#[derive(Clone, Debug)]
pub(crate) enum Ids {
    /// An i64 input of the plan.
    Input(usize),
    /// The layout's positions plus an offset.
    Positions { offset: i64 },
    /// Computed from others: [`Plan::derived`].
    Derived(usize),
}

/// Ids that are computed from others.
#[derive(Clone, Debug)]
pub(crate) struct DerivedIds {
    pub(crate) from: Ids,
    pub(crate) rule: IdRule,
}

/// How ids follow from the ids of their sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IdRule {
    /// The number of ids before it that are not `padding`, plus `offset`; `offset - 1` for those that are.
    Ranks { offset: i64, padding: i64 },
    /// The id before it; `first` or the sequence's last id for the first one.
    Shifted { first: Option<i64> },
}

/// A matrix of weights packed for the GEMM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    /// First float among the weights.
    pub(crate) offset: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Whether it is stored as f16.
    pub(crate) half: bool,
}

/// A matrix of 8-bit codes packed for the integer GEMM, with its scales.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedCodes {
    /// First float among the weights.
    pub(crate) offset: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) bits: ActivationBits,
}

/// A matrix of 4-bit codes packed for the integer GEMM, with the scales of its groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedNibbles {
    /// First float among the weights.
    pub(crate) offset: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Elements of a group.
    pub(crate) group: usize,
    pub(crate) zero_points: bool,
}

/// Rows that are quantised, each on its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantized {
    /// Each row's codes and what they mean.
    pub(crate) out: View,
    /// First float of the factors of the channels.
    pub(crate) factor: Option<usize>,
    /// Number of channels.
    pub(crate) k: usize,
    pub(crate) form: RowCodes,
    /// The least and greatest value, where not each row has its own.
    pub(crate) range: Option<[f32; 2]>,
}

/// An operand of a primitive stage: contiguous, with its shape.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    pub(crate) view: View,
    pub(crate) shape: Shape,
}

/// An operand of a row-wise operation on two; offsets are floats into the weights.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowOperand {
    /// A row for each row of the result.
    Rows(View),
    /// The same row for all.
    Row { offset: usize },
    /// The same number for all elements.
    Number { offset: usize },
}

impl RowOperand {
    fn view(self) -> Option<View> {
        match self {
            RowOperand::Rows(view) => Some(view),
            RowOperand::Row { .. } | RowOperand::Number { .. } => None,
        }
    }
}

/// What a stage computes. Numbers named `offset`, `bias`, `gamma`, `beta` are floats into the weights.
#[derive(Clone, Debug)]
pub(crate) enum Kernel {
    Embedding {
        tables: Vec<Table>,
    },
    Linear {
        x: View,
        weight: Packed,
        bias: Option<usize>,
        activation: Option<Activation>,
        residual: Option<View>,
    },
    Quantize {
        x: View,
        quantized: Quantized,
    },
    QuantizedLinear {
        x: View,
        weight: PackedCodes,
        bias: Option<usize>,
        activation: Option<Activation>,
        residual: Option<View>,
    },
    GroupQuantizedLinear {
        x: View,
        weight: PackedNibbles,
        bias: Option<usize>,
        activation: Option<Activation>,
        residual: Option<View>,
    },
    LayerNorm {
        x: View,
        residual: Option<View>,
        gamma: usize,
        beta: usize,
        epsilon: f32,
        /// The result once more, quantised while it is hot.
        quantized: Option<Quantized>,
    },
    RmsNorm {
        x: View,
        residual: Option<View>,
        gamma: usize,
        epsilon: f32,
        quantized: Option<Quantized>,
    },
    /// Each head by itself.
    HeadNorm {
        x: View,
        heads: usize,
        gamma: usize,
        epsilon: f32,
    },
    Activation {
        x: View,
        activation: Activation,
    },
    Gate {
        a: View,
        b: View,
        activation: Activation,
        quantized: Option<Quantized>,
    },
    Unary {
        x: View,
        unary: Unary,
    },
    Binary {
        binary: Binary,
        a: RowOperand,
        b: RowOperand,
    },
    AppendCache {
        k: View,
        v: View,
        slot: usize,
    },
    Attention {
        q: View,
        k: View,
        v: View,
        attention: Attention,
        position: PositionTables,
    },
    CrossAttention {
        q: View,
        attention: CrossAttention,
    },
    GroupedLinear {
        x: View,
        /// The first group's matrix; those of the others lie behind it.
        weight: Packed,
        groups: usize,
    },
    Rotary {
        x: View,
        rotary: Rotary,
    },
    Pool {
        x: View,
        pooling: Pooling,
        /// Those that the pooling looks for an id in.
        ids: Option<Ids>,
    },
    /// The largest value of each column of a linear layer's result, which is not written out.
    PooledLinear {
        linear: Box<Kernel>,
    },
    /// Rows of the selected tokens.
    Select {
        x: View,
    },
    L2Normalize {
        x: View,
        epsilon: f32,
    },
    Columns {
        parts: Vec<View>,
    },
    Primitive {
        kind: Primitive,
        operands: Vec<Operand>,
        shape: Shape,
    },
}

/// One table of an embedding and its ids.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) offset: usize,
    pub(crate) rows: usize,
    /// Whether the rows are codes with a scale.
    pub(crate) codes: bool,
    pub(crate) ids: Ids,
}

/// What an attention reads for its positions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PositionTables {
    None,
    /// A row of `distances` floats for each head.
    Bias {
        offset: usize,
        distances: usize,
    },
    /// Bucket numbers of `distances` distances, and columns for each head and bucket.
    Disentangled {
        offset: usize,
        distances: usize,
        content_to_position: Option<View>,
        position_to_content: Option<View>,
    },
}

/// Angles of a rotation, and where its positions come from.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    /// First float of the table.
    pub(crate) offset: usize,
    /// Rows of the table.
    pub(crate) rows: usize,
    /// Columns of the table.
    pub(crate) columns: usize,
    pub(crate) head_dim: usize,
    pub(crate) interleaved: bool,
    pub(crate) positions: Ids,
}

/// Primitive ops on contiguous tensors of any rank.
#[derive(Clone, Debug)]
pub(crate) enum Primitive {
    Unary(Unary),
    Activation(Activation),
    Binary(Binary),
    MatMul,
    Softmax,
    Transpose {
        perm: Vec<usize>,
    },
    Slice {
        axis: usize,
        start: usize,
    },
    Concat {
        axis: usize,
    },
    /// Along `axis`, at ids, or at the whole numbers of the second operand.
    Gather {
        axis: usize,
        ids: Option<Ids>,
    },
    GatherElements {
        axis: usize,
    },
    CumSum {
        axis: usize,
    },
    Expand,
    Iota,
    Pad,
    Pack,
    Reduce {
        reduction: Reduction,
        axes: Vec<usize>,
    },
    Where,
    ToFloat {
        ids: Ids,
    },
}

impl PositionTables {
    /// The view read at the rows of queries.
    fn of_queries(&self) -> Option<View> {
        match self {
            PositionTables::None | PositionTables::Bias { .. } => None,
            PositionTables::Disentangled { content_to_position, .. } => *content_to_position,
        }
    }

    /// The view read at the rows of keys.
    fn of_keys(&self) -> Option<View> {
        match self {
            PositionTables::None | PositionTables::Bias { .. } => None,
            PositionTables::Disentangled { position_to_content, .. } => *position_to_content,
        }
    }
}

impl Kernel {
    /// Views that the stage reads at its own rows.
    pub(crate) fn row_reads(&self) -> Vec<View> {
        match self {
            Kernel::Embedding { .. }
            | Kernel::Pool { .. }
            | Kernel::PooledLinear { .. }
            | Kernel::Select { .. }
            | Kernel::Primitive { .. } => Vec::new(),
            Kernel::Linear { x, residual, .. }
            | Kernel::QuantizedLinear { x, residual, .. }
            | Kernel::GroupQuantizedLinear { x, residual, .. }
            | Kernel::LayerNorm { x, residual, .. }
            | Kernel::RmsNorm { x, residual, .. } => [Some(*x), *residual].into_iter().flatten().collect(),
            Kernel::HeadNorm { x, .. }
            | Kernel::Activation { x, .. }
            | Kernel::Unary { x, .. }
            | Kernel::L2Normalize { x, .. }
            | Kernel::Quantize { x, .. }
            | Kernel::GroupedLinear { x, .. }
            | Kernel::CrossAttention { q: x, .. }
            | Kernel::Rotary { x, .. } => vec![*x],
            Kernel::Gate { a, b, .. } => vec![*a, *b],
            Kernel::Binary { a, b, .. } => [a.view(), b.view()].into_iter().flatten().collect(),
            Kernel::AppendCache { k, v, .. } => vec![*k, *v],
            Kernel::Attention { q, position, .. } => [Some(*q), position.of_queries()].into_iter().flatten().collect(),
            Kernel::Columns { parts } => parts.clone(),
        }
    }

    /// Views that the stage reads at rows of others.
    pub(crate) fn gathered_reads(&self) -> Vec<View> {
        match self {
            Kernel::Embedding { .. }
            | Kernel::Linear { .. }
            | Kernel::Quantize { .. }
            | Kernel::QuantizedLinear { .. }
            | Kernel::GroupQuantizedLinear { .. }
            | Kernel::LayerNorm { .. }
            | Kernel::RmsNorm { .. }
            | Kernel::HeadNorm { .. }
            | Kernel::Activation { .. }
            | Kernel::Gate { .. }
            | Kernel::Unary { .. }
            | Kernel::Binary { .. }
            | Kernel::L2Normalize { .. }
            | Kernel::AppendCache { .. }
            | Kernel::CrossAttention { .. }
            | Kernel::GroupedLinear { .. }
            | Kernel::Rotary { .. }
            | Kernel::Columns { .. } => Vec::new(),
            // Also where there is a cache, since a batch may come without.
            Kernel::Attention { k, v, position, .. } => [*k, *v].into_iter().chain(position.of_keys()).collect(),
            Kernel::Pool { x, .. } | Kernel::Select { x } => vec![*x],
            Kernel::PooledLinear { linear } => linear.row_reads(),
            Kernel::Primitive { operands, .. } => operands.iter().map(|operand| operand.view).collect(),
        }
    }

    /// A second view that the stage writes.
    pub(crate) fn second_write(&self) -> Option<View> {
        if let Kernel::LayerNorm { quantized, .. }
        | Kernel::RmsNorm { quantized, .. }
        | Kernel::Gate { quantized, .. } = self
        {
            quantized.map(|quantized| quantized.out)
        } else {
            None
        }
    }

    /// Whether the rows can be computed apart from each other.
    pub(crate) fn is_row_wise(&self) -> bool {
        !matches!(self, Kernel::Primitive { .. })
    }

    /// Whether it is columns or heads that few rows are split by.
    pub(crate) fn is_split(&self) -> bool {
        matches!(
            self,
            Kernel::Linear { .. }
                | Kernel::QuantizedLinear { .. }
                | Kernel::GroupQuantizedLinear { .. }
                | Kernel::GroupedLinear { .. }
                | Kernel::PooledLinear { .. }
                | Kernel::Attention { .. }
                | Kernel::CrossAttention { .. }
        )
    }

    /// The cache slot whose pages of the stage's own sequences it reads.
    pub(crate) fn cache_read(&self) -> Option<usize> {
        if let Kernel::Attention { attention, .. } = self { attention.cache } else { None }
    }

    /// The cache slot that the stage writes.
    pub(crate) fn cache_write(&self) -> Option<usize> {
        if let Kernel::AppendCache { slot, .. } = self { Some(*slot) } else { None }
    }
}

impl Plan {
    /// Writes the weights as a safetensors file, packed as they are, for [`lower_stored`](crate::lower_stored()).
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn write_weights(&self, out: &mut dyn Write) -> io::Result<()> {
        weights::write(&self.parts, &self.weights, out)
    }

    /// Takes from the plans of a store what is equal there, and offers the rest to those that follow. Weights that are
    /// taken stay as long as this plan, whatever becomes of the other one.
    pub fn share(&mut self, store: &WeightStore) {
        self.weights = store.share(&self.parts, &self.weights);
    }

    /// Bytes of the weights, those apart that lie in the memory of other plans.
    pub fn weight_bytes(&self) -> usize {
        self.weights.own_bytes()
    }

    /// Bytes of the weights that lie in the memory of other plans.
    pub fn shared_weight_bytes(&self) -> usize {
        self.weights.shared_bytes()
    }

    /// The symbolic shape of an output.
    pub fn output_shape(&self, index: usize) -> Option<&[Dim]> {
        self.outputs.get(index).map(|output| output.shape.as_slice())
    }

    /// Whether anything is computed on sequences that are padded to one length. Such a plan is to be given one sequence at a
    /// time, so that none has padding.
    pub fn is_padded(&self) -> bool {
        self.padded
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.stages.len()
    }

    /// Number of phases: one barrier stands after each.
    pub fn phases(&self) -> usize {
        self.phases.len()
    }

    /// The instruction set that the stages run on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What each cached attention keeps, for [`KvCache::new`](crate::KvCache::new).
    pub fn cache_slots(&self) -> &[CacheSlot] {
        &self.cache_slots
    }

    /// Bytes of the linear layers' matrices as they are packed, which every batch reads at least once.
    pub fn matrix_bytes(&self) -> usize {
        let of = |stage: &Stage| {
            if let Kernel::Linear { weight: Packed { n, k, half, .. }, .. } = stage.kernel {
                centuple_kernels::packed_len(n, k) * if half { 2 } else { 4 }
            } else if let Kernel::QuantizedLinear { weight: PackedCodes { n, k, .. }, .. } = stage.kernel {
                centuple_kernels::packed_int8_len(n, k) * size_of::<f32>()
            } else if let Kernel::GroupQuantizedLinear { weight, .. } = stage.kernel {
                let PackedNibbles { n, k, group, zero_points, .. } = weight;
                centuple_kernels::packed_int4_len(n, k, group, zero_points) * size_of::<f32>()
            } else {
                0
            }
        };
        self.stages.iter().map(of).sum()
    }

    /// Multiply-accumulates of a packed batch: those of the weight matrices, and the two products of attention within
    /// its window.
    pub fn macs(&self, layout: &Layout) -> u64 {
        let bindings = layout.bindings();
        let rows = |stage: &Stage| stage.rows.evaluate(&bindings).unwrap_or(0);
        let of = |stage: &Stage| {
            let (kernel, rows) = if let Kernel::PooledLinear { linear } = &stage.kernel {
                (&**linear, layout.tokens())
            } else {
                (&stage.kernel, rows(stage))
            };
            if let Kernel::Linear { weight: Packed { n, k, .. }, .. }
            | Kernel::QuantizedLinear { weight: PackedCodes { n, k, .. }, .. }
            | Kernel::GroupQuantizedLinear { weight: PackedNibbles { n, k, .. }, .. } = kernel
            {
                return rows * n * k;
            }
            if let Kernel::GroupedLinear { weight, groups, .. } = &stage.kernel {
                return rows * groups * weight.n * weight.k;
            }
            if let Kernel::CrossAttention { attention, .. } = &stage.kernel {
                let seen = |span: &Span| span.tokens * span.source.as_ref().map_or(0, |source| source.tokens);
                let pairs: usize = layout.spans().iter().map(seen).sum();
                return 2 * pairs * attention.heads * attention.head_dim;
            }
            let Kernel::Attention { attention, .. } = &stage.kernel else { return 0 };
            let pairs: usize = layout.spans().iter().map(|span| pairs(span, attention.window)).sum();
            2 * pairs * attention.heads * attention.head_dim
        };
        self.stages.iter().map(|stage| of(stage) as u64).sum()
    }
}

/// Pairs of a query and a key that it sees, whether or not keys behind it count.
fn pairs(span: &Span, window: Option<usize>) -> usize {
    let total = span.past + span.tokens;
    let Some(window) = window else { return span.tokens * total };
    let seen = |position: usize| position.saturating_add(window).min(total - 1) + 1 - position.saturating_sub(window);
    (span.past..total).map(seen).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_within_a_window_are_counted_one_by_one() {
        for (past, tokens) in [(0, 1), (0, 9), (5, 3)] {
            let span = Span { past, tokens, ..Span::default() };
            for window in [0, 1, 4, 8, usize::MAX] {
                let near = |i: usize| (0..past + tokens).filter(move |j| j.abs_diff(i) <= window).count();
                assert_eq!(pairs(&span, Some(window)), (past..past + tokens).map(near).sum::<usize>());
            }
            assert_eq!(pairs(&span, None), tokens * (past + tokens));
        }
    }
}
