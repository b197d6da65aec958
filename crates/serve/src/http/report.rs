//! `GET /report[?model=ID]`: the accuracy report of a model, of the first one where none is named.
//!
//! It is the page for people, or the JSON where the client prefers that. `GET /report.json` is
//! always the JSON.

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Shared, errors::Family, openapi::Operation};
use crate::{
    call::{Call, Client},
    service::{Failure, Kind, Report, Served},
};

/// What the query of a path may say; the rest of it is ignored.
#[derive(Deserialize)]
pub(super) struct Parameters {
    model: Option<String>,
}

type Parsed = Result<Query<Parameters>, QueryRejection>;

/// What the routes answer.
pub(super) fn operation(path: &str) -> Operation {
    Operation::get(path, "What optimising a model was found to cost in accuracy")
        .parameter(serde_json::json!({
            "name": "model", "in": "query", "description": "The id of a model; the first one by default.",
            "schema": {"type": "string"},
        }))
        .replies(|_| serde_json::json!({"type": "object"}))
        .fails(&[Kind::Invalid, Kind::UnknownModel, Kind::LoadFailed, Kind::Deadline, Kind::NoReport])
}

/// `GET /report`.
pub(super) async fn negotiated(State(service): State<Shared>, query: Parsed, headers: HeaderMap) -> Response {
    let write = if prefers_json(&headers) { as_json } else { as_page };
    let mut response = answer(&service, query, write).await;
    response.headers_mut().insert(VARY, HeaderValue::from(ACCEPT));
    response
}

/// `GET /report.json`.
pub(super) async fn json(State(service): State<Shared>, query: Parsed) -> Response {
    answer(&service, query, as_json).await
}

async fn answer(service: &Shared, query: Parsed, write: fn(&Report) -> Response) -> Response {
    let outcome = model(service, query).await.and_then(|served| served.report().map(write));
    outcome.unwrap_or_else(|failure| Family::HuggingFace.failure(&failure))
}

async fn model(service: &Shared, query: Parsed) -> Result<Arc<Served>, Failure> {
    let Query(Parameters { model }) = query.map_err(|rejection| {
        Failure::new(Kind::Invalid, format!("{}; the query is ?model=ID", rejection.body_text()))
    })?;
    let call = Call::now(Client::default());
    service.find(&call, |models| models.find_or_first(model.as_deref())).await
}

/// Whatever a report may hold, nothing of it runs and nothing is loaded for it.
fn as_page(report: &Report) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        NO_SNIFFING,
    ];
    (headers, report.html.clone()).into_response()
}

fn as_json(report: &Report) -> Response {
    ([(CONTENT_TYPE, "application/json"), NO_SNIFFING], report.json.clone()).into_response()
}

const NO_SNIFFING: (HeaderName, &str) = (X_CONTENT_TYPE_OPTIONS, "nosniff");

/// Whether the headers name JSON, and HTML not or with a lower weight.
fn prefers_json(headers: &HeaderMap) -> bool {
    let accept: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let weight = |name| accept.iter().flat_map(|value| value.split(',')).find_map(|range| weight(range, name));
    weight("application/json").unwrap_or(0.0) > weight("text/html").unwrap_or(0.0)
}

/// The weight that an element of `Accept` gives a media type, if it names it.
pub(super) fn weight(range: &str, name: &str) -> Option<f32> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(name) {
        return None;
    }
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some(weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_those_who_ask_for_it() {
        let prefers = |accept: &[&'static str]| {
            let header = |value: &&'static str| (ACCEPT, HeaderValue::from_static(value));
            prefers_json(&accept.iter().map(header).collect())
        };
        let json: [&[&str]; 6] = [
            &["application/json"],
            &["Application/JSON;charset=utf-8"],
            &["application/json, text/plain, */*"],
            &["text/html;q=0.5, application/json;q=0.6"],
            &["text/html ; q=0", "application/json ; q=0.1"],
            &["text/plain", "application/json"],
        ];
        let html: [&[&str]; 7] = [
            &[],
            &[""],
            &["*/*"],
            &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
            &["application/json, text/html"],
            &["application/json;q=0"],
            &["application/json;q=nonsense"],
        ];
        assert!(json.iter().all(|accept| prefers(accept)));
        assert!(!html.iter().any(|accept| prefers(accept)));
    }
}
