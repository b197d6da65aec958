//! Routes for those who run the server: `/health`, `/ping`, `/info`, `/metrics`.

use axum::{
    Json,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use centuple_tasks::{Head, Task};
use serde_json::{Map, Value, json};

use super::Shared;
use crate::service::Served;

/// `GET /health` and `GET /ping`: alive and able to answer; the listener is closed otherwise.
pub(super) async fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// `GET /metrics` in the text format of Prometheus.
pub(super) async fn metrics(State(service): State<Shared>) -> Response {
    service.models.0.iter().for_each(|served| served.metrics.refresh());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], service.metrics.render()).into_response()
}

/// `GET /info`: the first model under the names of text-embeddings-inference, then all of them.
pub(super) async fn info(State(service): State<Shared>) -> Response {
    let config = &service.config;
    let mut info = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "max_concurrent_requests": config.max_queued_requests,
        "max_batch_tokens": config.max_batch_tokens,
        "max_client_batch_size": config.max_inputs,
        "auto_truncate": config.auto_truncate,
    });
    let mut models = service.models.0.iter().map(|served| describe(served)).collect::<Vec<_>>();
    if let (Value::Object(info), Some(Value::Object(first))) = (&mut info, models.first().cloned()) {
        info.extend(first);
    }
    info["models"] = Value::Array(std::mem::take(&mut models));
    Json(info).into_response()
}

fn describe(served: &Served) -> Value {
    let model = &served.model;
    let card = &model.card;
    json!({
        "model_id": card.id,
        "model_sha": card.revision,
        "model_dtype": card.dtype,
        "model_type": model_type(&card.head),
        "architecture": card.architecture,
        "tasks": card.tasks().iter().copied().map(Task::name).collect::<Vec<_>>(),
        "max_input_length": model.tokenizer.max_tokens(),
        "prompts": card.prompts.keys().collect::<Vec<_>>(),
        "report": served.report.is_some(),
    })
}

fn model_type(head: &Head) -> Value {
    match head {
        Head::TokenFeatures { dimension } => json!({"features": {"dimension": dimension}}),
        Head::SentenceEmbedding(embedding) => {
            json!({"embedding": {"pooling": embedding.pooling, "dimension": embedding.dimension}})
        }
        Head::Classification { labels, .. } => json!({"classifier": labels_by_id(labels)}),
        Head::TokenClassification { labels } => json!({"token_classifier": labels_by_id(labels)}),
        Head::QuestionAnswering => json!({"question_answering": {}}),
        Head::MaskedLm { vocabulary } => json!({"masked_lm": {"vocabulary": vocabulary}}),
        Head::SparseEmbedding { vocabulary } => {
            json!({"embedding": {"pooling": "splade", "dimension": vocabulary}})
        }
        Head::LateInteraction { dimension } => json!({"late_interaction": {"dimension": dimension}}),
    }
}

fn labels_by_id(labels: &[String]) -> Value {
    let id2label: Map<_, _> = labels.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let label2id: Map<_, _> = labels.iter().enumerate().map(|(id, label)| (label.clone(), json!(id))).collect();
    json!({"id2label": id2label, "label2id": label2id})
}
