//! Messages of `ModelStreamInfer` for models that generate: each becomes responses with the text as it comes.
//!
//! Inputs are those of Triton's vLLM backend: `text_input`, and beside it `stream`, `sampling_parameters` and
//! `exclude_input_in_output`; parameters of the request are parameters of generation too.

use std::sync::Arc;

use centuple_tasks::{
    TaskError,
    text_generation::{Request, TextGenerator},
};
use prost::bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{Sender, channel};

use super::{
    Asked, Reply,
    infer::{check_counts, tensor},
    messages::{
        InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
        model_infer_response::InferOutputTensor,
    },
};
use crate::{
    generation::{Asks, Run, Wanted},
    grpc::{exchange::decode, replies::Answered},
    open_inference::{
        generate::{EXCLUDE_INPUT, SAMPLING_PARAMETERS, STREAM, TEXT_INPUT, TEXT_OUTPUT, request},
        invalid, refused,
    },
    service::{Failure, Served},
};

/// Responses that wait for a slow client.
const RESPONSES_AHEAD: usize = 64;

/// Says of a response whether it is the last one.
const FINAL: &str = "triton_final_response";
/// Asks for a last response without a text.
const EMPTY_FINAL: &str = "triton_enable_empty_final_response";
/// How names begin that are not meant for the model.
const RESERVED: [&str; 4] = ["triton_", "sequence_", "binary_data", "priority"];

/// Has a message answered by a model that generates.
pub(super) async fn generate(asked: Asked, served: Arc<Served>, name: String) -> Result<Answered, Failure> {
    let Asked { service, message, call, .. } = asked;
    let version = served.version.clone();
    let generate = Generate { name, version, ..Generate::default() };
    let (generate, run) = service.generate(generate, Wanted::Found(served), message, call).await?;
    if generate.in_parts {
        run.check_single()?;
    }
    let (sender, responses) = channel(RESPONSES_AHEAD);
    tokio::spawn(generate.tell(run, sender));
    Ok(Answered::Many(responses))
}

/// A message, and how its responses are written.
#[derive(Debug, Default)]
struct Generate {
    name: String,
    version: String,
    id: String,
    /// Whether there is a response for each part.
    in_parts: bool,
    /// Whether one without a text comes last.
    empty_final: bool,
}

impl Asks for Generate {
    fn model(&self, _: &[u8]) -> Option<String> {
        None
    }

    fn read(&mut self, _: &TextGenerator, message: &[u8]) -> Result<Request, Failure> {
        check_counts(message)?;
        let ModelInferRequest { id, parameters, inputs, raw_input_contents: raw, .. } = decode(message)?;
        self.id = id;
        let mut said = Map::new();
        for (name, parameter) in parameters {
            if name == EMPTY_FINAL {
                self.empty_final = value(parameter) == json!(true);
            } else if name != "timeout" && !RESERVED.iter().any(|reserved| name.starts_with(reserved)) {
                said.insert(name, value(parameter));
            }
        }
        let mut text = None;
        let mut raw = raw.into_iter();
        for input in inputs {
            let raw = raw.next();
            match input.name.as_str() {
                TEXT_INPUT => text = Some(one_text(input, raw)?),
                STREAM | EXCLUDE_INPUT => {
                    said.insert(input.name.clone(), one_flag(&input, raw)?.into());
                }
                SAMPLING_PARAMETERS => {
                    let json = one_text(input, raw)?;
                    let more: Map<String, Value> = serde_json::from_str(&json)
                        .map_err(|error| invalid(SAMPLING_PARAMETERS, format!("it is no JSON object: {error}")))?;
                    said.extend(more);
                }
                unknown => {
                    let reason = "unknown; a model that generates takes `text_input`, `stream`, `sampling_parameters` and \
                                  `exclude_input_in_output`";
                    return Err(invalid(unknown, reason).into());
                }
            }
        }
        let text = text.ok_or_else(|| refused("there is no `text_input` among the inputs".into()))?;
        let request = request(text, said)?;
        self.in_parts = request.stream;
        Ok(request)
    }
}

/// The only text of an input.
fn one_text(input: InferInputTensor, raw: Option<Bytes>) -> Result<String, TaskError> {
    let name = input.name.clone();
    let mut texts = tensor(input, raw)?.into_texts().ok_or_else(|| invalid(&name, "its datatype must be BYTES"))?;
    match (texts.pop(), texts.is_empty()) {
        (Some(text), true) => Ok(text),
        _ => Err(invalid(&name, "it must be one text; send a message for each")),
    }
}

/// The only truth value of an input.
fn one_flag(input: &InferInputTensor, raw: Option<Bytes>) -> Result<bool, TaskError> {
    let wrong = || invalid(&input.name, "it must be one BOOL");
    let contents = input.contents.as_ref().map(|contents| contents.bool_contents.as_slice()).unwrap_or_default();
    match (input.datatype.as_str(), raw.as_deref(), contents) {
        ("BOOL", Some(&[byte]), []) => Ok(byte != 0),
        ("BOOL", None, &[flag]) => Ok(flag),
        _ => Err(wrong()),
    }
}

fn value(parameter: InferParameter) -> Value {
    match parameter.parameter_choice {
        None => Value::Null,
        Some(ParameterChoice::BoolParam(flag)) => json!(flag),
        Some(ParameterChoice::Int64Param(number)) => json!(number),
        Some(ParameterChoice::Uint64Param(number)) => json!(number),
        Some(ParameterChoice::DoubleParam(number)) => json!(number),
        Some(ParameterChoice::StringParam(text)) => json!(text),
    }
}

impl Generate {
    /// Sends responses until the end or until nobody takes them any more.
    async fn tell(self, mut run: Run, responses: Sender<Bytes>) {
        let before = run.finish.before(0).to_owned();
        let mut whole = vec![String::new(); run.finish.answers().iter().map(|answers| answers.answers().len()).sum()];
        loop {
            let next = tokio::select! {
                () = responses.closed() => return,
                next = run.next() => next,
            };
            let (sent, last) = match next {
                Ok(Some(news)) => {
                    let ended = news.answer.finish.is_some();
                    let begins = if news.tokens == 0 { before.as_str() } else { "" };
                    let text = [begins, news.fresh()].concat();
                    if self.in_parts {
                        let told = !text.is_empty() || (ended && !self.empty_final);
                        (told.then(|| self.response(&[text], ended && !self.empty_final)), false)
                    } else {
                        if let Some(whole) = whole.get_mut(news.sequence) {
                            whole.push_str(&text);
                        }
                        (None, false)
                    }
                }
                Ok(None) if !self.in_parts => (Some(self.response(&whole, !self.empty_final)), true),
                Ok(None) => (None, true),
                Err(failure) => {
                    let _ = responses.send(self.failed(&failure)).await;
                    return;
                }
            };
            for response in sent.into_iter().chain((last && self.empty_final).then(|| self.response(&[], true))) {
                if responses.send(response).await.is_err() {
                    return;
                }
            }
            if last {
                return;
            }
        }
    }

    /// A response with these texts, or without an output.
    fn response(&self, texts: &[String], last: bool) -> Bytes {
        let output = InferOutputTensor {
            name: TEXT_OUTPUT.into(),
            datatype: "BYTES".into(),
            shape: vec![texts.len() as i64],
            ..InferOutputTensor::default()
        };
        let packed = |text: &String| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
        let bytes: Vec<u8> = texts.iter().flat_map(packed).collect();
        let (outputs, raw) =
            if texts.is_empty() { (Vec::new(), Vec::new()) } else { (vec![output], vec![bytes.into()]) };
        let flag = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(last)) };
        let response = ModelInferResponse {
            parameters: [(FINAL.to_owned(), flag)].into(),
            outputs,
            raw_output_contents: raw,
            ..self.empty()
        };
        let response = ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) };
        Reply::of(&response).seal()
    }

    fn failed(&self, failure: &Failure) -> Bytes {
        let response =
            ModelStreamInferResponse { error_message: failure.message.clone(), infer_response: Some(self.empty()) };
        Reply::of(&response).seal()
    }

    fn empty(&self) -> ModelInferResponse {
        ModelInferResponse {
            model_name: self.name.clone(),
            model_version: self.version.clone(),
            id: self.id.clone(),
            ..ModelInferResponse::default()
        }
    }
}
