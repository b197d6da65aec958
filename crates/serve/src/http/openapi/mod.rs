//! `GET /openapi.json`: every route in OpenAPI 3.1, made of the table that the router is made of.
//!
//! Examples are for the models that are served, so each can be sent as it stands.

mod describe;
mod operation;
mod tag;

use axum::{Json, extract::State};
use centuple_tasks::schema::Components;
use serde_json::{Map, Value, json};

use super::{Shared, table};
pub(super) use operation::Operation;
pub(super) use tag::Tag;

/// `GET /openapi.json`.
pub(super) async fn document(State(service): State<Shared>) -> Json<Value> {
    let (models, keyed) = (service.models.all(), !service.config.api_keys.is_empty());
    let (mut components, mut paths) = (Components::default(), Map::new());
    let operations = table().into_operations();
    for operation in operations.iter().filter(|operation| operation.is_offered(&service.config)) {
        let described = operation.describe(&models, keyed, &mut components);
        paths.entry(operation.path()).or_insert_with(|| json!({}))[operation.method()] = described;
    }
    let tags = Tag::ALL.map(|tag| json!({"name": tag.name(), "description": tag.description()}));
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Centuple",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Inference of transformers on CPUs.",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": tags,
        "paths": paths,
        "components": {"schemas": components.0},
    });
    if keyed {
        let scheme = json!({"type": "http", "scheme": "bearer", "description": "The key of `--api-key`."});
        document["components"]["securitySchemes"] = json!({"key": scheme});
        document["security"] = json!([{"key": []}]);
    }
    Json(document)
}

const DESCRIPTION: &str = "Each family of routes has the bodies, replies and errors that its clients expect. While one \
                           model is served it answers to any name in a body. Requests may be compressed with gzip or \
                           deflate; every reply has the header `x-request-id`, the client's own where it sent one.";
