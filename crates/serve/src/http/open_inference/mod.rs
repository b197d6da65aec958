//! The Open Inference Protocol, version 2, with the extensions of Triton that clients rely on:
//! binary tensors, classification, configuration, statistics, the repository's index, generation.

mod describe;
mod reply;
mod repository;
mod request;
mod schema;
mod tensor;

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Request as HttpRequest, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use centuple_tasks::{Model, Usage};
use serde_json::{Value, json};

use super::{INFERENCE_HEADER, Shared, access, errors::Family, exchange, generation::triton::Generate, routes::Routes};
use crate::{
    call::Call,
    models::ModelState,
    open_inference::{InferRequest, LEFT_OUT, Plan, SERVER, check, describe::EXTENSIONS, find, known},
    service::{Dialect, Done, Failure, Kind, Models, Served, Work, Written},
};

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::new()
        .at("/v2", get(server), [schema::server()])
        .at("/v2/health/live", get(live), [schema::live()])
        .at("/v2/health/ready", get(ready), [schema::ready()])
        .at("/v2/models/stats", get(all_statistics), [schema::all_statistics()])
        .at("/v2/models/{*rest}", get(describe_model).post(infer), schema::of_a_model())
        .at("/v2/repository/index", post(repository::index), [schema::index()])
        .at("/v2/repository/models/{*rest}", post(repository::control), schema::control())
        .left_out("/v2/systemsharedmemory/{*rest}", any(left_out))
        .left_out("/v2/cudasharedmemory/{*rest}", any(left_out))
        .left_out("/v2/trace/setting", any(left_out))
        .left_out("/v2/logging", any(left_out))
}

async fn server() -> Response {
    Json(json!({
        "name": SERVER,
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": EXTENSIONS,
    }))
    .into_response()
}

async fn live() -> Response {
    Json(json!({"live": true})).into_response()
}

async fn ready(State(service): State<Shared>) -> Response {
    let ready = service.models.is_ready();
    readiness(ready, json!({"ready": ready}))
}

/// 200 or 400: some clients go by that, others by the body.
fn readiness(ready: bool, body: Value) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    (status, Json(body)).into_response()
}

async fn all_statistics(State(service): State<Shared>) -> Response {
    let models: Vec<_> = service.models.known().iter().map(|known| describe::statistics(&known.name, known)).collect();
    Json(json!({"model_stats": models})).into_response()
}

async fn left_out() -> Response {
    Family::OpenInference.failure(&Failure::new(Kind::NotImplemented, LEFT_OUT.into()))
}

async fn describe_model(
    State(service): State<Shared>,
    rest: Result<Path<String>, PathRejection>,
    request: HttpRequest,
) -> Response {
    let described = match (Target::parse(&service.models, rest), access::call(&request)) {
        (Ok(target), Ok(call)) => description(&service, &target, &call).await,
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    };
    described.unwrap_or_else(|failure| Family::OpenInference.failure(&failure))
}

async fn description(service: &Shared, target: &Target, call: &Call) -> Result<Response, Failure> {
    let Target { name, version, verb } = target;
    let loaded = service.find(call, |models| find(models, name, version));
    let json = match verb {
        Verb::Describe => {
            let (served, interface) = loaded.await?;
            let versions = service.models.versions(&served.model.card.id);
            describe::metadata(name, versions, &served.model, interface)
        }
        Verb::Config => {
            let (served, interface) = loaded.await?;
            describe::configuration(name, &served.model, interface, service.config.max_inputs)
        }
        Verb::Ready => {
            let known = known(&service.models, name, version)?;
            let ready = known.is_some_and(|known| known.state == ModelState::Ready);
            return Ok(readiness(ready, json!({"name": name, "ready": ready})));
        }
        Verb::Statistics => {
            let known = known(&service.models, name, version)?;
            let models: Vec<_> = known.iter().map(|known| describe::statistics(name, known)).collect();
            json!({"model_stats": models})
        }
        Verb::Infer | Verb::Generate | Verb::GenerateStream => return Ok(wrong_method("this path takes POST")),
    };
    Ok(Json(json).into_response())
}

async fn infer(
    State(service): State<Shared>,
    rest: Result<Path<String>, PathRejection>,
    request: HttpRequest,
) -> Response {
    let outcome = match Target::parse(&service.models, rest) {
        Ok(Target { verb: Verb::Infer, name, version }) => match json_bytes(&request) {
            Ok(json) => {
                let infer = Infer { service: Arc::clone(&service), name, version, json, plan: None };
                exchange(&service, infer, request).await
            }
            Err(failure) => Err(failure),
        },
        Ok(Target { verb: verb @ (Verb::Generate | Verb::GenerateStream), name, version }) => {
            return Generate::answer(&service, name, version, verb == Verb::GenerateStream, request).await;
        }
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
    /// Its version as the client has it; empty where there is none.
    version: String,
    verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Describe,
    Ready,
    Infer,
    Generate,
    GenerateStream,
    Config,
    Statistics,
}

const VERBS: [(&str, Verb); 6] = [
    ("/ready", Verb::Ready),
    ("/infer", Verb::Infer),
    ("/generate", Verb::Generate),
    ("/generate_stream", Verb::GenerateStream),
    ("/config", Verb::Config),
    ("/stats", Verb::Statistics),
];

impl Target {
    /// Reads `NAME[/versions/VERSION][/VERB]`, where the name may hold `/`: the longest name that is known.
    fn parse(models: &Models, rest: Result<Path<String>, PathRejection>) -> Result<Self, Failure> {
        let Path(rest) = rest.map_err(|rejection| {
            Failure::new(Kind::UnknownRoute, format!("the path can't be read: {}", rejection.body_text()))
        })?;
        if check(models, &rest, "").is_ok() {
            return Ok(Self { name: rest, version: String::new(), verb: Verb::Describe });
        }
        let verb = VERBS.into_iter().find_map(|(suffix, verb)| Some((rest.strip_suffix(suffix)?, verb)));
        let (path, verb) = verb.unwrap_or((&rest, Verb::Describe));
        let (name, version) = match path.rsplit_once("/versions/") {
            Some((name, version)) if !version.contains('/') => (name, version),
            Some(_) | None => (path, ""),
        };
        check(models, name, version)?;
        Ok(Self { name: name.to_owned(), version: version.to_owned(), verb })
    }
}

/// Reads the bodies of `infer` and writes their replies.
struct Infer {
    service: Shared,
    name: String,
    version: String,
    /// Bytes of JSON in the body.
    json: Option<usize>,
    /// What is to be answered, once the body is read.
    plan: Option<Plan>,
}

impl Dialect for Infer {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let (served, _) = find(models, &self.name, &self.version)?;
        let request = InferRequest::parse(body, self.json)?;
        let (plan, work) = Plan::new(&self.service, request, &served)?;
        self.plan = Some(plan);
        Ok((served, work))
    }

    fn timeout(&self) -> Option<Duration> {
        self.plan.as_ref()?.timeout
    }

    fn write(&self, model: &Model, done: Done, _: Usage) -> Written {
        match (done, &self.plan) {
            (Done::Outputs(outputs), Some(plan)) => reply::write(plan, &self.name, model, &outputs),
            (Done::Outputs(_), None) | (Done::Reply(_), _) => Written::from(Vec::new()),
        }
    }
}
