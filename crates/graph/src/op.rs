//! The operators.

use centuple_tensor::{DType, Dim, Shape, Tensor};
use serde::{Deserialize, Serialize};

/// An operator and its attributes. Operands are the inputs of the [`Node`](crate::Node) that holds it.
///
/// In the transformer ops `x` has shape `[..., K]`: any leading dimensions, in practice `[Tokens, K]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// A value given with each batch.
    Input {
        /// Element type.
        dtype: DType,
        /// Symbolic shape.
        shape: Shape,
    },
    /// A weight, or the result of constant folding.
    Constant(#[serde(with = "crate::document::declaration")] Tensor),

    /// `[Tokens]` i64: position of each packed token in its sequence (its past included) plus `offset`.
    ///
    /// With `padding` it takes the ids `[Tokens]` i64: a position then is the number of tokens before it that are not
    /// `padding`, and a token that is has `offset - 1`, as `create_position_ids_from_input_ids` of transformers counts.
    Positions {
        /// Added to every position; 2 in the RoBERTa family.
        offset: i64,
        /// The id that has no position.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        padding: Option<i64>,
    },
    /// Input `ids [Tokens]` i64: each sequence's ids one token later, the last one dropped.
    ShiftRight {
        /// The id that comes first; by default the dropped one.
        first: Option<i64>,
    },
    /// Inputs `table₀ [V₀, H], ids₀, table₁, ids₁, ...`: the sum over the pairs of `table[ids]`, in order.
    Embedding,
    /// Inputs `x [..., K], weight [N, K]`, then `bias [N]` and `residual [..., N]` where set:
    /// `activation(x · weightᵀ + bias) + residual`. The weight may be stored as f16; arithmetic is f32 in any case.
    Linear {
        /// Whether there is a bias.
        bias: bool,
        /// Applied before the residual is added.
        activation: Option<Activation>,
        /// Whether there is a residual.
        residual: bool,
    },
    /// Inputs `x [..., K], codes [N, K] i8, scales [N], factor [K]`, then `bias` and `residual` as for [`Op::Linear`]: the
    /// same function, computed on integers.
    ///
    /// Each row of `x · factor` is quantised on its own to unsigned codes of `bits` bits: with `low = min(row, 0)`,
    /// `high = max(row, 0)` and `scale = (high - low) / (2^bits - 1)`, the zero point is `round(-low / scale)` and a code
    /// `clamp(round(value / scale) + zero point)`. The products are summed exactly; `factor` undoes what the codes
    /// of the weights have been multiplied by (smoothing, Xiao et al. 2022, arXiv:2211.10438). Where the model fixes the
    /// `range` of `x · factor`, all rows have its `low` and `high`, and what lies outside becomes the nearest code.
    QuantizedLinear {
        /// Bits of an activation's code: 7, 8 or 12.
        bits: u8,
        /// `[low, high]`, finite, `low ≤ 0 ≤ high` and not both 0; without it each row has its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        range: Option<[f32; 2]>,
        /// Whether there is a bias.
        bias: bool,
        /// Applied before the residual is added.
        activation: Option<Activation>,
        /// Whether there is a residual.
        residual: bool,
    },
    /// Inputs `x [..., K], codes [N, K] i8, scales [N, G]`, then `zero_points [N, G] i8` where set, then `bias` and `residual`
    /// as for [`Op::Linear`]: the same function with weights `(code - zero point) · scale` quantised in groups along the depth,
    /// `G = ⌈K / group⌉`, computed on integers. Codes and zero points have a sign and `bits` bits.
    ///
    /// Each group of each row of `x` is quantised on its own to codes of 8 bits with a sign: with `largest` its greatest
    /// magnitude and `scale = largest / 127`, a code is `round(value / scale)`, halves to even. For one group after the
    /// other the exact sum of `code of x · (code - zero point)` is multiplied by `scale of x · scale` and added as f32,
    /// each step rounded.
    GroupQuantizedLinear {
        /// Bits of a weight's code: 4.
        bits: u8,
        /// Elements of a group, a multiple of 8; the last one may have fewer.
        group: usize,
        /// Whether groups of weights have zero points; else these are 0.
        zero_points: bool,
        /// Whether there is a bias.
        bias: bool,
        /// Applied before the residual is added.
        activation: Option<Activation>,
        /// Whether there is a residual.
        residual: bool,
    },
    /// Inputs `x [..., groups·K], weight [groups, N, K]`: each group of columns times the transpose of its own matrix,
    /// `[..., groups·N]`.
    GroupedLinear {
        /// Number of groups.
        groups: usize,
    },
    /// Inputs `codes [V, H] i8, scales [V]`: `codes · scale` of the row. As the table of an [`Op::Embedding`] it is looked
    /// up without ever being written out.
    Dequantize,
    /// Inputs `x [..., H]`, `residual [..., H]` where set, `gamma [H]`, `beta [H]`:
    /// `(y - mean) / sqrt(variance + epsilon) · gamma + beta` with `y = x + residual`
    /// (Ba et al. 2016, arXiv:1607.06450).
    LayerNorm {
        /// Added to the variance.
        epsilon: f32,
        /// Whether there is a residual.
        residual: bool,
    },
    /// Inputs `x [..., H]`, `residual [..., H]` where set, `gamma [H]`: `y / sqrt(mean(y²) + epsilon) · gamma` with
    /// `y = x + residual` (Zhang & Sennrich 2019, arXiv:1910.07467).
    RmsNorm {
        /// Added to the mean square.
        epsilon: f32,
        /// Whether there is a residual.
        residual: bool,
    },
    /// Inputs `x [..., heads·head_dim], gamma [head_dim]`: [`Op::RmsNorm`] of each head by itself.
    HeadNorm {
        /// Number of heads.
        heads: usize,
        /// Added to the mean square.
        epsilon: f32,
    },
    /// Input `x`: the activation function of every element.
    Activation(Activation),
    /// Inputs `a`, `b [..., H]`: `activation(a) · b` (Shazeer 2020, arXiv:2002.05202).
    Gate {
        /// Applied to the first operand.
        activation: Activation,
    },
    /// Inputs `q [Tokens, heads·head_dim], k [Tokens, kv_heads·head_dim], v`, then what [`PositionScores`] says:
    /// scaled dot-product attention within each sequence of the layout (Vaswani et al. 2017, arXiv:1706.03762).
    /// Queries and keys may be projections of different values.
    Attention(Attention),
    /// Input `q [Tokens, heads·head_dim]`: scaled dot-product attention of each sequence's tokens to all keys and values that
    /// the pages of its source hold, as an encoder has left them there. A sequence without a source gets zeros.
    CrossAttention(CrossAttention),
    /// Inputs `x [..., heads·head_dim], positions [...]` i64, `table [P, R]` with an even `R` from 2 to `head_dim`: pairs
    /// of columns of each head are rotated by the angles of the position (Su et al. 2021, arXiv:2104.09864).
    ///
    /// A row of the table holds R/2 cosines, then R/2 sines. Pair `t` becomes
    /// `(x₁·cos[t] - x₂·sin[t], x₂·cos[t] + x₁·sin[t])`. Columns from `R` on stay as they are.
    Rotary {
        /// Number of heads.
        heads: usize,
        /// Width of one head.
        head_dim: usize,
        /// Whether pair `t` is the columns `2t` and `2t + 1` (RoFormer, GPT-J); else `t` and `t + R/2` (GPT-NeoX).
        interleaved: bool,
    },
    /// Input `x [Tokens, H]`, and `ids [Tokens]` i64 for [`Pooling::LastEqual`]: one row per sequence, `[Sequences, H]`.
    Pool(Pooling),
    /// Input `x [Tokens, H]`: the rows of the tokens that the layout selects, `[Selected, H]`.
    Select,
    /// Input `x [..., H]`: `x / max(‖x‖₂, epsilon)` over the last dimension.
    L2Normalize {
        /// Lower bound of the norm.
        epsilon: f32,
    },

    /// A function of every element.
    Unary(Unary),
    /// A function of two elements, with broadcasting as in NumPy.
    Binary(Binary),
    /// Inputs `a [..., M, K], b [..., K, N]`: batched matrix product; leading dimensions broadcast.
    MatMul,
    /// Softmax over the last dimension.
    Softmax,
    /// Permutation of the dimensions: output dimension `i` is input dimension `perm[i]`.
    Transpose {
        /// The permutation.
        perm: Vec<usize>,
    },
    /// The same elements under another shape.
    Reshape {
        /// The new shape; its volume equals the old one.
        shape: Shape,
    },
    /// Elements `start..end` along `axis`.
    Slice {
        /// The dimension; its size is constant.
        axis: usize,
        /// First index.
        start: usize,
        /// One behind the last index.
        end: usize,
    },
    /// The inputs behind each other along `axis`.
    Concat {
        /// The dimension.
        axis: usize,
    },
    /// Inputs `x`, `indices` i64 or whole f32 numbers: `x` at the indices along `axis`.
    Gather {
        /// The dimension.
        axis: usize,
    },
    /// A reduction over `axes`, which stay as dimensions of size 1.
    Reduce {
        /// The function.
        reduction: Reduction,
        /// The dimensions, ascending.
        axes: Vec<usize>,
    },
    /// Inputs `condition, a, b`: `a` where the condition is not 0, else `b`, with broadcasting.
    Where,
    /// Conversion to f32.
    ToFloat,
    /// Inputs `x`, `indices` f32 (whole numbers) of the shape of `x` but along `axis`: the element of `x` at the same place but
    /// for its index along `axis`, which is the one given.
    GatherElements {
        /// The dimension.
        axis: usize,
    },
    /// The sum of the elements up to each one along `axis`.
    CumSum {
        /// The dimension.
        axis: usize,
    },
    /// The input broadcast to a shape.
    Expand {
        /// The new shape.
        shape: Shape,
    },
    /// `[size]` f32: 0, 1, 2, ...
    Iota {
        /// The length.
        size: Dim,
    },
    /// Input `x [Tokens, ...]`: `[Sequences, Sequence, ...]`, each sequence's rows with zeros behind them.
    Pad,
    /// Input `x [Sequences, Sequence, ...]`: `[Tokens, ...]`, the rows that are no padding.
    Pack,
}

/// Attributes of [`Op::Attention`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct Attention {
    /// Number of query heads.
    pub heads: usize,
    /// Number of key/value heads; divides `heads`. Query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor on the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Scores `s` become `cap · tanh(s / cap)` (Gemma 2, arXiv:2408.00118). Not together with [`PositionScores`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_cap: Option<f32>,
    /// Whether a query sees only keys at its own position and before.
    pub causal: bool,
    /// How many positions a query sees at most on either side of its own. Positions count within the sequence, its
    /// past included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// What the positions of query and key add to the score.
    #[serde(default)]
    pub position: PositionScores,
    /// Slot of the key/value cache that new keys and values are appended to and past ones read from.
    pub cache: Option<usize>,
}

/// Attributes of [`Op::CrossAttention`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct CrossAttention {
    /// Number of heads, of queries as of keys and values.
    pub heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Slot of the key/value cache in which the source's pages hold the keys and values. An [`Attention`] may have the same
    /// one, since it uses other pages.
    pub slot: usize,
}

/// What the distance `i - j` of a query at position `i` and a key at position `j` adds to the score of an attention. A
/// distance beyond the largest one of a table, `D`, counts as `D`, and one below `-D` as `-D`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PositionScores {
    /// Nothing.
    #[default]
    None,
    /// A further input, the constant `table [heads, 2D + 1]`: `table[h][i - j + D]` is added to the scaled score.
    ///
    /// T5 and MPNet look their distances up in buckets; a family writes the table out by distance.
    Bias,
    /// Further inputs `c2p [Tokens, heads·B]` and `p2c [Tokens, heads·B]` where set, and the constant
    /// `buckets [2D + 1]` i64 with numbers below `B`. The score of head `h` is
    /// `scale · (q_i · k_j + c2p[i, h·B + b] + p2c[j, h·B + b])` with `b = buckets[i - j + D]`
    /// (DeBERTa, He et al. 2020, arXiv:2006.03654).
    ///
    /// The families take `c2p` as the [`Op::GroupedLinear`] of the query with the keys of the relative positions by head
    /// (`[heads, B, head_dim]`), `p2c` as that of the key with the queries of the relative positions, and `scale` as
    /// `1 / sqrt(head_dim · (1 + number of the two that are set))`. With `S` buckets on either side, `B = 2S` and
    /// `buckets[d + D] = clamp(r(d) + S, 0, 2S - 1)`: `r` is the identity in v1, and the distance's logarithmic bucket in
    /// v2 and v3 where `position_buckets` is set. As `r` is odd, both terms take the same buckets.
    Disentangled {
        /// Whether there is `c2p`: the query's content meets the relative position.
        content_to_position: bool,
        /// Whether there is `p2c`: the key's content meets the relative position. Not possible with a cache, which keeps
        /// keys and values only.
        position_to_content: bool,
    },
}

/// Activation functions. Functions that only resemble each other are different variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · Φ(x)` with the exact normal distribution: `gelu` of transformers.
    Gelu,
    /// The tanh approximation of GELU: `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast` of transformers.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`: `quick_gelu` of transformers.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`: `silu` and `swish` of transformers.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

/// How the tokens of a sequence become one row. Tokens before the span's `pool_from` do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token of the sequence.
    Cls,
    /// The mean.
    Mean,
    /// The largest value of each column.
    Max,
    /// The sum divided by the square root of the number of tokens.
    MeanSqrtLength,
    /// The mean weighted by 1, 2, 3, ... from the sequence's first token on (SGPT, arXiv:2202.08904).
    WeightedMean,
    /// The last token of the sequence.
    LastToken,
    /// The last token of this id, or the last of all where there is none.
    LastEqual(i64),
}

/// Element-wise functions of the primitive ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unary {
    /// `-x`
    Neg,
    /// `|x|`
    Abs,
    /// `eˣ`
    Exp,
    /// Natural logarithm.
    Log,
    /// Natural logarithm of `1 + x`.
    Log1p,
    /// Square root.
    Sqrt,
    /// `1 / x`
    Reciprocal,
    /// Gauss error function.
    Erf,
    /// The largest whole number that is not larger.
    Floor,
    /// The smallest whole number that is not smaller.
    Ceil,
    /// The nearest whole number, of two the even one.
    Round,
    /// The whole part.
    Trunc,
    /// Sine of an angle in radians.
    Sin,
    /// Cosine of an angle in radians.
    Cos,
    /// -1, 0 or 1.
    Sign,
    /// 1 where the element is not a number, else 0.
    IsNan,
}

/// Element-wise functions of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a · b`
    Mul,
    /// `a / b`
    Div,
    /// `aᵇ`
    Pow,
    /// The smaller one.
    Min,
    /// The larger one.
    Max,
    /// 1 where equal, else 0.
    Equal,
    /// 1 where `a < b`, else 0.
    Less,
}

/// Reductions over dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The mean.
    Mean,
    /// The largest value.
    Max,
}

impl Op {
    /// The op's name, as the printer shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "Input",
            Op::Constant(_) => "Constant",
            Op::Positions { .. } => "Positions",
            Op::ShiftRight { .. } => "ShiftRight",
            Op::Embedding => "Embedding",
            Op::Linear { .. } => "Linear",
            Op::QuantizedLinear { .. } => "QuantizedLinear",
            Op::GroupQuantizedLinear { .. } => "GroupQuantizedLinear",
            Op::GroupedLinear { .. } => "GroupedLinear",
            Op::Dequantize => "Dequantize",
            Op::LayerNorm { .. } => "LayerNorm",
            Op::RmsNorm { .. } => "RmsNorm",
            Op::HeadNorm { .. } => "HeadNorm",
            Op::Activation(_) => "Activation",
            Op::Gate { .. } => "Gate",
            Op::Attention(_) => "Attention",
            Op::CrossAttention(_) => "CrossAttention",
            Op::Rotary { .. } => "Rotary",
            Op::Pool(_) => "Pool",
            Op::Select => "Select",
            Op::L2Normalize { .. } => "L2Normalize",
            Op::Unary(_) => "Unary",
            Op::Binary(_) => "Binary",
            Op::MatMul => "MatMul",
            Op::Softmax => "Softmax",
            Op::Transpose { .. } => "Transpose",
            Op::Reshape { .. } => "Reshape",
            Op::Slice { .. } => "Slice",
            Op::Concat { .. } => "Concat",
            Op::Gather { .. } => "Gather",
            Op::Reduce { .. } => "Reduce",
            Op::Where => "Where",
            Op::ToFloat => "ToFloat",
            Op::GatherElements { .. } => "GatherElements",
            Op::CumSum { .. } => "CumSum",
            Op::Expand { .. } => "Expand",
            Op::Iota { .. } => "Iota",
            Op::Pad => "Pad",
            Op::Pack => "Pack",
        }
    }
}
