//! What can be wrong with a checkpoint folder.

use std::io;
use std::path::{Path, PathBuf};

use centuple_gguf::GgufError;
use centuple_tensor::TensorError;
use thiserror::Error;

/// Why a checkpoint, or a part of one, could not be read.
///
/// Every message names the file, says what was found there and, where there is one, the remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The path isn't a folder.
    #[error(
        "`{}` is not a folder; a model is a folder with config.json, tokenizer.json and model.safetensors or model.onnx",
        path.display()
    )]
    NotAFolder {
        /// The path that was given.
        path: PathBuf,
    },
    /// A file that every checkpoint has is missing.
    #[error(
        "`{}` has no {file}; a model folder holds config.json, tokenizer.json and model.safetensors or model.onnx",
        folder.display()
    )]
    MissingFile {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// The file that should be in it.
        file: &'static str,
    },
    /// The operating system refused to read a file.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A JSON file is larger than any honest one.
    #[error("`{}` is larger than {limit} bytes, which no file of this kind is", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size that is read, in bytes.
        limit: u64,
    },
    /// A JSON file is not valid JSON or has a field of the wrong type.
    #[error("`{}` cannot be understood: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why the parser stopped.
        source: serde_json::Error,
    },
    /// A JSON file is understood, but asks for something impossible or unsupported.
    #[error("`{}`: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field, its value, and what is supported instead.
        reason: String,
    },
    /// A safetensors file is damaged.
    #[error("`{}` is not a sound safetensors file: {reason}; if it was downloaded, download it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of PyTorch is damaged, or holds more than plain tensors.
    #[error(
        "`{}` cannot be read as weights of PyTorch: {reason}; no code of such a file is ever run, and only plain tensors \
         are read; take a revision that has model.safetensors if there is one",
        path.display()
    )]
    PyTorch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// A GGUF file is damaged, or holds what isn't read.
    #[error("`{}`: {source}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
    },
    /// A tensor that the model needs is absent.
    #[error("tensor `{name}` is missing from {place}, which holds {count} tensors")]
    MissingTensor {
        /// The tensor's name.
        name: String,
        /// The file, or the shards' folder.
        place: String,
        /// How many tensors there are.
        count: usize,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error(
        "tensor `{name}` in `{}` has the shape {found:?}, but the configuration asks for {expected:?}",
        path.display()
    )]
    Shape {
        /// The tensor's name.
        name: String,
        /// The file it is in.
        path: PathBuf,
        /// The shape that was asked for.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
    },
    /// A tensor's numbers have a type that isn't read as floating point.
    #[error("tensor `{name}` in `{}` has the dtype {found}; F32, F16, BF16 and F64 are read", path.display())]
    Dtype {
        /// The tensor's name.
        name: String,
        /// The file it is in.
        path: PathBuf,
        /// The dtype as safetensors spells it.
        found: String,
    },
    /// A tensor's bytes do not make a tensor.
    #[error("tensor `{name}` in `{}`: {source}", path.display())]
    Tensor {
        /// The tensor's name.
        name: String,
        /// The file it is in.
        path: PathBuf,
        /// The tensor crate's reason.
        source: TensorError,
    },
}

impl CheckpointError {
    /// The file at `path` asks for something that is impossible or not supported.
    pub(crate) fn config(path: &Path, reason: String) -> Self {
        Self::Config { path: path.to_path_buf(), reason }
    }
}
