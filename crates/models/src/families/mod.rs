//! The architectures: one file each, and one word in the list of [`FAMILIES`].

use centuple_graph::NodeId;

use crate::ModelError;
use crate::builder::Builder;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::heads::{HeadLayers, generates};

/// Declares the families' modules and lists them.
macro_rules! families {
    ($($name:ident),* $(,)?) => {
        $(mod $name;)*
        /// Every family.
        pub(crate) const FAMILIES: &[&Family] = &[$(&$name::FAMILY),*];
    };
}

families![
    albert, bart, bert, deberta, distilbert, electra, gemma, gemma3, gpt2, gpt_neox, llama, m2m_100, marian,
    modernbert, mpnet, nomic_bert, opt, roberta, roformer, t5,
];

/// An architecture: how its configuration is read, its weights named, its layers and heads wired.
pub(crate) struct Family {
    /// `model_type` of its configurations, each with what its transformers class names begin with, as `Bert`.
    pub(crate) names: &'static [(&'static str, &'static str)],
    /// What follows that in the class name of the model without a head; empty where that class isn't supported.
    pub(crate) base: &'static str,
    /// Whether its checkpoints bring code of their own, which `build` stands for, since transformers has no class.
    pub(crate) brings_code: bool,
    /// What stands before the base model's tensors in checkpoints with a head.
    pub(crate) prefix: &'static str,
    /// A tensor of the base model, to find out whether the prefix is there.
    pub(crate) probe: &'static str,
    /// Checks the configuration and says what does not depend on weights.
    pub(crate) dimensions: fn(Config) -> Result<Dimensions, ModelError>,
    /// Appends embeddings and layers; yields the last hidden state `[Tokens, width]`.
    pub(crate) build: fn(Config, &mut Builder) -> Result<NodeId, ModelError>,
    /// What can stand on the last hidden state.
    pub(crate) heads: fn(Config, &Builder) -> Result<Vec<HeadLayers>, ModelError>,
}

impl Family {
    /// The beginning of the class names of a configuration's model.
    pub(crate) fn class(&self, model_type: &str) -> &'static str {
        self.names.iter().find(|(name, _)| *name == model_type).map_or("", |(_, class)| class)
    }
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

/// Fills in a missing `model_type`, as configurations of transformers before 2.9 have it: from the class in
/// `architectures`, else from the names of the tensors. `None` if it is there, or cannot be told.
pub(crate) fn missing_model_type(checkpoint: &Checkpoint) -> Option<&'static str> {
    let config = Config { value: checkpoint.config(), path: checkpoint.config_path() };
    let fields = config.value.as_object()?;
    if fields.get("model_type").is_some_and(|named| !named.is_null()) {
        return None;
    }
    let names = || FAMILIES.iter().flat_map(|family| family.names.iter().map(move |name| (*family, *name)));
    if let Some(architecture) = config.architecture() {
        let is_class = |rest: &str, family: &Family| rest == family.base || rest.starts_with("For") || generates(rest);
        let found = names()
            .find(|(family, (_, class))| architecture.strip_prefix(class).is_some_and(|rest| is_class(rest, family)));
        return found.map(|(_, (model_type, _))| model_type);
    }
    if is_bert(checkpoint) {
        return Some("bert");
    }
    let prefixed = |family: &Family| {
        !family.prefix.is_empty() && checkpoint.contains(&format!("{}{}", family.prefix, family.probe))
    };
    let mut found = names().filter(|(family, _)| prefixed(family));
    let first = found.next();
    if found.next().is_some() { None } else { first.map(|(_, (model_type, _))| model_type) }
}

/// Whether the tensors are those of a BERT. Without a head, RoBERTa's have the same names, but it has one token type.
fn is_bert(checkpoint: &Checkpoint) -> bool {
    ["", "bert."].into_iter().any(|prefix| {
        let types = checkpoint.shape(&format!("{prefix}embeddings.token_type_embeddings.weight"));
        let names = ["embeddings.position_embeddings.weight", "encoder.layer.0.attention.self.query.weight"];
        names.iter().all(|name| checkpoint.contains(&format!("{prefix}{name}")))
            && types.is_some_and(|shape| shape.first() == Some(&2))
    })
}

/// The family of a configuration.
pub(crate) fn family_of(config: Config) -> Result<&'static Family, ModelError> {
    let model_type = config.model_type()?;
    let names = |family: &'static Family| family.names.iter().map(|(name, _)| *name);
    FAMILIES.iter().copied().find(|family| names(family).any(|name| name == model_type)).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().copied().flat_map(names).collect();
        config.error(format!("`model_type`: \"{model_type}\" is not supported; {} are", known.join(", ")))
    })
}
