//! What is told of a model, as JSON.

use centuple_tasks::Model;
use serde_json::{Value, json};

use crate::{
    metrics::Total,
    models::Known,
    open_inference::{
        Interface,
        describe::{BACKEND, TensorInfo, inputs, max_batch_size, output},
    },
};

fn metadata_of(tensor: &TensorInfo) -> Value {
    json!({"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape()})
}

fn configuration_of(tensor: &TensorInfo) -> Value {
    let data_type = match tensor.datatype {
        "BYTES" => "TYPE_STRING".to_owned(),
        datatype => format!("TYPE_{datatype}"),
    };
    let mut configuration = json!({"name": tensor.name, "data_type": data_type, "dims": tensor.dims});
    if tensor.optional {
        configuration["optional"] = json!(true);
    }
    configuration
}

/// `GET /v2/models/{name}`.
pub(super) fn metadata(name: &str, versions: Vec<String>, model: &Model, interface: Interface) -> Value {
    json!({
        "name": name,
        "versions": versions,
        "platform": BACKEND,
        "inputs": inputs(interface).iter().map(metadata_of).collect::<Vec<_>>(),
        "outputs": [metadata_of(&output(&model.card.head, interface))],
    })
}

/// `GET /v2/models/{name}/config`.
pub(super) fn configuration(name: &str, model: &Model, interface: Interface, max_inputs: usize) -> Value {
    json!({
        "name": name,
        "platform": "",
        "backend": BACKEND,
        "runtime": "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": max_batch_size(interface, max_inputs),
        "input": inputs(interface).iter().map(configuration_of).collect::<Vec<_>>(),
        "output": [configuration_of(&output(&model.card.head, interface))],
        "instance_group": [{"name": name, "kind": "KIND_CPU", "count": 1}],
        "dynamic_batching": {},
        "parameters": {},
        "model_transaction_policy": {"decoupled": interface == Interface::Generation},
    })
}

/// The element of `GET /v2/models/{name}/stats`: what a version has done since the start, on all routes.
pub(super) fn statistics(name: &str, known: &Known) -> Value {
    let tally = &known.tally;
    json!({
        "name": name,
        "version": known.version,
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
            "cache_hit": total(&tally.cache_hit),
            "cache_miss": total(&tally.cache_miss),
        },
        "batch_stats": [],
        "memory_usage": [],
    })
}

fn total(total: &Total) -> Value {
    json!({"count": total.count(), "ns": total.nanoseconds()})
}
