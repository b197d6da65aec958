//! `/v2/models/{name}/generate` and `/generate_stream`, Triton's extension for models that generate.

use axum::{extract::Request as HttpRequest, response::Response};
use centuple_tasks::{
    Head, Model, from_json,
    schema::{Components, one_or_many, text},
    text_generation::{Answer, Answers, Finish, Request, TextGenerator},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Shared, Tells, exchange, text_of};
use crate::{
    generation::{Asks, News, Run, Wanted},
    http::errors::Family,
    open_inference::{self, generate},
    service::{Failure, Kind},
};

/// The schema of the body.
pub(in crate::http) fn request(components: &mut Components) -> Value {
    let body = json!({
        "type": "object",
        "required": ["text_input"],
        "properties": {
            "id": text(),
            "text_input": text(),
            "parameters": {"type": "object", "description": "As in docs/generation.md; they may also stand at the root."},
        },
    });
    components.insert("TritonGenerateRequest", body)
}

/// The schema of the reply, and of each event.
pub(in crate::http) fn reply(components: &mut Components) -> Value {
    let reply = json!({
        "type": "object",
        "required": ["model_name", "model_version", "text_output"],
        "properties": {"id": text(), "model_name": text(), "model_version": text(), "text_output": one_or_many(text())},
    });
    components.insert("TritonGenerated", reply)
}

/// A body for a model that generates.
pub(in crate::http) fn example(model: &Model) -> Vec<(&'static str, Value)> {
    let generates = matches!(model.card.head, Head::CausalLm { .. });
    let body = json!({"text_input": "Once upon a time", "parameters": {"max_tokens": 20}});
    generates.then_some(("a text", body)).into_iter().collect()
}

/// The body as it is written.
#[derive(Deserialize)]
struct Body {
    id: Option<String>,
    text_input: String,
    parameters: Option<Map<String, Value>>,
    #[serde(flatten)]
    root: Map<String, Value>,
}

/// The body, and its replies.
#[derive(Clone, Debug)]
pub(in crate::http) struct Generate {
    /// The model's name and version as the client has them.
    name: String,
    version: String,
    id: Option<String>,
    /// Whether there are events.
    streams: bool,
    /// Whether there is one for each part.
    in_parts: bool,
}

impl Generate {
    /// Answers a request for a model, whole or by events.
    pub(in crate::http) async fn answer(
        service: &Shared,
        name: String,
        version: String,
        streams: bool,
        request: HttpRequest,
    ) -> Response {
        let call = match super::access::call(&request) {
            Ok(call) => call,
            Err(failure) => return Family::OpenInference.failure(&failure),
        };
        let found = service.find(&call, |models| open_inference::find(models, &name, &version)).await;
        let served = match found {
            Ok((served, _)) => served,
            Err(failure) => return Family::OpenInference.failure(&failure),
        };
        let generate = Generate { name, version: served.version.clone(), id: None, streams, in_parts: streams };
        exchange(service, generate, Wanted::Found(served), Family::OpenInference, request).await
    }

    fn written(&self, text_output: Value) -> String {
        let Self { name, version, id, .. } = self;
        text_of(&Generated { id: id.as_deref(), model_name: name, model_version: version, text_output })
    }
}

#[derive(Serialize)]
struct Generated<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    model_name: &'a str,
    model_version: &'a str,
    text_output: Value,
}

impl Asks for Generate {
    fn model(&self, _: &[u8]) -> Option<String> {
        None
    }

    fn read(&mut self, _: &TextGenerator, body: &[u8]) -> Result<Request, Failure> {
        let Body { id, text_input, parameters, root } = from_json(body)?;
        self.id = id;
        let mut parameters = parameters.unwrap_or_default();
        parameters.extend(root);
        let said = parameters.contains_key(generate::STREAM);
        let mut request = generate::request(text_input, parameters)?;
        if request.stream && !self.streams {
            let message = "`stream` is for generate_stream; generate has one reply".into();
            return Err(Failure::new(Kind::Invalid, message));
        }
        self.in_parts = request.stream || !said;
        request.stream = self.streams;
        Ok(request)
    }
}

impl Tells for Generate {
    fn begin(&mut self, _: &Model) {}

    fn reply(&self, _: usize, finish: Finish, answers: Vec<Answers>) -> Result<Vec<u8>, Failure> {
        let whole = |answer: &Answer| Value::String([finish.before(0), &answer.text].concat());
        let mut texts: Vec<Value> = answers.iter().flat_map(Answers::answers).map(whole).collect();
        let output = if texts.len() == 1 { texts.remove(0) } else { Value::Array(texts) };
        Ok(self.written(output).into_bytes())
    }

    fn check_stream(&self, run: &Run) -> Result<(), Failure> {
        run.check_single()
    }

    fn events(&mut self, finish: &Finish, news: &News<'_>) -> Vec<String> {
        let (from, ended) = (news.text, news.answer.finish.is_some());
        let from = if self.in_parts { from } else { 0 };
        let fresh = news.answer.text.get(from..).unwrap_or_default();
        let before = if from == 0 && (news.tokens == 0 || !self.in_parts) { finish.before(0) } else { "" };
        let text = [before, fresh].concat();
        let tells = if self.in_parts { !text.is_empty() || ended } else { ended };
        if tells { vec![self.written(text.into())] } else { Vec::new() }
    }

    fn end(&mut self, _: &Run) -> Vec<String> {
        Vec::new()
    }

    fn failed(&self, failure: &Failure) -> String {
        json!({"error": failure.message}).to_string()
    }
}
