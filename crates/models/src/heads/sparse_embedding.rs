//! SPLADE: a weight for every token of the vocabulary.

use centuple_graph::{Activation, NodeId, Op, Pooling, Unary};

use super::{Head, HeadLayers, OUTPUT, Rows};
use crate::ModelError;
use crate::builder::Builder;
use crate::checkpoint::sentence_transformers::{SpladePooling, SpladeStrategy};
use crate::config::Config;

/// Appends the vocabulary's logits of every token and their pooling: `max(ln(1 + relu(logit)))` over the tokens. The
/// function grows with the logit, so the maximum is taken first.
pub(crate) fn sparse_embedding(
    pooling: SpladePooling,
    layers: &HeadLayers,
    config: Config,
    builder: &mut Builder,
    hidden: NodeId,
) -> Result<Head, ModelError> {
    let logits = layers.append(builder, hidden, Rows::Tokens)?;
    pooled_logits(pooling, config, builder, logits)
}

/// Appends the pooling of the vocabulary's logits `[Tokens, vocabulary]`.
pub(crate) fn pooled_logits(
    pooling: SpladePooling,
    config: Config,
    builder: &mut Builder,
    logits: NodeId,
) -> Result<Head, ModelError> {
    if pooling.strategy == SpladeStrategy::Sum {
        return Err(config.error("the SPLADE pooling strategy \"sum\" is not supported; \"max\" is"));
    }
    let largest = builder.pool(logits, Pooling::Max)?;
    let mut x = builder.graph.push("splade.relu", Op::Activation(Activation::Relu), &[largest])?;
    for _ in 0..if pooling.log_twice { 2 } else { 1 } {
        x = builder.graph.push("splade.log", Op::Unary(Unary::Log1p), &[x])?;
    }
    builder.graph.output(OUTPUT, x);
    Ok(Head::SparseEmbedding { vocabulary: builder.width(x) })
}
