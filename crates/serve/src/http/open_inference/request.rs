//! The body of `infer`: JSON, and the tensors behind it.

use centuple_tasks::{TaskError, from_json};
use serde::{Deserialize, de::IgnoredAny};

use super::tensor::Header;
use crate::open_inference::{InferRequest, WantedOutput, refused};

#[derive(Deserialize)]
struct Body {
    id: Option<String>,
    inputs: Vec<Header>,
    outputs: Option<Vec<Output>>,
    parameters: Option<Parameters>,
}

#[derive(Default, Deserialize)]
struct Parameters {
    binary_data_output: Option<bool>,
    /// Microseconds.
    timeout: Option<u64>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    parameters: Option<OutputParameters>,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    binary_data: Option<bool>,
    classification: Option<i64>,
    shared_memory_region: Option<IgnoredAny>,
}

impl InferRequest {
    /// Reads a body of `POST /v2/models/{name}/infer` whose first `json` bytes are JSON; `None`: all of them.
    pub fn parse(body: &[u8], json: Option<usize>) -> Result<Self, TaskError> {
        let (json, mut binary) = match json {
            None => (body, None),
            Some(length) => {
                let (json, binary) = body.split_at_checked(length).ok_or_else(|| {
                    let length = format!("`Inference-Header-Content-Length` is {length}");
                    refused(format!("{length}, but the body has {} bytes", body.len()))
                })?;
                (json, Some(binary))
            }
        };
        let Body { id, inputs, outputs, parameters } = from_json(json)?;
        let Parameters { binary_data_output, timeout } = parameters.unwrap_or_default();
        let as_bytes = binary_data_output.unwrap_or(false);
        let outputs = outputs.unwrap_or_default().into_iter().map(|output| output.wanted(as_bytes)).collect();
        let mut request = Self::new(id, outputs, as_bytes);
        request.set_timeout(timeout.unwrap_or(0));
        for header in inputs {
            request.add(header.read(binary.as_mut())?)?;
        }
        match binary {
            Some(rest) if !rest.is_empty() => {
                Err(refused(format!("{} bytes of the body belong to no input", rest.len())))
            }
            Some(_) | None => Ok(request),
        }
    }
}

impl Output {
    /// `as_bytes`: how it is sent where it doesn't say.
    fn wanted(self, as_bytes: bool) -> WantedOutput {
        let OutputParameters { binary_data, classification, shared_memory_region } =
            self.parameters.unwrap_or_default();
        WantedOutput {
            name: self.name,
            binary: binary_data.unwrap_or(as_bytes),
            classification,
            shared_memory: shared_memory_region.is_some(),
        }
    }
}
