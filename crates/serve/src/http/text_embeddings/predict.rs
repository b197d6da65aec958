//! `/predict`: a text, a pair, or several of them to classes, flat for one and nested for several.

use std::sync::Arc;

use centuple_tasks::{
    Direction, Model, OneOrMany, Reply, Request, Task, Usage, from_json,
    text_classification::{self, Function, Parameters},
};
use serde::{Deserialize, Deserializer, de};

use super::{not_empty, to_json};
use crate::service::{Dialect, Done, Failure, Models, Served, Work, Written};

/// Whether a classifier is meant to name classes, where others that are served are rankers.
pub(in crate::http) fn is_no_ranker(model: &Model) -> bool {
    !model.card.tasks().contains(&Task::TextRanking)
}

/// Reads the bodies of `/predict`.
pub(super) struct Predict {
    /// Whether the request was one input without a list around it.
    single: bool,
    cut: bool,
}

impl Predict {
    /// `cut`: whether texts that are too long are cut where a request does not say.
    pub(super) fn new(cut: bool) -> Self {
        Self { single: false, cut }
    }
}

#[derive(Deserialize)]
struct PredictBody {
    inputs: PredictInputs,
    model: Option<String>,
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
    raw_scores: Option<bool>,
}

/// `"a"` and `["a"]` are a text, `["a", "b"]` is a pair, and lists of such lists are several.
struct PredictInputs(OneOrMany<text_classification::Input>);

impl<'de> Deserialize<'de> for PredictInputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PredictVisitor)
    }
}

struct PredictVisitor;

impl<'de> de::Visitor<'de> for PredictVisitor {
    type Value = PredictInputs;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a text, a pair of texts, or a list of lists of one or two texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PredictInputs, E> {
        Ok(PredictInputs(OneOrMany::one(text_classification::Input { text: text.into(), text_pair: None })))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<PredictInputs, A::Error> {
        let Some(first) = list.next_element::<TextOrPair>()? else {
            return Ok(PredictInputs(OneOrMany::many(Vec::new())));
        };
        match first {
            TextOrPair::Text(text) => {
                let text_pair = list.next_element()?;
                match list.next_element::<de::IgnoredAny>()? {
                    Some(_) => Err(de::Error::custom(
                        "a list of more than two texts is no pair; for a batch put each text into a list of its own",
                    )),
                    None => Ok(PredictInputs(OneOrMany::one(text_classification::Input { text, text_pair }))),
                }
            }
            TextOrPair::Inputs(first) => {
                let mut items = vec![first];
                while let Some(element) = list.next_element::<TextOrPair>()? {
                    match element {
                        TextOrPair::Inputs(input) => items.push(input),
                        TextOrPair::Text(_) => {
                            return Err(de::Error::custom("texts and lists of texts are mixed; use lists for all"));
                        }
                    }
                }
                Ok(PredictInputs(OneOrMany::many(items)))
            }
        }
    }
}

/// An element of a list of inputs.
enum TextOrPair {
    Text(String),
    /// A list of one or two texts.
    Inputs(text_classification::Input),
}

impl<'de> Deserialize<'de> for TextOrPair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> de::Visitor<'de> for ElementVisitor {
            type Value = TextOrPair;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a text or a list of one or two texts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextOrPair, E> {
                Ok(TextOrPair::Text(text.into()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<TextOrPair, A::Error> {
                let text = list.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let text_pair = list.next_element()?;
                match list.next_element::<de::IgnoredAny>()? {
                    Some(_) => Err(de::Error::invalid_length(3, &self)),
                    None => Ok(TextOrPair::Inputs(text_classification::Input { text, text_pair })),
                }
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}

impl Dialect for Predict {
    fn read(&mut self, models: &Models, body: &[u8]) -> Result<(Arc<Served>, Work), Failure> {
        let body: PredictBody = from_json(body)?;
        let served = models.find_for(body.model.as_deref(), Task::TextClassification, is_no_ranker)?;
        let PredictInputs(inputs) = body.inputs;
        not_empty(inputs.items.iter().map(|input| input.text.is_empty() && input.text_pair.is_none()))?;
        self.single = inputs.single;
        let parameters = Parameters {
            function_to_apply: body.raw_scores.unwrap_or(false).then_some(Function::None),
            truncate: body.truncate.or(Some(self.cut)),
            truncation_direction: body.truncation_direction,
            ..Parameters::default()
        };
        let request = Request::TextClassification(text_classification::Request { inputs, parameters });
        Ok((served, request.into()))
    }

    fn write(&self, _: &Model, done: Done, _: Usage) -> Written {
        match &done {
            Done::Reply(Reply::Classifications(lists)) if self.single => to_json(&lists.first()).into(),
            Done::Reply(_) | Done::Outputs(_) => done.to_json().into(),
        }
    }
}
