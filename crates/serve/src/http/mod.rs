//! HTTP: the table of routes, and what all of them share.
//!
//! A handler translates and nothing else: it names the [`Dialect`] of its route and turns the
//! answer or the failure of the [`Service`] into a response. Each family of routes has its own
//! file and its own shape of errors; see [`errors::Family`].

mod access;
mod body;
mod cohere;
mod errors;
mod huggingface;
mod infinity;
pub(crate) mod open_inference;
pub(crate) mod openai;
mod operations;
mod report;
mod text_embeddings;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, Uri, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::service::{Answer, Dialect, Failure, Kind, LARGE_BODY, Service, Timing, Written, offload};
use errors::Family;

/// How many bytes of a body are JSON, where tensors follow it.
const INFERENCE_HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");

/// What handlers share.
type Shared = Arc<Service>;

/// Every route of a server.
pub(crate) fn router(service: Shared) -> Router {
    Router::new()
        .route("/", post(huggingface::root))
        .route("/invocations", post(huggingface::root))
        .route("/models/{*rest}", post(huggingface::model))
        .route("/pipeline/{*rest}", post(huggingface::pipeline))
        .nest("/v1", openai::routes())
        .nest("/openai/v1", openai::routes())
        .merge(text_embeddings::routes())
        .merge(infinity::routes())
        .merge(cohere::routes())
        .merge(open_inference::routes())
        .route("/health", get(operations::health))
        .route("/ping", get(operations::health))
        .route("/info", get(operations::info))
        .route("/metrics", get(operations::metrics))
        .route("/report", get(report::negotiated))
        .route("/report.json", get(report::json))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(&service))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(service, access::guard))
}

/// Reads the body of a request and has it answered.
async fn exchange(service: &Shared, dialect: impl Dialect, request: Request) -> Result<Response, Failure> {
    let received = Instant::now();
    service.metrics.request();
    let outcome = match body::read(request, &service.config).await {
        Ok(body) => service.answer(dialect, body, received).await,
        Err(failure) => Err(failure),
    };
    match &outcome {
        Ok(_) => service.metrics.success(received),
        Err(failure) => service.metrics.failure(failure),
    }
    outcome.map(respond)
}

/// Reads the body of a request and answers it without a model's engine.
async fn reply(
    service: &Shared,
    request: Request,
    work: impl FnOnce(&Service, &Bytes) -> Result<Vec<u8>, Failure> + Send + 'static,
) -> Result<Response, Failure> {
    let received = Instant::now();
    service.metrics.request();
    let outcome = match body::read(request, &service.config).await {
        Ok(body) => {
            let service = Arc::clone(service);
            offload(body.len() >= LARGE_BODY, move || work(&service, &body)).await
        }
        Err(failure) => Err(failure),
    };
    match &outcome {
        Ok(_) => service.metrics.success(received),
        Err(failure) => service.metrics.failure(failure),
    }
    outcome.map(json)
}

/// The response of an answer, with the headers that tell what it took.
fn respond(answer: Answer) -> Response {
    let Answer { written: Written { body, json: json_bytes }, usage, timing } = answer;
    let Timing { tokenization, queue, inference, output: _, total } = timing;
    let milliseconds = [
        ("x-compute-time", tokenization + inference),
        ("x-total-time", total),
        ("x-tokenization-time", tokenization),
        ("x-queue-time", queue),
        ("x-inference-time", inference),
    ];
    let mut response = json(body);
    let headers = response.headers_mut();
    if let Some(bytes) = json_bytes {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(INFERENCE_HEADER, HeaderValue::from(bytes));
    }
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
    response
}

/// A response of JSON text.
fn json(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

async fn unknown_route(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    let message = format!(
        "no route {method} {path}; see POST /, POST /models/ID, POST /v1/embeddings, POST /embed, GET /v2, GET /info"
    );
    Family::of(path).failure(&Failure::new(Kind::UnknownRoute, message))
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    let message = format!("{path} does not take {method}; the header `allow` names what it takes");
    Family::of(path).failure(&Failure::new(Kind::Method, message))
}

/// A handler has panicked; its path is no longer known here.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Family::HuggingFace.failure(&Failure::new(Kind::Internal, "the server failed on this request".into()))
}
