//! The feed-forward block: two matrices, or three where one is a gate.

use centuple_graph::{Activation, Binary, NodeId, Op};

use crate::ModelError;
use crate::builder::Builder;

/// `down(activation(up(x)))`, or `down(activation(up(x)) · gate(x))` (Shazeer 2020, arXiv:2002.05202).
pub(crate) struct FeedForward {
    /// Name of the first matrix.
    pub(crate) up: String,
    /// Name of the matrix whose product stays linear.
    pub(crate) gate: Option<String>,
    /// Name of the last matrix.
    pub(crate) down: String,
    pub(crate) width: usize,
    pub(crate) inner_width: usize,
    pub(crate) activation: Activation,
    /// Whether the first matrices, and the last one, have a bias.
    pub(crate) biases: [bool; 2],
}

impl FeedForward {
    /// Appends the block; `[Tokens, width]` in and out.
    pub(crate) fn build(&self, builder: &mut Builder, x: NodeId) -> Result<NodeId, ModelError> {
        let [into, out_of] = self.biases;
        let up = builder.linear_with(x, &self.up, [self.inner_width, self.width], into)?;
        let mut inner =
            builder.graph.push(format!("{}.activation", self.up), Op::Activation(self.activation), &[up])?;
        if let Some(name) = &self.gate {
            let gate = builder.linear_with(x, name, [self.inner_width, self.width], into)?;
            inner = builder.graph.push(format!("{name}.gated"), Op::Binary(Binary::Mul), &[inner, gate])?;
        }
        builder.linear_with(inner, &self.down, [self.width, self.inner_width], out_of)
    }
}
