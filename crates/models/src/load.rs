//! A folder becomes a graph with a description.

use std::path::Path;

use centuple_graph::Graph;
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::builder::Builder;
use crate::checkpoint::{Checkpoint, SentenceTransformer};
use crate::config::Config;
use crate::families::{Dimensions, Family, family_of};
use crate::heads::{Head, OUTPUT, sentence_embedding, sequence_classification};

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
}

/// Reads a model folder and builds its graph.
///
/// # Errors
/// A file is missing, damaged or foreign, the architecture or a configuration field is not supported, or a tensor is
/// missing or has the wrong shape.
pub fn load(folder: &Path, purpose: Purpose) -> Result<Model, ModelError> {
    let sentence_transformer = SentenceTransformer::open(folder)?;
    let folder = sentence_transformer.as_ref().map_or(folder, |modules| &modules.transformer);
    let checkpoint = Checkpoint::open(folder)?;
    build(&checkpoint, purpose, sentence_transformer)
}

fn build(
    checkpoint: &Checkpoint,
    purpose: Purpose,
    sentence_transformer: Option<SentenceTransformer>,
) -> Result<Model, ModelError> {
    let config = Config { value: checkpoint.config(), path: checkpoint.config_path() };
    config.refuse_foreign()?;
    let family = family_of(config)?;
    let dimensions = (family.dimensions)(config)?;
    let architecture = config.architecture().map_or_else(|| format!("{}Model", family.class), str::to_owned);
    let mut builder = Builder::new(checkpoint, family.prefix, family.probe);
    let hidden = (family.build)(config, &mut builder)?;
    let head = match (purpose, &sentence_transformer) {
        (Purpose::TokenFeatures, _) => {
            builder.graph.output(OUTPUT, hidden);
            Head::TokenFeatures { dimension: dimensions.width }
        }
        (Purpose::Own, Some(modules)) => {
            if modules.pooling.dimension != dimensions.width {
                let (pooled, width) = (modules.pooling.dimension, dimensions.width);
                return Err(config.error(format!("the hidden state is {width} wide, but the pooling expects {pooled}")));
            }
            sentence_embedding(modules, &mut builder, hidden)?
        }
        (Purpose::Own, None) => {
            let class = architecture.strip_prefix(family.class);
            match class {
                Some("Model") => {
                    builder.graph.output(OUTPUT, hidden);
                    Head::TokenFeatures { dimension: dimensions.width }
                }
                Some("ForSequenceClassification") => {
                    sequence_classification(&family.classifier, config, &mut builder, hidden, dimensions.width)?
                }
                _ => return Err(unsupported(config, family, &architecture)),
            }
        }
    };
    let description = describe(architecture, head, dimensions);
    Ok(Model { graph: builder.graph, description, sentence_transformer })
}

fn describe(architecture: String, head: Head, dimensions: Dimensions) -> Description {
    let Dimensions { vocabulary, type_vocabulary, width, layers, max_tokens } = dimensions;
    Description { architecture, head, vocabulary, type_vocabulary, width, layers, max_tokens }
}

fn unsupported(config: Config, family: &Family, architecture: &str) -> crate::ModelError {
    let class = family.class;
    config.error(format!(
        "`architectures`: \"{architecture}\" is not supported; {class}Model and {class}ForSequenceClassification are"
    ))
}
