//! Models of GGUF files: configuration and names of tensors as the families know them.
//!
//! A file has no `config.json`. What its keys say becomes one, its tensors get the names of the family's checkpoints, and what
//! llama.cpp changes in them is undone; the family then builds the graph as from any checkpoint. A key or a tensor that
//! changes the numbers and isn't known is an error that names it.

mod architecture;
mod config;
mod keys;

use serde_json::{Map, Value, json};

use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::gguf::{Gguf, GgufWeights};
use crate::load::{Model, Purpose, build};

use architecture::Architecture;
use keys::Keys;

/// Keys of tokens that end a text.
const ENDS: [&str; 3] = ["eos_token_id", "eot_token_id", "eom_token_id"];

/// Builds the graph of a GGUF file.
///
/// # Errors
/// The architecture or a value of a key is not supported, or a tensor is missing, not known or of the wrong shape.
pub fn load_gguf(file: &Gguf, purpose: Purpose) -> Result<Model, ModelError> {
    build(&checkpoint(file)?, purpose, None)
}

/// What `generation_config.json` would say: the tokens that begin and end texts.
///
/// # Errors
/// A key that should name a token doesn't.
pub fn generation_config_of_gguf(file: &Gguf) -> Result<Map<String, Value>, ModelError> {
    let token = |key: &str| {
        let found = file.metadata().token(&format!("tokenizer.ggml.{key}"));
        found.map_err(|source| ModelError::from(keys::failed(file, source)))
    };
    let mut ends = Vec::new();
    for key in ENDS {
        ends.extend(token(key)?.filter(|id| *id != u32::MAX));
    }
    ends.dedup();
    let mut fields = Map::new();
    fields.extend(token("bos_token_id")?.map(|id| ("bos_token_id".to_owned(), json!(id))));
    if !ends.is_empty() {
        fields.insert("eos_token_id".to_owned(), json!(ends));
    }
    Ok(fields)
}

fn checkpoint(file: &Gguf) -> Result<Checkpoint, ModelError> {
    let architecture = Architecture::of(file)?;
    let config = config::of(&Keys::new(file, architecture)?)?;
    let heads = |field: &str| config.get(field).and_then(Value::as_u64).and_then(|heads| usize::try_from(heads).ok());
    let heads = [heads("num_attention_heads").unwrap_or(1), heads("num_key_value_heads").unwrap_or(1)];
    let tensors = architecture.rename(file, heads)?;
    Ok(Checkpoint::of_gguf(config, GgufWeights { file: file.clone(), tensors }))
}
