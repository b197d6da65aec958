//! Routes for those who run the server: `/health`, `/ping`, `/info`, `/metrics`.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use centuple_tasks::{
    Head, Model, ModelCard, Task,
    schema::{Components, list_of, text},
};
use serde_json::{Map, Value, json};

use super::{
    Shared,
    openapi::{self, Operation, Tag},
    pages, report,
    routes::Routes,
};
use crate::{models::Known, service::Served};

/// The routes, and those of reports and pages.
pub(super) fn routes() -> Routes {
    let healthy = |path, tag| {
        let status = |_: &mut Components| {
            let words = json!({"enum": ["ok", "loading", "stopping"]});
            json!({"type": "object", "required": ["status"], "properties": {"status": words}})
        };
        let operation = Operation::get(path, "Whether the server is ready").tag(tag).replies(status);
        operation.when_closing(StatusCode::SERVICE_UNAVAILABLE, status)
    };
    let information = Operation::get("/info", "The server's limits and its models").replies(info_schema);
    let figures = Operation::get("/metrics", "Metrics in the text format of Prometheus")
        .replies_as("text/plain", |_| json!({"type": "string"}));
    let document = Operation::get("/openapi.json", "This document").replies(|_| json!({"type": "object"}));
    let for_people =
        Operation::get("/docs", "This document as a page").replies_as("text/html", |_| json!({"type": "string"}));
    Routes::new()
        .at("/health", get(health), [healthy("/health", Tag::Operations)])
        .at("/ping", get(health), [healthy("/ping", Tag::SageMaker)])
        .at("/info", get(info), [information])
        .at("/metrics", get(metrics), [figures])
        .at("/report", get(report::negotiated), [report::operation("/report").replies_as("text/html", |_| json!({}))])
        .at("/report.json", get(report::json), [report::operation("/report.json")])
        .at("/openapi.json", get(openapi::document), [document])
        .at("/docs", get(pages::docs), [for_people])
}

/// `GET /health` and `GET /ping`: whether everything is loaded that is loaded at the start.
async fn health(State(service): State<Shared>) -> Response {
    match service.models.is_ready() {
        true => Json(json!({"status": "ok"})).into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "loading"}))).into_response(),
    }
}

/// `GET /metrics` in the text format of Prometheus.
async fn metrics(State(service): State<Shared>) -> Response {
    service.models.all().iter().for_each(|served| served.refresh());
    service.metrics.cached(service.cache.bytes());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], service.metrics.render()).into_response()
}

/// `GET /info`: the first model under the names of text-embeddings-inference, then all of them, loaded or not.
async fn info(State(service): State<Shared>) -> Response {
    let config = &service.config;
    let mut info = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "max_concurrent_requests": config.max_queued_requests,
        "max_batch_tokens": config.max_batch_tokens,
        "max_client_batch_size": config.max_inputs,
        "auto_truncate": config.auto_truncate,
    });
    let known = service.models.known();
    let mut models: Vec<_> = known.iter().map(describe).collect();
    if let (Value::Object(info), Some(Value::Object(first))) = (&mut info, models.first().cloned()) {
        info.extend(first);
    }
    info["models"] = Value::Array(std::mem::take(&mut models));
    Json(info).into_response()
}

fn info_schema(components: &mut Components) -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    let model = json!({
        "type": "object",
        "required": ["model_id", "model_version", "state", "tasks"],
        "description": "What it is, is told once it is loaded.",
        "properties": {
            "model_id": text(),
            "model_version": text(),
            "state": {"enum": ["ready", "loading", "unloading", "unavailable"]},
            "reason": {"type": "string", "description": "Why it is not loaded, or not as its files are now."},
            "model_sha": {"type": ["string", "null"], "description": "The commit on the hub, where it is known."},
            "model_dtype": text(),
            "model_type": {"type": "object", "description": "What comes out of it."},
            "architecture": text(),
            "tasks": list_of(text()),
            "max_input_length": count,
            "prompts": list_of(text()),
            "report": {"type": "boolean", "description": "Whether `/report` has one."},
        },
    });
    let model = components.insert("ModelInfo", model);
    let server = json!({
        "type": "object",
        "required": ["version", "max_batch_tokens", "max_client_batch_size", "auto_truncate", "models"],
        "description": "The first model's fields stand here too, as in text-embeddings-inference.",
        "properties": {
            "version": text(),
            "max_concurrent_requests": count,
            "max_batch_tokens": count,
            "max_client_batch_size": count,
            "auto_truncate": {"type": "boolean"},
            "models": list_of(model),
        },
    });
    components.insert("Info", server)
}

fn describe(known: &Known) -> Value {
    let mut told = match &known.served {
        Some(served) => describe_loaded(served),
        None => json!({"model_id": known.name, "tasks": known.card.as_ref().map(tasks).unwrap_or_default()}),
    };
    told["model_version"] = json!(known.version);
    told["state"] = json!(known.state.name().to_ascii_lowercase());
    if !known.reason.is_empty() {
        told["reason"] = json!(known.reason);
    }
    told
}

fn tasks(card: &ModelCard) -> Vec<&'static str> {
    card.tasks().iter().copied().map(Task::name).collect()
}

fn describe_loaded(served: &Served) -> Value {
    let model = &served.model;
    let card = &model.card;
    json!({
        "model_id": card.id,
        "model_sha": card.revision,
        "model_dtype": card.dtype,
        "model_type": model_type(model),
        "architecture": card.architecture,
        "tasks": tasks(card),
        "max_input_length": model.tokenizer.max_tokens(),
        "prompts": card.prompts.keys().collect::<Vec<_>>(),
        "report": served.report.is_some(),
    })
}

fn model_type(model: &Model) -> Value {
    match &model.card.head {
        Head::TokenFeatures { dimension } => json!({"features": {"dimension": dimension}}),
        Head::SentenceEmbedding(embedding) => {
            json!({"embedding": {"pooling": embedding.pooling, "dimension": embedding.dimension}})
        }
        Head::Classification { labels, .. } => json!({"classifier": labels_by_id(labels)}),
        Head::TokenClassification { labels } => json!({"token_classifier": labels_by_id(labels)}),
        Head::QuestionAnswering => json!({"question_answering": {}}),
        Head::MaskedLm { vocabulary } => {
            let mask = model.tokenizer.special_tokens().mask.as_ref().map(|mask| mask.text.as_str());
            json!({"masked_lm": {"vocabulary": vocabulary, "mask": mask}})
        }
        Head::Seq2SeqLm { vocabulary } => json!({"seq2seq_lm": {"vocabulary": vocabulary}}),
        Head::CausalLm { vocabulary } => json!({"causal_lm": {"vocabulary": vocabulary}}),
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
