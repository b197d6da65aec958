//! A model folder as it is on disk: configuration, weights and sentence-transformers modules.
//!
//! Nothing here knows a model family. A folder is untrusted: whatever it holds, opening it and
//! asking for tensors gives a value or a [`CheckpointError`], never a panic.

mod error;
pub mod gguf;
pub mod hub;
mod json;
mod mapping;
pub mod onnx;
mod safetensors;
pub mod sentence_transformers;
mod stored;
mod torch;
mod weights;

use std::path::{Path, PathBuf};

use centuple_tensor::Tensor;
use serde_json::Value;

use gguf::GgufWeights;

pub use error::CheckpointError;
pub use sentence_transformers::SentenceTransformer;
pub use weights::{READ_LIMIT, Weights};

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";

/// The configuration and the weights of one transformer.
///
/// In a sentence-transformers folder the transformer may lie in a subfolder:
/// [`SentenceTransformer::transformer`] says where.
#[derive(Debug)]
pub struct Checkpoint {
    config: Value,
    config_path: PathBuf,
    source: Source,
}

/// Where the weights are.
#[derive(Debug)]
enum Source {
    Files(Weights),
    Gguf(GgufWeights),
}

impl Checkpoint {
    /// Opens a folder with `config.json` and weights: safetensors, or else those of PyTorch.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let (config, config_path) = read_config(folder)?;
        let weights = Weights::open(folder)?;
        Ok(Self { config, config_path, source: Source::Files(weights) })
    }

    /// A checkpoint from a configuration and the bytes of a safetensors file.
    pub fn from_bytes(config: Value, safetensors: &[u8]) -> Result<Self, CheckpointError> {
        let weights = Weights::from_bytes(safetensors)?;
        Ok(Self { config, config_path: PathBuf::from("(memory)"), source: Source::Files(weights) })
    }

    /// A configuration without weights.
    pub(crate) fn without_weights(config: Value, config_path: PathBuf) -> Self {
        Self { config, config_path, source: Source::Files(Weights::none()) }
    }

    /// A checkpoint that is a GGUF file.
    pub(crate) fn of_gguf(config: Value, weights: GgufWeights) -> Self {
        Self { config, config_path: weights.file.path().to_path_buf(), source: Source::Gguf(weights) }
    }

    /// What `config.json` says.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Sets a text field of the configuration, which must be an object.
    pub(crate) fn set_field(&mut self, name: &str, value: &str) {
        if let Some(fields) = self.config.as_object_mut() {
            fields.insert(name.to_string(), Value::from(value));
        }
    }

    /// Where the configuration came from, for messages about its fields.
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match &self.source {
            Source::Files(weights) => Box::new(weights.names()),
            Source::Gguf(weights) => Box::new(weights.tensors.keys().map(String::as_str)),
        }
    }

    /// The shape that the file gives a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        match &self.source {
            Source::Files(weights) => weights.shape(name),
            Source::Gguf(weights) => weights.tensors.get(name).map(|tensor| tensor.shape.as_slice()),
        }
    }

    /// The tensor `name` as f32, stored as F32, F16, BF16 or F64, or in a type of GGUF, and of exactly the shape `expected`.
    pub fn tensor(&self, name: &str, expected: &[usize]) -> Result<Tensor, CheckpointError> {
        match &self.source {
            Source::Files(weights) => weights.tensor(name, expected),
            Source::Gguf(weights) => weights.tensor(name, expected),
        }
    }
}

/// Reads `generation_config.json` of a folder, where it has one; returns it with its path.
pub fn read_generation_config(folder: &Path) -> Result<Option<(Value, PathBuf)>, CheckpointError> {
    let path = folder.join(GENERATION_CONFIG);
    Ok(json::read_json_if_present(&path)?.map(|config| (config, path)))
}

/// Reads `config.json` of a folder without touching its weights; returns it with its path.
pub fn read_config(folder: &Path) -> Result<(Value, PathBuf), CheckpointError> {
    if !folder.is_dir() {
        return Err(CheckpointError::NotAFolder { path: folder.to_path_buf() });
    }
    let path = folder.join(CONFIG);
    let config = json::read_json_if_present(&path)?
        .ok_or_else(|| CheckpointError::MissingFile { folder: folder.to_path_buf(), file: CONFIG })?;
    Ok((config, path))
}
