//! The model repository extension: what there is, and loading and unloading on demand.

use axum::{
    Json,
    extract::{Path, Request as HttpRequest, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use centuple_tasks::from_json;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::{Shared, body, errors::Family};
use crate::{
    models::{Known, check_parameters},
    service::{Failure, Kind},
};

/// The body of the index; it may be empty.
#[derive(Default, Deserialize)]
struct IndexBody {
    /// Whether only models are wanted that are ready.
    ready: Option<bool>,
}

/// `POST /v2/repository/index`.
pub(super) async fn index(State(service): State<Shared>, request: HttpRequest) -> Response {
    let body = match body::read(request, &service.config).await {
        Ok(body) if body.is_empty() => Ok(IndexBody::default()),
        Ok(body) => from_json(&body).map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    match body {
        Ok(IndexBody { ready }) => {
            let known = service.index(ready.unwrap_or(false));
            Json(Value::Array(known.iter().map(entry).collect())).into_response()
        }
        Err(failure) => Family::OpenInference.failure(&failure),
    }
}

fn entry(known: &Known) -> Value {
    json!({"name": known.name, "version": known.version, "state": known.state.name(), "reason": known.reason})
}

/// The body of `load` and `unload`; it may be empty.
#[derive(Default, Deserialize)]
struct ControlBody {
    parameters: Option<Map<String, Value>>,
}

/// `POST /v2/repository/models/NAME/load` and `.../unload`.
pub(super) async fn control(
    State(service): State<Shared>,
    rest: Result<Path<String>, PathRejection>,
    request: HttpRequest,
) -> Response {
    let outcome = match (rest, body::read(request, &service.config).await) {
        (Ok(Path(rest)), Ok(body)) => change(&service, &rest, &body).await,
        (_, Err(failure)) => Err(failure),
        (Err(rejection), Ok(_)) => Err(Failure::new(Kind::UnknownRoute, rejection.body_text())),
    };
    match outcome {
        Ok(()) => Json(json!({})).into_response(),
        Err(failure) => Family::OpenInference.failure(&failure),
    }
}

async fn change(service: &Shared, rest: &str, body: &[u8]) -> Result<(), Failure> {
    let body = if body.is_empty() { ControlBody::default() } else { from_json(body)? };
    check_parameters(body.parameters.unwrap_or_default().keys())?;
    match (rest.strip_suffix("/load"), rest.strip_suffix("/unload")) {
        (Some(name), _) => service.load_model(name).await,
        (None, Some(name)) => service.unload_model(name).await,
        (None, None) => {
            let message = "the path is /v2/repository/models/NAME/load or /v2/repository/models/NAME/unload".into();
            Err(Failure::new(Kind::UnknownRoute, message))
        }
    }
}
