//! Cohere's rerank: `POST /v1/rerank`, `POST /v2/rerank`, and `/openai/v1/rerank`.
//!
//! The reply is one for both versions and for the clients of other servers that have this route:
//! it holds `meta` and `usage`, and each document unless `return_documents` is false. Of query and
//! document the longer one is cut where both are too long. Unknown fields are ignored.

use std::sync::Arc;

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
    routing::post,
};
use centuple_tasks::{
    Model, Reply, Usage, from_json,
    schema::{Components, documents},
    text_ranking::{self, Document, Inputs, Parameters},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Shared, access,
    errors::Family,
    exchange,
    openai::Tokens,
    openapi::{Operation, Tag},
    routes::Routes,
    text_embeddings::ranks,
};
use crate::{
    service::{Dialect, Done, Failure, Models, Served, Work, Written},
    text_embeddings,
};

/// The paths of this family.
pub(super) const PATHS: [&str; 3] = ["/v1/rerank", "/v2/rerank", "/openai/v1/rerank"];

/// The routes.
pub(super) fn routes() -> Routes {
    let first = post(|state: State<Shared>, request: HttpRequest| rerank(state, 1, request));
    let second = post(|state: State<Shared>, request: HttpRequest| rerank(state, 2, request));
    let described = |path| {
        Operation::post(path, "Documents in the order in which they answer a query")
            .tag(Tag::Cohere)
            .body(Components::add::<Body>, example)
            .replies(Components::add::<Ranking<'_>>)
    };
    Routes::new()
        .at("/v1/rerank", first.clone(), [described("/v1/rerank")])
        .at("/openai/v1/rerank", first, [described("/openai/v1/rerank")])
        .at("/v2/rerank", second, [described("/v2/rerank")])
}

fn example(model: &Model) -> Vec<(&'static str, Value)> {
    let body = json!({
        "query": "How do I reset my password?",
        "documents": ["Choose \"Forgot password\" on the sign-in page.", "Our office is open on weekdays."],
        "top_n": 2,
    });
    ranks(model).then_some(("documents", body)).into_iter().collect()
}

async fn rerank(State(service): State<Shared>, version: u8, request: HttpRequest) -> Response {
    let outcome = exchange(&service, Rerank { version }, request).await;
    outcome.unwrap_or_else(|failure| Family::Cohere.failure(&failure))
}

/// A query and documents.
#[derive(Deserialize, ToSchema)]
#[schema(as = CohereRerankRequest)]
struct Body {
    /// What is asked for.
    query: String,
    /// The documents.
    #[schema(schema_with = documents)]
    documents: Vec<Document>,
    /// The model; while one is served, any name is its.
    model: Option<String>,
    /// Documents to keep; absent: all of them.
    #[schema(minimum = 1)]
    top_n: Option<usize>,
    /// Whether the reply has the documents; it has by default.
    return_documents: Option<bool>,
}

/// Reads the bodies of both versions.
struct Rerank {
    version: u8,
}

impl Dialect for Rerank {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let Body { query, documents, model, top_n, return_documents } = from_json(body)?;
        let return_documents = return_documents.or(Some(true));
        let parameters = Parameters { top_k: top_n, return_documents, ..Parameters::default() };
        let inputs = Inputs { query, texts: documents };
        let (served, request) = text_embeddings::rerank(models, model.as_deref(), "documents", inputs, parameters)?;
        Ok((served, request.into()))
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

/// Documents, best first.
#[derive(Serialize, ToSchema)]
#[schema(as = CohereRanking)]
struct Ranking<'a> {
    id: String,
    model: &'a str,
    usage: Tokens,
    meta: Value,
    results: Vec<Ranked>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CohereRanked)]
struct Ranked {
    /// Its place in the request.
    index: usize,
    /// How well it answers the query.
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Text>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CohereText)]
struct Text {
    text: String,
}
