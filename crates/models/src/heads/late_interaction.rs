//! ColBERT: a vector for every token.

use centuple_graph::{NodeId, Op};

use super::sentence_embedding::{EPSILON, dense};
use super::{Head, OUTPUT};
use crate::ModelError;
use crate::builder::Builder;
use crate::checkpoint::sentence_transformers::Dense;

/// Class name of the first ColBERT checkpoints, whatever their family.
pub(crate) const COLBERT: &str = "HF_ColBERT";

/// Appends the layers that every token goes through, and the normalisation of each row.
pub(crate) fn late_interaction(layers: &[Dense], builder: &mut Builder, hidden: NodeId) -> Result<Head, ModelError> {
    let mut x = hidden;
    for (index, layer) in layers.iter().enumerate() {
        x = dense(layer, builder, &format!("modules.{}", index + 1), x)?;
    }
    normalised(builder, x)
}

/// Appends the head of [`COLBERT`]: one matrix without a bias.
pub(crate) fn colbert(builder: &mut Builder, hidden: NodeId) -> Result<Head, ModelError> {
    let x = builder.project(hidden, "linear", "linear.weight", None)?;
    normalised(builder, x)
}

fn normalised(builder: &mut Builder, x: NodeId) -> Result<Head, ModelError> {
    let x = builder.graph.push("normalised", Op::L2Normalize { epsilon: EPSILON }, &[x])?;
    builder.graph.output(OUTPUT, x);
    Ok(Head::LateInteraction { dimension: builder.width(x) })
}
