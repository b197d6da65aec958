//! Cohere's rerank: `POST /v1/rerank`, `POST /v2/rerank`, and `/openai/v1/rerank`.
//!
//! The reply is one for both versions and for the clients of other servers that have this route:
//! it holds `meta` and `usage`, and each document unless `return_documents` is false. Of query and
//! document the longer one is cut where both are too long. Unknown fields are ignored.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request as HttpRequest, State},
    response::Response,
    routing::post,
};
use centuple_tasks::{
    Model, Reply, Request, Task, Usage, from_json,
    text_ranking::{self, Document, Inputs, Parameters},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Shared, access, errors::Family, exchange, openai::Tokens, text_embeddings::check_ranking};
use crate::service::{Dialect, Done, Failure, Models, Served, Work, Written};

/// The paths of this family.
pub(super) const PATHS: [&str; 3] = ["/v1/rerank", "/v2/rerank", "/openai/v1/rerank"];

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    let first = post(|state: State<Shared>, request: HttpRequest| rerank(state, 1, request));
    Router::new()
        .route("/v1/rerank", first.clone())
        .route("/openai/v1/rerank", first)
        .route("/v2/rerank", post(|state: State<Shared>, request: HttpRequest| rerank(state, 2, request)))
}

async fn rerank(State(service): State<Shared>, version: u8, request: HttpRequest) -> Response {
    let outcome = exchange(&service, Rerank { version }, request).await;
    outcome.unwrap_or_else(|failure| Family::Cohere.failure(&failure))
}

#[derive(Deserialize)]
struct Body {
    query: String,
    documents: Vec<Document>,
    model: Option<String>,
    top_n: Option<usize>,
    return_documents: Option<bool>,
}

/// Reads the bodies of both versions.
struct Rerank {
    version: u8,
}

impl Dialect for Rerank {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let Body { query, documents, model, top_n, return_documents } = from_json(body)?;
        let served = models.find_for(model.as_deref(), Task::TextRanking, |_| true)?;
        check_ranking("documents", &documents, top_n)?;
        let return_documents = return_documents.or(Some(true));
        let parameters = Parameters { top_k: top_n, return_documents, ..Parameters::default() };
        let request = text_ranking::Request { inputs: Inputs { query, texts: documents }, parameters };
        Ok((served, Request::TextRanking(request).into()))
    }

    fn write(&self, model: &Model, done: Done, usage: Usage) -> Written {
        let Done::Reply(Reply::Ranking(ranked)) = done else { return Written::from(Vec::new()) };
        let result = |place: text_ranking::Ranked| Ranked {
            index: place.index,
            relevance_score: place.score,
            document: place.text.map(|text| Text { text }),
        };
        let reply = Ranking {
            id: access::new_id(),
            model: &model.card.id,
            usage: Tokens::of(usage),
            meta: json!({
                "api_version": {"version": self.version.to_string()},
                "billed_units": {"search_units": 1},
            }),
            results: ranked.into_iter().map(result).collect(),
        };
        serde_json::to_vec(&reply).unwrap_or_default().into()
    }
}

#[derive(Serialize)]
struct Ranking<'a> {
    id: String,
    model: &'a str,
    usage: Tokens,
    meta: Value,
    results: Vec<Ranked>,
}

#[derive(Serialize)]
struct Ranked {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Text>,
}

#[derive(Serialize)]
struct Text {
    text: String,
}
