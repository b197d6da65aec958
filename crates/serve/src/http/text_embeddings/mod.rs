//! The routes of text-embeddings-inference: `/embed`, `/embed_all`, `/embed_sparse`, `/predict`,
//! `/rerank`, `/similarity`, `/tokenize`, `/decode`.
//!
//! Where several models are served, a route goes to the only one that can answer it; `model` in
//! the body names another. A text that is too long is cut if `truncate` is true; where it is
//! absent, as the server is configured. Any number of inputs is split into batches. `/rerank` also
//! answers Infinity's clients, who send `documents` for `texts`.

mod predict;
mod tokens;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request as HttpRequest, State},
    response::Response,
    routing::post,
};
use centuple_tasks::{
    Direction, Head, Model, OneOrMany, Reply, Request, Task, TaskError, Usage,
    feature_extraction::{self, Inputs},
    from_json, sentence_similarity,
    text_ranking::{self, Document},
};
use serde::{Deserialize, Serialize};

use super::{Shared, errors::Family, exchange, infinity, openai::Input, reply};
use crate::service::{Dialect, Done, Failure, Kind, Models, Served, Work, Written};
use predict::Predict;
pub(super) use predict::is_no_ranker;

/// The roots of these routes.
pub(super) const PATHS: [&str; 8] =
    ["/embed", "/embed_all", "/embed_sparse", "/predict", "/rerank", "/similarity", "/tokenize", "/decode"];

/// The routes.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/embed", post(embed))
        .route("/embed_all", post(embed_all))
        .route("/embed_sparse", post(embed_sparse))
        .route("/predict", post(predict))
        .route("/rerank", post(rerank))
        .route("/similarity", post(similarity))
        .route("/tokenize", post(tokenize))
        .route("/decode", post(decode))
}

async fn answer(service: &Shared, dialect: impl Dialect, request: HttpRequest) -> Response {
    exchange(service, dialect, request).await.unwrap_or_else(|failure| Family::TextEmbeddings.failure(&failure))
}

async fn embed(State(service): State<Shared>, request: HttpRequest) -> Response {
    answer(&service, Embed { form: Form::Sentence, cut: service.config.auto_truncate }, request).await
}

async fn embed_all(State(service): State<Shared>, request: HttpRequest) -> Response {
    answer(&service, Embed { form: Form::Tokens, cut: service.config.auto_truncate }, request).await
}

async fn embed_sparse(State(service): State<Shared>, request: HttpRequest) -> Response {
    answer(&service, Embed { form: Form::Sparse, cut: service.config.auto_truncate }, request).await
}

async fn predict(State(service): State<Shared>, request: HttpRequest) -> Response {
    answer(&service, Predict::new(service.config.auto_truncate), request).await
}

async fn rerank(State(service): State<Shared>, request: HttpRequest) -> Response {
    answer(&service, Rerank { infinity: false, cut: service.config.auto_truncate }, request).await
}

async fn similarity(State(service): State<Shared>, request: HttpRequest) -> Response {
    answer(&service, Similarity { cut: service.config.auto_truncate }, request).await
}

async fn tokenize(State(service): State<Shared>, request: HttpRequest) -> Response {
    reply(&service, request, tokens::write_tokens)
        .await
        .unwrap_or_else(|failure| Family::TextEmbeddings.failure(&failure))
}

async fn decode(State(service): State<Shared>, request: HttpRequest) -> Response {
    reply(&service, request, tokens::write_texts)
        .await
        .unwrap_or_else(|failure| Family::TextEmbeddings.failure(&failure))
}

/// The kind of vectors that a route gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Sentence,
    Tokens,
    Sparse,
}

impl Form {
    fn of(model: &Model) -> Option<Self> {
        match &model.card.head {
            Head::SentenceEmbedding(_) => Some(Form::Sentence),
            Head::TokenFeatures { .. } | Head::LateInteraction { .. } => Some(Form::Tokens),
            Head::SparseEmbedding { .. } => Some(Form::Sparse),
            Head::Classification { .. }
            | Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::MaskedLm { .. } => None,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Form::Sentence => "/embed",
            Form::Tokens => "/embed_all",
            Form::Sparse => "/embed_sparse",
        }
    }
}

/// Reads the bodies of `/embed`, `/embed_all` and `/embed_sparse`.
struct Embed {
    form: Form,
    cut: bool,
}

#[derive(Deserialize)]
struct EmbedBody {
    inputs: Input,
    model: Option<String>,
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
    prompt_name: Option<String>,
    normalize: Option<bool>,
    dimensions: Option<usize>,
}

impl Dialect for Embed {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let body: EmbedBody = from_json(body)?;
        let form = self.form;
        let served =
            models.find_for(body.model.as_deref(), Task::FeatureExtraction, |model| Form::of(model) == Some(form))?;
        let id = &served.model.card.id;
        match Form::of(&served.model) {
            Some(own) if own == form => {}
            Some(own) => {
                let message =
                    format!("model `{id}` doesn't answer {}; send the request to {}", form.path(), own.path());
                return Err(Failure::new(Kind::Invalid, message));
            }
            None => {
                let message = format!("model `{id}` gives no embeddings; serve a model that does");
                return Err(Failure::new(Kind::Invalid, message));
            }
        }
        let inputs = match body.inputs.0 {
            Inputs::Texts(texts) => {
                not_empty(texts.items.iter().map(String::is_empty))?;
                Inputs::Texts(OneOrMany::many(texts.items))
            }
            Inputs::Tokens(tokens) => {
                not_empty(tokens.items.iter().map(Vec::is_empty))?;
                Inputs::Tokens(OneOrMany::many(tokens.items))
            }
        };
        let parameters = feature_extraction::Parameters {
            normalize: body.normalize.or((form == Form::Sentence).then_some(true)),
            prompt_name: body.prompt_name,
            truncate: body.truncate.or(Some(self.cut)),
            truncation_direction: body.truncation_direction,
            dimensions: body.dimensions,
            encoding_format: None,
        };
        let request = Request::FeatureExtraction(feature_extraction::Request { inputs, parameters });
        Ok((served, request.into()))
    }

    fn write(&self, _: &Model, done: Done, _: Usage) -> Written {
        done.to_json().into()
    }
}

/// Refuses a list without an element, and an element without anything in it.
fn not_empty(mut empty: impl ExactSizeIterator<Item = bool>) -> Result<(), Failure> {
    if empty.len() == 0 {
        return Err(TaskError::Empty("inputs").into());
    }
    match empty.position(|empty| empty) {
        Some(index) => {
            let message = format!("`inputs`: element {index} is empty; give at least one character or token");
            Err(Failure { field: Some("inputs".into()), ..Failure::new(Kind::Empty, message) })
        }
        None => Ok(()),
    }
}

/// Reads the bodies of `/rerank`.
struct Rerank {
    /// Whether the request was one of Infinity's.
    infinity: bool,
    cut: bool,
}

#[derive(Deserialize)]
struct RerankBody {
    query: String,
    texts: Option<Vec<Document>>,
    documents: Option<Vec<Document>>,
    model: Option<String>,
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
    raw_scores: Option<bool>,
    #[serde(alias = "return_documents")]
    return_text: Option<bool>,
    top_n: Option<usize>,
}

impl Dialect for Rerank {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let body: RerankBody = from_json(body)?;
        let served = models.find_for(body.model.as_deref(), Task::TextRanking, |_| true)?;
        self.infinity = body.documents.is_some();
        let texts = match (body.texts, body.documents) {
            (Some(texts), None) | (None, Some(texts)) => texts,
            (Some(_), Some(_)) | (None, None) => {
                let message = "give either `texts` or, as to Infinity, `documents`".into();
                return Err(Failure::new(Kind::Invalid, message));
            }
        };
        check_ranking(if self.infinity { "documents" } else { "texts" }, &texts, body.top_n)?;
        let parameters = text_ranking::Parameters {
            top_k: body.top_n,
            return_documents: body.return_text,
            raw_scores: body.raw_scores,
            truncate: body.truncate.or(Some(self.cut || self.infinity)),
            truncation_direction: body.truncation_direction,
        };
        let inputs = text_ranking::Inputs { query: body.query, texts };
        Ok((served, Request::TextRanking(text_ranking::Request { inputs, parameters }).into()))
    }

    fn write(&self, model: &Model, done: Done, usage: Usage) -> Written {
        match done {
            Done::Reply(Reply::Ranking(ranked)) if self.infinity => infinity::ranking(model, ranked, usage).into(),
            Done::Reply(_) | Done::Outputs(_) => done.to_json().into(),
        }
    }
}

/// Refuses no text, and a reply of none, in the words of the routes that share this task; `name` is that of the texts.
pub(super) fn check_ranking(name: &'static str, texts: &[Document], top_n: Option<usize>) -> Result<(), TaskError> {
    if texts.is_empty() {
        return Err(TaskError::Empty(name));
    }
    match top_n {
        Some(0) => {
            let reason = "0 texts are none; give 1 or more, or leave it out for all texts".into();
            Err(TaskError::Parameter { name: "top_n", reason })
        }
        Some(_) | None => Ok(()),
    }
}

/// Reads the bodies of `/similarity`.
struct Similarity {
    cut: bool,
}

#[derive(Deserialize)]
struct SimilarityBody {
    inputs: sentence_similarity::Inputs,
    model: Option<String>,
    parameters: Option<sentence_similarity::Parameters>,
}

impl Dialect for Similarity {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let SimilarityBody { inputs, model, parameters } = from_json(body)?;
        let served = models.find_for(model.as_deref(), Task::SentenceSimilarity, |_| true)?;
        let mut parameters = parameters.unwrap_or_default();
        parameters.truncate = parameters.truncate.or(Some(self.cut));
        Ok((served, Request::SentenceSimilarity(sentence_similarity::Request { inputs, parameters }).into()))
    }

    fn write(&self, _: &Model, done: Done, _: Usage) -> Written {
        done.to_json().into()
    }
}

/// JSON text of finite numbers and strings, which can't fail to be written.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
