//! A folder becomes a graph with a description.

use std::path::Path;

use centuple_graph::Graph;
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::builder::{Builder, Part};
use crate::checkpoint::sentence_transformers::Composition;
use crate::checkpoint::{Checkpoint, SentenceTransformer};
use crate::config::Config;
use crate::families::{Dimensions, family_of, missing_model_type};
use crate::heads::{
    COLBERT, Head, HeadLayers, Meaning, OUTPUT, colbert, late_interaction, part_of, ranks_by_logit, sentence_embedding,
    sparse_embedding,
};

/// What a model is wanted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// What the folder says: its sentence-transformers modules, else its architecture's head.
    #[default]
    Own,
    /// The last hidden state of every token, whatever the folder says.
    TokenFeatures,
}

/// A model folder in memory.
#[derive(Debug)]
pub struct Model {
    /// The plain graph: inputs `input_ids` and `token_type_ids`, one output.
    pub graph: Graph,
    /// The encoder in front of a decoder, as a graph of its own: its input is `input_ids`, its outputs are the keys and values
    /// `[Tokens, width]` for each slot of the cache, `keys.0`, `values.0`, `keys.1`, ...
    pub encoder: Option<Graph>,
    /// What is known about the model.
    pub description: Description,
    /// The sentence-transformers settings, where the folder has them.
    pub sentence_transformer: Option<SentenceTransformer>,
}

/// What is known about a model besides its graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Class name in transformers, as `BertModel`.
    pub architecture: String,
    /// What the output means.
    pub head: Head,
    /// Number of token ids.
    pub vocabulary: usize,
    /// Number of token types.
    pub type_vocabulary: usize,
    /// Width of the hidden state.
    pub width: usize,
    /// Number of layers.
    pub layers: usize,
    /// Longest sequence in tokens.
    pub max_tokens: usize,
    /// Whether a cross-encoder's scores are its logits, as its configuration may say; otherwise their sigmoids.
    #[serde(default)]
    pub ranks_by_logit: bool,
}

/// Reads a model folder and builds its graph.
///
/// # Errors
/// A file is missing, damaged or foreign, the architecture or a configuration field is not supported, or a tensor is
/// missing or has the wrong shape.
pub fn load(folder: &Path, purpose: Purpose) -> Result<Model, ModelError> {
    let sentence_transformer = SentenceTransformer::open(folder)?;
    let folder = sentence_transformer.as_ref().map_or(folder, |modules| &modules.transformer);
    let mut checkpoint = Checkpoint::open(folder)?;
    if let Some(model_type) = missing_model_type(&checkpoint) {
        checkpoint.set_field("model_type", model_type);
    }
    build(&checkpoint, purpose, sentence_transformer)
}

pub(crate) fn build(
    checkpoint: &Checkpoint,
    purpose: Purpose,
    sentence_transformer: Option<SentenceTransformer>,
) -> Result<Model, ModelError> {
    let config = Config { value: checkpoint.config(), path: checkpoint.config_path() };
    let family = family_of(config)?;
    config.refuse_foreign(family.brings_code)?;
    let dimensions = (family.dimensions)(config)?;
    let class = family.class(config.model_type()?);
    let own = || format!("{class}{}", family.base);
    let architecture = config.architecture().map_or_else(own, str::to_owned);
    let ending = architecture.strip_prefix(class);
    let own_class = purpose == Purpose::Own && sentence_transformer.is_none();
    let part = ending.filter(|_| own_class).map_or(Part::Whole, part_of);
    let build_part = |part: Part| -> Result<_, ModelError> {
        let mut builder = Builder::new(checkpoint, family.prefix, family.probe).of(part);
        let hidden = (family.build)(config, &mut builder)?;
        Ok((builder, hidden))
    };
    let encoder = if part == Part::Decoder { Some(build_part(Part::Encoder)?.0.graph) } else { None };
    let (mut builder, hidden) = build_part(part)?;
    let head = match (purpose, &sentence_transformer) {
        (Purpose::TokenFeatures, _) => {
            builder.graph.output(OUTPUT, hidden);
            Head::TokenFeatures { dimension: dimensions.width }
        }
        (Purpose::Own, Some(modules)) => match &modules.composition {
            Composition::Embedding { pooling, head } => {
                sentence_embedding(pooling, head, config, &mut builder, hidden)?
            }
            Composition::LateInteraction(layers) => late_interaction(layers, &mut builder, hidden)?,
            Composition::Sparse(pooling) => {
                let heads = (family.heads)(config, &builder)?;
                let layers = heads.iter().find(|head| head.meaning == Meaning::MaskedLm);
                let layers = layers.ok_or_else(|| config.error(format!("{class} has no masked language model")))?;
                sparse_embedding(*pooling, layers, config, &mut builder, hidden)?
            }
        },
        (Purpose::Own, None) if architecture == own() => {
            builder.graph.output(OUTPUT, hidden);
            Head::TokenFeatures { dimension: dimensions.width }
        }
        (Purpose::Own, None) if architecture == COLBERT => colbert(&mut builder, hidden)?,
        (Purpose::Own, None) => {
            let heads = (family.heads)(config, &builder)?;
            let head = heads.iter().find(|head| ending == Some(head.class));
            match head {
                Some(head) => head.build(config, &mut builder, hidden)?,
                None => return Err(unsupported(config, class, &own(), &heads, &architecture)),
            }
        }
    };
    let description = describe(architecture, head, dimensions, ranks_by_logit(config)?);
    Ok(Model { graph: builder.graph, encoder, description, sentence_transformer })
}

fn describe(architecture: String, head: Head, dimensions: Dimensions, ranks_by_logit: bool) -> Description {
    let Dimensions { vocabulary, type_vocabulary, width, layers, max_tokens } = dimensions;
    Description { architecture, head, vocabulary, type_vocabulary, width, layers, max_tokens, ranks_by_logit }
}

fn unsupported(config: Config, class: &str, own: &str, heads: &[HeadLayers], architecture: &str) -> ModelError {
    let own = (own != class).then(|| own.to_owned());
    let known: Vec<String> = own.into_iter().chain(heads.iter().map(|head| format!("{class}{}", head.class))).collect();
    let known = known.join(", ");
    config.error(format!("`architectures`: \"{architecture}\" is not supported; {known} are"))
}
