//! `POST /v1/completions` as OpenAI has it, whole or as a stream.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
    routing::post,
};
use centuple_tasks::{
    Head, Model, OneOrMany, from_json,
    schema::{Components, one_or_many, text},
    text_generation::{Answer, Answers, Finish, FinishReason, Parameters, Request},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Shared, Tells, exchange, text_of};
use crate::{
    generation::{Asks, News, Run, Wanted, generated},
    http::{
        errors::Family,
        openapi::{Operation, Tag},
        routes::Routes,
    },
    service::{Failure, Kind},
};

/// New tokens where a body doesn't say how many.
const DEFAULT_TOKENS: usize = 16;

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
    let number = |description: &str| json!({"type": "number", "description": description});
    let body = json!({
        "type": "object",
        "required": ["prompt"],
        "properties": {
            "model": text(),
            "prompt": one_or_many(text()),
            "max_tokens": {"type": "integer", "minimum": 1, "default": DEFAULT_TOKENS},
            "temperature": number("0 always takes the likeliest token; 1 by default."),
            "top_p": number("Draws among the likeliest tokens that together have this probability."),
            "n": {"type": "integer", "minimum": 1, "default": 1},
            "stop": one_or_many(text()),
            "seed": {"type": "integer"},
            "echo": {"type": "boolean"},
            "stream": {"type": "boolean"},
            "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
            "presence_penalty": number("Taken once from the logits of tokens that were generated."),
            "frequency_penalty": number("The same each time that the token came."),
            "logit_bias": {"type": "object", "description": "Numbers that are added to logits, by token."},
        },
    });
    components.insert("CompletionRequest", body)
}

fn reply(components: &mut Components) -> Value {
    let body = json!({
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", "usage"],
        "properties": {
            "id": text(),
            "object": {"const": "text_completion"},
            "created": {"type": "integer"},
            "model": text(),
            "choices": {"type": "array", "items": {"type": "object", "properties": {
                "text": text(),
                "index": {"type": "integer"},
                "logprobs": {"type": "null"},
                "finish_reason": {"enum": ["stop", "length", null]},
            }}},
            "usage": {"type": "object"},
        },
    });
    components.insert("Completion", body)
}

fn example(model: &Model) -> Vec<(&'static str, Value)> {
    let generates = matches!(model.card.head, Head::CausalLm { .. });
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
    temperature: Option<f64>,
    n: Option<usize>,
    stop: Option<OneOrMany<String>>,
    echo: Option<bool>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    logprobs: Option<usize>,
    suffix: Option<String>,
    #[serde(rename = "user")]
    _user: Option<String>,
    /// Parameters whose names are the same everywhere.
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// What a completion says of itself in each of its parts.
#[derive(Clone, Debug)]
struct Completions {
    id: String,
    created: u64,
    /// Answers to each prompt.
    count: usize,
    usage: bool,
    /// Whether the prompt comes first.
    prompts: Option<Vec<String>>,
    model: String,
}

impl Completions {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: format!("cmpl-{:x}", now.as_nanos()),
            created: now.as_secs(),
            count: 1,
            usage: false,
            prompts: None,
            model: String::new(),
        }
    }

    fn object(&self, choices: Vec<Choice>, usage: Option<Usage>) -> Completion<'_> {
        let (id, created, model) = (self.id.as_str(), self.created, self.model.as_str());
        Completion { id, object: "text_completion", created, model, choices, usage }
    }

    /// What stands before the answer to a prompt.
    fn before(&self, input: usize) -> &str {
        self.prompts.as_ref().and_then(|prompts| prompts.get(input)).map_or("", String::as_str)
    }
}

impl Asks for Completions {
    fn model(&self, body: &[u8]) -> Option<String> {
        #[derive(Deserialize)]
        struct Named {
            model: Option<String>,
        }
        serde_json::from_slice::<Named>(body).ok()?.model
    }

    fn read(&mut self, body: &[u8]) -> Result<Request, Failure> {
        let body: Body = from_json(body)?;
        let refused = |name: &str| {
            let failure = Failure::new(Kind::Invalid, format!("`{name}` is not supported; leave it out"));
            Err(Failure { field: Some(name.to_owned()), ..failure })
        };
        if body.logprobs.is_some() {
            return refused("logprobs");
        }
        if body.suffix.is_some_and(|suffix| !suffix.is_empty()) {
            return refused("suffix");
        }
        let mut parameters = body.others;
        let temperature = body.temperature.unwrap_or(1.0);
        parameters.insert("do_sample".to_owned(), json!(temperature != 0.0));
        if temperature != 0.0 {
            parameters.insert("temperature".to_owned(), json!(temperature));
            parameters.entry("top_k").or_insert(json!(0));
        }
        self.count = body.n.unwrap_or(1);
        parameters.insert("max_new_tokens".to_owned(), json!(body.max_tokens.unwrap_or(DEFAULT_TOKENS)));
        parameters.insert("num_return_sequences".to_owned(), json!(self.count));
        if let Some(stop) = body.stop.filter(|stop| !stop.items.is_empty()) {
            parameters.insert("stop".to_owned(), json!(stop.items));
        }
        let parameters =
            Parameters::from_map(parameters).map_err(|error| Failure::new(Kind::Invalid, error.to_string()))?;
        self.usage = body.stream_options.and_then(|options| options.include_usage).unwrap_or(false);
        self.prompts = body.echo.unwrap_or(false).then(|| body.prompt.items.clone());
        Ok(Request { inputs: body.prompt, parameters, stream: body.stream.unwrap_or(false) })
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice {
    text: String,
    index: usize,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

impl Usage {
    fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

fn reason(answer: &Answer) -> Option<&'static str> {
    answer.finish.map(|finish| match finish {
        FinishReason::Length => "length",
        FinishReason::EosToken | FinishReason::StopSequence => "stop",
    })
}

impl Tells for Completions {
    fn begin(&mut self, model: &Model) {
        self.model.clone_from(&model.card.id);
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
        Ok(text_of(&self.object(choices, Some(usage))).into_bytes())
    }

    fn check_stream(&self, _: &Run) -> Result<(), Failure> {
        Ok(())
    }

    fn events(&mut self, _: &Finish, news: &News<'_>) -> Vec<String> {
        let fresh = news.answer.text.get(news.text..).unwrap_or_default();
        let finish_reason = reason(news.answer);
        let before = if news.tokens == 0 { self.before(news.input) } else { "" };
        let text = [before, fresh].concat();
        if text.is_empty() && finish_reason.is_none() {
            return Vec::new();
        }
        let index = news.input * self.count + news.sequence;
        vec![text_of(&self.object(vec![Choice { text, index, logprobs: None, finish_reason }], None))]
    }

    fn end(&mut self, run: &Run) -> Vec<String> {
        let usage = Usage::new(run.usage.tokens, run.generated());
        let usage = self.usage.then(|| text_of(&self.object(Vec::new(), Some(usage))));
        usage.into_iter().chain(["[DONE]".to_owned()]).collect()
    }

    fn failed(&self, failure: &Failure) -> String {
        json!({"error": {"message": failure.message, "type": "server_error", "param": null, "code": null}}).to_string()
    }
}
