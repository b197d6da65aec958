//! `POST /v1/completions` as OpenAI has it, whole or as a stream.

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
    routing::post,
};
use centuple_tasks::{
    Model, OneOrMany, from_json,
    schema::{Components, one_or_many, text},
    text_generation::{Answers, Finish, Request, TextGenerator},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Shared, Tells, exchange,
    openai::{Sampling, Stamp, Usage, answer_schema, failed, model, properties, reason},
    text_of,
};
use crate::{
    generation::{Asks, News, Run, Wanted, generated},
    http::{
        errors::Family,
        openapi::{Operation, Tag},
        routes::Routes,
    },
    service::Failure,
};

/// New tokens where a body doesn't say how many.
const DEFAULT_TOKENS: usize = 16;

/// What an answer and its parts are called.
const OBJECT: &str = "text_completion";

/// The routes below `/v1`.
pub(super) fn routes() -> Routes {
    let operation = Operation::post("/completions", "How texts go on")
        .about("With `stream` as server-sent events. Parameters of transformers' `generate` may stand beside those of OpenAI.")
        .body(request, example)
        .replies(reply)
        .tag(Tag::OpenAi);
    Routes::new().at("/completions", post(completions), [operation])
}

fn request(components: &mut Components) -> Value {
    let mut properties = properties();
    properties.insert("prompt".to_owned(), one_or_many(text()));
    let tokens = json!({"type": "integer", "minimum": 1, "default": DEFAULT_TOKENS});
    properties.insert("max_tokens".to_owned(), tokens);
    properties.insert("echo".to_owned(), json!({"type": "boolean"}));
    let body = json!({"type": "object", "required": ["prompt"], "properties": properties});
    components.insert("CompletionRequest", body)
}

fn reply(components: &mut Components) -> Value {
    let choice = json!({"type": "object", "properties": {
        "text": text(),
        "index": {"type": "integer"},
        "logprobs": {"type": "null"},
        "finish_reason": {"enum": ["stop", "length", null]},
    }});
    components.insert("Completion", answer_schema(OBJECT, choice))
}

fn example(model: &Model) -> Vec<(&'static str, Value)> {
    let generates = model.card.head.generates();
    let body = json!({"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0});
    generates.then_some(("a text", body)).into_iter().collect()
}

async fn completions(State(service): State<Shared>, request: HttpRequest) -> Response {
    exchange(&service, Completions::new(), Wanted::Named(None), Family::OpenAi, request).await
}

/// The body as it is written.
#[derive(Deserialize)]
struct Body {
    prompt: OneOrMany<String>,
    #[serde(rename = "model")]
    _model: Option<String>,
    max_tokens: Option<usize>,
    echo: Option<bool>,
    suffix: Option<String>,
    #[serde(flatten)]
    sampling: Sampling,
}

/// An answer that is written.
#[derive(Clone, Debug)]
struct Completions {
    stamp: Stamp,
    /// Answers to each prompt.
    count: usize,
    usage: bool,
    /// What comes first, where prompts do.
    prompts: Option<Vec<String>>,
}

impl Completions {
    fn new() -> Self {
        Self { stamp: Stamp::new("cmpl"), count: 1, usage: false, prompts: None }
    }

    /// What stands before the answer to a prompt.
    fn before(&self, input: usize) -> &str {
        self.prompts.as_ref().and_then(|prompts| prompts.get(input)).map_or("", String::as_str)
    }
}

impl Asks for Completions {
    fn model(&self, body: &[u8]) -> Option<String> {
        model(body)
    }

    fn read(&mut self, _: &TextGenerator, body: &[u8]) -> Result<Request, Failure> {
        let Body { prompt, max_tokens, echo, suffix, mut sampling, .. } = from_json(body)?;
        sampling.refuse("logprobs")?;
        if suffix.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(super::openai::refused("suffix"));
        }
        self.count = sampling.count();
        self.usage = sampling.tells_usage();
        self.prompts = echo.unwrap_or(false).then(|| prompt.items.clone());
        let stream = sampling.streams();
        let parameters = sampling.parameters([("max_new_tokens", json!(max_tokens.unwrap_or(DEFAULT_TOKENS)))])?;
        Ok(Request { inputs: prompt, verbatim: false, parameters, stream })
    }
}

#[derive(Serialize)]
struct Choice {
    text: String,
    index: usize,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

impl Tells for Completions {
    fn begin(&mut self, model: &Model) {
        self.stamp.model.clone_from(&model.card.id);
    }

    fn reply(&self, prompt_tokens: usize, _: Finish, answers: Vec<Answers>) -> Result<Vec<u8>, Failure> {
        let mut choices = Vec::new();
        for (input, answers) in answers.iter().enumerate() {
            for answer in answers.answers() {
                let text = [self.before(input), &answer.text].concat();
                choices.push(Choice { text, index: choices.len(), logprobs: None, finish_reason: reason(answer) });
            }
        }
        let usage = Usage::new(prompt_tokens, generated(&answers));
        Ok(text_of(&self.stamp.object(OBJECT, choices, Some(usage))).into_bytes())
    }

    fn check_stream(&self, _: &Run) -> Result<(), Failure> {
        Ok(())
    }

    fn events(&mut self, _: &Finish, news: &News<'_>) -> Vec<String> {
        let finish_reason = reason(news.answer);
        let before = if news.tokens == 0 { self.before(news.input) } else { "" };
        let text = [before, news.fresh()].concat();
        if text.is_empty() && finish_reason.is_none() {
            return Vec::new();
        }
        let index = news.input * self.count + news.sequence;
        vec![text_of(&self.stamp.object(OBJECT, vec![Choice { text, index, logprobs: None, finish_reason }], None))]
    }

    fn end(&mut self, run: &Run) -> Vec<String> {
        let usage = Usage::new(run.usage.tokens, run.generated());
        let usage = self.usage.then(|| text_of(&self.stamp.object::<Choice>(OBJECT, Vec::new(), Some(usage))));
        usage.into_iter().chain(["[DONE]".to_owned()]).collect()
    }

    fn failed(&self, failure: &Failure) -> String {
        failed(failure)
    }
}
