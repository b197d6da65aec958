//! How a model generates where a request doesn't say.

use std::path::Path;

use centuple_generate::{ParameterError, Parameters};
use centuple_models::checkpoint::{read_config, read_generation_config};
use centuple_tasks::text_generation::Defaults;
use centuple_tasks::text2text_generation::Settings;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::gguf::GgufSettings;

/// What `config.json` says of generation where there is no `generation_config.json`.
const TOKENS: [&str; 4] = ["bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"];

/// The parameters of a GGUF file.
pub(super) fn of_gguf(settings: &GgufSettings) -> Result<Defaults, Error> {
    let refused = |source| Error::GenerationConfig { path: settings.path.clone(), source };
    Ok(parameters(&settings.generation).map_err(refused)?.into())
}

/// The parameters of a model folder: those of `generation_config.json`, else those of `config.json`; and for a model that reads
/// with an encoder what it says of tasks.
pub(super) fn read(folder: &Path, reads: bool) -> Result<Defaults, Error> {
    let refused = |path: &Path, source: ParameterError| Error::GenerationConfig { path: path.to_owned(), source };
    let found = read_generation_config(folder).map_err(centuple_models::ModelError::from)?;
    if !reads && let Some((config, path)) = found {
        return Ok(parameters(&object(config, &path)?).map_err(|error| refused(&path, error))?.into());
    }
    let (config, path) = read_config(folder).map_err(centuple_models::ModelError::from)?;
    if !reads {
        let tokens = TOKENS.iter().filter_map(|name| Some(((*name).to_owned(), config.get(name)?.clone())));
        return Ok(parameters(&tokens.collect()).map_err(|error| refused(&path, error))?.into());
    }
    let config = object(config, &path)?;
    let settings = Settings::from_config(&config).map_err(|error| refused(&path, error))?;
    let (own, path) = match found {
        Some((config, path)) => (object(config, &path)?, path),
        None => (with_defaults(config), path),
    };
    let parameters = parameters(&own).map_err(|error| refused(&path, error))?;
    Ok(Defaults { parameters, settings })
}

fn parameters(config: &Map<String, Value>) -> Result<Parameters, ParameterError> {
    Parameters::from_generation_config(config)
}

fn object(config: Value, path: &Path) -> Result<Map<String, Value>, Error> {
    let Value::Object(config) = config else {
        let source = ParameterError::Format("expected an object".to_owned());
        return Err(Error::GenerationConfig { path: path.to_owned(), source });
    };
    Ok(config)
}

/// The fields of a `config.json` of transformers, and those that its class has although they aren't written.
fn with_defaults(mut config: Map<String, Value>) -> Map<String, Value> {
    let defaults = match config.get("model_type").and_then(Value::as_str) {
        Some("bart") => json!({"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
            "forced_eos_token_id": 2}),
        Some("mbart") => json!({"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "forced_eos_token_id": 2}),
        Some("m2m_100") => {
            json!({"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2})
        }
        Some("marian") => json!({"pad_token_id": 58100, "eos_token_id": 0, "decoder_start_token_id": 58100,
            "forced_eos_token_id": 0}),
        Some("t5" | "mt5") => json!({"pad_token_id": 0, "eos_token_id": 1}),
        _ => Value::Null,
    };
    for (name, value) in defaults.as_object().into_iter().flatten() {
        config.entry(name.clone()).or_insert_with(|| value.clone());
    }
    config
}
