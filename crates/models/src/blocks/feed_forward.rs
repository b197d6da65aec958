//! The two-matrix feed-forward block.

use centuple_graph::{Activation, NodeId, Op};

use crate::ModelError;
use crate::builder::Builder;

/// `down(activation(up(x)))`.
pub(crate) struct FeedForward {
    /// Name of the first matrix.
    pub(crate) up: String,
    /// Name of the second matrix.
    pub(crate) down: String,
    pub(crate) width: usize,
    pub(crate) inner_width: usize,
    pub(crate) activation: Activation,
}

impl FeedForward {
    /// Appends the block; `[Tokens, width]` in and out.
    pub(crate) fn build(&self, builder: &mut Builder, x: NodeId) -> Result<NodeId, ModelError> {
        let up = builder.linear(x, &self.up, [self.inner_width, self.width])?;
        let active = builder.graph.push(format!("{}.activation", self.up), Op::Activation(self.activation), &[up])?;
        builder.linear(active, &self.down, [self.width, self.inner_width])
    }
}
