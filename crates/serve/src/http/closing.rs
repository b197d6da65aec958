//! What clients and balancers are told while the server is about to end: to go elsewhere.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Version, header::CONNECTION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::Shared;

/// Answers requests as before, each with the news that its connection ends; and probes with the news that the server does.
pub(super) async fn announce(State(service): State<Shared>, request: Request, next: Next) -> Response {
    let version = request.version();
    let probe = if *service.closing.borrow() { refusal(request.uri().path()) } else { None };
    let mut response = match probe {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    // It may have begun meanwhile. HTTP/2 has a frame for it.
    if *service.closing.borrow() && version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to a probe, in the words of its route.
fn refusal(path: &str) -> Option<Response> {
    let (status, body) = match path {
        "/health" | "/ping" => (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "stopping"})),
        "/v2/health/ready" => (StatusCode::BAD_REQUEST, json!({"ready": false})),
        _ => return None,
    };
    Some((status, Json(body)).into_response())
}
