//! The body of `infer`: JSON, and the tensors behind it.

use centuple_tasks::{
    Head, Job, Model, OneOrMany, Request, Sequence, TaskError, feature_extraction, from_json, text_classification,
    token_classification,
};
use centuple_text::{Text, Truncation};
use serde::Deserialize;

use super::{
    describe::takes_texts,
    outputs::is_by_token,
    tensor::{self, Tensor, Values, invalid},
};
use crate::service::Work;

/// A body of `POST /v2/models/{name}/infer` whose tensors are what they claim to be.
#[derive(Debug)]
pub struct InferRequest {
    id: Option<String>,
    inputs: Vec<Tensor>,
    /// What is asked for; nothing: every output.
    pub(super) outputs: Vec<WantedOutput>,
    /// Whether outputs are sent as bytes where they don't say.
    pub(super) binary: bool,
}

#[derive(Deserialize)]
struct Body {
    id: Option<String>,
    inputs: Vec<tensor::Header>,
    outputs: Option<Vec<WantedOutput>>,
    parameters: Option<Parameters>,
}

#[derive(Default, Deserialize)]
struct Parameters {
    binary_data_output: Option<bool>,
}

/// An output that is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct WantedOutput {
    pub(super) name: String,
    pub(super) parameters: Option<OutputParameters>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct OutputParameters {
    pub(super) binary_data: Option<bool>,
    pub(super) classification: Option<i64>,
    pub(super) shared_memory_region: Option<serde::de::IgnoredAny>,
}

fn refused(message: String) -> TaskError {
    TaskError::Shape { field: "inputs".into(), message }
}

impl InferRequest {
    /// Reads a body whose first `json` bytes are JSON; `None`: all of them.
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
        let mut tensors: Vec<Tensor> = Vec::new();
        for header in inputs {
            let tensor = Tensor::read(header, binary.as_mut())?;
            if tensors.iter().any(|other| other.name == tensor.name) {
                return Err(invalid(&tensor.name, "it is there twice"));
            }
            // More than these no model has, so that comparing names stays cheap.
            if tensors.len() == 8 {
                return Err(refused("there are more inputs than any model takes".into()));
            }
            tensors.push(tensor);
        }
        match binary {
            Some(rest) if !rest.is_empty() => {
                return Err(refused(format!("{} bytes of the body belong to no input", rest.len())));
            }
            Some(_) | None => {}
        }
        let binary = parameters.unwrap_or_default().binary_data_output.unwrap_or(false);
        Ok(Self { id, inputs: tensors, outputs: outputs.unwrap_or_default(), binary })
    }

    /// Tokens that every sequence of the request is padded to; none for texts.
    pub(super) fn padded_length(&self) -> Option<usize> {
        let ids = self.inputs.iter().find(|tensor| tensor.name == "input_ids")?;
        ids.shape.get(1).copied()
    }

    /// Texts or sequences in it.
    pub(super) fn rows(&self) -> usize {
        self.inputs.iter().filter_map(|tensor| tensor.shape.first().copied()).max().unwrap_or(0)
    }

    /// The sequences that a model has to compute for it, each of which its limits allow.
    pub fn sequences(self, model: &Model) -> Result<Vec<Sequence>, TaskError> {
        match self.into_work(model)?.0 {
            Work::Reply(request) | Work::Outputs(request) => Ok(Job::prepare(model, request)?.sequences),
            Work::Sequences { sequences, .. } => {
                for (input, sequence) in sequences.iter().enumerate() {
                    model.limits.check(sequence).map_err(|source| TaskError::Ids { input, source })?;
                }
                Ok(sequences)
            }
        }
    }

    /// What the model has to compute, and the request's id.
    pub(crate) fn into_work(self, model: &Model) -> Result<(Work, Option<String>), TaskError> {
        let length = self.padded_length();
        let Self { id, mut inputs, .. } = self;
        if let Some(unknown) = inputs
            .iter()
            .find(|tensor| !["TEXT", "input_ids", "attention_mask", "token_type_ids"].contains(&tensor.name.as_str()))
        {
            return Err(invalid(&unknown.name, "unknown; a model takes `TEXT`, or `input_ids` and `attention_mask`"));
        }
        let mut take = |name| {
            let place = inputs.iter().position(|tensor| tensor.name == name)?;
            Some(inputs.swap_remove(place))
        };
        let (text, ids, mask, types) =
            (take("TEXT"), take("input_ids"), take("attention_mask"), take("token_type_ids"));
        let work = match (text, ids) {
            (Some(text), None) if mask.is_none() && types.is_none() => of_texts(model, text)?,
            (None, Some(ids)) => {
                let sequences = of_tokens(model, ids, mask, types)?;
                let length = if is_by_token(&model.card.head) { length.unwrap_or(0) } else { 1 };
                Work::Sequences { sequences, length }
            }
            (None, None) => return Err(refused("there is neither `TEXT` nor `input_ids` among the inputs".into())),
            (Some(_), _) => return Err(refused("`TEXT` goes without other inputs".into())),
        };
        Ok((work, id))
    }
}

/// The texts of `[N]` or `[N, 1]`.
fn of_texts(model: &Model, tensor: Tensor) -> Result<Work, TaskError> {
    let Tensor { name, shape, values } = tensor;
    if !matches!(shape.as_slice(), [_] | [_, 1]) {
        return Err(invalid(&name, format!("shape {shape:?} is neither [N] nor [N, 1]")));
    }
    let Values::Texts(texts) = values else {
        return Err(invalid(&name, "its datatype must be BYTES"));
    };
    if !takes_texts(model) {
        let reason = format!("model `{}` takes `input_ids` and `attention_mask` only", model.card.id);
        return Err(invalid(&name, reason));
    }
    if texts.is_empty() {
        return Err(TaskError::Empty("inputs"));
    }
    let request = match &model.card.head {
        Head::Classification { .. } => {
            let input = |text| text_classification::Input { text, text_pair: None };
            let inputs = OneOrMany::many(texts.into_iter().map(input).collect());
            Request::TextClassification(text_classification::Request { inputs, parameters: Default::default() })
        }
        Head::TokenClassification { .. } => {
            let inputs = OneOrMany::many(texts);
            Request::TokenClassification(token_classification::Request { inputs, parameters: Default::default() })
        }
        Head::TokenFeatures { .. }
        | Head::SentenceEmbedding(_)
        | Head::SparseEmbedding { .. }
        | Head::LateInteraction { .. }
        | Head::QuestionAnswering
        | Head::MaskedLm { .. } => {
            let inputs = feature_extraction::Inputs::Texts(OneOrMany::many(texts));
            Request::FeatureExtraction(feature_extraction::Request { inputs, parameters: Default::default() })
        }
    };
    Ok(Work::Outputs(request))
}

/// A sequence per row, less its padding.
fn of_tokens(
    model: &Model,
    ids: Tensor,
    mask: Option<Tensor>,
    types: Option<Tensor>,
) -> Result<Vec<Sequence>, TaskError> {
    let [rows, length] = *ids.shape else {
        return Err(invalid(&ids.name, format!("shape {:?} is not [N, tokens]", ids.shape)));
    };
    if rows == 0 || length == 0 {
        return Err(TaskError::Empty("inputs"));
    }
    if let Some(other) = [&mask, &types].into_iter().flatten().find(|other| other.shape != ids.shape) {
        return Err(invalid(
            &other.name,
            format!("its shape is {:?}, that of `input_ids` {:?}", other.shape, ids.shape),
        ));
    }
    let (ids, mask, types) = (Integers::of(ids)?, mask.map(Integers::of), types.map(Integers::of));
    let (mask, types) = (mask.transpose()?, types.transpose()?);
    let segments = if types.is_some() { token_types(model) } else { 1 };
    let mut sequences = Vec::new();
    for row in 0..rows {
        let tokens = match &mask {
            Some(mask) => kept(row, mask.row(row, length))?,
            None => length,
        };
        let ids = ids.tokens(row, length, tokens, model.limits.vocabulary)?;
        let type_ids = match &types {
            Some(types) => types.tokens(row, length, tokens, segments)?,
            None => vec![0; tokens],
        };
        let selected = match &model.card.head {
            Head::MaskedLm { .. } => (0..tokens).collect(),
            Head::TokenFeatures { .. }
            | Head::SentenceEmbedding(_)
            | Head::Classification { .. }
            | Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::SparseEmbedding { .. }
            | Head::LateInteraction { .. } => Vec::new(),
        };
        sequences.push(Sequence { ids, type_ids, pool_from: 0, selected });
    }
    Ok(sequences)
}

/// How many tokens of a row are not padding, which must stand behind them.
fn kept(row: usize, mask: &[i64]) -> Result<usize, TaskError> {
    let tokens = mask.iter().take_while(|value| **value == 1).count();
    if mask.iter().skip(tokens).any(|value| *value != 0) {
        let reason = format!("row {row} is not ones and then zeros; put the padding behind the tokens");
        return Err(invalid("attention_mask", reason));
    }
    if tokens == 0 {
        return Err(invalid("attention_mask", format!("row {row} has no token")));
    }
    Ok(tokens)
}

/// Number of segments that the tokenizer knows. What the model's table has may be more, but never less.
fn token_types(model: &Model) -> usize {
    let pair = model.tokenizer.encode(Text::FullPair("a", "b"), Truncation::Right);
    let largest = pair.ok().and_then(|pair| pair.type_ids.iter().max().copied()).unwrap_or(0);
    largest as usize + 1
}

/// A tensor of integers.
struct Integers {
    name: String,
    values: Vec<i64>,
}

impl Integers {
    fn of(tensor: Tensor) -> Result<Self, TaskError> {
        match tensor.values {
            Values::Integers(values) => Ok(Self { name: tensor.name, values }),
            Values::Texts(_) => Err(invalid(&tensor.name, "its datatype must be INT64 or INT32")),
        }
    }

    fn row(&self, row: usize, length: usize) -> &[i64] {
        self.values.get(row * length..(row + 1) * length).unwrap_or_default()
    }

    /// The first values of a row, each of which must be less than `end`.
    fn tokens(&self, row: usize, length: usize, tokens: usize, end: usize) -> Result<Vec<u32>, TaskError> {
        let value = |&value: &i64| match u32::try_from(value) {
            Ok(id) if (id as usize) < end => Ok(id),
            Ok(_) | Err(_) => Err(invalid(&self.name, format!("row {row}: {value} is outside of 0 to {}", end - 1))),
        };
        self.row(row, length).iter().take(tokens).map(value).collect()
    }
}
