//! The architectures: one file each, and one word in [`FAMILIES`].

mod bert;

use centuple_graph::{Activation, NodeId};

use crate::ModelError;
use crate::builder::Builder;
use crate::config::Config;

/// Every family.
const FAMILIES: [&Family; 1] = [&bert::FAMILY];

/// An architecture: how its configuration is read, its weights named and its layers wired.
pub(crate) struct Family {
    /// `model_type` of its configurations.
    pub(crate) model_type: &'static str,
    /// What its transformers class names begin with, as `Bert`.
    pub(crate) class: &'static str,
    /// What stands before the base model's tensors in checkpoints with a head.
    pub(crate) prefix: &'static str,
    /// A tensor of the base model, to find out whether the prefix is there.
    pub(crate) probe: &'static str,
    /// The classifier on top of `…ForSequenceClassification`.
    pub(crate) classifier: Classifier,
    /// Checks the configuration and says what does not depend on weights.
    pub(crate) dimensions: fn(Config) -> Result<Dimensions, ModelError>,
    /// Appends embeddings and layers; yields the last hidden state `[Tokens, width]`.
    pub(crate) build: fn(Config, &mut Builder) -> Result<NodeId, ModelError>,
}

/// How a family classifies a sequence by its first token.
pub(crate) struct Classifier {
    /// A layer before the classifier: name in the base model, and activation.
    pub(crate) pooler: Option<(&'static str, Activation)>,
    /// Name of the last matrix, without the base model's prefix.
    pub(crate) output: &'static str,
}

/// Sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dimensions {
    pub(crate) vocabulary: usize,
    pub(crate) type_vocabulary: usize,
    pub(crate) width: usize,
    pub(crate) layers: usize,
    /// Longest sequence in tokens.
    pub(crate) max_tokens: usize,
}

/// The family of a configuration.
pub(crate) fn family_of(config: Config) -> Result<&'static Family, ModelError> {
    let model_type = config.model_type()?;
    FAMILIES.into_iter().find(|family| family.model_type == model_type).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        config.error(format!("`model_type`: \"{model_type}\" is not supported; {} is", known.join(", ")))
    })
}
