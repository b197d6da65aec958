//! A graph that grows from a checkpoint's weights.

use std::collections::HashMap;

use centuple_graph::{Binary, Graph, NodeId, Op, Pooling};
use centuple_tensor::{DType, Dim, Symbol, Tensor};

use crate::ModelError;
use crate::checkpoint::Checkpoint;

/// The graph under construction, and the checkpoint that gives its constants.
pub(crate) struct Builder<'a> {
    pub(crate) graph: Graph,
    checkpoint: &'a Checkpoint,
    /// What stands before the base model's names in this checkpoint: `bert.`, or nothing.
    prefix: &'a str,
    /// Weights that are there already, by name.
    weights: HashMap<String, NodeId>,
    /// Beginnings of names, and those that the checkpoint has for them.
    shared: Vec<(String, String)>,
    /// Weights that stand for the checkpoint's, by name.
    replaced: HashMap<String, Tensor>,
    part: Part,
}

/// What of a model the graph is to compute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything, of whole sequences.
    Whole,
    /// New tokens from those before, whose keys and values are in a cache.
    NextToken,
    /// What an encoder leaves in the cache for its decoder.
    Encoder,
    /// New tokens from those before and from what the encoder has left.
    Decoder,
}

/// How the scales of a norm are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gamma {
    Plain,
    /// Less one.
    Centred,
}

impl<'a> Builder<'a> {
    /// A builder over `checkpoint`, whose base model's weights carry `prefix` if the tensor `probe` does.
    pub(crate) fn new(checkpoint: &'a Checkpoint, prefix: &'a str, probe: &str) -> Builder<'a> {
        let prefixed = checkpoint.contains(&format!("{prefix}{probe}"));
        Builder {
            graph: Graph::new(),
            checkpoint,
            prefix: if prefixed { prefix } else { "" },
            weights: HashMap::new(),
            shared: Vec::new(),
            replaced: HashMap::new(),
            part: Part::Whole,
        }
    }

    /// A builder of a graph for a part of the model.
    pub(crate) fn of(self, part: Part) -> Builder<'a> {
        Builder { part, ..self }
    }

    /// What of the model the graph is to compute.
    pub(crate) fn part(&self) -> Part {
        self.part
    }

    /// The slot of the key/value cache for the attention of a layer.
    pub(crate) fn cache(&self, layer: usize) -> Option<usize> {
        matches!(self.part, Part::NextToken | Part::Decoder).then_some(layer)
    }

    /// The name of a base model's tensor in this checkpoint.
    pub(crate) fn base(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The shape that the checkpoint gives a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.checkpoint.shape(&self.stored(name))
    }

    /// Length of a row of a value.
    pub(crate) fn width(&self, x: NodeId) -> usize {
        self.graph.node(x).fact.shape.last().and_then(Dim::constant).unwrap_or(0)
    }

    /// The packed batch's ids `[Tokens]` called `name`: `input_ids` or `token_type_ids`.
    pub(crate) fn ids(&mut self, name: &str) -> Result<NodeId, ModelError> {
        let known = self.graph.inputs().find(|(_, node)| node.name == name).map(|(id, _)| id);
        match known {
            Some(known) => Ok(known),
            None => Ok(self.graph.input(name, DType::I64, vec![Symbol::Tokens.into()])?),
        }
    }

    /// A weight of exactly this shape, as f32; one node however often it is asked for.
    pub(crate) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<NodeId, ModelError> {
        let stored = self.stored(name);
        if let Some(&known) = self.weights.get(&stored)
            && self.graph.constant_of(known).is_some_and(|tensor| tensor.shape() == shape)
        {
            return Ok(known);
        }
        let tensor = self.tensor(&stored, shape)?;
        self.constant(&stored, tensor)
    }

    /// From now on, `{name}.weight` is `[outputs, inputs]`; it is stored as `[inputs, outputs]`.
    pub(crate) fn transpose(&mut self, name: &str, [outputs, inputs]: [usize; 2]) -> Result<(), ModelError> {
        let name = format!("{name}.weight");
        let stored = self.checkpoint.tensor(&name, &[inputs, outputs])?;
        let values = stored.as_f32()?;
        let mut rows = Vec::with_capacity(values.len());
        for output in 0..outputs {
            rows.extend(values.iter().skip(output).step_by(outputs));
        }
        self.replaced.insert(name, Tensor::from_f32(&[outputs, inputs], &rows)?);
        Ok(())
    }

    /// From now on, `{name}` is `[length]`; it is stored as `[1, length]`.
    pub(crate) fn flatten(&mut self, name: &str, length: usize) -> Result<(), ModelError> {
        let row = self.checkpoint.tensor(name, &[1, length])?;
        self.replaced.insert(name.to_owned(), row.reshaped(&[length])?);
        Ok(())
    }

    /// The first of some names, without `.weight`, that the checkpoint has; the first of all if it has none.
    pub(crate) fn first_of(&self, names: &[String]) -> String {
        let known = names.iter().find(|name| self.shape(&format!("{name}.weight")).is_some());
        known.or(names.first()).cloned().unwrap_or_default()
    }

    /// The values of a weight of exactly this shape, as f32.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        match self.replaced.get(name).filter(|tensor| tensor.shape() == shape) {
            Some(tensor) => Ok(tensor.clone()),
            None => Ok(self.checkpoint.tensor(name, shape)?),
        }
    }

    /// A weight that the checkpoint does not have under this name.
    pub(crate) fn constant(&mut self, name: &str, tensor: Tensor) -> Result<NodeId, ModelError> {
        let node = self.graph.constant(name, tensor)?;
        self.weights.insert(name.to_owned(), node);
        Ok(node)
    }

    /// From now on, names that begin with `name` have the weights of those that begin with `stored`.
    pub(crate) fn share(&mut self, name: String, stored: String) {
        self.shared.push((name, stored));
    }

    fn stored(&self, name: &str) -> String {
        let of = |(from, to): &(String, String)| name.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}"));
        self.shared.iter().find_map(of).unwrap_or_else(|| name.to_owned())
    }

    /// Takes a matrix `{name}.weight [outputs, inputs]`, and its bias where it has one, apart: `{name}.{part}` are its
    /// rows `rows`, for each of `parts`.
    pub(crate) fn split(
        &mut self,
        name: &str,
        [outputs, inputs]: [usize; 2],
        bias: bool,
        parts: &[(&str, Vec<usize>)],
    ) -> Result<(), ModelError> {
        let kinds = [Some(("weight", vec![outputs, inputs])), bias.then(|| ("bias", vec![outputs]))];
        for (kind, shape) in kinds.into_iter().flatten() {
            let whole = self.tensor(&format!("{name}.{kind}"), &shape)?;
            let values = whole.as_f32()?;
            let width = if shape.len() == 2 { inputs } else { 1 };
            for (part, rows) in parts {
                let chosen: Vec<f32> =
                    rows.iter().flat_map(|&row| &values[row * width..(row + 1) * width]).copied().collect();
                let shape: Vec<usize> = [rows.len(), inputs].into_iter().take(shape.len()).collect();
                self.constant(&format!("{name}.{part}.{kind}"), Tensor::from_f32(&shape, &chosen)?)?;
            }
        }
        Ok(())
    }

    /// `x · weightᵀ + bias` with the weights `{name}.weight [outputs, inputs]` and `{name}.bias [outputs]`.
    pub(crate) fn linear(
        &mut self,
        x: NodeId,
        name: &str,
        [outputs, inputs]: [usize; 2],
    ) -> Result<NodeId, ModelError> {
        self.linear_with(x, name, [outputs, inputs], true)
    }

    /// As [`Builder::linear`], with a bias where the flag says so.
    pub(crate) fn linear_with(
        &mut self,
        x: NodeId,
        name: &str,
        shape: [usize; 2],
        bias: bool,
    ) -> Result<NodeId, ModelError> {
        let bias = bias.then(|| format!("{name}.bias"));
        self.matrix(x, name, &format!("{name}.weight"), shape, bias.as_deref())
    }

    /// `x · weightᵀ + bias` with a weight that has as many rows as the checkpoint says, and a bias of a name of its own.
    pub(crate) fn project(
        &mut self,
        x: NodeId,
        name: &str,
        weight: &str,
        bias: Option<&str>,
    ) -> Result<NodeId, ModelError> {
        let rows = self.shape(weight).and_then(|shape| shape.first()).copied().unwrap_or(0);
        self.matrix(x, name, weight, [rows, self.width(x)], bias)
    }

    /// `x · weightᵀ + bias` with names of their own.
    pub(crate) fn matrix(
        &mut self,
        x: NodeId,
        name: &str,
        weight: &str,
        [outputs, inputs]: [usize; 2],
        bias: Option<&str>,
    ) -> Result<NodeId, ModelError> {
        let mut operands = vec![x, self.weight(weight, &[outputs, inputs])?];
        if let Some(bias) = bias {
            operands.push(self.weight(bias, &[outputs])?);
        }
        let op = Op::Linear { bias: bias.is_some(), activation: None, residual: false };
        Ok(self.graph.push(name, op, &operands)?)
    }

    /// One row per sequence.
    pub(crate) fn pool(&mut self, x: NodeId, pooling: Pooling) -> Result<NodeId, ModelError> {
        let mut operands = vec![x];
        if matches!(pooling, Pooling::LastEqual(_)) {
            operands.push(self.ids("input_ids")?);
        }
        Ok(self.graph.push("pooled", Op::Pool(pooling), &operands)?)
    }

    /// The sum of two values.
    pub(crate) fn add(&mut self, name: &str, a: NodeId, b: NodeId) -> Result<NodeId, ModelError> {
        Ok(self.graph.push(name, Op::Binary(Binary::Add), &[a, b])?)
    }

    /// Layer normalisation with `{name}.weight` and `{name}.bias`, which old checkpoints call `gamma` and `beta`.
    pub(crate) fn layer_norm(
        &mut self,
        x: NodeId,
        name: &str,
        width: usize,
        epsilon: f32,
    ) -> Result<NodeId, ModelError> {
        let old = self.checkpoint.contains(&self.stored(&format!("{name}.gamma")));
        let [scale, shift] = if old { ["gamma", "beta"] } else { ["weight", "bias"] };
        let gamma = self.weight(&format!("{name}.{scale}"), &[width])?;
        let beta = self.weight(&format!("{name}.{shift}"), &[width])?;
        Ok(self.graph.push(name, Op::LayerNorm { epsilon, residual: false }, &[x, gamma, beta])?)
    }
    /// As [`Builder::layer_norm`], with no bias.
    pub(crate) fn layer_norm_without_bias(
        &mut self,
        x: NodeId,
        name: &str,
        width: usize,
        epsilon: f32,
    ) -> Result<NodeId, ModelError> {
        let gamma = self.weight(&format!("{name}.weight"), &[width])?;
        let beta = self.graph.constant(format!("{name}.zeros"), Tensor::from_f32(&[width], &vec![0.0; width])?)?;
        Ok(self.graph.push(name, Op::LayerNorm { epsilon, residual: false }, &[x, gamma, beta])?)
    }

    /// Normalisation by the root mean square, with `{name}.weight`.
    pub(crate) fn rms_norm(&mut self, x: NodeId, name: &str, width: usize, epsilon: f32) -> Result<NodeId, ModelError> {
        self.rms_norm_with(x, name, width, Gamma::Plain, epsilon)
    }

    /// As [`Builder::rms_norm`], with scales that are stored in one way or the other.
    pub(crate) fn rms_norm_with(
        &mut self,
        x: NodeId,
        name: &str,
        width: usize,
        gamma: Gamma,
        epsilon: f32,
    ) -> Result<NodeId, ModelError> {
        let gamma = self.gamma(name, width, gamma)?;
        Ok(self.graph.push(name, Op::RmsNorm { epsilon, residual: false }, &[x, gamma])?)
    }

    /// Normalisation of each of some heads by its root mean square, with `{name}.weight [head_dim]`.
    pub(crate) fn head_norm(
        &mut self,
        x: NodeId,
        name: &str,
        [heads, head_dim]: [usize; 2],
        gamma: Gamma,
        epsilon: f32,
    ) -> Result<NodeId, ModelError> {
        let gamma = self.gamma(name, head_dim, gamma)?;
        Ok(self.graph.push(name, Op::HeadNorm { heads, epsilon }, &[x, gamma])?)
    }

    fn gamma(&mut self, name: &str, width: usize, gamma: Gamma) -> Result<NodeId, ModelError> {
        let name = format!("{name}.weight");
        if gamma == Gamma::Plain {
            return self.weight(&name, &[width]);
        }
        let scales: Vec<f32> = self.tensor(&name, &[width])?.as_f32()?.iter().map(|scale| 1.0 + scale).collect();
        self.constant(&name, Tensor::from_f32(&[width], &scales)?)
    }

    /// `factor · x`, as `{name}`.
    pub(crate) fn scale(&mut self, x: NodeId, name: &str, factor: f32) -> Result<NodeId, ModelError> {
        let factor = self.graph.constant(format!("{name}.factor"), Tensor::from_f32(&[1], &[factor])?)?;
        Ok(self.graph.push(name, Op::Binary(Binary::Mul), &[x, factor])?)
    }
}
