//! Pooling, dense layers and normalisation of sentence-transformers.

use centuple_graph::{Activation, NodeId, Op, Pooling};

use super::{Head, OUTPUT};
use crate::ModelError;
use crate::builder::Builder;
use crate::checkpoint::SentenceTransformer;
use crate::checkpoint::sentence_transformers::{Dense, DenseActivation, HeadModule, PoolingMode};

/// Lower bound of the norm, as in `torch.nn.functional.normalize`.
const EPSILON: f32 = 1e-12;

/// Appends the modules behind the transformer to its last hidden state `[Tokens, width]`.
pub(crate) fn sentence_embedding(
    modules: &SentenceTransformer,
    builder: &mut Builder,
    hidden: NodeId,
) -> Result<Head, ModelError> {
    let mut x = pool(&modules.pooling.modes, builder, hidden)?;
    for (index, module) in modules.head.iter().enumerate() {
        let name = format!("modules.{}", index + 2);
        x = match module {
            HeadModule::Dense(layer) => dense(layer, builder, &name, x)?,
            HeadModule::Normalize => builder.graph.push(name, Op::L2Normalize { epsilon: EPSILON }, &[x])?,
        };
    }
    builder.graph.output(OUTPUT, x);
    Ok(Head::SentenceEmbedding {
        dimension: modules.dimension(),
        pooling: modules.pooling.modes.iter().map(ToString::to_string).collect(),
        normalised: matches!(modules.head.last(), Some(HeadModule::Normalize)),
        include_prompt: modules.pooling.include_prompt,
    })
}

fn pool(modes: &[PoolingMode], builder: &mut Builder, hidden: NodeId) -> Result<NodeId, ModelError> {
    let mut pooled = Vec::with_capacity(modes.len());
    for mode in modes {
        let pooling = match mode {
            PoolingMode::Cls => Pooling::Cls,
            PoolingMode::Max => Pooling::Max,
            PoolingMode::Mean => Pooling::Mean,
            PoolingMode::MeanSqrtLen => Pooling::MeanSqrtLength,
            PoolingMode::WeightedMean => Pooling::WeightedMean,
            PoolingMode::LastToken => Pooling::LastToken,
        };
        pooled.push(builder.graph.push(format!("modules.1.{mode}"), Op::Pool(pooling), &[hidden])?);
    }
    match pooled.as_slice() {
        [one] => Ok(*one),
        several => Ok(builder.graph.push("modules.1", Op::Concat { axis: 1 }, several)?),
    }
}

fn dense(layer: &Dense, builder: &mut Builder, name: &str, x: NodeId) -> Result<NodeId, ModelError> {
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
