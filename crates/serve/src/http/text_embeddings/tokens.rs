//! `/tokenize` and `/decode`, which need no engine.

use axum::body::Bytes;
use centuple_tasks::{
    Model, OneOrMany,
    feature_extraction::Inputs,
    from_json,
    schema::{Components, list_of, one_or_many_ids, one_or_many_texts, text},
};
use centuple_text::{Text, Truncation};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{
    super::{openai::Input, openapi::Operation},
    to_json,
};
use crate::{
    service::{Failure, Kind, Models, Service},
    text_embeddings::{self, Token},
};

/// What `/tokenize` takes and answers.
pub(super) fn tokenize_operation() -> Operation {
    let example = |_: &Model| vec![("texts", json!({"inputs": ["The quick brown fox."]}))];
    Operation::post("/tokenize", "The tokens of texts")
        .about("A text is whole also where the model would cut it.")
        .fails_only(&FAILURES)
        .body(Components::add::<TokenizeBody>, example)
        .replies(|components| list_of(list_of(components.add::<Token>())))
}

/// What `/decode` takes and answers.
pub(super) fn decode_operation() -> Operation {
    let example = |model: &Model| {
        let text = Text::Single("The quick brown fox.");
        let ids = model.tokenizer.encode(text, Truncation::Right).map(|encoding| encoding.ids.clone());
        vec![("ids", json!({"ids": ids.unwrap_or_default()}))]
    };
    Operation::post("/decode", "The texts of token ids")
        .fails_only(&FAILURES)
        .body(Components::add::<DecodeBody>, example)
        .replies(|_| list_of(text()))
}

/// How these routes fail: as the others, but no engine and no queue does.
const FAILURES: [Kind; 11] = [
    Kind::Malformed,
    Kind::Invalid,
    Kind::Empty,
    Kind::Tokenization,
    Kind::TooLarge,
    Kind::Timeout,
    Kind::Deadline,
    Kind::Encoding,
    Kind::UnknownModel,
    Kind::LoadFailed,
    Kind::Internal,
];

/// Texts to be tokenised.
#[derive(Deserialize, ToSchema)]
#[schema(as = TokenizeRequest)]
struct TokenizeBody {
    #[schema(schema_with = one_or_many_texts)]
    inputs: OneOrMany<String>,
    /// The model; the first one by default.
    model: Option<String>,
    /// Whether the tokens that go around a text are there too; they are by default.
    add_special_tokens: Option<bool>,
    /// Not taken here.
    prompt_name: Option<String>,
}

/// The reply of `/tokenize`: the tokens of each text, whole also where the model would cut it.
pub(super) fn write_tokens(service: &Service, models: &Models, body: &Bytes) -> Result<Vec<u8>, Failure> {
    let TokenizeBody { inputs, model, add_special_tokens, prompt_name } = from_json(body)?;
    let (special, prompt) = (add_special_tokens.unwrap_or(true), prompt_name.as_deref());
    let texts = text_embeddings::tokenize(service, models, model.as_deref(), &inputs.items, special, prompt)?;
    Ok(to_json(&texts))
}

/// Token ids to be written as text.
#[derive(Deserialize, ToSchema)]
#[schema(as = DecodeRequest)]
struct DecodeBody {
    /// A list of token ids, or a list of such lists.
    #[schema(schema_with = one_or_many_ids)]
    ids: Input,
    /// The model; the first one by default.
    model: Option<String>,
    /// Whether special tokens are left out; they are by default.
    skip_special_tokens: Option<bool>,
}

/// The reply of `/decode`: the text of each list of ids.
pub(super) fn write_texts(service: &Service, models: &Models, body: &Bytes) -> Result<Vec<u8>, Failure> {
    let DecodeBody { ids, model, skip_special_tokens } = from_json(body)?;
    let lists = match ids.0 {
        Inputs::Tokens(lists) => lists.items,
        Inputs::Texts(_) => {
            let message = "`ids` must be a list of token ids, or a list of such lists".into();
            return Err(Failure { field: Some("ids".into()), ..Failure::new(Kind::Invalid, message) });
        }
    };
    let skip = skip_special_tokens.unwrap_or(true);
    Ok(to_json(&text_embeddings::decode(service, models, model.as_deref(), &lists, skip)?))
}
