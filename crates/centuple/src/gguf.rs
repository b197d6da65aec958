//! Models of GGUF files, which are configuration, weights and tokenizer in one.

use std::path::{Path, PathBuf};

use centuple_models::checkpoint::gguf::Gguf;
use centuple_models::{ModelError, generation_config_of_gguf, load_gguf};
use centuple_text::{TextOptions, Tokenizer};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::load::{Source, TextSettings, model_with};
use crate::options::LoadOptions;
use crate::precision::Precision;

/// What a file says of generation.
#[derive(Clone, Debug)]
pub(crate) struct GgufSettings {
    /// The file.
    pub(crate) path: PathBuf,
    /// What `generation_config.json` would say.
    pub(crate) generation: Map<String, Value>,
}

/// Reads a file under the name `id`.
///
/// # Errors
/// It is damaged, or holds what isn't supported.
pub(crate) fn open(path: &Path, id: &str, options: &LoadOptions) -> Result<Source, Error> {
    let file = Gguf::open(path).map_err(ModelError::from)?;
    let centuple_models::Model { graph, description, .. } = load_gguf(&file, options.purpose)?;
    let text = TextOptions { cache_bytes: options.token_cache_bytes, ..TextOptions::new(description.max_tokens) };
    let tokenizer = Tokenizer::from_gguf(path, file.metadata(), &text)?;
    let settings = TextSettings::default();
    let gguf = GgufSettings { path: path.to_owned(), generation: generation_config_of_gguf(&file)? };
    Ok(Source {
        encoder: None,
        model: model_with(tokenizer, path, id, &description, &settings, options),
        notes: vec![summary(&file)],
        description,
        text: settings,
        plain: graph,
        reports: Vec::new(),
        precision: Precision::F32,
        gguf: Some(gguf),
    })
}

/// Which types the tensors of a file have.
fn summary(file: &Gguf) -> String {
    let tensors = file.tensors();
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for tensor in tensors.values() {
        match kinds.iter_mut().find(|(name, _)| *name == tensor.kind.name()) {
            Some((_, count)) => *count += 1,
            None => kinds.push((tensor.kind.name(), 1)),
        }
    }
    let kinds: Vec<String> = kinds.iter().map(|(name, count)| format!("{count} of {name}")).collect();
    format!("{}: {} tensors, {}", file.path().display(), tensors.len(), kinds.join(", "))
}
