//! sentence-similarity: the cosine between one sentence and each of several.
//!
//! Body: `{"inputs": {"source_sentence": "a text", "sentences": ["others", ...]}}`, with the
//! parameters `prompt_name`, `truncate` and `truncation_direction` of feature-extraction.
//!
//! Reply: `[f]`, one number between -1 and 1 per sentence, in order.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    body::{Body, Object, from_json},
    engine::{Output, Sequence},
    error::TaskError,
    model::Model,
    tokens::{Collector, Direction, Usage, truncation},
};

/// What to compare.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The sentences.
    pub inputs: Inputs,
    /// How texts become tokens.
    pub parameters: Parameters,
}

/// The sentences of a request.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[schema(as = SentenceSimilarityInputs)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The one that the others are compared with.
    pub source_sentence: String,
    /// The others.
    #[schema(min_items = 1)]
    pub sentences: Vec<String>,
}

/// How texts become tokens.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = SentenceSimilarityParameters)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Name of a prompt of the model.
    pub prompt_name: Option<String>,
    /// Whether a text that is too long may be cut; it may by default.
    #[serde(alias = "truncation")]
    pub truncate: Option<bool>,
    /// Which end is cut.
    pub truncation_direction: Option<Direction>,
}

impl Request {
    /// Reads a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, TaskError> {
        let Body { inputs: Object(inputs), parameters } = from_json::<Body<Object<_>, _>>(body)?;
        Ok(Self { inputs, parameters })
    }

    /// Number of texts.
    pub(crate) fn len(&self) -> usize {
        self.inputs.sentences.len() + 1
    }

    pub(crate) fn prepare(self, model: &Model) -> Result<(Vec<Sequence>, Usage), TaskError> {
        if self.inputs.sentences.is_empty() {
            return Err(TaskError::Empty("inputs.sentences"));
        }
        let Parameters { prompt_name, truncate, truncation_direction } = self.parameters;
        let truncation = truncation(truncate, truncation_direction);
        let mut collector = Collector::new(model, prompt_name.as_deref(), truncation)?;
        collector.text(&self.inputs.source_sentence)?;
        self.inputs.sentences.iter().try_for_each(|text| collector.text(text))?;
        Ok(collector.finish())
    }
}

/// The cosine between the first output and each other.
pub(crate) fn reply(outputs: &[Output]) -> Vec<f32> {
    let Some((source, others)) = outputs.split_first() else {
        return Vec::new();
    };
    others.iter().map(|other| cosine(&source.data, &other.data)).collect()
}

/// Cosine of two vectors, summed in f64; 0 where one of them is zero.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths).clamp(-1.0, 1.0) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cosine_is_bounded_and_symmetric(
            pair in proptest::collection::vec((-1e30f32..1e30, -1e30f32..1e30), 1..20)
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pair.into_iter().unzip();
            let value = cosine(&a, &b);
            prop_assert!((-1.0..=1.0).contains(&value));
            prop_assert_eq!(value, cosine(&b, &a));
        }

        #[test]
        fn a_vector_is_like_itself(a in proptest::collection::vec(0.5f32..1e9, 1..20)) {
            prop_assert!((cosine(&a, &a) - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn zero_is_like_nothing() {
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 2.0]), 0.0);
    }
}
