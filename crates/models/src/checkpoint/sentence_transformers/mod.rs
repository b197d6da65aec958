//! What a sentence-transformers folder adds to its transformer.
//!
//! Such a folder has a `modules.json`: first a Transformer, then a Pooling, then any number of
//! Dense and Normalize modules, each with a folder of its own; or the two modules of a SPLADE model; or those of a
//! ColBERT model as PyLate writes them. Both spellings of the library's
//! configuration are read, that of its versions 2 to 5 and that of version 6. Whatever would change
//! the numbers and isn't known is an error.

mod modules;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::CheckpointError;
use super::json::read_json_if_present;

pub use modules::{
    Composition, Dense, DenseActivation, HeadModule, Pooling, PoolingMode, SpladePooling, SpladeStrategy,
};

/// How a sentence-transformers model makes a sentence embedding of token features.
#[derive(Debug, Clone)]
pub struct SentenceTransformer {
    /// The folder of the transformer: the model's own, or a subfolder such as `0_Transformer`.
    /// Its `config.json`, weights and tokenizer lie there.
    pub transformer: PathBuf,
    /// Longest sequence in tokens, where the folder sets one. It overrides the tokenizer's limit.
    pub max_seq_length: Option<usize>,
    /// Whether text is lower-cased before the tokenizer's own normalisation.
    pub do_lower_case: bool,
    /// What its modules make of the transformer's output.
    pub composition: Composition,
    /// Texts to put before an input, by name.
    pub prompts: BTreeMap<String, String>,
    /// The prompt to use where the caller names none; it is a key of `prompts`.
    pub default_prompt_name: Option<String>,
    /// The similarity that the model was trained for.
    pub similarity: Similarity,
}

/// How two embeddings are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// Cosine of the angle between them.
    #[default]
    Cosine,
    /// Dot product.
    Dot,
    /// Negative Euclidean distance.
    Euclidean,
    /// Negative sum of absolute differences.
    Manhattan,
}

impl SentenceTransformer {
    /// Reads a model folder. `None` if it has no `modules.json`, or if it holds a cross-encoder,
    /// which is an ordinary sequence classifier.
    pub fn open(folder: &Path) -> Result<Option<Self>, CheckpointError> {
        let modules_path = folder.join("modules.json");
        let Some(entries) = read_json_if_present(&modules_path)? else {
            return Ok(None);
        };
        let library = LibraryConfig::open(folder)?;
        if library.model_type.as_deref() == Some("CrossEncoder") {
            return Ok(None);
        }
        let modules = modules::read(folder, &modules_path, entries)?;
        let task = match &modules.composition {
            Composition::Embedding { .. } | Composition::LateInteraction(_) => "feature-extraction",
            Composition::Sparse(_) => "fill-mask",
        };
        let settings = TransformerSettings::open(&modules.transformer, task)?;
        let text_of = |(name, text): (String, Option<String>)| (name, text.unwrap_or_default());
        Ok(Some(Self {
            transformer: modules.transformer,
            max_seq_length: settings.max_seq_length,
            do_lower_case: settings.do_lower_case,
            composition: modules.composition,
            prompts: library.prompts.into_iter().map(text_of).collect(),
            default_prompt_name: library.default_prompt_name,
            similarity: library.similarity_fn_name.unwrap_or_default(),
        }))
    }
}

/// `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
struct LibraryConfig {
    model_type: Option<String>,
    #[serde(default)]
    prompts: BTreeMap<String, Option<String>>,
    default_prompt_name: Option<String>,
    similarity_fn_name: Option<Similarity>,
}

impl LibraryConfig {
    fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join("config_sentence_transformers.json");
        let config: Self = read_json_if_present(&path)?.unwrap_or_default();
        match config.model_type.as_deref() {
            None | Some("SentenceTransformer" | "CrossEncoder" | "SparseEncoder" | "ColBERT") => {}
            Some(other) => {
                return Err(CheckpointError::config(&path, format!("model_type `{other}` is not supported")));
            }
        }
        match &config.default_prompt_name {
            Some(name) if !config.prompts.contains_key(name) => {
                Err(CheckpointError::config(&path, format!("default_prompt_name `{name}` is not one of the prompts")))
            }
            _ => Ok(config),
        }
    }
}

/// The transformer's own settings file.
#[derive(Default, Deserialize)]
struct TransformerSettings {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl TransformerSettings {
    /// The names that this file has had; the first one found is read.
    const FILES: [&str; 7] = [
        "sentence_bert_config.json",
        "sentence_roberta_config.json",
        "sentence_distilbert_config.json",
        "sentence_camembert_config.json",
        "sentence_albert_config.json",
        "sentence_xlm-roberta_config.json",
        "sentence_xlnet_config.json",
    ];

    /// Settings, or arguments inside of settings, that do not change the numbers of a text model.
    const HARMLESS: [&str; 9] = [
        "add_pooling_layer",
        "attn_implementation",
        "device_map",
        "dtype",
        "modality_config",
        "torch_dtype",
        "trust_remote_code",
        "unpad_inputs",
        "use_safetensors",
    ];

    /// Reads them for a transformer that is run for `task`.
    fn open(transformer: &Path, task: &str) -> Result<Self, CheckpointError> {
        for path in Self::FILES.map(|file| transformer.join(file)) {
            if let Some(settings) = read_json_if_present::<Self>(&path)? {
                return match settings.others.iter().find(|(name, value)| !Self::changes_nothing(name, value, task)) {
                    None => Ok(settings),
                    Some((name, value)) => {
                        Err(CheckpointError::config(&path, format!("the setting `{name}`: {value} is not supported")))
                    }
                };
            }
        }
        Ok(Self::default())
    }

    fn changes_nothing(name: &str, value: &Value, task: &str) -> bool {
        let is = |default: &str| value.as_str() == Some(default);
        value.is_null()
            || Self::HARMLESS.contains(&name)
            || name == "transformer_task" && is(task)
            || name == "module_output_name" && is("token_embeddings")
            || value
                .as_object()
                .is_some_and(|arguments| arguments.iter().all(|(name, value)| Self::changes_nothing(name, value, task)))
    }
}
