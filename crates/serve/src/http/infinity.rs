//! What Infinity's clients send elsewhere than those of other servers: `POST /embeddings`, which is
//! OpenAI's at the root, `GET /models` and `POST /classify`. Its `/rerank` shares the route of
//! text-embeddings-inference.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Request as HttpRequest, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use centuple_tasks::{
    Model, OneOrMany, Reply, Request, Task, TaskError, Usage, from_json,
    schema::{Components, one_or_many_inputs},
    text_classification::{self, Function, Input, Parameters, Score},
    text_ranking,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Shared, access,
    errors::Family,
    exchange,
    openai::{self, Tokens},
    openapi::{Operation, Tag},
    routes::Routes,
    text_embeddings::names_classes,
};
use crate::{
    config::Config,
    service::{Dialect, Done, Failure, Models, Served, Work, Written},
    text_embeddings::is_no_ranker,
};

/// The roots of these routes, less those that others have.
pub(super) const PATHS: [&str; 2] = ["/embeddings", "/classify"];

/// The routes.
pub(super) fn routes() -> Routes {
    let example = |model: &Model| {
        let body = json!({"input": ["The food was wonderful and the staff were kind."]});
        names_classes(model).then_some(("texts", body)).into_iter().collect()
    };
    let classes = Operation::post("/classify", "Texts to classes")
        .tag(Tag::Infinity)
        .body(Components::add::<Body>, example)
        .replies(Components::add::<Envelope<'_>>);
    let list = Operation::get("/models", "The models that are served").tag(Tag::Infinity).replies(models_schema);
    Routes::new()
        .at("/embeddings", post(embeddings), [openai::embeddings_operation(Tag::Infinity)])
        .at("/models", get(models), [list])
        .at("/classify", post(classify), [classes])
}

async fn embeddings(State(service): State<Shared>, request: HttpRequest) -> Response {
    openai::embed(&service, openai::Embeddings::of_infinity(), request).await
}

/// The models in the words of Infinity's clients, which know one owner and want statistics.
async fn models(State(service): State<Shared>) -> Response {
    // What a model can do is not known before it is loaded.
    let known = service.models.known();
    let loaded = known.iter().filter(|known| known.default).filter_map(|known| known.served.as_deref());
    let list: Vec<_> = loaded.map(|served| describe(served, &service.config)).collect();
    Json(json!({"object": "list", "data": list})).into_response()
}

fn models_schema(_: &mut Components) -> Value {
    let (text, number) = (json!({"type": "string"}), json!({"type": "number", "minimum": 0}));
    let stats = json!({
        "type": "object",
        "required": ["queue_fraction", "queue_absolute", "results_pending", "batch_size"],
        "properties": {
            "queue_fraction": number, "queue_absolute": number, "results_pending": number, "batch_size": number,
        },
    });
    let model = json!({
        "type": "object",
        "required": ["id", "object", "created", "owned_by", "backend", "capabilities", "stats"],
        "properties": {
            "id": text,
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": text,
            "backend": text,
            "capabilities": {"type": "array", "items": {"enum": ["embed", "classify", "rerank"]}},
            "stats": stats,
        },
    });
    json!({
        "type": "object",
        "required": ["object", "data"],
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": model}},
    })
}

fn describe(served: &Served, config: &Config) -> Value {
    let (card, waiting) = (&served.model.card, served.queue.load().requests());
    let capability = |task: &Task| match task {
        Task::FeatureExtraction => Some("embed"),
        Task::TextClassification => Some("classify"),
        Task::TextRanking => Some("rerank"),
        Task::SentenceSimilarity
        | Task::ZeroShotClassification
        | Task::TokenClassification
        | Task::QuestionAnswering
        | Task::FillMask => None,
    };
    json!({
        "id": card.id,
        "object": "model",
        "created": 0,
        "owned_by": "infinity",
        "backend": "centuple",
        "capabilities": card.tasks().iter().filter_map(capability).collect::<Vec<_>>(),
        "stats": {
            "queue_fraction": waiting as f64 / config.max_queued_requests.max(1) as f64,
            "queue_absolute": waiting,
            "results_pending": waiting,
            "batch_size": config.max_inputs,
        },
    })
}

async fn classify(State(service): State<Shared>, request: HttpRequest) -> Response {
    exchange(&service, Classify, request).await.unwrap_or_else(|failure| Family::OpenAi.failure(&failure))
}

/// Reads the bodies of `/classify`.
struct Classify;

/// Texts to be classified.
#[derive(Deserialize, ToSchema)]
#[schema(as = InfinityClassifyRequest)]
struct Body {
    #[schema(schema_with = one_or_many_inputs)]
    input: OneOrMany<Input>,
    /// The model; while one is served, any name is its.
    model: Option<String>,
    /// Whether scores are logits.
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

/// What Infinity puts around classes and rankings.
#[derive(Serialize, ToSchema)]
#[schema(as = InfinityReply)]
pub(super) struct Envelope<'a> {
    object: &'static str,
    #[serde(flatten)]
    data: Data,
    model: &'a str,
    usage: Tokens,
    id: String,
    /// Seconds since 1970.
    created: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = InfinityData)]
#[serde(untagged)]
enum Data {
    Classes { data: Vec<Vec<Score>> },
    Ranking { results: Vec<Ranked> },
}

#[derive(Serialize, ToSchema)]
#[schema(as = InfinityRanked)]
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
