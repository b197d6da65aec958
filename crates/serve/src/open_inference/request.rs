//! A request for inference as work for the service.

use std::time::Duration;

use centuple_tasks::{
    Head, Job, Model, OneOrMany, Request, Sequence, TaskError, feature_extraction, text_classification,
    token_classification,
};
use centuple_text::{Text, Truncation};

use super::{
    describe::takes_texts,
    outputs::is_by_token,
    tensor::{Tensor, Values, invalid},
};
use crate::service::Work;

/// A request for inference whose tensors are what they claim to be.
#[derive(Debug)]
pub struct InferRequest {
    pub(super) id: Option<String>,
    inputs: Vec<Tensor>,
    /// What is asked for; nothing: the one output there is.
    pub(super) outputs: Vec<WantedOutput>,
    /// Whether that is sent as bytes.
    pub(super) binary: bool,
    /// How long the request may take.
    pub(super) timeout: Option<Duration>,
}

/// An output that is asked for.
#[derive(Debug)]
pub(crate) struct WantedOutput {
    pub(crate) name: String,
    /// Whether it is sent as bytes, where the transport leaves a choice.
    pub(crate) binary: bool,
    /// Number of classes to name.
    pub(crate) classification: Option<i64>,
    /// Whether it is to go into memory that is shared.
    pub(crate) shared_memory: bool,
}

/// Most inputs of a request. More no model has, so that comparing names stays cheap.
pub(crate) const MOST_INPUTS: usize = 8;

/// An error of the inputs.
pub(crate) fn refused(message: String) -> TaskError {
    TaskError::Shape { field: "inputs".into(), message }
}

impl InferRequest {
    /// A request without inputs. `binary`: how outputs are sent if none is asked for by name.
    pub(crate) fn new(id: Option<String>, outputs: Vec<WantedOutput>, binary: bool) -> Self {
        Self { id, inputs: Vec::new(), outputs, binary, timeout: None }
    }

    /// Sets how long it may take, in microseconds; 0: as long as it needs, as everywhere in the protocol.
    pub(crate) fn set_timeout(&mut self, microseconds: u64) {
        self.timeout = (microseconds > 0).then(|| Duration::from_micros(microseconds));
    }

    /// Adds an input.
    pub(crate) fn add(&mut self, tensor: Tensor) -> Result<(), TaskError> {
        if self.inputs.iter().any(|other| other.name == tensor.name) {
            return Err(invalid(&tensor.name, "it is there twice"));
        }
        if self.inputs.len() == MOST_INPUTS {
            return Err(refused("there are more inputs than any model takes".into()));
        }
        self.inputs.push(tensor);
        Ok(())
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
        match self.into_work(model)? {
            Work::Reply(request) | Work::Outputs(request) => Ok(Job::prepare(model, request)?.sequences),
            Work::Sequences { sequences, .. } => {
                for (input, sequence) in sequences.iter().enumerate() {
                    model.limits.check(sequence).map_err(|source| TaskError::Ids { input, source })?;
                }
                Ok(sequences)
            }
        }
    }

    /// What the model has to compute.
    pub(super) fn into_work(self, model: &Model) -> Result<Work, TaskError> {
        let length = self.padded_length();
        let Self { mut inputs, .. } = self;
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
        Ok(match (text, ids) {
            (Some(text), None) if mask.is_none() && types.is_none() => of_texts(model, text)?,
            (None, Some(ids)) => {
                let sequences = of_tokens(model, ids, mask, types)?;
                let length = if is_by_token(&model.card.head) { length.unwrap_or(0) } else { 1 };
                Work::Sequences { sequences, length }
            }
            (None, None) => return Err(refused("there is neither `TEXT` nor `input_ids` among the inputs".into())),
            (Some(_), _) => return Err(refused("`TEXT` goes without other inputs".into())),
        })
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
        | Head::MaskedLm { .. }
        | Head::CausalLm { .. }
        | Head::Seq2SeqLm { .. } => {
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
            Head::MaskedLm { .. } | Head::CausalLm { .. } | Head::Seq2SeqLm { .. } => (0..tokens).collect(),
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
