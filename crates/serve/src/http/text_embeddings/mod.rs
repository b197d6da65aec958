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
    extract::{Request as HttpRequest, State},
    response::Response,
    routing::post,
};
use centuple_tasks::{
    Direction, Model, Reply, Request, Task, Usage, feature_extraction, from_json,
    schema::{self, Components, any_of, documents, list_of},
    sentence_similarity,
    text_ranking::{self, Document},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Shared,
    errors::Family,
    exchange, infinity,
    openai::Input,
    openapi::{Operation, Tag},
    reply,
    routes::Routes,
};
use crate::{
    service::{Dialect, Done, Failure, Kind, Models, Served, Work, Written},
    text_embeddings::{self, Form},
};
use predict::Predict;
pub(super) use predict::names_classes;

/// The roots of these routes.
pub(super) const PATHS: [&str; 8] =
    ["/embed", "/embed_all", "/embed_sparse", "/predict", "/rerank", "/similarity", "/tokenize", "/decode"];

/// The routes.
pub(super) fn routes() -> Routes {
    let ask = |path, summary| Operation::post(path, summary).tag(Tag::TextEmbeddings);
    let embed_one = ask("/embed", "Texts or token ids to sentence embeddings")
        .body(Components::add::<EmbedBody>, |model| embed_example(model, Form::Sentence))
        .replies(|components| list_of(schema::row(components)));
    let embed_each = ask("/embed_all", "Texts or token ids to an embedding per token")
        .body(Components::add::<EmbedBody>, |model| embed_example(model, Form::Tokens))
        .replies(|components| list_of(list_of(schema::row(components))));
    let embed_few = ask("/embed_sparse", "Texts or token ids to sparse embeddings")
        .body(Components::add::<EmbedBody>, |model| embed_example(model, Form::Sparse))
        .replies(schema::sparse);
    let rank = ask("/rerank", "Texts in the order in which they answer a query")
        .about("With `documents` for `texts` it answers as Infinity does.")
        .body(Components::add::<RerankBody>, rerank_example)
        .replies(|components| {
            let texts = list_of(components.add::<text_ranking::Ranked>());
            any_of([texts, components.add::<infinity::Envelope<'_>>()])
        });
    let compare = ask("/similarity", "How alike a sentence is to others")
        .body(Components::add::<SimilarityBody>, similarity_example)
        .replies(|_| schema::similarities());
    Routes::new()
        .at("/embed", post(embed), [embed_one])
        .at("/embed_all", post(embed_all), [embed_each])
        .at("/embed_sparse", post(embed_sparse), [embed_few])
        .at("/predict", post(predict), [predict::operation().tag(Tag::TextEmbeddings)])
        .at("/rerank", post(rerank), [rank])
        .at("/similarity", post(similarity), [compare])
        .at("/tokenize", post(tokenize), [tokens::tokenize_operation().tag(Tag::TextEmbeddings)])
        .at("/decode", post(decode), [tokens::decode_operation().tag(Tag::TextEmbeddings)])
}

fn embed_example(model: &Model, form: Form) -> Vec<(&'static str, Value)> {
    let body = json!({"inputs": ["The quick brown fox jumps over the lazy dog.", "A dog sleeps."]});
    (Form::of(&model.card) == Some(form)).then_some(("texts", body)).into_iter().collect()
}

fn rerank_example(model: &Model) -> Vec<(&'static str, Value)> {
    let body = json!({
        "query": "How do I reset my password?",
        "texts": ["Choose \"Forgot password\" on the sign-in page.", "Our office is open on weekdays."],
        "return_text": true,
    });
    ranks(model).then_some(("texts", body)).into_iter().collect()
}

fn similarity_example(model: &Model) -> Vec<(&'static str, Value)> {
    let alike = model.card.tasks().contains(&Task::SentenceSimilarity);
    alike.then(|| ("sentences", schema::example(Task::SentenceSimilarity, model))).into_iter().collect()
}

/// Whether a model ranks texts.
pub(super) fn ranks(model: &Model) -> bool {
    model.card.tasks().contains(&Task::TextRanking)
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

/// Reads the bodies of `/embed`, `/embed_all` and `/embed_sparse`.
struct Embed {
    form: Form,
    cut: bool,
}

/// What to embed, and how.
#[derive(Deserialize, ToSchema)]
#[schema(as = EmbedRequest)]
struct EmbedBody {
    inputs: Input,
    /// The model; without it the only one that this route can be answered by.
    model: Option<String>,
    /// Whether a text that is too long is cut.
    truncate: Option<bool>,
    /// Which end is cut.
    truncation_direction: Option<Direction>,
    /// Name of a prompt of the model.
    prompt_name: Option<String>,
    /// Whether vectors have length 1; sentence embeddings have by default.
    normalize: Option<bool>,
    /// Length that vectors are cut to.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
}

impl Dialect for Embed {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let body: EmbedBody = from_json(body)?;
        let parameters = feature_extraction::Parameters {
            normalize: body.normalize,
            prompt_name: body.prompt_name,
            truncate: body.truncate.or(Some(self.cut)),
            truncation_direction: body.truncation_direction,
            dimensions: body.dimensions,
            encoding_format: None,
        };
        let model = body.model.as_deref();
        let (served, request) = text_embeddings::embed(models, model, self.form, body.inputs.0, parameters)?;
        Ok((served, request.into()))
    }

    fn write(&self, _: &Model, done: Done, _: Usage) -> Written {
        done.to_json().into()
    }
}

/// Reads the bodies of `/rerank`.
struct Rerank {
    /// Whether the request was one of Infinity's.
    infinity: bool,
    cut: bool,
}

/// A query and texts.
#[derive(Deserialize, ToSchema)]
#[schema(as = RerankRequest)]
struct RerankBody {
    /// What is asked for.
    query: String,
    /// The texts.
    #[schema(schema_with = documents)]
    texts: Option<Vec<Document>>,
    /// The texts, as Infinity's clients name them.
    #[schema(schema_with = documents)]
    documents: Option<Vec<Document>>,
    /// The model; without it the only one that ranks.
    model: Option<String>,
    /// Whether a pair that is too long is cut.
    truncate: Option<bool>,
    /// Which end is cut.
    truncation_direction: Option<Direction>,
    /// Whether scores are logits.
    raw_scores: Option<bool>,
    /// Whether the reply has the texts.
    #[serde(alias = "return_documents")]
    return_text: Option<bool>,
    /// Texts to keep; absent: all of them.
    #[schema(minimum = 1)]
    top_n: Option<usize>,
}

impl Dialect for Rerank {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let body: RerankBody = from_json(body)?;
        self.infinity = body.documents.is_some();
        let texts = match (body.texts, body.documents) {
            (Some(texts), None) | (None, Some(texts)) => texts,
            (Some(_), Some(_)) | (None, None) => {
                let message = "give either `texts` or, as to Infinity, `documents`".into();
                return Err(Failure::new(Kind::Invalid, message));
            }
        };
        let parameters = text_ranking::Parameters {
            top_k: body.top_n,
            return_documents: body.return_text,
            raw_scores: body.raw_scores,
            truncate: body.truncate.or(Some(self.cut || self.infinity)),
            truncation_direction: body.truncation_direction,
        };
        let inputs = text_ranking::Inputs { query: body.query, texts };
        let name = if self.infinity { "documents" } else { "texts" };
        let (served, request) = text_embeddings::rerank(models, body.model.as_deref(), name, inputs, parameters)?;
        Ok((served, request.into()))
    }

    fn write(&self, model: &Model, done: Done, usage: Usage) -> Written {
        match done {
            Done::Reply(Reply::Ranking(ranked)) if self.infinity => infinity::ranking(model, ranked, usage).into(),
            Done::Reply(_) | Done::Outputs(_) => done.to_json().into(),
        }
    }
}

/// Reads the bodies of `/similarity`.
struct Similarity {
    cut: bool,
}

/// Sentences to be compared.
#[derive(Deserialize, ToSchema)]
#[schema(as = SimilarityRequest)]
struct SimilarityBody {
    inputs: sentence_similarity::Inputs,
    /// The model; without it the only one of sentence embeddings.
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
