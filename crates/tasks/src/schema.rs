//! What bodies and replies look like, as JSON schemas, with a body that a model can answer.
//!
//! Parameters and results describe themselves; here is what is read and written by hand.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Type},
    },
};

use crate::{
    feature_extraction,
    fill_mask::{self, Proposal},
    model::Model,
    question_answering::{self, Answer},
    sentence_similarity,
    task::Task,
    text_classification::{self, Score},
    text_ranking::{self, Ranked},
    token_classification::{self, Entity},
    zero_shot_classification,
};

/// Schemas by name, as a document has them below `components`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Components(pub BTreeMap<String, Value>);

impl Components {
    /// Adds a type and those that it refers to; yields the reference to it.
    pub fn add<T: ToSchema>(&mut self) -> Value {
        let mut schemas = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut schemas);
        for (name, schema) in schemas {
            self.0.entry(name).or_insert_with(|| serde_json::to_value(schema).unwrap_or_default());
        }
        reference(&T::name())
    }

    /// Adds a schema under a name; yields the reference to it.
    pub fn insert(&mut self, name: &str, schema: Value) -> Value {
        self.0.insert(name.to_owned(), schema);
        reference(name)
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// One of these schemas, of which several may hold.
pub fn any_of(schemas: impl IntoIterator<Item = Value>) -> Value {
    json!({"anyOf": schemas.into_iter().collect::<Vec<_>>()})
}

/// A list.
pub fn list_of(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

/// What is read as one or many.
pub fn one_or_many(item: Value) -> Value {
    any_of([item.clone(), list_of(item)])
}

/// A text.
pub fn text() -> Value {
    json!({"type": "string"})
}

/// A vector: numbers, or base64 of them.
pub fn row(components: &mut Components) -> Value {
    let floats = json!({"type": "array", "items": {"type": "number", "format": "float"}});
    let base64 = json!({"type": "string", "contentEncoding": "base64", "description": "f32 in little-endian order"});
    components.insert("Vector", any_of([floats, base64]))
}

/// Sparse vectors: a list of weights per text.
pub fn sparse(components: &mut Components) -> Value {
    let weight = json!({
        "type": "object",
        "required": ["index", "value"],
        "properties": {
            "index": {"type": "integer", "minimum": 0, "description": "A token id."},
            "value": {"type": "number", "description": "Its weight."},
        },
    });
    list_of(list_of(components.insert("Weight", weight)))
}

/// Vectors of a text, of several, of their tokens, or sparse ones.
fn features(components: &mut Components) -> Value {
    let vector = row(components);
    let vectors = list_of(vector.clone());
    any_of([vector, vectors.clone(), list_of(vectors), sparse(components)])
}

/// The body of a task.
pub fn request(task: Task, components: &mut Components) -> Value {
    let (name, inputs, parameters) = match task {
        Task::FeatureExtraction => {
            let parameters = components.add::<feature_extraction::Parameters>();
            ("FeatureExtraction", one_or_many(text()), parameters)
        }
        Task::SentenceSimilarity => {
            let parameters = components.add::<sentence_similarity::Parameters>();
            ("SentenceSimilarity", components.add::<sentence_similarity::Inputs>(), parameters)
        }
        Task::TextClassification => {
            let parameters = components.add::<text_classification::Parameters>();
            ("TextClassification", one_or_many(text_or_pair()), parameters)
        }
        Task::ZeroShotClassification => {
            let parameters = components.add::<zero_shot_classification::Parameters>();
            ("ZeroShotClassification", one_or_many(text()), parameters)
        }
        Task::TokenClassification => {
            let parameters = components.add::<token_classification::Parameters>();
            ("TokenClassification", one_or_many(text()), parameters)
        }
        Task::QuestionAnswering => {
            let parameters = components.add::<question_answering::Parameters>();
            let question = components.add::<question_answering::Input>();
            ("QuestionAnswering", one_or_many(question), parameters)
        }
        Task::FillMask => {
            let parameters = components.add::<fill_mask::Parameters>();
            ("FillMask", one_or_many(text()), parameters)
        }
        Task::TextRanking => {
            let parameters = components.add::<text_ranking::Parameters>();
            ("TextRanking", components.add::<text_ranking::Inputs>(), parameters)
        }
    };
    let body = json!({
        "type": "object",
        "required": ["inputs"],
        "description": "Parameters may also stand at the root, beside `inputs`.",
        "properties": {
            "inputs": inputs,
            "parameters": parameters,
            "options": {
                "type": "object",
                "description": "As clients of the hosted API send them: `use_cache`; the rest means nothing here.",
            },
        },
    });
    components.insert(&format!("{name}Request"), body)
}

/// The reply of a task.
pub fn reply(task: Task, components: &mut Components) -> Value {
    match task {
        Task::FeatureExtraction => features(components),
        Task::SentenceSimilarity => similarities(),
        Task::TextClassification => list_of(list_of(components.add::<Score>())),
        Task::ZeroShotClassification => one_or_many(list_of(components.add::<Score>())),
        Task::TokenClassification => one_or_many(list_of(components.add::<Entity>())),
        Task::QuestionAnswering => {
            let answers = one_or_many(components.add::<Answer>());
            one_or_many(answers)
        }
        Task::FillMask => {
            let proposals = list_of(components.add::<Proposal>());
            one_or_many(one_or_many(proposals))
        }
        Task::TextRanking => list_of(components.add::<Ranked>()),
    }
}

/// A body that a model can answer, with texts that show what the task does.
pub fn example(task: Task, model: &Model) -> Value {
    match task {
        Task::FeatureExtraction => json!({"inputs": "The quick brown fox jumps over the lazy dog."}),
        Task::SentenceSimilarity => json!({"inputs": {
            "source_sentence": "A man is eating pasta.",
            "sentences": ["Someone is having a meal.", "A woman plays the violin."],
        }}),
        Task::TextClassification => json!({"inputs": "The food was wonderful and the staff were kind."}),
        Task::ZeroShotClassification => json!({
            "inputs": "My parcel has not arrived yet.",
            "parameters": {"candidate_labels": ["delivery", "payment", "praise"]},
        }),
        Task::TokenClassification => json!({"inputs": "Ada Lovelace lived in London."}),
        Task::QuestionAnswering => json!({"inputs": {
            "question": "Where did Ada live?",
            "context": "Ada Lovelace lived in London and wrote about the Analytical Engine.",
        }}),
        Task::FillMask => {
            let mask = model.tokenizer.special_tokens().mask.as_ref().map_or("[MASK]", |mask| mask.text.as_str());
            json!({"inputs": format!("Paris is the {mask} of France.")})
        }
        Task::TextRanking => json!({"inputs": {
            "query": "How do I reset my password?",
            "texts": ["Choose \"Forgot password\" on the sign-in page.", "Our office is open on weekdays."],
        }}),
    }
}

/// One number per sentence.
pub fn similarities() -> Value {
    list_of(json!({"type": "number", "minimum": -1, "maximum": 1}))
}

fn text_or_pair() -> Value {
    let pair = json!({
        "type": "object",
        "required": ["text"],
        "properties": {"text": text(), "text_pair": {"type": ["string", "null"]}},
        "additionalProperties": false,
    });
    any_of([text(), pair])
}

/// For a field that is read as a text or a list of texts.
pub fn one_or_many_texts() -> RefOr<Schema> {
    let texts = ArrayBuilder::new().items(typed(Type::String));
    AnyOfBuilder::new().item(typed(Type::String)).item(texts).item(typed(Type::Null)).into()
}

/// For a field that is read as a list of token ids or a list of such lists.
pub fn one_or_many_ids() -> RefOr<Schema> {
    let ids = || ArrayBuilder::new().items(typed(Type::Integer).minimum(Some(0)));
    AnyOfBuilder::new().item(ids()).item(ArrayBuilder::new().items(ids())).into()
}

/// For a field that is read as a text or a pair of texts, or a list of these.
pub fn one_or_many_inputs() -> RefOr<Schema> {
    let input = || {
        let pair = typed(Type::Object).property("text", typed(Type::String)).required("text");
        let pair = pair.property("text_pair", typed(Type::String));
        AnyOfBuilder::new().item(typed(Type::String)).item(pair)
    };
    AnyOfBuilder::new().item(input()).item(ArrayBuilder::new().items(input())).into()
}

/// For a list of texts, each of which may stand in an object.
pub fn documents() -> RefOr<Schema> {
    let wrapped = typed(Type::Object).property("text", typed(Type::String)).required("text");
    let document = AnyOfBuilder::new().item(typed(Type::String)).item(wrapped);
    ArrayBuilder::new().items(document).min_items(Some(1)).into()
}

/// For a vector that is written as numbers or as base64 of them.
pub fn vector() -> RefOr<Schema> {
    let floats = ArrayBuilder::new().items(typed(Type::Number));
    AnyOfBuilder::new().item(floats).item(typed(Type::String)).into()
}

fn typed(schema_type: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(schema_type)
}
