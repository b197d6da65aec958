//! HTTP: the table of routes, and what all of them share.
//!
//! A handler translates and nothing else: it names the [`Dialect`] of its route and turns the
//! answer or the failure of the [`Service`] into a response. Each family of routes has its own
//! file and its own shape of errors; see [`errors::Family`].

pub(crate) mod access;
pub(crate) mod body;
mod closing;
mod cohere;
pub(crate) mod errors;
mod generation;
mod huggingface;
mod infinity;
mod observe;
mod open_inference;
pub(crate) mod openai;
mod openapi;
mod operations;
mod pages;
mod report;
mod routes;
mod text_embeddings;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    grpc,
    service::{Answer, Dialect, Failure, Kind, LARGE_BODY, Models, Service, Timing, Written},
    trace::Trail,
};
use errors::Family;
use routes::Routes;

/// How many bytes of a body are JSON, where tensors follow it.
const INFERENCE_HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What handlers share.
type Shared = Arc<Service>;

/// Every route of a server, and what is told of it.
fn table() -> Routes {
    Routes::new()
        .merge(huggingface::routes())
        .nest("/v1", openai::routes().merge(generation::openai_routes()))
        .nest("/openai/v1", openai::routes().merge(generation::openai_routes()))
        .merge(generation::routes())
        .merge(text_embeddings::routes())
        .merge(infinity::routes())
        .merge(cohere::routes())
        .merge(open_inference::routes())
        .merge(operations::routes())
}

/// A server's answers.
pub(crate) fn router(service: Shared) -> Router {
    table()
        .into_router()
        .merge(grpc::router())
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(&service))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&service), closing::announce))
        .layer(middleware::from_fn_with_state(service, access::guard))
}

/// Reads the body of a request and has it answered.
async fn exchange(service: &Shared, dialect: impl Dialect, request: Request) -> Result<Response, Failure> {
    let received = Instant::now();
    service.metrics.request();
    let outcome = match access::call(&request).map(|call| call.within(service.config.timeout)) {
        Ok(call) => match call.wait(body::read(request, &service.config)).await {
            Ok(body) => service.answer(dialect, body, call).await,
            Err(failure) => Err(failure),
        },
        Err(failure) => Err(failure),
    };
    service.metrics.ended(received, &outcome);
    outcome.map(respond)
}

/// Reads the body of a request and answers it without a model's engine.
async fn reply(
    service: &Shared,
    request: Request,
    work: fn(&Service, &Models, &Bytes) -> Result<Vec<u8>, Failure>,
) -> Result<Response, Failure> {
    let received = Instant::now();
    service.metrics.request();
    let outcome = match access::call(&request).map(|call| call.within(service.config.timeout)) {
        Ok(call) => {
            let reading = body::read(request, &service.config);
            let reply = async {
                let body = reading.await?;
                service.reply(body.len() >= LARGE_BODY, move |service, models| work(service, models, &body)).await
            };
            call.wait(reply).await
        }
        Err(failure) => Err(failure),
    };
    service.metrics.ended(received, &outcome);
    outcome.map(json)
}

/// The response of an answer, with the headers that tell what it took.
fn respond(answer: Answer) -> Response {
    let mut response = Response::default();
    tell_costs(response.headers_mut(), &answer);
    response.extensions_mut().insert(Trail::of(&answer));
    let Written { body, json } = answer.written;
    let headers = response.headers_mut();
    match json {
        None => headers.insert(CONTENT_TYPE, JSON),
        Some(bytes) => {
            headers.insert(INFERENCE_HEADER, HeaderValue::from(bytes));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
        }
    };
    *response.body_mut() = body.into();
    response
}

/// Tells in headers what an answer took.
pub(crate) fn tell_costs(headers: &mut HeaderMap, answer: &Answer) {
    let Answer { usage, timing, .. } = answer;
    let &Timing { tokenization, queue, inference, output: _, total } = timing;
    let milliseconds = [
        ("x-compute-time", tokenization + inference),
        ("x-total-time", total),
        ("x-tokenization-time", tokenization),
        ("x-queue-time", queue),
        ("x-inference-time", inference),
    ];
    headers.insert("x-compute-type", HeaderValue::from_static("cpu"));
    for (name, time) in milliseconds {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(time.as_millis() as u64));
    }
    headers.insert("x-compute-characters", HeaderValue::from(usage.characters));
    headers.insert("x-compute-tokens", HeaderValue::from(usage.tokens));
    let parts = [("tokenization", tokenization), ("queue", queue), ("inference", inference), ("total", total)];
    let parts = parts.map(|(name, time)| format!("{name};dur={:.3}", time.as_secs_f64() * 1e3));
    if let Ok(value) = HeaderValue::try_from(parts.join(", ")) {
        headers.insert("server-timing", value);
    }
}

/// A response of JSON text.
fn json(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, JSON)], body).into_response()
}

async fn unknown_route(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    let message = format!(
        "no route {method} {path}; see POST /, POST /models/ID, POST /v1/embeddings, POST /embed, GET /v2, GET /info"
    );
    errors::refusal(&headers, path, &Failure::new(Kind::UnknownRoute, message))
}

async fn wrong_method(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    let message = format!("{path} does not take {method}; the header `allow` names what it takes");
    errors::refusal(&headers, path, &Failure::new(Kind::Method, message))
}

/// A handler has panicked; its path is no longer known here.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Family::HuggingFace.failure(&Failure::new(Kind::Internal, "the server failed on this request".into()))
}
