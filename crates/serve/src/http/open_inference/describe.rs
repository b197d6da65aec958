//! What the protocol tells of a model: its inputs and outputs, its configuration, its statistics.
//!
//! A model has a single output. Where it is given texts that is called `output`, and for tokens by
//! the name that exported models have; requests may ask for it by either.

use centuple_tasks::{Head, Model};
use serde_json::{Value, json};

use super::{Interface, VERSION, outputs::is_by_token};
use crate::{metrics::Total, service::Served};

/// The output's name as exported models have it.
pub(super) fn native_output(head: &Head) -> &'static str {
    match head {
        Head::TokenFeatures { .. } => "last_hidden_state",
        Head::LateInteraction { .. } => "token_embeddings",
        Head::SentenceEmbedding(_) | Head::SparseEmbedding { .. } => "sentence_embedding",
        Head::Classification { .. }
        | Head::TokenClassification { .. }
        | Head::QuestionAnswering
        | Head::MaskedLm { .. } => "logits",
    }
}

/// Whether a text alone is an input of the model.
pub(super) fn takes_texts(model: &Model) -> bool {
    match &model.card.head {
        Head::TokenFeatures { .. }
        | Head::SentenceEmbedding(_)
        | Head::Classification { .. }
        | Head::TokenClassification { .. }
        | Head::SparseEmbedding { .. }
        | Head::LateInteraction { .. } => true,
        Head::QuestionAnswering | Head::MaskedLm { .. } => false,
    }
}

/// A tensor of the interface, without the dimension of the batch; -1 is any length.
struct Tensor {
    name: &'static str,
    datatype: &'static str,
    dims: Vec<i64>,
}

fn inputs(interface: Interface) -> Vec<Tensor> {
    match interface {
        Interface::Texts => vec![Tensor { name: "TEXT", datatype: "BYTES", dims: vec![1] }],
        Interface::Tokens => {
            let tensor = |name| Tensor { name, datatype: "INT64", dims: vec![-1] };
            ["input_ids", "attention_mask"].map(tensor).into()
        }
    }
}

fn output(head: &Head, interface: Interface) -> Tensor {
    let name = match interface {
        Interface::Texts => "output",
        Interface::Tokens => native_output(head),
    };
    let columns = head.columns() as i64;
    let dims = if is_by_token(head) { vec![-1, columns] } else { vec![columns] };
    Tensor { name, datatype: "FP32", dims }
}

impl Tensor {
    fn metadata(&self) -> Value {
        let shape: Vec<i64> = [-1].into_iter().chain(self.dims.iter().copied()).collect();
        json!({"name": self.name, "datatype": self.datatype, "shape": shape})
    }

    fn configuration(&self) -> Value {
        let data_type = match self.datatype {
            "BYTES" => "TYPE_STRING".to_owned(),
            datatype => format!("TYPE_{datatype}"),
        };
        json!({"name": self.name, "data_type": data_type, "dims": self.dims})
    }
}

/// `GET /v2/models/{name}`.
pub(super) fn metadata(name: &str, model: &Model, interface: Interface) -> Value {
    json!({
        "name": name,
        "versions": [VERSION],
        "platform": "centuple",
        "inputs": inputs(interface).iter().map(Tensor::metadata).collect::<Vec<_>>(),
        "outputs": [output(&model.card.head, interface).metadata()],
    })
}

/// `GET /v2/models/{name}/config`.
pub(super) fn configuration(name: &str, model: &Model, interface: Interface, max_batch_size: usize) -> Value {
    json!({
        "name": name,
        "platform": "",
        "backend": "centuple",
        "runtime": "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": i32::try_from(max_batch_size).unwrap_or(i32::MAX),
        "input": inputs(interface).iter().map(Tensor::configuration).collect::<Vec<_>>(),
        "output": [output(&model.card.head, interface).configuration()],
        "instance_group": [{"name": name, "kind": "KIND_CPU", "count": 1}],
        "dynamic_batching": {},
        "parameters": {},
        "model_transaction_policy": {"decoupled": false},
    })
}

/// The element of `GET /v2/models/{name}/stats`: what the model has done since the start, on all routes.
pub(super) fn statistics(name: &str, served: &Served) -> Value {
    let tally = served.metrics.tally();
    json!({
        "name": name,
        "version": VERSION,
        "last_inference": tally.last(),
        "inference_count": tally.sequences(),
        "execution_count": tally.batches(),
        "inference_stats": {
            "success": total(&tally.success),
            "fail": total(&tally.fail),
            "queue": total(&tally.queue),
            "compute_input": total(&tally.input),
            "compute_infer": total(&tally.infer),
            "compute_output": total(&tally.output),
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [],
        "memory_usage": [],
    })
}

fn total(total: &Total) -> Value {
    json!({"count": total.count(), "ns": total.nanoseconds()})
}
