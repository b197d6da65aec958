//! Pooling, dense layers and normalisation of sentence-transformers.

use centuple_graph::{self as graph, Activation, NodeId, Op};

use super::{Head, OUTPUT};
use crate::ModelError;
use crate::builder::Builder;
use crate::checkpoint::sentence_transformers::{Dense, DenseActivation, HeadModule, Pooling, PoolingMode};
use crate::config::Config;

/// Lower bound of the norm, as in `torch.nn.functional.normalize`.
pub(super) const EPSILON: f32 = 1e-12;

/// Appends the modules behind the transformer to its last hidden state `[Tokens, width]`.
pub(crate) fn sentence_embedding(
    pooling: &Pooling,
    modules: &[HeadModule],
    config: Config,
    builder: &mut Builder,
    hidden: NodeId,
) -> Result<Head, ModelError> {
    let width = builder.width(hidden);
    if pooling.dimension != width {
        let pooled = pooling.dimension;
        return Err(config.error(format!("the hidden state is {width} wide, but the pooling expects {pooled}")));
    }
    let mut x = pool(&pooling.modes, builder, hidden)?;
    for (index, module) in modules.iter().enumerate() {
        let name = format!("modules.{}", index + 2);
        x = match module {
            HeadModule::Dense(layer) => dense(layer, builder, &name, x)?,
            HeadModule::Normalize => builder.graph.push(name, Op::L2Normalize { epsilon: EPSILON }, &[x])?,
        };
    }
    builder.graph.output(OUTPUT, x);
    Ok(Head::SentenceEmbedding {
        dimension: builder.width(x),
        pooling: pooling.modes.iter().map(ToString::to_string).collect(),
        normalised: matches!(modules.last(), Some(HeadModule::Normalize)),
        include_prompt: pooling.include_prompt,
    })
}

fn pool(modes: &[PoolingMode], builder: &mut Builder, hidden: NodeId) -> Result<NodeId, ModelError> {
    let mut pooled = Vec::with_capacity(modes.len());
    for mode in modes {
        let pooling = match mode {
            PoolingMode::Cls => graph::Pooling::Cls,
            PoolingMode::Max => graph::Pooling::Max,
            PoolingMode::Mean => graph::Pooling::Mean,
            PoolingMode::MeanSqrtLen => graph::Pooling::MeanSqrtLength,
            PoolingMode::WeightedMean => graph::Pooling::WeightedMean,
            PoolingMode::LastToken => graph::Pooling::LastToken,
        };
        pooled.push(builder.graph.push(format!("modules.1.{mode}"), Op::Pool(pooling), &[hidden])?);
    }
    match pooled.as_slice() {
        [one] => Ok(*one),
        several => Ok(builder.graph.push("modules.1", Op::Concat { axis: 1 }, several)?),
    }
}

pub(super) fn dense(layer: &Dense, builder: &mut Builder, name: &str, x: NodeId) -> Result<NodeId, ModelError> {
    let mut inputs = vec![x, builder.graph.constant(format!("{name}.linear.weight"), layer.weight.clone())?];
    if let Some(bias) = &layer.bias {
        inputs.push(builder.graph.constant(format!("{name}.linear.bias"), bias.clone())?);
    }
    let op = Op::Linear { bias: layer.bias.is_some(), activation: None, residual: false };
    let x = builder.graph.push(format!("{name}.linear"), op, &inputs)?;
    let activation = match layer.activation {
        DenseActivation::Identity => return Ok(x),
        DenseActivation::Tanh => Activation::Tanh,
        DenseActivation::Relu => Activation::Relu,
        DenseActivation::Gelu => Activation::Gelu,
        DenseActivation::Sigmoid => Activation::Sigmoid,
        DenseActivation::Silu => Activation::Silu,
    };
    Ok(builder.graph.push(format!("{name}.activation"), Op::Activation(activation), &[x])?)
}
