//! Generation as Triton's backends of language models have it: a text `text_input` becomes texts `text_output`.

use centuple_tasks::{
    OneOrMany,
    text_generation::{Parameters, Request},
};
use serde_json::{Map, Value, json};

use crate::service::{Failure, Kind};

/// The input's name.
pub(crate) const TEXT_INPUT: &str = "text_input";
/// The output's name.
pub(crate) const TEXT_OUTPUT: &str = "text_output";
/// Whether the output comes in parts.
pub(crate) const STREAM: &str = "stream";
/// Whether the output begins behind the input.
pub(crate) const EXCLUDE_INPUT: &str = "exclude_input_in_output";
/// Parameters as a text of JSON.
pub(crate) const SAMPLING_PARAMETERS: &str = "sampling_parameters";

/// Names that these backends have for parameters.
const ALIASES: [(&str, &str); 6] = [
    ("max_tokens", "max_new_tokens"),
    ("min_tokens", "min_new_tokens"),
    ("stop_words", "stop"),
    ("random_seed", "seed"),
    ("beam_width", "num_beams"),
    ("len_penalty", "length_penalty"),
];

/// What a text and the parameters beside it ask for.
///
/// # Errors
/// A parameter of another type, or one that is there by two names.
pub(crate) fn request(text: String, mut parameters: Map<String, Value>) -> Result<Request, Failure> {
    parameters.retain(|_, value| !value.is_null());
    for (alias, name) in ALIASES {
        if let Some(value) = parameters.remove(alias)
            && parameters.insert(name.to_owned(), value).is_some()
        {
            let message = format!("`{alias}` and `{name}` mean the same; use one of the two");
            return Err(Failure::new(Kind::Invalid, message));
        }
    }
    if let Some(Value::String(stop)) = parameters.get("stop") {
        let stop = if stop.is_empty() { json!([]) } else { json!([stop]) };
        parameters.insert("stop".to_owned(), stop);
    }
    if parameters.get("temperature").and_then(Value::as_f64) == Some(0.0) {
        parameters.remove("temperature");
        parameters.insert("do_sample".to_owned(), json!(false));
    }
    let stream = flag(&mut parameters, STREAM)?.unwrap_or(false);
    if let Some(excluded) = flag(&mut parameters, EXCLUDE_INPUT)? {
        parameters.insert("return_full_text".to_owned(), json!(!excluded));
    }
    let parameters =
        Parameters::from_map(parameters).map_err(|error| Failure::new(Kind::Invalid, error.to_string()))?;
    Ok(Request { inputs: OneOrMany::one(text), verbatim: false, parameters, stream })
}

/// Takes out a parameter that is true or false.
fn flag(parameters: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, Failure> {
    match parameters.remove(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(flag)),
        Some(other) => Err(Failure::new(Kind::Invalid, format!("`{name}` must be true or false, not {other}"))),
    }
}
