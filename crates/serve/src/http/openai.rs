//! The embeddings API of OpenAI: `POST /v1/embeddings`, `GET /v1/models[/{id}]`; the same under
//! `/openai/v1`.
//!
//! While one model is served it answers to any name. Unknown fields are ignored, as clients
//! send many. Texts are cut at the model's maximum; token ids are taken as they are.

use std::{fmt, sync::Arc};

use axum::{
    Json,
    extract::{Path, Request as HttpRequest, State, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use centuple_tasks::{
    Model, OneOrMany, Reply, Request, TaskError, Usage,
    feature_extraction::{self, Format, Inputs, Parameters, Row},
    from_json,
    schema::{Components, vector},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Type},
    },
};

use super::{
    Shared,
    errors::Family,
    exchange,
    openapi::{Operation, Tag},
    routes::Routes,
};
use crate::{
    models::Known,
    service::{Dialect, Done, Failure, Kind, Models, Served, Work, Written},
};

/// The routes below `/v1`.
pub(super) fn routes() -> Routes {
    let by_id = Operation::get("/models/{id}", "A model that is served")
        .tag(Tag::OpenAi)
        .model_in_path("id")
        .replies(|_| model_schema())
        .fails(&[Kind::UnknownModel]);
    Routes::new()
        .at("/embeddings", post(embeddings), [embeddings_operation(Tag::OpenAi)])
        .at("/models", get(models), [models_operation(Tag::OpenAi)])
        .at("/models/{*id}", get(model), [by_id])
}

/// What [`embeddings`] takes and answers.
pub(super) fn embeddings_operation(tag: Tag) -> Operation {
    let example = |model: &Model| {
        let body = json!({"input": ["The quick brown fox jumps over the lazy dog.", "A dog sleeps."]});
        let embeds = model.card.head.sentence_embedding().is_some();
        embeds.then_some(("texts", body)).into_iter().collect()
    };
    Operation::post("/embeddings", "Texts or token ids to embeddings")
        .tag(tag)
        .about("Texts are cut at the model's maximum; token ids are taken as they are. Unknown fields are ignored.")
        .body(Components::add::<EmbeddingsRequest>, example)
        .replies(Components::add::<EmbeddingsReply<'_>>)
}

/// What [`models`] answers.
pub(super) fn models_operation(tag: Tag) -> Operation {
    Operation::get("/models", "The models that are served").tag(tag).replies(|_| {
        json!({
            "type": "object",
            "required": ["object", "data"],
            "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": model_schema()}},
        })
    })
}

fn model_schema() -> Value {
    json!({
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": {"type": "string"},
            "state": {"enum": ["ready", "loading", "unloading", "unavailable"]},
        },
    })
}

async fn embeddings(State(service): State<Shared>, request: HttpRequest) -> Response {
    embed(&service, Embeddings::default(), request).await
}

/// Answers a request for embeddings in OpenAI's words.
pub(super) async fn embed(service: &Shared, dialect: Embeddings, request: HttpRequest) -> Response {
    let outcome = exchange(service, dialect, request).await;
    outcome.unwrap_or_else(|failure| Family::OpenAi.failure(&failure))
}

async fn models(State(service): State<Shared>) -> Response {
    let known = service.models.known();
    let list: Vec<_> = known.iter().filter(|known| known.default).map(describe).collect();
    Json(json!({"object": "list", "data": list})).into_response()
}

async fn model(State(service): State<Shared>, id: Result<Path<String>, PathRejection>) -> Response {
    let id = id.map_err(|rejection| Failure::new(Kind::UnknownModel, rejection.body_text()));
    let known = id.and_then(|Path(id)| {
        service.models.check(&id, "")?;
        Ok(service.models.known().into_iter().find(|known| known.default && known.name == id))
    });
    match known {
        Ok(known) => Json(known.as_ref().map(describe)).into_response(),
        Err(failure) => Family::OpenAi.failure(&failure),
    }
}

fn describe(known: &Known) -> Value {
    let state = known.state.name().to_ascii_lowercase();
    json!({"id": known.name, "object": "model", "created": 0, "owned_by": "centuple", "state": state})
}

/// The body of `POST /v1/embeddings`.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
pub struct EmbeddingsRequest {
    input: Input,
    /// The model; while one is served, any name is its.
    model: Option<String>,
    /// How vectors are written; as numbers by default.
    encoding_format: Option<Format>,
    /// Length that vectors are cut to.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
}

impl EmbeddingsRequest {
    /// Reads a body; an empty list or an empty text is an error, as it is in the original.
    pub fn parse(body: &[u8]) -> Result<Self, TaskError> {
        let request: Self = from_json(body)?;
        let empty = match &request.input.0 {
            Inputs::Texts(texts) if texts.items.is_empty() => return Err(TaskError::Empty("input")),
            Inputs::Texts(texts) => texts.items.iter().position(String::is_empty),
            Inputs::Tokens(tokens) => tokens.items.iter().position(Vec::is_empty),
        };
        match empty {
            Some(index) => {
                let reason = format!("element {index} is empty; give at least one character or token");
                Err(TaskError::Parameter { name: "input", reason })
            }
            None => Ok(request),
        }
    }
}

/// A text, several, token ids, or several lists of these.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Input(pub(super) Inputs);

impl ToSchema for Input {}

impl PartialSchema for Input {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let list = || ArrayBuilder::new().min_items(Some(1));
        let id = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        AnyOfBuilder::new()
            .description(Some("A text, a list of texts, a list of token ids, or a list of such lists."))
            .item(text())
            .item(list().items(text()))
            .item(list().items(id()))
            .item(list().items(list().items(id())))
            .into()
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a list of texts, a list of token ids or a list of such lists")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input(Inputs::Texts(OneOrMany::one(text.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Input, A::Error> {
        Ok(Input(match list.next_element()? {
            None => Inputs::Texts(OneOrMany::many(Vec::new())),
            Some(Element::Text(text)) => Inputs::Texts(OneOrMany::many(rest(text, list)?)),
            Some(Element::Token(id)) => Inputs::Tokens(OneOrMany::one(rest(id, list)?)),
            Some(Element::Tokens(ids)) => Inputs::Tokens(OneOrMany::many(rest(ids, list)?)),
        }))
    }
}

/// The first element and those that follow, which must be like it.
fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(first: T, mut list: A) -> Result<Vec<T>, A::Error> {
    let mut items = vec![first];
    while let Some(item) = list.next_element()? {
        items.push(item);
    }
    Ok(items)
}

/// The first element of a list, which decides what the list is.
enum Element {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text, a token id or a list of token ids")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(text.to_owned()))
            }
            fn visit_u64<E: Error>(self, id: u64) -> Result<Element, E> {
                let id = u32::try_from(id).map_err(|_| E::custom(format!("{id} is no token id")))?;
                Ok(Element::Token(id))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Element, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Element::Tokens)
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}

/// Reads [`EmbeddingsRequest`]s and writes their replies.
#[derive(Default)]
pub(super) struct Embeddings {
    format: Format,
    /// Whether 0 dimensions are all of them.
    zero_is_all: bool,
}

impl Embeddings {
    /// As Infinity's clients send it.
    pub(super) fn of_infinity() -> Self {
        Self { zero_is_all: true, ..Self::default() }
    }
}

impl Dialect for Embeddings {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let EmbeddingsRequest { input, model, encoding_format, dimensions } = EmbeddingsRequest::parse(body)?;
        let served = models.find_or_only(model.as_deref())?;
        if served.model.card.head.sentence_embedding().is_none() {
            let reason = format!("`{}` gives no sentence embeddings; serve a model that does", served.model.card.id);
            return Err(TaskError::Parameter { name: "model", reason }.into());
        }
        self.format = encoding_format.unwrap_or_default();
        let dimensions = dimensions.filter(|dimensions| *dimensions > 0 || !self.zero_is_all);
        let parameters = Parameters { dimensions, ..Parameters::default() };
        let request = feature_extraction::Request { inputs: input.0, parameters };
        Ok((served, Request::FeatureExtraction(request).into()))
    }

    fn write(&self, model: &Model, done: Done, usage: Usage) -> Written {
        let Done::Reply(Reply::Features(features)) = &done else { return Written::from(Vec::new()) };
        let outputs = &features.outputs;
        let data = outputs.iter().enumerate().map(|(index, output)| Embedding {
            object: "embedding",
            index,
            embedding: Row { data: &output.data, format: self.format },
        });
        let reply =
            EmbeddingsReply { object: "list", data: data.collect(), model: &model.card.id, usage: Tokens::of(usage) };
        serde_json::to_vec(&reply).unwrap_or_default().into()
    }
}

/// Vectors in the order of the inputs.
#[derive(Serialize, ToSchema)]
#[schema(as = EmbeddingsReply)]
struct EmbeddingsReply<'a> {
    object: &'static str,
    data: Vec<Embedding<'a>>,
    model: &'a str,
    usage: Tokens,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Embedding)]
struct Embedding<'a> {
    object: &'static str,
    index: usize,
    #[schema(schema_with = vector)]
    embedding: Row<'a>,
}

/// The usage of a request in OpenAI's words.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenUsage)]
pub(super) struct Tokens {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl Tokens {
    pub(super) fn of(usage: Usage) -> Self {
        Self { prompt_tokens: usage.tokens, total_tokens: usage.tokens }
    }
}
