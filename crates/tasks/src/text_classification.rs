//! text-classification: texts, or pairs of texts, to scored labels.
//!
//! Body: `{"inputs": T | [T, ...], "parameters": {...}}`, where T is a text or
//! `{"text": "...", "text_pair": "..."}`.
//!
//! | parameter | meaning |
//! |---|---|
//! | `top_k` | keeps the best so many labels; absent or `null`: all of them |
//! | `return_all_scores` | where there is no `top_k`: `true` gives all labels in the model's order, `false` the best one |
//! | `function_to_apply` | `softmax`, `sigmoid` or `none`; absent: as the model's problem type says |
//! | `truncate`, `truncation_direction` | as in feature-extraction |
//!
//! Reply: `[[{"label": ..., "score": ...}, ...], ...]`: a list per input, best label first, also
//! for a single text, as the hub answers.

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use crate::{
    body::{Body, OneOrMany, from_json},
    engine::{Output, Sequence},
    error::TaskError,
    model::{Head, Model, Problem},
    scores::{best, sigmoid, softmax},
    tokens::{Collector, Direction, Usage, truncation},
};

/// What to classify, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Texts or pairs.
    pub inputs: OneOrMany<Input>,
    /// How.
    pub parameters: Parameters,
}

/// A text, or two that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
}

/// How to classify.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = TextClassificationParameters)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Number of labels to keep.
    #[schema(minimum = 1)]
    pub top_k: Option<usize>,
    /// All labels in the model's order, or the best one; `top_k` goes before it.
    pub return_all_scores: Option<bool>,
    /// From logits to scores.
    pub function_to_apply: Option<Function>,
    /// Whether a text that is too long may be cut; it may by default.
    #[serde(alias = "truncation")]
    pub truncate: Option<bool>,
    /// Which end is cut.
    pub truncation_direction: Option<Direction>,
}

/// From logits to scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// Scores of all labels sum to 1.
    #[serde(alias = "SOFTMAX")]
    Softmax,
    /// Each label for itself, between 0 and 1.
    #[serde(alias = "SIGMOID")]
    Sigmoid,
    /// The logits.
    #[serde(alias = "NONE")]
    None,
}

/// A label and how well it fits.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Score {
    /// Name of the label.
    pub label: String,
    /// What the function made of its logit.
    pub score: f32,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> de::Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a text or an object with `text` and `text_pair`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input { text: text.into(), text_pair: None })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Input, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Pair {
            text: String,
            text_pair: Option<String>,
        }
        let Pair { text, text_pair } = Pair::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Input { text, text_pair })
    }
}

impl Request {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, TaskError> {
        let Body { inputs, parameters } = from_json::<Body<_, _>>(body)?;
        Ok(Self { inputs, parameters })
    }

    /// Number of texts or pairs.
    pub(crate) fn len(&self) -> usize {
        self.inputs.items.len()
    }

    pub(crate) fn prepare(self, model: &Model) -> Result<(Vec<Sequence>, Usage, Finish), TaskError> {
        let Parameters { top_k, return_all_scores, function_to_apply, truncate, truncation_direction } =
            self.parameters;
        if self.inputs.items.is_empty() {
            return Err(TaskError::Empty("inputs"));
        }
        if top_k == Some(0) {
            let reason = "0 labels are none; give 1 or more, or leave it out for all labels".into();
            return Err(TaskError::Parameter { name: "top_k", reason });
        }
        let mut collector = Collector::new(model, None, truncation(truncate, truncation_direction))?;
        for Input { text, text_pair } in &self.inputs.items {
            match text_pair {
                Some(text_pair) => collector.pair(text, text_pair)?,
                None => collector.text(text)?,
            }
        }
        let (sequences, usage) = collector.finish();
        let order = match (top_k, return_all_scores) {
            (Some(most), _) => Order::Best(most),
            (None, Some(true)) => Order::Model,
            (None, Some(false)) => Order::Best(1),
            (None, None) => Order::Best(usize::MAX),
        };
        Ok((sequences, usage, Finish { order, function: function_to_apply }))
    }
}

/// What is left to do once the model has run.
#[derive(Clone, Debug)]
pub struct Finish {
    order: Order,
    function: Option<Function>,
}

/// Which labels a reply has, and in what order.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// The best so many, best first.
    Best(usize),
    /// All, as the model has them.
    Model,
}

impl Finish {
    pub(crate) fn reply(self, model: &Model, outputs: &[Output]) -> Vec<Vec<Score>> {
        let Head::Classification { labels, problem } = &model.card.head else {
            return Vec::new();
        };
        let function = self.function.unwrap_or(match problem {
            Problem::SingleLabel => Function::Softmax,
            Problem::MultiLabel => Function::Sigmoid,
            Problem::Regression => Function::None,
        });
        let scores = |output: &Output| {
            let scores = function.apply(&output.data);
            match self.order {
                Order::Best(most) => rank(labels, &scores, most),
                Order::Model => labels.iter().cloned().zip(scores).map(Score::of).collect(),
            }
        };
        outputs.iter().map(scores).collect()
    }
}

/// The best labels, best first; labels of equal score stay in the model's order.
fn rank(labels: &[String], scores: &[f32], most: usize) -> Vec<Score> {
    best(scores, most).into_iter().map(|place| Score { label: labels[place].clone(), score: scores[place] }).collect()
}

impl Score {
    /// A score and its label.
    pub(crate) fn of((label, score): (String, f32)) -> Self {
        Self { label, score }
    }
}

impl Function {
    /// Scores of finite logits; always finite.
    fn apply(self, logits: &[f32]) -> Vec<f32> {
        match self {
            Function::Softmax => softmax(logits),
            Function::Sigmoid => logits.iter().copied().map(sigmoid).collect(),
            Function::None => logits.to_vec(),
        }
    }
}
