//! What Infinity's clients send elsewhere than those of other servers: `POST /embeddings` and
//! `GET /models`, which are OpenAI's at the root, and `POST /classify`. Its `/rerank` shares the
//! route of text-embeddings-inference.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{Request as HttpRequest, State},
    response::Response,
    routing::{get, post},
};
use centuple_tasks::{
    Model, OneOrMany, Reply, Request, Task, TaskError, Usage, from_json,
    text_classification::{self, Function, Input, Parameters, Score},
    text_ranking,
};
use serde::{Deserialize, Serialize};

use super::{
    Shared, access,
    errors::Family,
    exchange,
    openai::{self, Tokens},
    text_embeddings::is_no_ranker,
};
use crate::service::{Dialect, Done, Failure, Models, Served, Work, Written};

/// The roots of these routes, less those that others have.
pub(super) const PATHS: [&str; 2] = ["/embeddings", "/classify"];

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/embeddings", post(openai::embeddings))
        .route("/models", get(openai::models))
        .route("/classify", post(classify))
}

async fn classify(State(service): State<Shared>, request: HttpRequest) -> Response {
    exchange(&service, Classify, request).await.unwrap_or_else(|failure| Family::OpenAi.failure(&failure))
}

/// Reads the bodies of `/classify`.
struct Classify;

#[derive(Deserialize)]
struct Body {
    input: OneOrMany<Input>,
    model: Option<String>,
    raw_scores: Option<bool>,
}

impl Dialect for Classify {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let Body { input: inputs, model, raw_scores } = from_json(body)?;
        let served = models.find_for(model.as_deref(), Task::TextClassification, is_no_ranker)?;
        if inputs.items.is_empty() {
            return Err(TaskError::Empty("input").into());
        }
        let function_to_apply = raw_scores.unwrap_or(false).then_some(Function::None);
        let parameters = Parameters { function_to_apply, ..Parameters::default() };
        let request = text_classification::Request { inputs, parameters };
        Ok((served, Request::TextClassification(request).into()))
    }

    fn write(&self, model: &Model, done: Done, usage: Usage) -> Written {
        let Done::Reply(Reply::Classifications(data)) = done else { return Written::from(Vec::new()) };
        Envelope::new("classify", model, usage, Data::Classes { data }).to_json().into()
    }
}

/// The reply of Infinity's `/rerank`.
pub(super) fn ranking(model: &Model, ranked: Vec<text_ranking::Ranked>, usage: Usage) -> Vec<u8> {
    let result =
        |place: text_ranking::Ranked| Ranked { relevance_score: place.score, index: place.index, document: place.text };
    let results = ranked.into_iter().map(result).collect();
    Envelope::new("rerank", model, usage, Data::Ranking { results }).to_json()
}

#[derive(Serialize)]
struct Envelope<'a> {
    object: &'static str,
    #[serde(flatten)]
    data: Data,
    model: &'a str,
    usage: Tokens,
    id: String,
    /// Seconds since 1970.
    created: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data {
    Classes { data: Vec<Vec<Score>> },
    Ranking { results: Vec<Ranked> },
}

#[derive(Serialize)]
struct Ranked {
    relevance_score: f32,
    index: usize,
    document: Option<String>,
}

impl<'a> Envelope<'a> {
    fn new(object: &'static str, model: &'a Model, usage: Usage, data: Data) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let id = format!("infinity-{}", access::new_id());
        Self { object, data, model: &model.card.id, usage: Tokens::of(usage), id, created }
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
