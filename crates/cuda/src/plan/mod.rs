//! A model as a list of kernels: from a graph to steps, from steps to places in one arena, from a batch to outputs.

mod arena;
mod batch;
mod launches;
mod lower;
mod session;

pub use batch::CacheRoom;
pub use launches::Target;
pub use lower::{lower, lower_encoder, lower_fp8};
pub use session::{Session, SessionOutput};

use crate::error::{CudaError, Result};
use crate::launch::Rows;
use crate::specialisation::{Activation, CodeType, Format, Pooling};

/// Index into [`Plan::values`].
pub(crate) type ValueId = usize;
/// Index into [`Plan::weights`].
pub(crate) type WeightId = usize;
/// Index into [`Plan::ids`].
pub(crate) type IdsId = usize;
/// Index into [`Plan::marks`].
pub(crate) type MarkId = usize;
/// Index into [`Plan::slots`].
pub(crate) type SlotId = usize;

/// A matrix that a step writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) rows: Rows,
    pub(crate) columns: usize,
    pub(crate) element_bytes: usize,
}

/// Columns of a 16-bit value from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) value: ValueId,
    pub(crate) first: usize,
    pub(crate) columns: usize,
}

/// Values that are a quantised matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Codes {
    pub(crate) codes: ValueId,
    pub(crate) scales: ValueId,
    /// Those of integers.
    pub(crate) zero_points: Option<ValueId>,
}

/// How rows are quantised, and where to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quantisation {
    /// What columns are multiplied by before they become integers.
    pub(crate) factor: Option<WeightId>,
    /// The least and greatest value, where not each row has its own.
    pub(crate) range: Option<[f32; 2]>,
    pub(crate) codes: CodeType,
    pub(crate) to: Codes,
}

/// What a norm multiplies its rows by and adds to them. Without `beta` it is one by the root mean square.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Affine {
    pub(crate) gamma: WeightId,
    pub(crate) beta: Option<WeightId>,
    pub(crate) epsilon: f32,
}

/// What contents and distance add to the products of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) by_query: Option<ValueId>,
    pub(crate) by_key: Option<ValueId>,
    pub(crate) buckets: usize,
    /// The bucket of each distance, and the farthest distance.
    pub(crate) bucket_of: WeightId,
    pub(crate) farthest: usize,
}

/// What a linear layer over tokens multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    Floats { x: ValueId, weight: WeightId },
    Codes { x: Codes, weight: WeightId, scales: WeightId, sums: WeightId },
}

/// One kernel, or a library's matrix product and what follows it, with its operands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Norm {
        x: Option<ValueId>,
        tables: Vec<(WeightId, IdsId)>,
        residual: Option<ValueId>,
        /// What the sum of these is multiplied by.
        scale: f32,
        norm: Option<Affine>,
        y: ValueId,
        quantisation: Option<Quantisation>,
    },
    Quantise {
        x: ValueId,
        quantisation: Quantisation,
    },
    Gemm {
        product: Product,
        bias: Option<WeightId>,
        activation: Activation,
        residual: Option<ValueId>,
        y: ValueId,
        n: usize,
        k: usize,
        /// Whether results are f32.
        wide: bool,
    },
    /// A linear layer for each group of columns.
    GroupedGemm {
        x: View,
        weight: WeightId,
        y: ValueId,
        groups: usize,
        n: usize,
        k: usize,
    },
    /// A linear layer of e4m3 codes: a library's matrix product, and a kernel for what that leaves to do.
    Fp8 {
        x: Codes,
        weight: WeightId,
        scales: WeightId,
        bias: Option<WeightId>,
        /// The bias in 16 bits, as the library adds it.
        narrow_bias: Option<WeightId>,
        activation: Activation,
        residual: Option<ValueId>,
        y: ValueId,
        n: usize,
        k: usize,
        /// Codes of the result, where nothing else of it is read; y holds sums then.
        to: Option<Codes>,
    },
    Attention {
        q: View,
        k: View,
        v: View,
        y: ValueId,
        heads: usize,
        group: usize,
        head_dim: usize,
        scale: f32,
        soft_cap: Option<f32>,
        causal: bool,
        window: Option<usize>,
        /// By head and distance, and the farthest distance that has a value of its own.
        distances: Option<(WeightId, usize)>,
        content: Option<Content>,
        /// Where keys and values are, where they aren't those of the batch alone.
        cache: Option<SlotId>,
    },
    /// Attention of all tokens to the keys and values that an encoder has left in the pages of a slot.
    CrossAttention {
        q: View,
        y: ValueId,
        heads: usize,
        head_dim: usize,
        scale: f32,
        slot: SlotId,
    },
    /// New keys and values to the pages of a slot.
    Append {
        k: View,
        v: View,
        slot: SlotId,
    },
    Rotary {
        x: View,
        positions: IdsId,
        table: WeightId,
        rotated: usize,
        interleaved: bool,
        y: ValueId,
        heads: usize,
        head_dim: usize,
    },
    HeadNorm {
        x: View,
        gamma: WeightId,
        epsilon: f32,
        y: ValueId,
        heads: usize,
        head_dim: usize,
    },
    Gate {
        a: View,
        b: Option<View>,
        activation: Activation,
        y: ValueId,
    },
    Select {
        x: ValueId,
        y: ValueId,
    },
    Pool {
        x: ValueId,
        y: ValueId,
        pooling: Pooling,
        /// The tokens of [`Pooling::Token`].
        mark: Option<MarkId>,
        normalise: Option<f32>,
    },
    Dense {
        x: ValueId,
        weight: WeightId,
        bias: Option<WeightId>,
        y: ValueId,
        n: usize,
        k: usize,
        activation: Activation,
    },
    Widen {
        x: ValueId,
        y: ValueId,
    },
    WideNorm {
        x: ValueId,
        norm: Affine,
        y: ValueId,
    },
}

/// Integers, one per token, that are looked up in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdSource {
    /// An input of that name.
    Input(String),
    /// Positions in the sequence from `offset` on; with `padding`, those of the tokens that are not that id.
    Positions { offset: i64, padding: Option<(i64, String)> },
    /// Those of an input, each sequence's one token later, behind `first` or else its last one.
    ShiftRight { first: Option<i64>, input: String },
}

/// Ids, and the rows of the smallest table that they are looked up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) source: IdSource,
    pub(crate) limit: usize,
}

/// One token of each sequence: the last one whose id in an input is `id`, or the last of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) input: String,
    pub(crate) id: i64,
}

/// An output: its name and value, which is f32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) value: ValueId,
}

/// The steps of a model, with its weights as a device has them.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) format: Format,
    pub(crate) steps: Vec<Step>,
    pub(crate) values: Vec<Value>,
    pub(crate) weights: Vec<Vec<u8>>,
    pub(crate) ids: Vec<Ids>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) outputs: Vec<Output>,
    /// Columns of the keys, and of the values, that each attention with a cache keeps.
    pub(crate) slots: Vec<usize>,
}

impl Plan {
    /// The same where no sequence has earlier tokens: attention reads the keys and values of the batch itself.
    pub fn without_cache(mut self) -> Plan {
        self.steps.retain(|step| !matches!(step, Step::Append { .. }));
        for step in &mut self.steps {
            if let Step::Attention { cache, .. } = step {
                *cache = None;
            }
        }
        self.slots.clear();
        self
    }

    /// Whether it is a decoder that looks at what an encoder has left.
    pub fn has_sources(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::CrossAttention { .. }))
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Bytes of a page of keys and values, all attentions together.
    pub fn page_bytes(&self) -> usize {
        self.slots.iter().map(|&width| 2 * session::page_bytes(width)).sum()
    }

    /// The weights as a device has them: floats and integers in the order of their rows, least byte first.
    pub fn weights(&self) -> impl Iterator<Item = &[u8]> {
        self.weights.iter().map(Vec::as_slice)
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.iter().map(Vec::len).sum()
    }
}

impl Step {
    /// The values that the step reads.
    pub(crate) fn reads(&self) -> Vec<ValueId> {
        match self {
            Step::Norm { x, residual, .. } => x.iter().chain(residual).copied().collect(),
            Step::Quantise { x, .. }
            | Step::Pool { x, .. }
            | Step::Dense { x, .. }
            | Step::Widen { x, .. }
            | Step::WideNorm { x, .. }
            | Step::Select { x, .. } => vec![*x],
            Step::Rotary { x, .. } | Step::HeadNorm { x, .. } | Step::CrossAttention { q: x, .. } => vec![x.value],
            Step::Gate { a, b, .. } => std::iter::once(a).chain(b).map(|view| view.value).collect(),
            Step::Gemm { product, residual, .. } => {
                let mut reads = match product {
                    Product::Floats { x, .. } => vec![*x],
                    Product::Codes { x, .. } => x.values().collect(),
                };
                reads.extend(residual);
                reads
            }
            Step::Fp8 { x, residual, .. } => x.values().chain(*residual).collect(),
            Step::GroupedGemm { x, .. } => vec![x.value],
            Step::Attention { q, k, v, content, .. } => {
                let content = content.iter().flat_map(|content| [content.by_query, content.by_key]).flatten();
                [q.value, k.value, v.value].into_iter().chain(content).collect()
            }
            Step::Append { k, v, .. } => vec![k.value, v.value],
        }
    }

    /// The values that the step writes.
    pub(crate) fn writes(&self) -> Vec<ValueId> {
        match self {
            Step::Norm { y, quantisation, .. } => {
                let codes = quantisation.iter().flat_map(|quantisation| quantisation.to.values());
                std::iter::once(*y).chain(codes).collect()
            }
            Step::Quantise { quantisation, .. } => quantisation.to.values().collect(),
            Step::Fp8 { y, to, .. } => std::iter::once(*y).chain(to.iter().flat_map(Codes::values)).collect(),
            Step::Gemm { y, .. }
            | Step::GroupedGemm { y, .. }
            | Step::Attention { y, .. }
            | Step::CrossAttention { y, .. }
            | Step::Pool { y, .. }
            | Step::Dense { y, .. }
            | Step::Widen { y, .. }
            | Step::WideNorm { y, .. }
            | Step::Rotary { y, .. }
            | Step::HeadNorm { y, .. }
            | Step::Gate { y, .. }
            | Step::Select { y, .. } => vec![*y],
            Step::Append { .. } => Vec::new(),
        }
    }
}

impl Codes {
    fn values(&self) -> impl Iterator<Item = ValueId> {
        [self.codes, self.scales].into_iter().chain(self.zero_points)
    }
}

fn unsupported<T>(what: impl Into<String>) -> Result<T> {
    Err(CudaError::Unsupported(what.into()))
}
