//! Multi-head self-attention with its four projections.

use centuple_graph::{Attention, NodeId, Op};

use crate::ModelError;
use crate::builder::Builder;

/// Self-attention over the tokens of each sequence.
pub(crate) struct SelfAttention {
    /// Name of the attention itself, for reports.
    pub(crate) name: String,
    /// Names of the query, key, value and output projections.
    pub(crate) projections: [String; 4],
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) causal: bool,
}

impl SelfAttention {
    /// Appends the block; `[Tokens, width]` in and out.
    pub(crate) fn build(&self, builder: &mut Builder, x: NodeId) -> Result<NodeId, ModelError> {
        let inner = self.heads * self.head_dim;
        let [query, key, value, output] = &self.projections;
        let q = builder.linear(x, query, [inner, self.width])?;
        let k = builder.linear(x, key, [inner, self.width])?;
        let v = builder.linear(x, value, [inner, self.width])?;
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            causal: self.causal,
            cache: None,
        };
        let context = builder.graph.push(self.name.clone(), Op::Attention(attention), &[q, k, v])?;
        builder.linear(context, output, [self.width, inner])
    }
}
