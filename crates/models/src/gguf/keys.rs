//! The keys of an architecture, whose name they begin with.

use centuple_gguf::{GgufError, Metadata};

use crate::ModelError;
use crate::checkpoint::CheckpointError;
use crate::checkpoint::gguf::Gguf;

use super::architecture::Architecture;

/// Keys that change the numbers in ways that none of the families knows.
const FOREIGN: [&str; 8] = [
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attention.scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attention.temperature_scale",
    "use_parallel_residual",
];

/// A file's keys, read for its architecture.
pub(super) struct Keys<'a> {
    pub(super) file: &'a Gguf,
    pub(super) architecture: &'static Architecture,
}

/// The file of an error.
pub(super) fn failed(file: &Gguf, source: GgufError) -> CheckpointError {
    CheckpointError::Gguf { path: file.path().to_owned(), source }
}

impl<'a> Keys<'a> {
    /// Refuses what no family knows.
    pub(super) fn new(file: &'a Gguf, architecture: &'static Architecture) -> Result<Keys<'a>, ModelError> {
        let keys = Keys { file, architecture };
        for name in FOREIGN {
            if keys.metadata().get(&keys.key(name)).is_some() {
                return Err(keys.error(name, "is not supported"));
            }
        }
        if keys.optional("expert_count")?.is_some_and(|count| count > 0) {
            return Err(keys.error("expert_count", "is set, but mixtures of experts are not supported"));
        }
        if keys.flag("attention.causal")? == Some(false) {
            return Err(
                keys.error("attention.causal", "is false, but only models that generate text are read from GGUF files")
            );
        }
        Ok(keys)
    }

    fn metadata(&self) -> &'a Metadata {
        self.file.metadata()
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture.name)
    }

    /// An error about a key.
    pub(super) fn error(&self, name: &str, reason: &str) -> ModelError {
        let reason = format!("`{}` {reason}", self.key(name));
        ModelError::Config { path: self.file.path().to_owned(), reason }
    }

    fn of_file<T>(&self, found: Result<T, GgufError>) -> Result<T, ModelError> {
        found.map_err(|source| failed(self.file, source).into())
    }

    /// A size; where it is said for each layer, the one that all layers share.
    pub(super) fn optional(&self, name: &str) -> Result<Option<usize>, ModelError> {
        let key = self.key(name);
        let Ok(Some(sizes)) = self.metadata().integers(&key) else {
            return self.of_file(self.metadata().size(&key));
        };
        let first = sizes.first().and_then(|size| usize::try_from(*size).ok());
        match first.filter(|_| sizes.iter().all(|size| Some(size) == sizes.first())) {
            Some(size) => Ok(Some(size)),
            None => Err(self.error(name, "differs between layers, which is not supported")),
        }
    }

    pub(super) fn size(&self, name: &str) -> Result<usize, ModelError> {
        self.optional(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, ModelError> {
        match self.of_file(self.metadata().number(&self.key(name)))? {
            Some(number) if !number.is_finite() => Err(self.error(name, "is no finite number")),
            number => Ok(number),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ModelError> {
        self.of_file(self.metadata().flag(&self.key(name)))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, ModelError> {
        self.of_file(self.metadata().text(&self.key(name)))
    }

    pub(super) fn missing(&self, name: &str) -> ModelError {
        self.error(name, "is missing; convert the model again with a current llama.cpp")
    }
}
