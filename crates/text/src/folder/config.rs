//! `tokenizer_config.json`, as far as it is asked for.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{broken, read};
use crate::TextError;

/// The values of `tokenizer_config.json`; each is checked when it is asked for.
#[derive(Debug)]
pub(crate) struct TokenizerConfig {
    path: PathBuf,
    values: Map<String, Value>,
}

impl TokenizerConfig {
    /// Reads the folder's `tokenizer_config.json`; nothing is set where there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, TextError> {
        let path = folder.join("tokenizer_config.json");
        let values = if path.is_file() { read_json(&path)? } else { Map::new() };
        Ok(Self { path, values })
    }

    /// The tokenizer's limit in tokens. "None" is commonly written as 1e30.
    pub(crate) fn model_max_length(&self) -> Result<Option<usize>, TextError> {
        let limit: Option<f64> = self.get("model_max_length")?;
        Ok(limit.filter(|limit| (1.0..f64::from(u32::MAX)).contains(limit)).map(|limit| limit as usize))
    }

    /// A value; none where it is not set or null.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, TextError> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let value = serde_json::from_value(value.clone());
                value.map(Some).map_err(|error| broken(&self.path, format!("{key}: {error}")))
            }
        }
    }

    /// A switch; none where it is not set or null.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, TextError> {
        self.get(key)
    }

    /// A switch whose default holds only where nothing is written: null is off.
    pub(super) fn flag_unless_null(&self, key: &str, default: bool) -> Result<bool, TextError> {
        Ok(self.flag(key)?.unwrap_or(default && !self.values.contains_key(key)))
    }

    /// Everything that is set.
    pub(super) fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A JSON file.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, TextError> {
    serde_json::from_slice(&read(path)?).map_err(|error| broken(path, error.to_string()))
}
