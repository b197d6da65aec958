//! What can be asked at a path, and what comes back.

use axum::http::StatusCode;
use centuple_tasks::{Model, schema::Components};
use serde_json::{Value, json};

use super::tag::Tag;
use crate::{config::Config, service::Kind};

/// A schema that may add others to those of the document.
pub(in crate::http) type Schema = fn(&mut Components) -> Value;

/// Bodies that a model can answer, by name; none where it can't answer any.
pub(in crate::http) type Examples = fn(&Model) -> Vec<(&'static str, Value)>;

/// What a path answers to a method.
#[derive(Clone)]
pub(in crate::http) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) tag: Option<Tag>,
    pub(super) body: Option<Body>,
    pub(super) parameters: Vec<Value>,
    pub(super) replies: Vec<(&'static str, Schema)>,
    pub(super) failures: Vec<Kind>,
    /// What a server answers while it is about to end: a status and a schema.
    pub(super) closing: Option<(StatusCode, Schema)>,
    /// Which servers offer it.
    offered: fn(&Config) -> bool,
}

/// A body that is read.
#[derive(Clone, Copy)]
pub(super) struct Body {
    pub(super) schema: Schema,
    pub(super) required: bool,
    pub(super) examples: Examples,
    /// Whether a field `model` names the model.
    pub(super) names_model: bool,
}

impl Operation {
    /// What `GET` of a path answers.
    pub(in crate::http) fn get(path: &str, summary: &'static str) -> Self {
        Self::new("get", path, summary)
    }

    /// What `POST` to a path answers, whose failures are those of reading a body and having it computed.
    pub(in crate::http) fn post(path: &str, summary: &'static str) -> Self {
        let failures = [
            Kind::Malformed,
            Kind::Invalid,
            Kind::Empty,
            Kind::Tokenization,
            Kind::TooLarge,
            Kind::Timeout,
            Kind::Deadline,
            Kind::Encoding,
            Kind::UnknownModel,
            Kind::Overloaded(std::time::Duration::ZERO),
            Kind::LoadFailed,
            Kind::Engine,
            Kind::Internal,
        ];
        let operation = Self { failures: failures.into(), ..Self::new("post", path, summary) };
        operation
            .in_header("X-Request-Timeout", "Seconds that it may take.", json!({"type": "number", "minimum": 0}))
            .in_header("X-Use-Cache", "Whether an earlier output will do.", json!({"type": "boolean"}))
    }

    fn new(method: &'static str, path: &str, summary: &'static str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            summary,
            description: "",
            tag: None,
            body: None,
            parameters: Vec::new(),
            replies: Vec::new(),
            failures: Vec::new(),
            closing: None,
            offered: |_| true,
        }
    }

    /// Under what it is shown.
    pub(in crate::http) fn tag(self, tag: Tag) -> Self {
        Self { tag: Some(tag), ..self }
    }

    /// More about it, in Markdown.
    pub(in crate::http) fn about(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    /// The body that it takes, in which a field `model` names the model.
    pub(in crate::http) fn body(self, schema: Schema, examples: Examples) -> Self {
        Self { body: Some(Body { schema, required: true, examples, names_model: true }), ..self }
    }

    /// The body that it takes for a model that is named elsewhere, or for the only one.
    pub(in crate::http) fn body_without_model(self, schema: Schema, examples: Examples) -> Self {
        Self { body: Some(Body { schema, required: true, examples, names_model: false }), ..self }
    }

    /// A body that may be left out.
    pub(in crate::http) fn optional_body(self, schema: Schema) -> Self {
        Self { body: Some(Body { schema, required: false, examples: |_| Vec::new(), names_model: false }), ..self }
    }

    /// A parameter: an object of OpenAPI.
    pub(in crate::http) fn parameter(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// A header that it reads.
    pub(in crate::http) fn in_header(self, name: &str, description: &str, schema: Value) -> Self {
        self.parameter(json!({"name": name, "in": "header", "description": description, "schema": schema}))
    }

    /// The part `{name}` of the path, with its schema.
    pub(in crate::http) fn in_path(self, name: &str, description: &str, schema: Value) -> Self {
        self.parameter(
            json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema}),
        )
    }

    /// The part of the path that is the id of a model.
    pub(in crate::http) fn model_in_path(self, name: &str) -> Self {
        self.in_path(name, MODEL, json!({"type": "string", "minLength": 1}))
    }

    /// What it answers in JSON.
    pub(in crate::http) fn replies(self, schema: Schema) -> Self {
        self.replies_as("application/json", schema)
    }

    /// What it answers in another type of media; several types may be told of.
    pub(in crate::http) fn replies_as(mut self, media: &'static str, schema: Schema) -> Self {
        self.replies.push((media, schema));
        self
    }

    /// How else it fails.
    pub(in crate::http) fn fails(mut self, kinds: &[Kind]) -> Self {
        self.failures.extend(kinds);
        self
    }

    /// How it fails, and in no other way; nothing is computed for it.
    pub(in crate::http) fn fails_only(mut self, kinds: &[Kind]) -> Self {
        self.parameters.retain(|parameter| parameter["in"] != "header");
        Self { failures: kinds.into(), ..self }
    }

    /// What it answers while it is not ready, as when the server is about to end.
    pub(in crate::http) fn when_closing(self, status: StatusCode, schema: Schema) -> Self {
        Self { closing: Some((status, schema)), ..self }
    }

    /// Which servers offer it; all by default.
    pub(in crate::http) fn only_if(self, offered: fn(&Config) -> bool) -> Self {
        Self { offered, ..self }
    }

    /// Whether a server offers it.
    pub(super) fn is_offered(&self, config: &Config) -> bool {
        (self.offered)(config)
    }

    /// The same below a prefix.
    pub(in crate::http) fn below(self, prefix: &str) -> Self {
        Self { path: format!("{prefix}{}", self.path), ..self }
    }

    /// Its path.
    pub(in crate::http) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn method(&self) -> &'static str {
        self.method
    }
}

const MODEL: &str = "The id of a model, as `GET /v1/models` lists it; a `/` in it is sent as it is or as `%2F`.";
