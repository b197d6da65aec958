//! The Open Inference Protocol, version 2, with the extensions of Triton that clients rely on:
//! binary tensors, classification, configuration, statistics, the repository's index.
//!
//! A model of the name `transformer_onnx_inference`, `transformer_tensorrt_inference`,
//! `transformer_onnx_model` or `transformer_tensorrt_model`, as transformer-deploy makes them, is
//! the only one that is served: the former two take texts, the latter two tokens.

mod describe;
mod outputs;
mod request;
mod tensor;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request as HttpRequest, State, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use centuple_tasks::{Model, Usage};
use serde_json::{Value, json};

use super::{INFERENCE_HEADER, Shared, body, errors::Family, exchange};
use crate::service::{Dialect, Done, Failure, Kind, Models, Served, Work, Written};
use outputs::Plan;
pub use request::InferRequest;

/// The only version of each model.
const VERSION: &str = "1";

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/stats", get(all_statistics))
        .route("/v2/models/{*rest}", get(describe_model).post(infer))
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{*rest}", post(left_out))
        .route("/v2/systemsharedmemory/{*rest}", any(left_out))
        .route("/v2/cudasharedmemory/{*rest}", any(left_out))
        .route("/v2/trace/setting", any(left_out))
        .route("/v2/logging", any(left_out))
}

async fn server() -> Response {
    Json(json!({
        "name": "centuple",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": [
            "binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics",
        ],
    }))
    .into_response()
}

async fn live() -> Response {
    Json(json!({"live": true})).into_response()
}

async fn ready() -> Response {
    Json(json!({"ready": true})).into_response()
}

async fn all_statistics(State(service): State<Shared>) -> Response {
    let models = service.models.0.iter().map(|served| describe::statistics(&served.model.card.id, served));
    Json(json!({"model_stats": models.collect::<Vec<_>>()})).into_response()
}

async fn index(State(service): State<Shared>, request: HttpRequest) -> Response {
    // Whether it asks for all models or for those that are ready: they are the same.
    if let Err(failure) = body::read(request, &service.config).await {
        return Family::OpenInference.failure(&failure);
    }
    let model = |served: &Arc<Served>| json!({"name": served.model.card.id, "version": VERSION, "state": "READY", "reason": ""});
    Json(Value::Array(service.models.0.iter().map(model).collect())).into_response()
}

async fn left_out() -> Response {
    let message = "this server neither loads models at run time nor shares memory with clients; send tensors in the \
                   body, and start a server for other models"
        .into();
    Family::OpenInference.failure(&Failure::new(Kind::NotImplemented, message))
}

async fn describe_model(State(service): State<Shared>, rest: Result<Path<String>, PathRejection>) -> Response {
    let target = match Target::parse(&service.models, rest) {
        Ok(target) => target,
        Err(failure) => return Family::OpenInference.failure(&failure),
    };
    let Target { name, served, interface, verb } = &target;
    let json = match verb {
        Verb::Describe => describe::metadata(name, &served.model, *interface),
        Verb::Ready => json!({"name": name, "ready": true}),
        Verb::Config => describe::configuration(name, &served.model, *interface, service.config.max_inputs),
        Verb::Statistics => json!({"model_stats": [describe::statistics(name, served)]}),
        Verb::Infer => return wrong_method("this path takes POST"),
    };
    Json(json).into_response()
}

async fn infer(
    State(service): State<Shared>,
    rest: Result<Path<String>, PathRejection>,
    request: HttpRequest,
) -> Response {
    let outcome = match Target::parse(&service.models, rest) {
        Ok(Target { verb: Verb::Infer, name, served, .. }) => match json_bytes(&request) {
            Ok(json) => {
                let infer = Infer { service: Arc::clone(&service), name, served, json, plan: None, id: None };
                exchange(&service, infer, request).await
            }
            Err(failure) => Err(failure),
        },
        Ok(Target { verb: Verb::Describe | Verb::Ready | Verb::Config | Verb::Statistics, .. }) => {
            return wrong_method("this path takes GET; inference is POST /v2/models/NAME/infer");
        }
        Err(failure) => Err(failure),
    };
    outcome.unwrap_or_else(|failure| Family::OpenInference.failure(&failure))
}

fn wrong_method(message: &str) -> Response {
    Family::OpenInference.failure(&Failure::new(Kind::Method, message.into()))
}

/// How many bytes of the body are JSON, where the request says so.
fn json_bytes(request: &HttpRequest) -> Result<Option<usize>, Failure> {
    let Some(value) = request.headers().get(INFERENCE_HEADER) else { return Ok(None) };
    match value.to_str().ok().and_then(|value| value.trim().parse().ok()) {
        Some(bytes) => Ok(Some(bytes)),
        None => {
            let message = format!("the header `{INFERENCE_HEADER}` must be the number of bytes of JSON in the body");
            Err(Failure::new(Kind::Invalid, message))
        }
    }
}

/// What a path below `/v2/models/` names.
struct Target {
    /// The model's name as the client has it.
    name: String,
    served: Arc<Served>,
    interface: Interface,
    verb: Verb,
}

/// What a model is said to take. It takes the other all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    Texts,
    Tokens,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Describe,
    Ready,
    Infer,
    Config,
    Statistics,
}

const VERBS: [(&str, Verb); 4] =
    [("/ready", Verb::Ready), ("/infer", Verb::Infer), ("/config", Verb::Config), ("/stats", Verb::Statistics)];

impl Target {
    /// Reads `NAME[/versions/VERSION][/VERB]`, where the name may hold `/`: the longest name that is served.
    fn parse(models: &Models, rest: Result<Path<String>, PathRejection>) -> Result<Self, Failure> {
        let Path(rest) = rest.map_err(|rejection| {
            Failure::new(Kind::UnknownRoute, format!("the path can't be read: {}", rejection.body_text()))
        })?;
        if let Ok((served, interface)) = find(models, &rest) {
            return Ok(Self { name: rest, served, interface, verb: Verb::Describe });
        }
        let verb = VERBS.into_iter().find_map(|(suffix, verb)| Some((rest.strip_suffix(suffix)?, verb)));
        let (path, verb) = verb.unwrap_or((&rest, Verb::Describe));
        let (name, version) = match path.rsplit_once("/versions/") {
            Some((name, version)) if !version.contains('/') => (name, version),
            Some(_) | None => (path, VERSION),
        };
        let (served, interface) = find(models, name)?;
        if version != VERSION {
            let message = format!("model `{name}` has no version `{version}`; its only version is {VERSION}");
            return Err(Failure::new(Kind::UnknownModel, message));
        }
        Ok(Self { name: name.to_owned(), served, interface, verb })
    }
}

fn find(models: &Models, name: &str) -> Result<(Arc<Served>, Interface), Failure> {
    let (served, interface) = match name {
        "transformer_onnx_inference" | "transformer_tensorrt_inference" => {
            (models.find(name).or_else(|_| models.find_or_only(None)), Interface::Texts)
        }
        "transformer_onnx_model" | "transformer_tensorrt_model" => {
            (models.find(name).or_else(|_| models.find_or_only(None)), Interface::Tokens)
        }
        _ => (models.find(name), Interface::Texts),
    };
    let served = served?;
    let interface = if describe::takes_texts(&served.model) { interface } else { Interface::Tokens };
    Ok((served, interface))
}

/// Reads the bodies of `infer` and writes their replies.
struct Infer {
    service: Shared,
    name: String,
    served: Arc<Served>,
    /// Bytes of JSON in the body.
    json: Option<usize>,
    /// What is to be answered, once the body is read.
    plan: Option<Plan>,
    id: Option<String>,
}

impl Dialect for Infer {
    fn read(&mut self, _: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let request = InferRequest::parse(body, self.json)?;
        // Before anything is made of each of them.
        self.service.check_inputs(request.rows())?;
        let model = &self.served.model;
        self.plan = Some(Plan::new(&request, model)?);
        let (work, id) = request.into_work(model)?;
        self.id = id;
        Ok((Arc::clone(&self.served), work))
    }

    fn write(&self, model: &Model, done: Done, _: Usage) -> Written {
        match (done, &self.plan) {
            (Done::Outputs(outputs), Some(plan)) => plan.write(&self.name, self.id.as_deref(), model, &outputs),
            (Done::Outputs(_), None) | (Done::Reply(_), _) => Written::from(Vec::new()),
        }
    }
}
