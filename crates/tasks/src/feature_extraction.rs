//! feature-extraction: texts to vectors.
//!
//! Body: `{"inputs": "a text" | ["several", ...], "parameters": {...}}`.
//!
//! | parameter | meaning |
//! |---|---|
//! | `normalize` | `true`: rows of length 1. Absent or `false`: the model's own output, which is normalised where the model ends with a Normalize module, as in sentence-transformers |
//! | `prompt_name` | puts the model's prompt of that name before each text |
//! | `truncate` | `false`: a text over the model's maximum is an error; otherwise it is cut |
//! | `truncation_direction` | `Right` (default) or `Left`: the end that is cut |
//! | `dimensions` | keeps the first so many values of each row, of length 1 again unless `normalize` is `false` or the model doesn't normalise |
//! | `encoding_format` | `float` (default), or `base64`: each row is a string of little-endian f32 |
//!
//! Reply, sentence embeddings: `[f]` for a text, `[[f]]` for a list. Token features: `[[[f]]]`,
//! a matrix per text, also for a single text. Both are what the hub answers. Late interaction: the same, where each
//! row has length 1. Sparse embeddings: `[[{"index": token id, "value": weight}, ...]]`, a list per text, also for a
//! single one, as text-embeddings-inference has it; they take neither `dimensions` nor `encoding_format`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeSeq};
use utoipa::ToSchema;

use crate::{
    body::{Body, OneOrMany, from_json},
    engine::{Output, Sequence},
    error::TaskError,
    model::{Head, Model},
    tokens::{Collector, Direction, Usage, truncation},
};

/// What to embed, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Texts or tokens.
    pub inputs: Inputs,
    /// How.
    pub parameters: Parameters,
}

/// What to embed.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// Texts.
    Texts(OneOrMany<String>),
    /// Token ids, taken as they are: no special token is added, no prompt, nothing is cut.
    Tokens(OneOrMany<Vec<u32>>),
}

/// How to embed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = FeatureExtractionParameters)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// L2 normalisation of each row.
    pub normalize: Option<bool>,
    /// Name of a prompt of the model.
    pub prompt_name: Option<String>,
    /// Whether a text that is too long may be cut; it may by default.
    #[serde(alias = "truncation")]
    pub truncate: Option<bool>,
    /// Which end is cut.
    pub truncation_direction: Option<Direction>,
    /// Length that rows are cut to.
    #[schema(minimum = 1)]
    pub dimensions: Option<usize>,
    /// How rows are written.
    pub encoding_format: Option<Format>,
}

/// How a row is written in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A list of numbers, each the shortest that reads back as the same f32.
    #[default]
    Float,
    /// Base64 of the f32 in little-endian order.
    Base64,
}

impl Request {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, TaskError> {
        let Body { inputs, parameters } = from_json::<Body<_, _>>(body)?;
        Ok(Self { inputs: Inputs::Texts(inputs), parameters })
    }

    /// Number of texts or token lists.
    pub(crate) fn len(&self) -> usize {
        match &self.inputs {
            Inputs::Texts(texts) => texts.items.len(),
            Inputs::Tokens(tokens) => tokens.items.len(),
        }
    }

    pub(crate) fn prepare(self, model: &Model) -> Result<(Vec<Sequence>, Usage, Finish), TaskError> {
        if self.len() == 0 {
            return Err(TaskError::Empty("inputs"));
        }
        let Parameters { normalize, prompt_name, truncate, truncation_direction, dimensions, encoding_format } =
            self.parameters;
        if let Head::SparseEmbedding { .. } = model.card.head {
            check_sparse(dimensions, encoding_format)?;
        }
        let dimensions = check_dimensions(model, dimensions)?;
        let truncation = truncation(truncate, truncation_direction);
        let mut collector = Collector::new(model, prompt_name.as_deref(), truncation)?;
        let single = match self.inputs {
            Inputs::Texts(texts) => {
                texts.items.iter().try_for_each(|text| collector.text(text))?;
                texts.single
            }
            Inputs::Tokens(tokens) => {
                tokens.items.into_iter().try_for_each(|ids| collector.push(Sequence::from_ids(ids)))?;
                tokens.single
            }
        };
        let model_normalises = match &model.card.head {
            Head::SentenceEmbedding(head) => head.normalised,
            Head::LateInteraction { .. } => true,
            Head::TokenFeatures { .. }
            | Head::Classification { .. }
            | Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::MaskedLm { .. }
            | Head::CausalLm { .. }
            | Head::Seq2SeqLm { .. }
            | Head::SparseEmbedding { .. } => false,
        };
        let normalise = match normalize {
            Some(true) => !model_normalises || dimensions.is_some(),
            Some(false) => false,
            None => model_normalises && dimensions.is_some(),
        };
        let (sequences, usage) = collector.finish();
        Ok((sequences, usage, Finish { single, normalise, dimensions, format: encoding_format.unwrap_or_default() }))
    }
}

fn check_sparse(dimensions: Option<usize>, format: Option<Format>) -> Result<(), TaskError> {
    let refused = |name| {
        let reason = "the model's embeddings are sparse: pairs of a token id and its weight; leave it out".into();
        Err(TaskError::Parameter { name, reason })
    };
    match (dimensions, format) {
        (Some(_), _) => refused("dimensions"),
        (None, Some(Format::Base64)) => refused("encoding_format"),
        (None, Some(Format::Float) | None) => Ok(()),
    }
}

fn check_dimensions(model: &Model, dimensions: Option<usize>) -> Result<Option<usize>, TaskError> {
    let own = model.card.dimension();
    match dimensions {
        Some(wanted) if wanted == 0 || wanted > own => Err(TaskError::Parameter {
            name: "dimensions",
            reason: format!("{wanted} is outside of 1 to {own}, the model's own"),
        }),
        Some(wanted) if wanted == own => Ok(None),
        Some(_) | None => Ok(dimensions),
    }
}

/// What is left to do once the model has run.
#[derive(Clone, Debug)]
pub struct Finish {
    single: bool,
    normalise: bool,
    dimensions: Option<usize>,
    format: Format,
}

impl Finish {
    pub(crate) fn reply(self, model: &Model, mut outputs: Vec<Output>) -> Features {
        for output in &mut outputs {
            if let Some(dimensions) = self.dimensions {
                keep_columns(output, dimensions);
            }
            if self.normalise && output.columns > 0 {
                output.data.chunks_exact_mut(output.columns).for_each(normalise);
            }
        }
        let layout = match &model.card.head {
            Head::SentenceEmbedding(_) if self.single => Layout::Vector,
            Head::SentenceEmbedding(_) => Layout::Vectors,
            Head::SparseEmbedding { .. } => Layout::Sparse,
            Head::TokenFeatures { .. }
            | Head::Classification { .. }
            | Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::MaskedLm { .. }
            | Head::CausalLm { .. }
            | Head::Seq2SeqLm { .. }
            | Head::LateInteraction { .. } => Layout::Matrices,
        };
        Features { outputs, layout, format: self.format }
    }
}

fn keep_columns(output: &mut Output, columns: usize) {
    if output.columns > columns {
        output.data = output.data.chunks_exact(output.columns).flat_map(|row| &row[..columns]).copied().collect();
        output.columns = columns;
    }
}

/// Scales a vector to length 1; zero stays zero.
fn normalise(row: &mut [f32]) {
    let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// The vectors of a request; serialises as the reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// One per input.
    pub outputs: Vec<Output>,
    layout: Layout,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// One sentence embedding.
    Vector,
    /// A list of sentence embeddings.
    Vectors,
    /// A list of token features.
    Matrices,
    /// A list of sparse embeddings.
    Sparse,
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = |output| Rows { output, format: self.format };
        match self.layout {
            Layout::Vector => {
                let data = self.outputs.first().map_or(&[][..], |output| &output.data);
                Row { data, format: self.format }.serialize(serializer)
            }
            Layout::Vectors => serializer
                .collect_seq(self.outputs.iter().map(|output| Row { data: &output.data, format: self.format })),
            Layout::Matrices => serializer.collect_seq(self.outputs.iter().map(rows)),
            Layout::Sparse => serializer.collect_seq(self.outputs.iter().map(|output| Weights(&output.data))),
        }
    }
}

struct Rows<'a> {
    output: &'a Output,
    format: Format,
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.output.rows))?;
        for data in self.output.data.chunks_exact(self.output.columns.max(1)) {
            list.serialize_element(&Row { data, format: self.format })?;
        }
        list.end()
    }
}

/// A sparse vector: what of it is not 0.
struct Weights<'a>(&'a [f32]);

impl Serialize for Weights<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Weight {
            index: usize,
            value: f32,
        }
        let weights = self.0.iter().enumerate().filter(|(_, value)| **value != 0.0);
        serializer.collect_seq(weights.map(|(index, &value)| Weight { index, value }))
    }
}

/// One vector in the wanted format.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The values.
    pub data: &'a [f32],
    /// How they are written.
    pub format: Format,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.format {
            Format::Float => self.data.serialize(serializer),
            Format::Base64 => {
                let bytes: Vec<u8> = self.data.iter().flat_map(|value| value.to_le_bytes()).collect();
                serializer.serialize_str(&STANDARD.encode(bytes))
            }
        }
    }
}
