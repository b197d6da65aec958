//! `/generate` and `/generate_stream`, and the task routes for models that generate.

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
    routing::post,
};
use centuple_tasks::{
    Model,
    schema::{Components, any_of, list_of, one_or_many, text},
    text_generation::{Answers, Asked, Finish, FinishReason, Request, TextGenerator, Token, TopToken},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Shared, Tells, exchange, text_of};
use crate::{
    generation::{Asks, News, Run, Wanted},
    http::{
        errors::Family,
        openapi::{Operation, Tag},
        routes::Routes,
    },
    service::Failure,
};

/// The roots of these routes.
pub(in crate::http) const PATHS: [&str; 2] = ["/generate", "/generate_stream"];

/// The routes.
pub(super) fn routes() -> Routes {
    let whole = Operation::post("/generate", "How a text goes on")
        .about("As text-generation-inference has it; `parameters` are those of `generate` in transformers, see docs/generation.md.")
        .body(request, example)
        .replies(generated);
    let streamed = Operation::post("/generate_stream", "How a text goes on, token by token")
        .about("Server-sent events, one for each token; the last one has the whole text.")
        .body(request, example)
        .replies_as("text/event-stream", |_| text());
    Routes::new().at("/generate", post(generate), [whole.tag(Tag::Tasks)]).at(
        "/generate_stream",
        post(generate_stream),
        [streamed.tag(Tag::Tasks)],
    )
}

/// The body of tasks that generate.
pub(in crate::http) fn request(components: &mut Components) -> Value {
    let body = json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "inputs": one_or_many(text()),
            "parameters": {"type": "object", "description": "As in docs/generation.md."},
            "stream": {"type": "boolean"},
        },
    });
    components.insert("TextGenerationRequest", body)
}

fn generated(components: &mut Components) -> Value {
    let generated = json!({
        "type": "object",
        "required": ["generated_text"],
        "properties": {"generated_text": text(), "details": {"type": "object"}},
    });
    components.insert("GeneratedText", generated)
}

/// The reply of tasks that generate: a list for one text, and one of these or of lists of these for several.
pub(in crate::http) fn replies(components: &mut Components) -> Value {
    let answer = |field: &str| {
        let properties = json!({field: text(), "details": {"type": "object"}});
        json!({"type": "object", "required": [field], "properties": properties})
    };
    let fields = ["generated_text", "summary_text", "translation_text"];
    let any = components.insert("Generated", any_of(fields.map(answer)));
    list_of(any_of([any.clone(), list_of(any)]))
}

fn example(model: &Model) -> Vec<(&'static str, Value)> {
    let generates = model.card.head.generates();
    let body = json!({"inputs": "Once upon a time", "parameters": {"max_new_tokens": 20}});
    generates.then_some(("a text", body)).into_iter().collect()
}

async fn generate(State(service): State<Shared>, request: HttpRequest) -> Response {
    exchange(&service, Task::of_generate(), Wanted::Named(None), Family::TextEmbeddings, request).await
}

async fn generate_stream(State(service): State<Shared>, request: HttpRequest) -> Response {
    exchange(&service, Task::of_stream(), Wanted::Named(None), Family::TextEmbeddings, request).await
}

/// The body of the task, and its replies.
#[derive(Clone, Debug)]
pub(in crate::http) struct Task {
    /// What is asked for, where the reply is a list, and begins with the prompt, as on the hub.
    hub: Option<Asked>,
    /// Whether it is a stream in any case.
    streams: bool,
    /// Events so far.
    told: usize,
}

impl Task {
    fn of_generate() -> Self {
        Self { hub: None, streams: false, told: 0 }
    }

    fn of_stream() -> Self {
        Self { hub: None, streams: true, told: 0 }
    }

    /// Answers a request of a task route for a model that generates.
    pub(in crate::http) async fn answer(
        service: &Shared,
        asked: Asked,
        wanted: Wanted,
        request: HttpRequest,
    ) -> Response {
        let task = Self { hub: Some(asked), streams: false, told: 0 };
        exchange(service, task, wanted, Family::HuggingFace, request).await
    }
}

impl Asks for Task {
    fn model(&self, _: &[u8]) -> Option<String> {
        None
    }

    fn read(&mut self, _: &TextGenerator, body: &[u8]) -> Result<Request, Failure> {
        let mut request = Request::parse(body)?;
        request.parameters.asked = self.hub.clone().unwrap_or_default();
        request.stream |= self.streams;
        if request.stream {
            // Each token is told with its log-probability.
            request.parameters = request.parameters.with_logprobs();
        }
        Ok(request)
    }

    fn full_text(&self) -> bool {
        self.hub.is_some()
    }
}

/// What a stream tells of a token.
#[derive(Serialize)]
struct TokenEvent<'a> {
    index: usize,
    token: &'a Token,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_tokens: Option<&'a [TopToken]>,
    generated_text: Option<&'a str>,
    details: Option<StreamDetails>,
}

#[derive(Serialize)]
struct StreamDetails {
    finish_reason: FinishReason,
    generated_tokens: usize,
    seed: Option<u64>,
}

impl Tells for Task {
    fn begin(&mut self, _: &Model) {}

    fn reply(&self, _: usize, finish: Finish, answers: Vec<Answers>) -> Result<Vec<u8>, Failure> {
        let reply = finish.reply(answers)?;
        let texts = &reply.texts;
        match texts.items.first().and_then(|generated| generated.first()) {
            Some(generated) if self.hub.is_none() && texts.single => Ok(text_of(generated).into_bytes()),
            _ => Ok(reply.to_json()),
        }
    }

    fn check_stream(&self, run: &Run) -> Result<(), Failure> {
        run.check_single()
    }

    fn events(&mut self, finish: &Finish, news: &News<'_>) -> Vec<String> {
        let answer = news.answer;
        let last = answer.tokens.len().saturating_sub(1);
        let mut events = Vec::new();
        for (place, token) in answer.tokens.iter().enumerate().skip(news.tokens) {
            self.told += 1;
            let ended = answer.finish.filter(|_| place == last);
            let details = ended.map(|finish_reason| StreamDetails {
                finish_reason,
                generated_tokens: answer.tokens.len(),
                seed: finish.seed(),
            });
            events.push(text_of(&TokenEvent {
                index: self.told,
                token,
                top_tokens: answer.top_tokens.get(place).map(Vec::as_slice),
                generated_text: ended.map(|_| answer.text.as_str()),
                details,
            }));
        }
        events
    }

    fn end(&mut self, _: &Run) -> Vec<String> {
        Vec::new()
    }

    fn failed(&self, failure: &Failure) -> String {
        json!({"error": failure.message, "error_type": "generation"}).to_string()
    }
}
