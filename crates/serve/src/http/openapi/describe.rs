//! An operation as an object of the document.

use std::sync::Arc;

use centuple_tasks::schema::Components;
use serde_json::{Map, Value, json};

use super::{
    super::{access, errors::Family},
    operation::Operation,
    tag::Tag,
};
use crate::service::{Kind, Served};

impl Operation {
    /// Its object in the document. `models` is what is served, `keyed` whether a key is asked for.
    pub(super) fn describe(&self, models: &[Arc<Served>], keyed: bool, components: &mut Components) -> Value {
        let examples = self.examples(models);
        let mut operation = json!({
            "tags": [self.tag.unwrap_or(Tag::Operations).name()],
            "summary": self.summary,
            "operationId": operation_id(self.method, &self.path),
        });
        if !self.description.is_empty() {
            operation["description"] = self.description.into();
        }
        let parameters = self.parameters(examples.as_ref().map(|(model, _)| *model).or(models.first()));
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        if let Some(body) = &self.body {
            let mut content = json!({"schema": (body.schema)(components)});
            if let Some((_, examples)) = examples {
                content["examples"] = Value::Object(examples);
            }
            operation["requestBody"] = json!({"required": body.required, "content": {"application/json": content}});
        }
        let public = access::is_public(self.method, &self.path);
        operation["responses"] = self.responses(keyed && !public, components);
        if keyed && public {
            operation["security"] = json!([]);
        }
        operation
    }

    /// The first model that can answer it, and what it can be asked.
    fn examples<'m>(&self, models: &'m [Arc<Served>]) -> Option<(&'m Arc<Served>, Map<String, Value>)> {
        let body = self.body?;
        models.iter().find_map(|served| {
            let model = &served.model;
            let examples = (body.examples)(model).into_iter().map(|(name, mut value)| {
                if body.names_model && models.len() > 1 && value.is_object() {
                    value["model"] = model.card.id.clone().into();
                }
                (name.to_owned(), json!({"value": value}))
            });
            let examples: Map<_, _> = examples.collect();
            (!examples.is_empty()).then_some((served, examples))
        })
    }

    /// The parameters, where a model is named with an example.
    fn parameters(&self, served: Option<&Arc<Served>>) -> Vec<Value> {
        let example = |parameter: &Value| {
            let mut parameter = parameter.clone();
            if let Some(served) = served {
                let card = &served.model.card;
                match parameter["name"].as_str() {
                    Some("id" | "name" | "model") => parameter["example"] = card.id.clone().into(),
                    Some("version") => parameter["example"] = served.version.clone().into(),
                    Some("task") => parameter["example"] = card.main_task().name().into(),
                    Some(_) | None => {}
                }
            }
            parameter
        };
        self.parameters.iter().map(example).collect()
    }

    fn responses(&self, keyed: bool, components: &mut Components) -> Value {
        let mut responses = Map::new();
        let content = self.replies.iter().map(|(media, schema)| {
            let schema = schema(components);
            ((*media).to_owned(), json!({"schema": schema}))
        });
        let content: Map<_, _> = content.collect();
        let mut answer = json!({"description": "The answer.", "content": content});
        if self.failures.contains(&Kind::Engine) {
            answer["headers"] = json!({"Server-Timing": {
                "description": "Milliseconds of each step: tokenization, queue, inference, total.",
                "schema": {"type": "string"},
            }});
        }
        responses.insert("200".into(), answer);
        if let Some((status, schema)) = self.closing {
            let content = json!({"application/json": {"schema": schema(components)}});
            let meaning = "not ready: models are being loaded, or the server is about to end";
            responses.insert(status.as_str().into(), json!({"description": meaning, "content": content}));
        }
        let family = Family::of(&self.path);
        let unauthorized = keyed.then_some(Kind::Unauthorized);
        for kind in self.failures.iter().copied().chain(unauthorized) {
            let status = family.status(kind).as_str().to_owned();
            let meaning = meaning(kind);
            match responses.get_mut(&status) {
                Some(response) => {
                    let description = response["description"].as_str().unwrap_or_default();
                    response["description"] = format!("{description}; or {meaning}").into();
                }
                None => {
                    let schema = family.schema(components);
                    let mut response =
                        json!({"description": meaning, "content": {"application/json": {"schema": schema}}});
                    if let Kind::Overloaded(_) = kind {
                        response["headers"] = json!({"Retry-After": {
                            "description": "Seconds after which to try again.", "schema": {"type": "integer"},
                        }});
                    }
                    responses.insert(status, response);
                }
            }
        }
        Value::Object(responses)
    }
}

/// A name for generated clients: `post_models_id_pipeline_task`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    [method].into_iter().chain(words).collect::<Vec<_>>().join("_")
}

/// What has happened where a request fails so.
fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Malformed => "the body can't be read",
        Kind::Invalid => "the body asks for what can't be",
        Kind::Empty => "there is nothing to compute",
        Kind::Tokenization => "a text can't become tokens",
        Kind::TooLarge => "body, inputs or reply are over a limit",
        Kind::Timeout => "the body did not come in time",
        Kind::Deadline => "the request took longer than it was given",
        Kind::Unauthorized => "no key, or a wrong one",
        Kind::UnknownModel => "no such model",
        Kind::NoReport => "the model has no report",
        Kind::UnknownRoute => "no such path",
        Kind::Method => "the path does not take this method",
        Kind::Encoding => "the body is compressed in a way that is not read",
        Kind::NotImplemented => "a part of the protocol that is left out",
        Kind::Overloaded(_) => "too many requests wait",
        Kind::LoadFailed => "the model can't be loaded",
        Kind::Engine => "the model failed",
        Kind::NotLoaded(_) => "the model is not loaded",
        Kind::Internal => "the server failed",
    }
}
