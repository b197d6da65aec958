//! `/predict`: a text, a pair, or several of them to classes, flat for one and nested for several.

use std::sync::Arc;

use centuple_tasks::{
    Direction, Model, OneOrMany, Reply, Task, Usage, from_json,
    schema::{Components, any_of, list_of},
    text_classification::{self, Function, Parameters, Score},
};
use serde::{Deserialize, Deserializer, de};
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Type},
    },
};

use super::{super::openapi::Operation, to_json};
use crate::{
    service::{Dialect, Done, Failure, Models, Served, Work, Written},
    text_embeddings::{self, is_no_ranker},
};

/// Whether a model's classes have names, so that it isn't only a ranker.
pub(in crate::http) fn names_classes(model: &Model) -> bool {
    model.card.tasks().contains(&Task::TextClassification) && is_no_ranker(&model.card)
}

/// What `/predict` takes and answers.
pub(super) fn operation() -> Operation {
    let example = |model: &Model| {
        let body = json!({"inputs": "The food was wonderful and the staff were kind."});
        names_classes(model).then_some(("a text", body)).into_iter().collect()
    };
    Operation::post("/predict", "Texts or pairs of texts to classes")
        .about("A list of classes for one input, a list of such lists for several.")
        .body(Components::add::<PredictBody>, example)
        .replies(|components| {
            let classes = list_of(components.add::<Score>());
            any_of([classes.clone(), list_of(classes)])
        })
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

/// What to classify, and how.
#[derive(Deserialize, ToSchema)]
#[schema(as = PredictRequest)]
struct PredictBody {
    inputs: PredictInputs,
    /// The model; without it the only classifier.
    model: Option<String>,
    /// Whether a text that is too long is cut.
    truncate: Option<bool>,
    /// Which end is cut.
    truncation_direction: Option<Direction>,
    /// Whether scores are logits.
    raw_scores: Option<bool>,
}

/// `"a"` and `["a"]` are a text, `["a", "b"]` is a pair, and lists of such lists are several.
struct PredictInputs(OneOrMany<text_classification::Input>);

impl ToSchema for PredictInputs {}

impl PartialSchema for PredictInputs {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let pair = || ArrayBuilder::new().items(text()).min_items(Some(1)).max_items(Some(2));
        AnyOfBuilder::new()
            .description(Some("A text, a pair of texts, or a list of lists of one or two texts."))
            .item(text())
            .item(pair())
            .item(ArrayBuilder::new().items(pair()).min_items(Some(1)))
            .into()
    }
}

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
        let PredictInputs(inputs) = body.inputs;
        self.single = inputs.single;
        let parameters = Parameters {
            function_to_apply: body.raw_scores.unwrap_or(false).then_some(Function::None),
            truncate: body.truncate.or(Some(self.cut)),
            truncation_direction: body.truncation_direction,
            ..Parameters::default()
        };
        let (served, request) = text_embeddings::predict(models, body.model.as_deref(), inputs, parameters)?;
        Ok((served, request.into()))
    }

    fn write(&self, _: &Model, done: Done, _: Usage) -> Written {
        match &done {
            Done::Reply(Reply::Classifications(lists)) if self.single => to_json(&lists.first()).into(),
            Done::Reply(_) | Done::Outputs(_) => done.to_json().into(),
        }
    }
}
