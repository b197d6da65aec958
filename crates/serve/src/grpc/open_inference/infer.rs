//! `ModelInfer` and `ModelStreamInfer`: messages to requests, outputs to messages.

use std::{collections::HashMap, sync::Arc, time::Duration};

use centuple_tasks::{Model, Output, TaskError, Usage};
use prost::{
    Message,
    bytes::{Buf, Bytes},
    encoding::{DecodeContext, decode_key, skip_field},
};

use super::{
    Asked, Reply, Shared, find,
    generate::generate,
    messages::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
        infer_parameter::ParameterChoice,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
        model_infer_response::InferOutputTensor,
    },
};
use crate::{
    grpc::{exchange::decode, frames, replies::Answered},
    open_inference::{Claim, InferRequest, Interface, MOST_INPUTS, Plan, Tensor, WantedOutput, invalid, refused},
    service::{Dialect, Done, Failure, Models, Served, Work, Written},
};

/// `ModelInfer`
pub(super) async fn infer(asked: Asked) -> Result<Reply, Failure> {
    let dialect = Infer::new(&asked.service, false);
    asked.answer(dialect, |_, _| {}).await
}

/// A message of `ModelStreamInfer`.
pub(super) async fn stream_infer(asked: Asked) -> Result<Answered, Failure> {
    #[derive(Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        version: String,
    }
    let Named { name, version } = asked.read()?;
    let (served, interface) = asked.service.find(&asked.call, |models| find(models, &name, &version)).await?;
    if interface == Interface::Generation {
        return generate(asked, served, name).await;
    }
    let dialect = Infer::new(&asked.service, true);
    asked.answer(dialect, |_, _| {}).await.map(Answered::from)
}

/// What a message of `ModelStreamInfer` is answered that failed; the stream goes on.
pub(super) fn mend(message: &[u8], failure: &Failure) -> Option<Reply> {
    #[derive(Message)]
    struct Identified {
        #[prost(string, tag = "3")]
        id: String,
    }
    let id = Identified::decode(message).unwrap_or_default().id;
    let infer_response = Some(ModelInferResponse { id, ..ModelInferResponse::default() });
    Some(Reply::of(&ModelStreamInferResponse { error_message: failure.message.clone(), infer_response }))
}

/// Reads the messages and writes their replies.
struct Infer {
    service: Shared,
    /// Whether they are those of a stream.
    streamed: bool,
    name: String,
    /// What is to be answered, once the message is read.
    plan: Option<Plan>,
}

impl Infer {
    fn new(service: &Shared, streamed: bool) -> Self {
        Self { service: Arc::clone(service), streamed, name: String::new(), plan: None }
    }
}

impl Dialect for Infer {
    fn read(&mut self, models: &Models, message: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        check_counts(message)?;
        let mut message: ModelInferRequest = decode(message)?;
        self.name = std::mem::take(&mut message.model_name);
        let (served, _) = find(models, &self.name, &message.model_version)?;
        let (plan, work) = Plan::new(&self.service, InferRequest::of_message(message)?, &served)?;
        self.plan = Some(plan);
        Ok((served, work))
    }

    fn timeout(&self) -> Option<Duration> {
        self.plan.as_ref()?.timeout
    }

    fn write(&self, model: &Model, done: Done, _: Usage) -> Written {
        let (Done::Outputs(outputs), Some(plan)) = (done, &self.plan) else { return Written::from(Vec::new()) };
        let response = response(plan, &self.name, model, &outputs);
        let frame = match self.streamed {
            false => frames::begin(&response),
            true => frames::begin(&ModelStreamInferResponse {
                error_message: String::new(),
                infer_response: Some(response),
            }),
        };
        frame.into()
    }
}

/// The outputs as bytes, as Triton sends them whatever the inputs were.
fn response(plan: &Plan, name: &str, model: &Model, outputs: &[Output]) -> ModelInferResponse {
    let mut response = ModelInferResponse {
        model_name: name.into(),
        model_version: plan.version.clone(),
        id: plan.id.clone().unwrap_or_default(),
        ..ModelInferResponse::default()
    };
    for tensor in plan.tensors(model, outputs) {
        let mut bytes = Vec::new();
        tensor.data.append_to(&mut bytes);
        response.raw_output_contents.push(bytes.into());
        response.outputs.push(InferOutputTensor {
            name: tensor.name.into(),
            datatype: tensor.datatype.into(),
            shape: tensor.shape.into_iter().map(|dim| dim as i64).collect(),
            ..InferOutputTensor::default()
        });
    }
    response
}

impl InferRequest {
    /// Reads a message of `ModelInfer`, without the names of model and version in it.
    pub fn parse_message(message: &[u8]) -> Result<Self, TaskError> {
        check_counts(message)?;
        let message = ModelInferRequest::decode(message).map_err(|error| refused(error.to_string()))?;
        Self::of_message(message)
    }

    fn of_message(message: ModelInferRequest) -> Result<Self, TaskError> {
        let ModelInferRequest { id, parameters, inputs, outputs, raw_input_contents: raw, .. } = message;
        let outputs = outputs.into_iter().map(wanted).collect::<Result<_, _>>()?;
        let mut request = Self::new(Some(id), outputs, true);
        request.set_timeout(timeout(&parameters)?);
        if !raw.is_empty() && raw.len() != inputs.len() {
            let message = format!("`raw_input_contents` has {} elements for {} inputs", raw.len(), inputs.len());
            return Err(refused(message));
        }
        let mut raw = raw.into_iter();
        for input in inputs {
            request.add(tensor(input, raw.next())?)?;
        }
        Ok(request)
    }
}

/// Refuses more inputs and outputs than a model has, before each takes a hundred times its bytes.
pub(super) fn check_counts(mut message: &[u8]) -> Result<(), TaskError> {
    let mut counts = [0usize; 3];
    let mut next = || -> Result<Option<u32>, prost::DecodeError> {
        if !message.has_remaining() {
            return Ok(None);
        }
        let (tag, wire_type) = decode_key(&mut message)?;
        skip_field(wire_type, tag, &mut message, DecodeContext::default())?;
        Ok(Some(tag))
    };
    while let Some(tag) = next().map_err(|error| refused(error.to_string()))? {
        if let Some(count) = tag.checked_sub(5).and_then(|index| counts.get_mut(index as usize)) {
            *count += 1;
            if *count > MOST_INPUTS {
                return Err(refused("there are more inputs or outputs than any model has".into()));
            }
        }
    }
    Ok(())
}

/// An input, of bytes that stand outside of it or of the values in it.
pub(super) fn tensor(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, TaskError> {
    let InferInputTensor { name, datatype, shape, parameters, contents } = input;
    let claim = Claim::new(name, &shape, &datatype)?;
    if parameters.contains_key("shared_memory_region") {
        return Err(invalid(claim.name(), "shared memory is not supported; send the tensor in the message"));
    }
    match (contents.filter(|contents| *contents != InferTensorContents::default()), raw) {
        (Some(_), Some(_)) => {
            Err(invalid(claim.name(), "it has both `contents` and `raw_input_contents`; send one of them"))
        }
        (None, Some(bytes)) => claim.bytes(&bytes),
        (None, None) => claim.values(Vec::new(), Vec::new()),
        (Some(contents), None) => {
            let InferTensorContents { int_contents, int64_contents, bytes_contents, .. } = contents;
            let texts = bytes_contents.into_iter().enumerate().map(|(element, text)| {
                String::from_utf8(text.into())
                    .map_err(|_| invalid(claim.name(), format!("element {element}: it is not UTF-8")))
            });
            let texts = texts.collect::<Result<Vec<_>, _>>()?;
            let mut integers = int64_contents;
            match (datatype.as_str(), integers.is_empty(), int_contents.is_empty()) {
                (_, _, true) => {}
                ("INT32", true, false) => integers = int_contents.into_iter().map(i64::from).collect(),
                (_, _, false) => {
                    return Err(invalid(claim.name(), "`int_contents` are for INT32, `int64_contents` for INT64"));
                }
            }
            claim.values(texts, integers)
        }
    }
}

/// An output that is asked for.
fn wanted(output: InferRequestedOutputTensor) -> Result<WantedOutput, TaskError> {
    let InferRequestedOutputTensor { name, parameters } = output;
    let classification = classification(&name, &parameters)?;
    Ok(WantedOutput {
        binary: true,
        classification,
        shared_memory: parameters.contains_key("shared_memory_region"),
        name,
    })
}

/// Microseconds that the request may take; 0: as long as it needs.
fn timeout(parameters: &HashMap<String, InferParameter>) -> Result<u64, TaskError> {
    let Some(parameter) = parameters.get("timeout") else { return Ok(0) };
    let microseconds = match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(microseconds)) => u64::try_from(microseconds).ok(),
        Some(ParameterChoice::Uint64Param(microseconds)) => Some(microseconds),
        None
        | Some(ParameterChoice::BoolParam(_) | ParameterChoice::StringParam(_) | ParameterChoice::DoubleParam(_)) => {
            None
        }
    };
    microseconds.ok_or_else(|| TaskError::Shape {
        field: "parameters".into(),
        message: "`timeout` must be a number of microseconds".into(),
    })
}

fn classification(output: &str, parameters: &HashMap<String, InferParameter>) -> Result<Option<i64>, TaskError> {
    let Some(parameter) = parameters.get("classification") else { return Ok(None) };
    match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(classes)) => Ok(Some(classes)),
        Some(ParameterChoice::Uint64Param(classes)) => Ok(Some(i64::try_from(classes).unwrap_or(i64::MAX))),
        None
        | Some(ParameterChoice::BoolParam(_) | ParameterChoice::StringParam(_) | ParameterChoice::DoubleParam(_)) => {
            let message = format!("output `{output}`: `classification` must be a number of classes");
            Err(TaskError::Shape { field: "outputs".into(), message })
        }
    }
}
