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
    routing::post,
};
use centuple_tasks::{
    GenerationTask, Model, Request, Task, Usage,
    schema::{self, Components, any_of},
    text_generation::Asked,
};
use serde_json::{Value, json};

use super::{
    Shared, access,
    errors::Family,
    exchange, generation,
    openapi::{Operation, Tag},
    pages,
    routes::Routes,
};
use crate::{
    call::Call,
    generation::Wanted,
    service::{Dialect, Done, Failure, Kind, Models, Served, Work, Written},
};

/// The routes.
pub(super) fn routes() -> Routes {
    let only = |path| {
        Operation::post(path, "The only model's main task")
            .about("Where the body has the form of another of the model's tasks, it is that one.")
            .body_without_model(any_request, all_examples)
            .replies(any_reply)
    };
    let by_id = Operation::post("/models/{id}", "A model's main task")
        .about("Where the body has the form of another of the model's tasks, it is that one.")
        .model_in_path("id");
    let by_task = Operation::post("/models/{id}/pipeline/{task}", "A task of a model").model_in_path("id");
    let legacy =
        Operation::post("/pipeline/{task}/{id}", "A task of a model, under the hub's older path").model_in_path("id");
    let task = |operation: Operation| {
        let once = Task::ALL.iter().map(|task| task.name());
        let names: Vec<_> = once.chain(GenerationTask::ALL.iter().map(|task| task.name())).collect();
        let operation = operation.in_path("task", "A task of the model.", json!({"type": "string", "enum": names}));
        operation.body_without_model(any_request, main_example).replies(any_reply).fails(&[Kind::UnknownRoute])
    };
    let by_id = by_id.body_without_model(any_request, all_examples).replies(any_reply);
    Routes::new()
        .at("/", post(root).get(pages::root), [pages::described_root(), only("/").tag(Tag::Tasks)])
        .at("/invocations", post(root), [only("/invocations").tag(Tag::SageMaker)])
        .at("/models/{*rest}", post(model), [by_id.tag(Tag::Tasks), task(by_task).tag(Tag::Tasks)])
        .at("/pipeline/{*rest}", post(pipeline), [task(legacy).tag(Tag::Tasks)])
}

fn any_request(components: &mut Components) -> Value {
    let mut all: Vec<Value> = Task::ALL.iter().map(|task| schema::request(*task, components)).collect();
    all.push(generation::request(components));
    any_of(all)
}

fn any_reply(components: &mut Components) -> Value {
    let mut all: Vec<Value> = Task::ALL.iter().map(|task| schema::reply(*task, components)).collect();
    all.push(generation::replies(components));
    any_of(all)
}

/// A body for each task of a model.
fn all_examples(model: &Model) -> Vec<(&'static str, Value)> {
    model.card.tasks().iter().map(|task| (task.name(), schema::example(*task, model))).collect()
}

fn main_example(model: &Model) -> Vec<(&'static str, Value)> {
    all_examples(model).into_iter().take(1).collect()
}

/// `POST /`, and `POST /invocations` as SageMaker has it: the only model, its main task.
async fn root(State(service): State<Shared>, request: HttpRequest) -> Response {
    answer(&service, Ok(Target::default()), request).await
}

/// `POST /models/{id}` and `POST /models/{id}/pipeline/{task}`.
async fn model(
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
async fn pipeline(
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
        Ok(mut target) => {
            let call = access::call(&request);
            if target.generates(service, call).await {
                let wanted = target.found.map_or(Wanted::Named(target.model), Wanted::Found);
                let asked = target.generation.map_or(Asked::MainTask, Asked::Task);
                return generation::Task::answer(service, asked, wanted, request).await;
            }
            exchange(service, target, request).await
        }
        Err(failure) => Err(failure),
    };
    outcome.unwrap_or_else(|failure| Family::HuggingFace.failure(&failure))
}

fn bad_path(rejection: PathRejection) -> Failure {
    Failure::new(Kind::UnknownRoute, format!("the path can't be read: {}", rejection.body_text()))
}

/// The model and the task that a path names.
#[derive(Default)]
struct Target {
    model: Option<String>,
    task: Option<Task>,
    /// The task of many steps that the path asks for.
    generation: Option<GenerationTask>,
    /// The model, once it was looked up: it answers, whatever has become of it since.
    found: Option<Arc<Served>>,
    /// What the body says of it, once it is read.
    use_cache: Option<bool>,
}

impl Target {
    fn new(model: &str, task: Option<&str>) -> Result<Self, Failure> {
        if let Some(generation) = task.and_then(|task| task.parse().ok()) {
            return Ok(Self { model: Some(model.to_owned()), generation: Some(generation), ..Self::default() });
        }
        let task = task.map(str::parse).transpose();
        let task =
            task.map_err(|error: centuple_tasks::UnknownTask| Failure::new(Kind::UnknownRoute, error.to_string()))?;
        Ok(Self { model: Some(model.to_owned()), task, ..Self::default() })
    }

    /// The model that the path names; the one that was looked up before, if it was.
    fn find(&self, models: &Models) -> Result<Arc<Served>, Failure> {
        match (&self.found, &self.model) {
            (Some(served), _) => Ok(Arc::clone(served)),
            (None, Some(id)) => models.find(id),
            (None, None) => models.find_or_only(None),
        }
    }

    /// Whether the request is for a model that generates. What can't be found here is told by who answers.
    async fn generates(&mut self, service: &Shared, call: Result<Call, Failure>) -> bool {
        if self.generation.is_some() || self.task.is_some() {
            return self.generation.is_some();
        }
        let Ok(call) = call else { return false };
        self.found = service.find(&call, |models| self.find(models)).await.ok();
        self.found.as_ref().is_some_and(|served| served.generator.is_some())
    }
}

impl Dialect for Target {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let served = self.find(models)?;
        let request = match self.task {
            Some(task) => Request::parse(task, body)?,
            None => Request::parse_for(&served.model, body)?,
        };
        self.use_cache = centuple_tasks::use_cache(body);
        Ok((served, request.into()))
    }

    fn use_cache(&self) -> Option<bool> {
        self.use_cache
    }

    fn write(&self, _: &Model, done: Done, _: Usage) -> Written {
        done.to_json().into()
    }
}
