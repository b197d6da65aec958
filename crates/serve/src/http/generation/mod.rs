//! Routes that generate text: `/generate` and `/generate_stream` of text-generation-inference, `/v1/completions` and
//! `/v1/chat/completions` of OpenAI, and what the task routes do with a model that generates.
//!
//! A stream is a response of server-sent events. When its client leaves, its task ends, and with it the request.

mod chat;
mod completions;
mod logprobs;
mod openai;
mod text_generation_inference;
pub(super) mod triton;

use std::{convert::Infallible, time::Instant};

use axum::{
    body::{Body, Bytes},
    extract::Request as HttpRequest,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use centuple_tasks::{
    Model,
    text_generation::{Answers, Finish},
};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

use super::{Shared, access, body, errors::Family, json, routes::Routes};
use crate::{
    generation::{Asks, News, Run, Wanted},
    service::Failure,
};

pub(super) use text_generation_inference::{PATHS, Task, replies, request};

/// Events that wait for a slow client.
const EVENTS_AHEAD: usize = 64;

/// The routes at the root.
pub(super) fn routes() -> Routes {
    text_generation_inference::routes()
}

/// The routes below `/v1`.
pub(super) fn openai_routes() -> Routes {
    completions::routes().merge(chat::routes())
}

/// How one family of routes writes what was generated.
trait Tells: Send + 'static {
    /// Learns which model answers.
    fn begin(&mut self, model: &Model);

    /// The body of a response.
    fn reply(&self, prompt_tokens: usize, finish: Finish, answers: Vec<Answers>) -> Result<Vec<u8>, Failure>;

    /// Checks that a stream can tell it.
    fn check_stream(&self, run: &Run) -> Result<(), Failure>;

    /// Events for what came, each as the text behind `data:`.
    fn events(&mut self, finish: &Finish, news: &News<'_>) -> Vec<String>;

    /// Events at the end.
    fn end(&mut self, run: &Run) -> Vec<String>;

    /// The event of a failure.
    fn failed(&self, failure: &Failure) -> String;
}

/// Reads the body of a request and has it generated.
async fn exchange(
    service: &Shared,
    dialect: impl Asks + Tells,
    wanted: Wanted,
    family: Family,
    request: HttpRequest,
) -> Response {
    let received = Instant::now();
    service.metrics.request();
    let outcome = answer(service, dialect, wanted, request).await;
    service.metrics.ended(received, &outcome);
    outcome.unwrap_or_else(|failure| family.failure(&failure))
}

async fn answer(
    service: &Shared,
    dialect: impl Asks + Tells,
    wanted: Wanted,
    request: HttpRequest,
) -> Result<Response, Failure> {
    let call = access::call(&request)?.within(service.config.timeout);
    let body = call.wait(body::read(request, &service.config)).await?;
    let (mut dialect, run) = service.generate(dialect, wanted, body, call).await?;
    dialect.begin(run.model());
    if run.stream {
        dialect.check_stream(&run)?;
        return Ok(stream(dialect, run));
    }
    let tokens = run.usage.tokens;
    let (finish, answers) = run.all().await?;
    Ok(json(dialect.reply(tokens, finish, answers)?))
}

/// A response of events.
fn stream(dialect: impl Tells, run: Run) -> Response {
    let (events, received) = channel(EVENTS_AHEAD);
    tokio::spawn(tell(dialect, run, events));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // Proxies must not collect events.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(ReceiverStream::new(received))).into_response()
}

type Event = Result<Bytes, Infallible>;

/// Tells what comes, until the end or until nobody listens any more.
async fn tell(mut dialect: impl Tells, mut run: Run, events: Sender<Event>) {
    let finish = run.finish.clone();
    loop {
        let next = tokio::select! {
            () = events.closed() => return,
            next = run.next() => next,
        };
        let (told, last) = match next {
            Ok(Some(news)) => (dialect.events(&finish, &news), false),
            Ok(None) => (dialect.end(&run), true),
            Err(failure) => (vec![dialect.failed(&failure)], true),
        };
        if !told.is_empty() {
            let text: String = told.iter().map(|event| format!("data: {event}\n\n")).collect();
            if events.send(Ok(text.into())).await.is_err() {
                return;
            }
        }
        if last {
            return;
        }
    }
}

/// The JSON of something that is always JSON.
fn text_of(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
