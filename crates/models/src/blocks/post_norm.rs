//! A layer whose blocks are each followed by the residual sum and a layer norm.

use centuple_graph::{Activation, NodeId};

use super::{FeedForward, SelfAttention};
use crate::ModelError;
use crate::builder::Builder;
use crate::config::Config;

/// An encoder layer: attention and a feed-forward block.
pub(crate) struct PostNorm {
    pub(crate) attention: SelfAttention,
    /// Name of the norm behind attention.
    pub(crate) attended: String,
    pub(crate) feed_forward: FeedForward,
    /// Name of the last norm.
    pub(crate) norm: String,
    pub(crate) epsilon: f32,
}

/// Sizes of a layer, and what its layers have in common.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) inner_width: usize,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f32,
}

impl Sizes {
    /// What the fields `hidden_size`, `num_attention_heads` and `intermediate_size`, then `hidden_act` and `layer_norm_eps`
    /// say.
    ///
    /// # Errors
    /// A field has a value that makes no sense, or that isn't supported.
    pub(crate) fn of(
        json: Config,
        [width, heads, inner_width]: [usize; 3],
        activation: &str,
        epsilon: f32,
    ) -> Result<Sizes, ModelError> {
        Ok(Sizes {
            width,
            heads,
            head_dim: json.head_dim(("hidden_size", width), ("num_attention_heads", heads))?,
            inner_width,
            activation: json.activation("hidden_act", activation)?,
            epsilon: json.epsilon("layer_norm_eps", epsilon)?,
        })
    }
}

impl PostNorm {
    /// The layer `layer` with the weights `attention.self.query`, `…key`, `…value`, `attention.output.dense`,
    /// `attention.output.LayerNorm`, `intermediate.dense`, `output.dense` and `output.LayerNorm`.
    pub(crate) fn new(layer: &str, sizes: Sizes) -> PostNorm {
        let name = |part: &str| format!("{layer}.{part}");
        let projections =
            ["self.query", "self.key", "self.value", "output.dense"].map(|part| name(&format!("attention.{part}")));
        let Sizes { width, heads, head_dim, inner_width, activation, epsilon } = sizes;
        PostNorm {
            attention: SelfAttention::new(name("attention.self"), projections, width, heads, head_dim),
            attended: name("attention.output.LayerNorm"),
            feed_forward: FeedForward {
                up: name("intermediate.dense"),
                gate: None,
                down: name("output.dense"),
                width,
                inner_width,
                activation,
                biases: [true, true],
            },
            norm: name("output.LayerNorm"),
            epsilon,
        }
    }

    /// Appends the layer; `[Tokens, width]` in and out.
    pub(crate) fn build(&self, builder: &mut Builder, x: NodeId) -> Result<NodeId, ModelError> {
        let context = self.attention.build(builder, x)?;
        self.finish(builder, x, context)
    }

    /// Appends what follows the attention, whose output is `context`.
    pub(crate) fn finish(&self, builder: &mut Builder, x: NodeId, context: NodeId) -> Result<NodeId, ModelError> {
        let x = self.add_norm(builder, &self.attended, [context, x])?;
        let inner = self.feed_forward.build(builder, x)?;
        self.add_norm(builder, &self.norm, [inner, x])
    }

    fn add_norm(&self, builder: &mut Builder, norm: &str, [block, x]: [NodeId; 2]) -> Result<NodeId, ModelError> {
        let sum = builder.add(&format!("{norm}.residual"), block, x)?;
        builder.layer_norm(sum, norm, self.feed_forward.width, self.epsilon)
    }
}
