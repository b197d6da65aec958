//! Multi-head attention with its four projections.

use centuple_graph::{Attention, NodeId, Op, PositionScores};

use super::Rotary;
use crate::ModelError;
use crate::builder::Builder;

/// Attention over the tokens of each sequence, mostly of a value to itself.
pub(crate) struct SelfAttention {
    /// Name of the attention itself, for reports.
    pub(crate) name: String,
    /// Names of the query, key, value and output projections.
    pub(crate) projections: [String; 4],
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    /// Factor on the scores.
    pub(crate) scale: f32,
    /// Whether the first three projections, and the last one, have a bias.
    pub(crate) biases: [bool; 2],
    pub(crate) causal: bool,
    /// How many positions a query sees on either side.
    pub(crate) window: Option<usize>,
    /// What is added to the scores by distance: `[heads, 2D + 1]`.
    pub(crate) bias: Option<NodeId>,
    /// How queries and keys are rotated.
    pub(crate) rotary: Option<Rotary>,
}

impl SelfAttention {
    /// Attention with biases, the usual scale, and nothing that depends on positions.
    pub(crate) fn new(name: String, projections: [String; 4], width: usize, heads: usize, head_dim: usize) -> Self {
        SelfAttention {
            name,
            projections,
            width,
            heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            biases: [true, true],
            causal: false,
            window: None,
            bias: None,
            rotary: None,
        }
    }

    /// Appends attention of `x` to itself; `[Tokens, width]` in and out.
    pub(crate) fn build(&self, builder: &mut Builder, x: NodeId) -> Result<NodeId, ModelError> {
        self.build_over(builder, x, x)
    }

    /// Appends attention of `x` to another value over the same sequences; `[Tokens, width]` in and out.
    pub(crate) fn build_over(&self, builder: &mut Builder, x: NodeId, memory: NodeId) -> Result<NodeId, ModelError> {
        let inner = self.heads * self.head_dim;
        let [query, key, value, output] = &self.projections;
        let [into, out_of] = self.biases;
        let mut q = builder.linear_with(x, query, [inner, self.width], into)?;
        let mut k = builder.linear_with(memory, key, [inner, self.width], into)?;
        let mut v = builder.linear_with(memory, value, [inner, self.width], into)?;
        if let Some(rotary) = &self.rotary {
            q = rotary.rotate(builder, query, q, self.heads, self.head_dim)?;
            k = rotary.rotate(builder, key, k, self.heads, self.head_dim)?;
            if rotary.values {
                v = rotary.rotate(builder, value, v, self.heads, self.head_dim)?;
            }
        }
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.head_dim,
            scale: self.scale,
            causal: self.causal,
            window: self.window,
            position: if self.bias.is_some() { PositionScores::Bias } else { PositionScores::None },
            cache: None,
        };
        let operands: Vec<NodeId> = [q, k, v].into_iter().chain(self.bias).collect();
        let context = builder.graph.push(self.name.as_str(), Op::Attention(attention), &operands)?;
        builder.linear_with(context, output, [self.width, inner], out_of)
    }
}
