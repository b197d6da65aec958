//! What the protocol's routes take and answer, as the document tells it.

use axum::http::StatusCode;
use centuple_tasks::{
    Model,
    schema::{Components, list_of, text},
};
use serde_json::{Value, json};

use crate::{
    http::{
        generation::triton,
        openapi::{Operation, Tag},
    },
    open_inference::describe::takes_texts,
    service::Kind,
};

fn get(path: &str, summary: &'static str) -> Operation {
    Operation::get(path, summary).tag(Tag::OpenInference)
}

/// An object that has all of these fields.
fn object(fields: Value) -> Value {
    let required: Vec<_> = fields.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    json!({"type": "object", "required": required, "properties": fields})
}

pub(super) fn server() -> Operation {
    get("/v2", "The server and its extensions")
        .replies(|_| object(json!({"name": text(), "version": text(), "extensions": list_of(text())})))
}

pub(super) fn live() -> Operation {
    get("/v2/health/live", "Whether the server lives").replies(|_| object(json!({"live": {"type": "boolean"}})))
}

pub(super) fn ready() -> Operation {
    let state = |_: &mut Components| object(json!({"ready": {"type": "boolean"}}));
    let operation = get("/v2/health/ready", "Whether the server is ready").replies(state);
    operation.when_closing(StatusCode::BAD_REQUEST, state)
}

pub(super) fn all_statistics() -> Operation {
    get("/v2/models/stats", "Statistics of all models").replies(statistics)
}

pub(super) fn index() -> Operation {
    let entry = |_: &mut Components| {
        let state = json!({"name": text(), "version": text(), "state": text(), "reason": text()});
        list_of(object(state))
    };
    let query = |_: &mut Components| json!({"type": "object", "properties": {"ready": {"type": "boolean"}}});
    Operation::post("/v2/repository/index", "The models that are there")
        .tag(Tag::OpenInference)
        .optional_body(query)
        .replies(entry)
        .fails_only(&[Kind::Malformed, Kind::TooLarge, Kind::Timeout, Kind::Encoding])
}

/// What clients may have done with a model, where they are let.
pub(super) fn control() -> [Operation; 2] {
    [("load", "Load a model, anew where it is loaded"), ("unload", "Unload a model")].map(|(verb, summary)| {
        let body = |_: &mut Components| json!({"type": "object", "properties": {"parameters": {"type": "object"}}});
        let kinds = [
            Kind::Malformed,
            Kind::Invalid,
            Kind::TooLarge,
            Kind::Timeout,
            Kind::Encoding,
            Kind::UnknownModel,
            Kind::UnknownRoute,
            Kind::LoadFailed,
            Kind::Deadline,
        ];
        Operation::post(&format!("/v2/repository/models/{{name}}/{verb}"), summary)
            .tag(Tag::OpenInference)
            .about("It answers 501 where the server was started without `--model-control`.")
            .only_if(|config| config.models.control)
            .model_in_path("name")
            .optional_body(body)
            .replies(|_| json!({"type": "object"}))
            .fails_only(&kinds)
    })
}

/// What can be asked of a model, each also of one of its versions.
pub(super) fn of_a_model() -> Vec<Operation> {
    let state = |_: &mut Components| object(json!({"name": text(), "ready": {"type": "boolean"}}));
    let roots = ["/v2/models/{name}".to_owned(), "/v2/models/{name}/versions/{version}".to_owned()];
    let operations = roots.iter().flat_map(|root| {
        let ask = |verb: &str, summary| {
            let operation = version(get(&format!("{root}{verb}"), summary).model_in_path("name"));
            operation.fails(&[Kind::Invalid, Kind::UnknownModel, Kind::UnknownRoute])
        };
        let load = [Kind::LoadFailed, Kind::Deadline];
        [
            ask("", "A model's inputs and outputs").replies(metadata).fails(&load),
            ask("/ready", "Whether a model is ready").replies(state).when_closing(StatusCode::BAD_REQUEST, state),
            ask("/config", "A model's configuration, as Triton has it")
                .replies(|_| json!({"type": "object"}))
                .fails(&load),
            ask("/stats", "A model's statistics, as Triton has them").replies(statistics),
            infer(root),
            generate(root),
            generate_stream(root),
        ]
    });
    operations.collect()
}

/// The part of the path that is a version, where there is one.
fn version(operation: Operation) -> Operation {
    match operation.path().contains("{version}") {
        true => operation.in_path("version", "A version of the model.", json!({"type": "string", "minLength": 1})),
        false => operation,
    }
}

fn infer(root: &str) -> Operation {
    let operation = Operation::post(&format!("{root}/infer"), "Tensors to tensors")
        .tag(Tag::OpenInference)
        .about(
            "Inputs are `TEXT` (BYTES), or `input_ids` with `attention_mask` and `token_type_ids` (INT64 or INT32). \
             Tensors with `binary_data_size` follow the JSON as bytes.",
        )
        .model_in_path("name")
        .in_header(
            "Inference-Header-Content-Length",
            "How many bytes of the body are JSON, where tensors follow it.",
            json!({"type": "integer", "minimum": 0}),
        )
        .body_without_model(infer_request, infer_example)
        .replies(infer_reply)
        .replies_as("application/octet-stream", |_| json!({}))
        .fails(&[Kind::UnknownRoute]);
    version(operation)
}

fn generate(root: &str) -> Operation {
    let operation = Operation::post(&format!("{root}/generate"), "How a text goes on, as Triton has it");
    let operation =
        operation.about("Parameters are those of docs/generation.md; `max_tokens` and the like are known too.");
    of_generation(operation).replies(triton::reply)
}

fn generate_stream(root: &str) -> Operation {
    let operation = Operation::post(&format!("{root}/generate_stream"), "How a text goes on, part by part");
    of_generation(operation.about("Server-sent events with the parts of the text."))
        .replies_as("text/event-stream", |_| text())
}

fn of_generation(operation: Operation) -> Operation {
    let operation = operation.tag(Tag::OpenInference).model_in_path("name");
    version(operation.body_without_model(triton::request, triton::example).fails(&[Kind::UnknownRoute]))
}

fn infer_request(components: &mut Components) -> Value {
    let parameters = json!({"type": ["object", "null"]});
    let input = json!({
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string", "description": "`TEXT`, `input_ids`, `attention_mask` or `token_type_ids`."},
            "shape": list_of(json!({"type": "integer", "minimum": 0})),
            "datatype": {"enum": ["BYTES", "INT64", "INT32"]},
            "data": {"type": "array", "description": "Texts or integers, flat or in lists of lists."},
            "parameters": parameters,
        },
    });
    let output = json!({
        "type": "object",
        "required": ["name"],
        "properties": {"name": text(), "parameters": parameters},
    });
    let request = json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"], "description": "Comes back in the reply."},
            "inputs": list_of(components.insert("InferInput", input)),
            "outputs": list_of(components.insert("InferWanted", output)),
            "parameters": parameters,
        },
    });
    components.insert("InferRequest", request)
}

fn infer_example(model: &Model) -> Vec<(&'static str, Value)> {
    if takes_texts(model) {
        let text = json!({"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["A dog sleeps."]});
        return vec![("a text", json!({"inputs": [text]}))];
    }
    let tensor = |name: &str, data: [u32; 2]| json!({"name": name, "shape": [1, 2], "datatype": "INT64", "data": data});
    vec![("tokens", json!({"inputs": [tensor("input_ids", [1, 2]), tensor("attention_mask", [1, 1])]}))]
}

fn infer_reply(components: &mut Components) -> Value {
    let output = json!({
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": text(),
            "datatype": {"enum": ["FP32", "BYTES"]},
            "shape": list_of(json!({"type": "integer"})),
            "data": {"type": "array", "items": {"type": ["number", "string"]}},
            "parameters": {"type": "object"},
        },
    });
    let reply = json!({
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": text(),
            "model_version": text(),
            "id": text(),
            "outputs": list_of(components.insert("InferOutput", output)),
        },
    });
    components.insert("InferReply", reply)
}

fn metadata(components: &mut Components) -> Value {
    let tensor = object(json!({"name": text(), "datatype": text(), "shape": list_of(json!({"type": "integer"}))}));
    let tensors = list_of(components.insert("TensorMetadata", tensor));
    let model = object(json!({
        "name": text(), "versions": list_of(text()), "platform": text(), "inputs": tensors, "outputs": tensors,
    }));
    components.insert("ModelMetadata", model)
}

fn statistics(components: &mut Components) -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    let model = object(json!({
        "name": text(),
        "version": text(),
        "last_inference": count,
        "inference_count": count,
        "execution_count": count,
        "inference_stats": {"type": "object", "additionalProperties": object(json!({"count": count, "ns": count}))},
        "batch_stats": {"type": "array"},
        "memory_usage": {"type": "array"},
    }));
    let model = components.insert("ModelStatistics", model);
    object(json!({"model_stats": list_of(model)}))
}
