//! Weights joined behind each other, each combination once: what layers share stays shared.

use std::collections::HashMap;

use centuple_graph::{Graph, Node};
use centuple_tensor::Tensor;

/// A tensor's identity and shape; no identity where zeros stand for a bias that is missing.
pub(crate) type Part = (Option<(usize, usize)>, Vec<usize>);

/// The joined weights of one pass, by their parts.
#[derive(Default)]
pub(crate) struct Joined(HashMap<Vec<Part>, Tensor>);

impl Joined {
    /// One operand of every layer, joined along the first dimension, zeros for a bias that is missing; `None` where one is
    /// no f32 constant.
    pub(crate) fn operand(&mut self, graph: &Graph, layers: &[&Node], operand: usize) -> Option<Tensor> {
        let of = |layer: &&Node| match layer.inputs.get(operand) {
            Some(&input) => graph.constant_of(input).map(Some),
            None => Some(None),
        };
        let tensors: Vec<Option<&Tensor>> = layers.iter().map(of).collect::<Option<_>>()?;
        let part = |(tensor, layer): (&Option<&Tensor>, &&Node)| match tensor {
            Some(tensor) => (Some(tensor.identity()), tensor.shape().to_vec()),
            None => (None, vec![width(layer)]),
        };
        let parts: Vec<Part> = tensors.iter().zip(layers).map(part).collect();
        if let Some(joined) = self.0.get(&parts) {
            return Some(joined.clone());
        }
        let mut data = Vec::new();
        for (tensor, layer) in tensors.iter().zip(layers) {
            match tensor {
                Some(tensor) => data.extend_from_slice(tensor.as_f32().ok()?),
                None => data.resize(data.len() + width(layer), 0.0),
            }
        }
        let mut shape = parts.first()?.1.clone();
        *shape.first_mut()? = parts.iter().map(|(_, shape)| shape[0]).sum();
        let joined = Tensor::from_f32(&shape, &data).ok()?;
        self.0.insert(parts, joined.clone());
        Some(joined)
    }
}

/// Columns of a layer's result.
pub(crate) fn width(layer: &Node) -> usize {
    layer.fact.shape.last().and_then(|dim| dim.constant()).unwrap_or(0)
}
