//! Fields of `config.json` that every family shares.

use std::path::Path;

use centuple_graph::Activation;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ModelError;

/// A `config.json` and where it lies, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Config<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: &'a Path,
}

/// Fields that change what transformers computes, whatever the family, and are not supported when set.
const FOREIGN: [(&str, &str); 4] = [
    ("quantization_config", "weights quantised by another tool are not read; take the original checkpoint"),
    (
        "auto_map",
        "the model brings its own Python code, which is never run; take a checkpoint of a built-in architecture",
    ),
    ("pruned_heads", "pruned attention heads are not supported"),
    ("adapters", "adapters are not applied; merge them into the checkpoint first"),
];

impl Config<'_> {
    /// An error about this file.
    pub(crate) fn error(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Config { path: self.path.to_owned(), reason: reason.into() }
    }

    /// The fields that a family reads.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, ModelError> {
        serde_path_to_error::deserialize(self.value).map_err(|error| match error.path().to_string().as_str() {
            "." => self.error(error.inner().to_string()),
            field => self.error(format!("`{field}`: {}", error.inner())),
        })
    }

    /// The `model_type`.
    pub(crate) fn model_type(&self) -> Result<&str, ModelError> {
        let field = self.value.get("model_type").and_then(Value::as_str);
        field.ok_or_else(|| self.error("it has no `model_type`; add the family's name, as \"model_type\": \"bert\""))
    }

    /// The first entry of `architectures`.
    pub(crate) fn architecture(&self) -> Option<&str> {
        self.value.get("architectures")?.as_array()?.first()?.as_str()
    }

    /// Refuses fields that would change the numbers behind our back.
    pub(crate) fn refuse_foreign(&self) -> Result<(), ModelError> {
        for (field, reason) in FOREIGN {
            match self.value.get(field) {
                None | Some(Value::Null) => {}
                Some(Value::Object(map)) if map.is_empty() => {}
                Some(_) => return Err(self.error(format!("`{field}` is set: {reason}"))),
            }
        }
        Ok(())
    }

    /// The activation function behind a transformers name.
    pub(crate) fn activation(&self, field: &str, name: &str) -> Result<Activation, ModelError> {
        Ok(match name {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            other => {
                return Err(self.error(format!(
                    "`{field}`: \"{other}\" is not supported; gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, \
                     relu, silu, swish, tanh and sigmoid are"
                )));
            }
        })
    }
}
