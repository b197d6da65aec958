//! A graph that grows from a checkpoint's weights.

use centuple_graph::{Graph, NodeId, Op};

use crate::ModelError;
use crate::checkpoint::Checkpoint;

/// The graph under construction, and the checkpoint that gives its constants.
pub(crate) struct Builder<'a> {
    pub(crate) graph: Graph,
    checkpoint: &'a Checkpoint,
    /// What stands before the base model's names in this checkpoint: `bert.`, or nothing.
    prefix: &'a str,
}

impl<'a> Builder<'a> {
    /// A builder over `checkpoint`, whose base model's weights carry `prefix` if the tensor `probe` does.
    pub(crate) fn new(checkpoint: &'a Checkpoint, prefix: &'a str, probe: &str) -> Builder<'a> {
        let prefixed = checkpoint.contains(&format!("{prefix}{probe}"));
        Builder { graph: Graph::new(), checkpoint, prefix: if prefixed { prefix } else { "" } }
    }

    /// The name of a base model's tensor in this checkpoint.
    pub(crate) fn base(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The shape that the checkpoint gives a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.checkpoint.shape(name)
    }

    /// A weight of exactly this shape, as f32.
    pub(crate) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<NodeId, ModelError> {
        let tensor = self.checkpoint.tensor(name, shape)?;
        Ok(self.graph.constant(name, tensor)?)
    }

    /// `x · weightᵀ + bias` with the weights `{name}.weight [outputs, inputs]` and `{name}.bias [outputs]`.
    pub(crate) fn linear(
        &mut self,
        x: NodeId,
        name: &str,
        [outputs, inputs]: [usize; 2],
    ) -> Result<NodeId, ModelError> {
        let weight = self.weight(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.weight(&format!("{name}.bias"), &[outputs])?;
        let op = Op::Linear { bias: true, activation: None, residual: false };
        Ok(self.graph.push(name, op, &[x, weight, bias])?)
    }

    /// Layer normalisation with `{name}.weight` and `{name}.bias`, which old checkpoints call `gamma` and `beta`.
    pub(crate) fn layer_norm(
        &mut self,
        x: NodeId,
        name: &str,
        width: usize,
        epsilon: f32,
    ) -> Result<NodeId, ModelError> {
        let old = self.checkpoint.contains(&format!("{name}.gamma"));
        let [scale, shift] = if old { ["gamma", "beta"] } else { ["weight", "bias"] };
        let gamma = self.weight(&format!("{name}.{scale}"), &[width])?;
        let beta = self.weight(&format!("{name}.{shift}"), &[width])?;
        Ok(self.graph.push(name, Op::LayerNorm { epsilon, residual: false }, &[x, gamma, beta])?)
    }
}
