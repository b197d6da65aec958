//! `/tokenize` and `/decode`, which need no engine.

use std::sync::Arc;

use axum::body::Bytes;
use centuple_tasks::{Model, OneOrMany, TaskError, feature_extraction::Inputs, from_json};
use centuple_text::{Text, WindowOptions};
use serde::{Deserialize, Serialize};

use super::{super::openai::Input, not_empty, to_json};
use crate::service::{Failure, Kind, Served, Service};

/// Most bytes of text that `/tokenize` takes at once; what it answers is many times as long.
const MAX_TOKENIZED_BYTES: usize = 2 << 20;

/// The model of a name, as other routes find it; the first where none is given.
fn tokenizer_of(service: &Service, model: Option<&str>) -> Result<Arc<Served>, Failure> {
    match model {
        Some(_) => service.models.find_or_only(model),
        None => service.models.find_or_first(None),
    }
}

#[derive(Deserialize)]
struct TokenizeBody {
    inputs: OneOrMany<String>,
    model: Option<String>,
    add_special_tokens: Option<bool>,
    prompt_name: Option<String>,
}

/// A token of a text.
#[derive(Serialize)]
struct Token {
    id: u32,
    /// The part of the text that it stands for; of a special token its name.
    text: String,
    special: bool,
    /// Its first character in the text; none where it was put around it.
    start: Option<usize>,
    /// The end of its characters.
    stop: Option<usize>,
}

/// The reply of `/tokenize`: the tokens of each text, whole also where the model would cut it.
pub(super) fn write_tokens(service: &Service, body: &Bytes) -> Result<Vec<u8>, Failure> {
    let TokenizeBody { inputs, model, add_special_tokens, prompt_name } = from_json(body)?;
    let served = tokenizer_of(service, model.as_deref())?;
    if prompt_name.is_some() {
        let reason = "/tokenize puts no prompt before texts; write it in front of them".into();
        return Err(TaskError::Parameter { name: "prompt_name", reason }.into());
    }
    not_empty(inputs.items.iter().map(|_| false))?;
    service.check_inputs(inputs.items.len())?;
    let bytes = inputs.items.iter().map(String::len).sum::<usize>();
    if bytes > MAX_TOKENIZED_BYTES {
        let message = format!("{bytes} bytes of text in one request, at most {MAX_TOKENIZED_BYTES} are tokenised");
        return Err(Failure::new(Kind::TooLarge, message));
    }
    let special = add_special_tokens.unwrap_or(true);
    let tokens = |(input, text): (usize, &String)| {
        tokens(&served.model, text, special).map_err(|source| TaskError::Text { input, source })
    };
    let texts = inputs.items.iter().enumerate().map(tokens).collect::<Result<Vec<_>, _>>()?;
    Ok(to_json(&texts))
}

/// The tokens of a text of any length: those of its windows, of which the first begins it and the last ends it.
fn tokens(model: &Model, text: &str, special: bool) -> Result<Vec<Token>, centuple_text::TextError> {
    let tokenizer = &model.tokenizer;
    let characters: Vec<char> = text.chars().collect();
    let windows = tokenizer.windows(Text::Single(text), &WindowOptions::new(tokenizer.max_tokens(), 0))?;
    let last = windows.len().saturating_sub(1);
    let mut tokens = Vec::new();
    for (number, window) in windows.iter().enumerate() {
        let origins = &window.origins;
        let first_of_text = origins.iter().position(|origin| !origin.special).unwrap_or(origins.len());
        for (index, (origin, &id)) in origins.iter().zip(&window.encoding.ids).enumerate() {
            if !origin.special {
                let part = characters.get(origin.characters.clone()).unwrap_or_default();
                let (start, stop) = (Some(origin.characters.start), Some(origin.characters.end));
                tokens.push(Token { id, text: part.iter().collect(), special: false, start, stop });
            } else if special && (if index < first_of_text { number == 0 } else { number == last }) {
                let text = tokenizer.id_to_token(id).unwrap_or_default();
                tokens.push(Token { id, text, special: true, start: None, stop: None });
            }
        }
    }
    Ok(tokens)
}

#[derive(Deserialize)]
struct DecodeBody {
    ids: Input,
    model: Option<String>,
    skip_special_tokens: Option<bool>,
}

/// The reply of `/decode`: the text of each list of ids.
pub(super) fn write_texts(service: &Service, body: &Bytes) -> Result<Vec<u8>, Failure> {
    let DecodeBody { ids, model, skip_special_tokens } = from_json(body)?;
    let served = tokenizer_of(service, model.as_deref())?;
    let lists = match ids.0 {
        Inputs::Tokens(lists) => lists.items,
        Inputs::Texts(_) => {
            let message = "`ids` must be a list of token ids, or a list of such lists".into();
            return Err(Failure { field: Some("ids".into()), ..Failure::new(Kind::Invalid, message) });
        }
    };
    service.check_inputs(lists.len())?;
    let skip = skip_special_tokens.unwrap_or(true);
    let text = |(input, ids): (usize, &Vec<u32>)| {
        served.model.tokenizer.decode(ids, skip).map_err(|source| TaskError::Text { input, source })
    };
    let texts = lists.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(to_json(&texts))
}
