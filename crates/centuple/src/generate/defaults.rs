//! How a model generates where a request doesn't say.

use std::path::{Path, PathBuf};

use centuple_generate::{ParameterError, Parameters};
use centuple_models::checkpoint::{read_config, read_generation_config};
use serde_json::{Map, Value};

use crate::error::Error;

/// What `config.json` says of generation where there is no `generation_config.json`.
const TOKENS: [&str; 4] = ["bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"];

/// The parameters of a model folder: those of `generation_config.json`, else the tokens of `config.json`.
pub(super) fn read(folder: &Path) -> Result<Parameters, Error> {
    let refused = |path: PathBuf, source: ParameterError| Error::GenerationConfig { path, source };
    let found = read_generation_config(folder).map_err(centuple_models::ModelError::from)?;
    if let Some((config, path)) = found {
        let Value::Object(config) = config else {
            return Err(refused(path, ParameterError::Format("expected an object".to_owned())));
        };
        return Parameters::from_generation_config(&config).map_err(|error| refused(path, error));
    }
    let (config, path) = read_config(folder).map_err(centuple_models::ModelError::from)?;
    let tokens = TOKENS.iter().filter_map(|name| Some(((*name).to_owned(), config.get(name)?.clone())));
    let tokens: Map<String, Value> = tokens.collect();
    Parameters::from_generation_config(&tokens).map_err(|error| refused(path, error))
}
