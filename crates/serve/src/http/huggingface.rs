//! The task routes of the Hugging Face hub: `POST /`, `/models/{id}`,
//! `/models/{id}/pipeline/{task}` and the older `/pipeline/{task}/{id}`; `/invocations` is `/`
//! under the name that SageMaker gives it.
//!
//! Bodies and replies are those of the `tasks` crate. Without a task in the path it is the
//! model's main one. An id may contain `/`, as it is or as `%2F`.

use std::sync::Arc;

use axum::{
    extract::{Path, Request as HttpRequest, State, rejection::PathRejection},
    response::Response,
};
use centuple_tasks::{Model, Request, Task, Usage};

use super::{Shared, errors::Family, exchange};
use crate::service::{Dialect, Done, Failure, Kind, Models, Served, Work, Written};

/// `POST /`, and `POST /invocations` as SageMaker has it: the only model, its main task.
pub(super) async fn root(State(service): State<Shared>, request: HttpRequest) -> Response {
    answer(&service, Ok(Target { model: None, task: None }), request).await
}

/// `POST /models/{id}` and `POST /models/{id}/pipeline/{task}`.
pub(super) async fn model(
    State(service): State<Shared>,
    rest: Result<Path<String>, PathRejection>,
    request: HttpRequest,
) -> Response {
    let target = rest.map_err(bad_path).and_then(|Path(rest)| match rest.rsplit_once("/pipeline/") {
        Some((id, task)) => Target::new(id, Some(task)),
        None => Target::new(&rest, None),
    });
    answer(&service, target, request).await
}

/// `POST /pipeline/{task}/{id}`.
pub(super) async fn pipeline(
    State(service): State<Shared>,
    rest: Result<Path<String>, PathRejection>,
    request: HttpRequest,
) -> Response {
    let target = rest.map_err(bad_path).and_then(|Path(rest)| match rest.split_once('/') {
        Some((task, id)) => Target::new(id, Some(task)),
        None => Err(Failure::new(Kind::UnknownRoute, "the path is /pipeline/TASK/MODEL".into())),
    });
    answer(&service, target, request).await
}

async fn answer(service: &Shared, target: Result<Target, Failure>, request: HttpRequest) -> Response {
    let outcome = match target {
        Ok(target) => exchange(service, target, request).await,
        Err(failure) => Err(failure),
    };
    outcome.unwrap_or_else(|failure| Family::HuggingFace.failure(&failure))
}

fn bad_path(rejection: PathRejection) -> Failure {
    Failure::new(Kind::UnknownRoute, format!("the path can't be read: {}", rejection.body_text()))
}

/// The model and the task that a path names.
struct Target {
    model: Option<String>,
    task: Option<Task>,
}

impl Target {
    fn new(model: &str, task: Option<&str>) -> Result<Self, Failure> {
        let task = task.map(str::parse).transpose();
        let task =
            task.map_err(|error: centuple_tasks::UnknownTask| Failure::new(Kind::UnknownRoute, error.to_string()))?;
        Ok(Self { model: Some(model.to_owned()), task })
    }
}

impl Dialect for Target {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let served = match &self.model {
            Some(id) => models.find(id)?,
            None => models.find_or_only(None)?,
        };
        let request = match self.task {
            Some(task) => Request::parse(task, body)?,
            None => Request::parse_for(&served.model, body)?,
        };
        Ok((served, request.into()))
    }

    fn write(&self, _: &Model, done: Done, _: Usage) -> Written {
        done.to_json().into()
    }
}
