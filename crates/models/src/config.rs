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

/// Names the Python code that a checkpoint brings.
const CODE: &str = "auto_map";
/// Fields that change what transformers computes, whatever the family, and are not supported when set.
const FOREIGN: [(&str, &str); 4] = [
    ("quantization_config", "weights quantised by another tool are not read; take the original checkpoint"),
    (CODE, "the model brings its own Python code, which is never run; take a checkpoint of a built-in architecture"),
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

    /// The fields, and those of `defaults` that are not there.
    pub(crate) fn with_defaults(&self, defaults: &Value) -> Value {
        let mut value = self.value.clone();
        if let (Value::Object(fields), Value::Object(defaults)) = (&mut value, defaults) {
            for (field, default) in defaults {
                fields.entry(field).or_insert_with(|| default.clone());
            }
        }
        value
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

    /// Refuses fields that would change the numbers behind our back. Code is none of them where the family stands for it.
    pub(crate) fn refuse_foreign(&self, code_is_known: bool) -> Result<(), ModelError> {
        for (field, reason) in FOREIGN.into_iter().filter(|(field, _)| !(code_is_known && *field == CODE)) {
            match self.value.get(field) {
                None | Some(Value::Null) => {}
                Some(Value::Object(map)) if map.is_empty() => {}
                Some(_) => return Err(self.error(format!("`{field}` is set: {reason}"))),
            }
        }
        Ok(())
    }

    /// Refuses a field that is set.
    pub(crate) fn refuse(&self, field: &str, set: bool, reason: &str) -> Result<(), ModelError> {
        if set { Err(self.error(format!("`{field}` is not supported: {reason}"))) } else { Ok(()) }
    }

    /// Refuses decoders of a family whose encoders are supported, by the fields of their names.
    pub(crate) fn encoder(&self, is_decoder: bool, add_cross_attention: bool) -> Result<(), ModelError> {
        self.refuse("is_decoder", is_decoder, "only encoders of this family are")?;
        self.refuse("add_cross_attention", add_cross_attention, "only encoders of this family are")
    }

    /// Refuses a `position_embedding_type` other than a table of positions.
    pub(crate) fn absolute_positions(&self, kind: &str) -> Result<(), ModelError> {
        if kind == "absolute" {
            return Ok(());
        }
        Err(self.error(format!("`position_embedding_type`: \"{kind}\" is not supported; \"absolute\" is")))
    }

    /// Whether a kind of layer, one of the field `layer_types`, has a window.
    pub(crate) fn windowed(&self, field: &str, kind: &str) -> Result<bool, ModelError> {
        match kind {
            "sliding_attention" => Ok(true),
            "full_attention" => Ok(false),
            other => Err(self.error(format!(
                "`{field}`: \"{other}\" is not supported; \"full_attention\" and \"sliding_attention\" are"
            ))),
        }
    }

    /// Width of one head, from the fields that give the width of all and their number.
    pub(crate) fn head_dim(&self, width: (&str, usize), heads: (&str, usize)) -> Result<usize, ModelError> {
        if heads.1 == 0 || width.1 == 0 || !width.1.is_multiple_of(heads.1) {
            let ((width, wide), (heads, count)) = (width, heads);
            return Err(self.error(format!("`{width}` {wide} is not a multiple of `{heads}` {count}")));
        }
        Ok(width.1 / heads.1)
    }

    /// Checks what is added to a variance.
    pub(crate) fn epsilon(&self, field: &str, value: f32) -> Result<f32, ModelError> {
        if value >= 0.0 && value.is_finite() {
            return Ok(value);
        }
        Err(self.error(format!("`{field}`: {value} is not a small positive number")))
    }

    /// Checks the base of rotary angles.
    pub(crate) fn rotary_base(&self, field: &str, value: f64) -> Result<f64, ModelError> {
        if value > 0.0 && value.is_finite() {
            return Ok(value);
        }
        Err(self.error(format!("`{field}`: {value} is not a positive number")))
    }

    /// Checks a number that sizes a table which is computed and not read, or counts layers that share their weights.
    pub(crate) fn at_most(&self, field: &str, value: usize, most: usize) -> Result<usize, ModelError> {
        if value <= most {
            return Ok(value);
        }
        Err(self.error(format!("`{field}`: {value} is more than the {most} that are supported")))
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
