//! Multi-head attention with its four projections.

use centuple_graph::{Attention, CrossAttention, NodeId, Op, PositionScores};

use super::Rotary;
use crate::ModelError;
use crate::builder::{Builder, Gamma};

/// Attention over the tokens of each sequence, mostly of a value to itself.
pub(crate) struct SelfAttention {
    /// Name of the attention itself, for reports.
    pub(crate) name: String,
    /// Names of the query, key, value and output projections.
    pub(crate) projections: [String; 4],
    pub(crate) width: usize,
    pub(crate) heads: usize,
    /// Heads of keys and values; each serves as many query heads.
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Factor on the scores.
    pub(crate) scale: f32,
    /// Bound of the scores.
    pub(crate) soft_cap: Option<f32>,
    /// Whether the first three projections, and the last one, have a bias.
    pub(crate) biases: [bool; 2],
    pub(crate) causal: bool,
    /// How many positions a query sees on either side.
    pub(crate) window: Option<usize>,
    /// What is added to the scores by distance: `[heads, 2D + 1]`.
    pub(crate) bias: Option<NodeId>,
    /// How the heads of queries and keys are normed.
    pub(crate) norms: Option<HeadNorms>,
    /// How queries and keys are rotated.
    pub(crate) rotary: Option<Rotary>,
    /// Slot of the key/value cache.
    pub(crate) cache: Option<usize>,
}

/// Norms of the heads of queries and keys, each by the root mean square.
pub(crate) struct HeadNorms {
    /// Names of the norms of queries and keys.
    pub(crate) names: [String; 2],
    pub(crate) gamma: Gamma,
    pub(crate) epsilon: f32,
}

impl SelfAttention {
    /// Attention with biases, the usual scale, and nothing that depends on positions.
    pub(crate) fn new(name: String, projections: [String; 4], width: usize, heads: usize, head_dim: usize) -> Self {
        SelfAttention {
            name,
            projections,
            width,
            heads,
            kv_heads: heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            soft_cap: None,
            biases: [true, true],
            causal: false,
            window: None,
            bias: None,
            norms: None,
            rotary: None,
            cache: None,
        }
    }

    /// Appends attention of `x` to itself; `[Tokens, width]` in and out.
    pub(crate) fn build(&self, builder: &mut Builder, x: NodeId) -> Result<NodeId, ModelError> {
        self.build_over(builder, x, x)
    }

    /// Appends the keys and values `[Tokens, heads·head_dim]` of an encoder's result for a decoder's cross-attention, as outputs that
    /// go to a slot of the cache.
    pub(crate) fn remember(&self, builder: &mut Builder, memory: NodeId, slot: usize) -> Result<(), ModelError> {
        let [_, key, value, _] = &self.projections;
        for (kind, name) in [("keys", key), ("values", value)] {
            let shape = [self.heads * self.head_dim, self.width];
            let projected = builder.linear_with(memory, name, shape, self.biases[0])?;
            builder.graph.output(&format!("{kind}.{slot}"), projected);
        }
        Ok(())
    }

    /// Appends attention of `x` to what is remembered in a slot of the cache; `[Tokens, width]` in and out.
    pub(crate) fn recall(&self, builder: &mut Builder, x: NodeId, slot: usize) -> Result<NodeId, ModelError> {
        let [query, _, _, output] = &self.projections;
        let [into, out_of] = self.biases;
        let (heads, head_dim, scale) = (self.heads, self.head_dim, self.scale);
        let q = builder.linear_with(x, query, [heads * head_dim, self.width], into)?;
        let op = Op::CrossAttention(CrossAttention { heads, head_dim, scale, slot });
        let context = builder.graph.push(self.name.as_str(), op, &[q])?;
        builder.linear_with(context, output, [self.width, heads * head_dim], out_of)
    }

    /// Appends attention of `x` to another value over the same sequences; `[Tokens, width]` in and out.
    pub(crate) fn build_over(&self, builder: &mut Builder, x: NodeId, memory: NodeId) -> Result<NodeId, ModelError> {
        let [inner, of_keys] = [self.heads, self.kv_heads].map(|heads| heads * self.head_dim);
        let [query, key, value, output] = &self.projections;
        let [into, out_of] = self.biases;
        let mut q = builder.linear_with(x, query, [inner, self.width], into)?;
        let mut k = builder.linear_with(memory, key, [of_keys, self.width], into)?;
        let mut v = builder.linear_with(memory, value, [of_keys, self.width], into)?;
        if let Some(HeadNorms { names: [of_query, of_key], gamma, epsilon }) = &self.norms {
            q = builder.head_norm(q, of_query, [self.heads, self.head_dim], *gamma, *epsilon)?;
            k = builder.head_norm(k, of_key, [self.kv_heads, self.head_dim], *gamma, *epsilon)?;
        }
        if let Some(rotary) = &self.rotary {
            q = rotary.rotate(builder, query, q, self.heads, self.head_dim)?;
            k = rotary.rotate(builder, key, k, self.kv_heads, self.head_dim)?;
            if rotary.values {
                v = rotary.rotate(builder, value, v, self.kv_heads, self.head_dim)?;
            }
        }
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: self.scale,
            soft_cap: self.soft_cap,
            causal: self.causal,
            window: self.window,
            position: if self.bias.is_some() { PositionScores::Bias } else { PositionScores::None },
            cache: self.cache,
        };
        let operands: Vec<NodeId> = [q, k, v].into_iter().chain(self.bias).collect();
        let context = builder.graph.push(self.name.as_str(), Op::Attention(attention), &operands)?;
        builder.linear_with(context, output, [self.width, inner], out_of)
    }
}
