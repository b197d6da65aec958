//! text-ranking: texts in the order in which they answer a query, by a cross-encoder with one label.
//!
//! Body: `{"inputs": {"query": "...", "texts": ["...", ...]}, "parameters": {...}}`. `source_sentence` is another name
//! for `query`, `documents` and `sentences` are others for `texts`; a text may be written as `{"text": "..."}`.
//!
//! | parameter | meaning |
//! |---|---|
//! | `top_k`, `top_n` | keeps the best so many texts; absent: all of them |
//! | `return_documents`, `return_text` | whether the reply has the texts themselves |
//! | `raw_scores` | `true`: scores are logits; `false`: their sigmoids; absent: as the checkpoint's `activation_fn` says, else sigmoids, as in sentence-transformers |
//! | `truncate`, `truncation_direction` | as in feature-extraction; of query and text the longer one is cut |
//!
//! Reply: `[{"index", "score", "text"?}, ...]`, best first; `index` is the text's place in the request.

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use crate::{
    body::{Body, Object, from_json},
    engine::{Output, Sequence},
    error::TaskError,
    model::Model,
    schema::documents,
    scores::{best, sigmoid},
    tokens::{Collector, Direction, Usage, check_repeated, truncation},
};

/// A query and texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The query and the texts.
    pub inputs: Inputs,
    /// How they are ranked.
    pub parameters: Parameters,
}

/// A query and the texts to be ranked.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[schema(as = TextRankingInputs)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// What is asked for.
    #[serde(alias = "source_sentence")]
    pub query: String,
    /// The texts.
    #[serde(alias = "documents", alias = "sentences")]
    #[schema(schema_with = documents)]
    pub texts: Vec<Document>,
}

/// A text to be ranked.
#[derive(Clone, Debug, PartialEq)]
pub struct Document(pub String);

/// How texts are ranked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = TextRankingParameters)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Number of texts to keep.
    #[serde(alias = "top_n")]
    #[schema(minimum = 1)]
    pub top_k: Option<usize>,
    /// Whether the reply has the texts.
    #[serde(alias = "return_text")]
    pub return_documents: Option<bool>,
    /// Whether scores are logits.
    pub raw_scores: Option<bool>,
    /// Whether a pair that is too long may be cut; it may by default.
    #[serde(alias = "truncation")]
    pub truncate: Option<bool>,
    /// Which end is cut.
    pub truncation_direction: Option<Direction>,
}

/// A text in its place.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Ranked {
    /// Its place in the request.
    pub index: usize,
    /// How well it answers the query.
    pub score: f32,
    /// The text, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> de::Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a text or an object with `text`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Document, E> {
        Ok(Document(text.into()))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Document, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wrapped {
            text: String,
        }
        Wrapped::deserialize(de::value::MapAccessDeserializer::new(map)).map(|Wrapped { text }| Document(text))
    }
}

impl Request {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, TaskError> {
        let Body { inputs: Object(inputs), parameters } = from_json::<Body<Object<_>, _>>(body)?;
        Ok(Self { inputs, parameters })
    }

    /// Number of texts.
    pub(crate) fn len(&self) -> usize {
        self.inputs.texts.len()
    }

    pub(crate) fn prepare(self, model: &Model) -> Result<(Vec<Sequence>, Usage, Finish), TaskError> {
        let Inputs { query, texts } = self.inputs;
        let Parameters { top_k, return_documents, raw_scores, truncate, truncation_direction } = self.parameters;
        if texts.is_empty() {
            return Err(TaskError::Empty("inputs.texts"));
        }
        if top_k == Some(0) {
            let reason = "0 texts are none; give 1 or more, or leave it out for all texts".into();
            return Err(TaskError::Parameter { name: "top_k", reason });
        }
        check_repeated("query", &query, texts.len())?;
        let mut collector = Collector::new(model, None, truncation(truncate, truncation_direction))?;
        texts.iter().try_for_each(|Document(text)| collector.full_pair(&query, text))?;
        let (sequences, usage) = collector.finish();
        let texts = return_documents.unwrap_or(false).then_some(texts);
        let finish =
            Finish { top_k: top_k.unwrap_or(usize::MAX), raw: raw_scores.unwrap_or(model.card.ranks_by_logit), texts };
        Ok((sequences, usage, finish))
    }
}

/// What is left to do once the model has run.
#[derive(Clone, Debug)]
pub struct Finish {
    top_k: usize,
    raw: bool,
    /// The texts, where the reply has them.
    texts: Option<Vec<Document>>,
}

impl Finish {
    pub(crate) fn reply(self, outputs: &[Output]) -> Vec<Ranked> {
        let logits: Vec<f32> = outputs.iter().map(|output| output.data.first().copied().unwrap_or(0.0)).collect();
        let ranked = |index: usize| {
            let score = if self.raw { logits[index] } else { sigmoid(logits[index]) };
            let text = self.texts.as_ref().and_then(|texts| texts.get(index)).map(|Document(text)| text.clone());
            Ranked { index, score, text }
        };
        best(&logits, self.top_k).into_iter().map(ranked).collect()
    }
}
