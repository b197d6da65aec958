//! `POST /v1/chat/completions` as OpenAI has it, whole or as a stream, for models that have a chat template.

use std::collections::BTreeSet;

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
    routing::post,
};
use centuple_tasks::{
    Head, Model, OneOrMany, from_json,
    schema::{Components, text},
    text_generation::{Answer, Answers, Chat, Finish, Request, TextGenerator},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Shared, Tells, exchange,
    logprobs::Logprobs,
    openai::{Sampling, Stamp, Usage, answer_schema, failed, model, properties, reason, refused},
    text_of,
};
use crate::{
    generation::{Asks, News, Run, Wanted, generated},
    http::{
        errors::Family,
        openapi::{Operation, Tag},
        routes::Routes,
    },
    service::{Failure, Kind},
};

const OBJECT: &str = "chat.completion";
const PART: &str = "chat.completion.chunk";

/// Most tokens beside each that OpenAI tells.
const MOST_TOP_LOGPROBS: usize = 20;

/// Fields that ask for more than text.
const LEFT_OUT: [&str; 6] = ["tools", "functions", "function_call", "audio", "prediction", "web_search_options"];

/// The routes below `/v1`.
pub(super) fn routes() -> Routes {
    let operation = Operation::post("/chat/completions", "How a conversation goes on")
        .about(
            "For models that have a chat template. With `stream` as server-sent events. Parameters of transformers' `generate` \
             may stand beside those of OpenAI; `chat_template_kwargs` are variables of the template.",
        )
        .body(request, example)
        .replies(reply)
        .tag(Tag::OpenAi);
    Routes::new().at("/chat/completions", post(chat), [operation])
}

fn request(components: &mut Components) -> Value {
    let part = json!({"type": "object", "required": ["type", "text"],
                      "properties": {"type": {"const": "text"}, "text": text()}});
    let message = json!({
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": text(), "content": {"anyOf": [text(), {"type": "array", "items": part}]}},
    });
    let message = components.insert("ChatMessage", message);
    let mut all = properties();
    let own = json!({
        "messages": {"type": "array", "minItems": 1, "items": message},
        "max_completion_tokens": {"type": "integer", "minimum": 1, "description": "By default as many as there is room for."},
        "max_tokens": {"type": "integer", "minimum": 1, "description": "The same by its older name."},
        "logprobs": {"type": "boolean"},
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": MOST_TOP_LOGPROBS},
        "response_format": {"type": "object", "description": "`text`, `json_object`, or `json_schema` with its schema."},
        "chat_template_kwargs": {"type": "object"},
    });
    all.extend(own.as_object().cloned().unwrap_or_default());
    components.insert("ChatRequest", json!({"type": "object", "required": ["messages"], "properties": all}))
}

fn reply(components: &mut Components) -> Value {
    let choice = json!({"type": "object", "properties": {
        "index": {"type": "integer"},
        "message": {"type": "object", "properties": {"role": {"const": "assistant"}, "content": text()}},
        "logprobs": {"type": ["object", "null"]},
        "finish_reason": {"enum": ["stop", "length", null]},
    }});
    components.insert("ChatReply", answer_schema(OBJECT, choice))
}

fn example(model: &Model) -> Vec<(&'static str, Value)> {
    let generates = matches!(model.card.head, Head::CausalLm { .. });
    let chats = generates && !model.tokenizer.chat_templates().is_empty();
    let messages = json!([{"role": "user", "content": "What is the capital of France?"}]);
    let body = json!({"messages": messages, "max_completion_tokens": 20, "temperature": 0});
    chats.then_some(("a question", body)).into_iter().collect()
}

async fn chat(State(service): State<Shared>, request: HttpRequest) -> Response {
    exchange(&service, Chats::new(), Wanted::Named(None), Family::OpenAi, request).await
}

/// The body as it is written.
#[derive(Deserialize)]
struct Body {
    messages: Vec<Value>,
    #[serde(rename = "model")]
    _model: Option<String>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    response_format: Option<ResponseFormat>,
    tool_choice: Option<Value>,
    modalities: Option<Vec<String>>,
    /// Name of the template.
    chat_template: Option<String>,
    chat_template_kwargs: Option<Map<String, Value>>,
    #[serde(flatten)]
    sampling: Sampling,
}

/// What the answer must be.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: JsonSchema },
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Option<Value>,
}

impl ResponseFormat {
    /// The JSON schema of the answer, if it must have one.
    fn schema(self) -> Option<Value> {
        let any_object = || json!({"type": "object"});
        match self {
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject => Some(any_object()),
            ResponseFormat::JsonSchema { json_schema } => Some(json_schema.schema.unwrap_or_else(any_object)),
        }
    }
}

impl Body {
    /// Refuses what is asked for beyond text.
    fn refuse(&mut self) -> Result<(), Failure> {
        LEFT_OUT.iter().try_for_each(|name| self.sampling.refuse(name))?;
        if self
            .tool_choice
            .as_ref()
            .is_some_and(|choice| !["none", "auto"].contains(&choice.as_str().unwrap_or_default()))
        {
            return Err(refused("tool_choice"));
        }
        if self.modalities.iter().flatten().any(|modality| modality != "text") {
            return Err(refused("modalities"));
        }
        if self.top_logprobs.is_some_and(|top| top > MOST_TOP_LOGPROBS) {
            let message = format!("`top_logprobs` is at most {MOST_TOP_LOGPROBS}");
            let failure = Failure::new(Kind::Invalid, message);
            return Err(Failure { field: Some("top_logprobs".to_owned()), ..failure });
        }
        Ok(())
    }
}

/// An answer that is written.
#[derive(Clone, Debug)]
struct Chats {
    stamp: Stamp,
    usage: bool,
    logprobs: bool,
    /// Answers that were begun.
    begun: BTreeSet<usize>,
}

impl Chats {
    fn new() -> Self {
        Self { stamp: Stamp::new("chatcmpl"), usage: false, logprobs: false, begun: BTreeSet::new() }
    }

    fn logprobs(&self, answer: &Answer, from: usize) -> Option<Logprobs> {
        self.logprobs.then(|| Logprobs::of(answer, from))
    }

    fn part(
        &self,
        index: usize,
        delta: Delta,
        logprobs: Option<Logprobs>,
        finish_reason: Option<&'static str>,
    ) -> String {
        text_of(&self.stamp.object(PART, vec![Part { index, delta, logprobs, finish_reason }], None))
    }
}

impl Asks for Chats {
    fn model(&self, body: &[u8]) -> Option<String> {
        model(body)
    }

    fn read(&mut self, generator: &TextGenerator, body: &[u8]) -> Result<Request, Failure> {
        let mut body: Body = from_json(body)?;
        body.refuse()?;
        let mut chat = Chat::new(body.messages)?;
        chat.template = body.chat_template;
        chat.variables = body.chat_template_kwargs.unwrap_or_default();
        let prompt = chat.write(&generator.model)?;
        self.usage = body.sampling.tells_usage();
        self.logprobs = body.logprobs.unwrap_or(false);
        let most = body.max_completion_tokens.or(body.max_tokens);
        // A model's own limits are for those who ask for none.
        let room = generator.longest(body.sampling.count());
        let mut limits = vec![("max_new_tokens", json!(most)), ("max_length", json!(most.is_none().then_some(room)))];
        limits.push(("logprobs", json!(self.logprobs)));
        limits.push(("top_n_tokens", json!(body.top_logprobs.filter(|_| self.logprobs).unwrap_or(0))));
        if let Some(schema) = body.response_format.and_then(ResponseFormat::schema) {
            limits.push(("grammar", json!({"type": "json", "value": schema})));
        }
        let stream = body.sampling.streams();
        let parameters = body.sampling.parameters(limits)?;
        Ok(Request { inputs: OneOrMany::one(prompt), verbatim: true, parameters, stream })
    }
}

/// An answer.
#[derive(Serialize)]
struct Choice {
    index: usize,
    message: Delta,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

/// A part of an answer.
#[derive(Serialize)]
struct Part {
    index: usize,
    delta: Delta,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

/// What is said, or more of it.
#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

impl Delta {
    fn whole(content: String) -> Self {
        Self { role: Some("assistant"), content: Some(content) }
    }
}

impl Tells for Chats {
    fn begin(&mut self, model: &Model) {
        self.stamp.model.clone_from(&model.card.id);
    }

    fn reply(&self, prompt_tokens: usize, _: Finish, answers: Vec<Answers>) -> Result<Vec<u8>, Failure> {
        let choice = |(index, answer): (usize, &Answer)| Choice {
            index,
            message: Delta::whole(answer.text.clone()),
            logprobs: self.logprobs(answer, 0),
            finish_reason: reason(answer),
        };
        let choices = answers.iter().flat_map(Answers::answers).enumerate().map(choice).collect();
        let usage = Usage::new(prompt_tokens, generated(&answers));
        Ok(text_of(&self.stamp.object(OBJECT, choices, Some(usage))).into_bytes())
    }

    fn check_stream(&self, _: &Run) -> Result<(), Failure> {
        Ok(())
    }

    fn events(&mut self, _: &Finish, news: &News<'_>) -> Vec<String> {
        let index = news.sequence;
        let mut events = Vec::new();
        if self.begun.insert(index) {
            events.push(self.part(index, Delta::whole(String::new()), None, None));
        }
        let logprobs = self.logprobs(news.answer, news.tokens).filter(|logprobs| !logprobs.is_empty());
        let fresh = news.fresh();
        if !fresh.is_empty() || logprobs.is_some() {
            let delta = Delta { content: Some(fresh.to_owned()), ..Delta::default() };
            events.push(self.part(index, delta, logprobs, None));
        }
        if let Some(reason) = reason(news.answer) {
            events.push(self.part(index, Delta::default(), None, Some(reason)));
        }
        events
    }

    fn end(&mut self, run: &Run) -> Vec<String> {
        let usage = Usage::new(run.usage.tokens, run.generated());
        let usage = self.usage.then(|| text_of(&self.stamp.object::<Part>(PART, Vec::new(), Some(usage))));
        usage.into_iter().chain(["[DONE]".to_owned()]).collect()
    }

    fn failed(&self, failure: &Failure) -> String {
        failed(failure)
    }
}
