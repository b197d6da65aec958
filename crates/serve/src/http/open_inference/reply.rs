//! The reply of `infer`: JSON, and the bytes behind it.

use centuple_tasks::{Model, Output};
use serde::Serialize;

use crate::{
    open_inference::{Data, OutputTensor, Plan},
    service::Written,
};

/// Writes what was planned.
pub(super) fn write(plan: &Plan, name: &str, model: &Model, outputs: &[Output]) -> Written {
    let mut binary = Vec::new();
    let tensors: Vec<_> =
        plan.tensors(model, outputs).into_iter().map(|tensor| Tensor::new(tensor, &mut binary)).collect();
    let has_bytes = tensors.iter().any(|tensor| tensor.parameters.is_some());
    let reply = Reply { model_name: name, model_version: &plan.version, id: plan.id.as_deref(), outputs: tensors };
    let mut body = serde_json::to_vec(&reply).unwrap_or_default();
    let json = has_bytes.then_some(body.len());
    body.append(&mut binary);
    Written { body, json }
}

#[derive(Serialize)]
struct Reply<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Tensor<'a>>,
}

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

impl<'a> Tensor<'a> {
    /// A tensor whose values are in it, or at the end of `binary`.
    fn new(tensor: OutputTensor<'a>, binary: &mut Vec<u8>) -> Self {
        let OutputTensor { name, binary: as_bytes, datatype, shape, data } = tensor;
        let start = binary.len();
        let (data, parameters) = match as_bytes {
            true => {
                data.append_to(binary);
                (None, Some(Parameters { binary_data_size: binary.len() - start }))
            }
            false => (Some(data), None),
        };
        Self { name, datatype, shape, parameters, data }
    }
}
