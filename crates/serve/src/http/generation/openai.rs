//! What completions and chat completions of OpenAI have in common.

use std::time::{SystemTime, UNIX_EPOCH};

use centuple_tasks::{
    OneOrMany,
    schema::{one_or_many, text},
    text_generation::{Answer, FinishReason, Parameters},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};

use crate::service::{Failure, Kind};

/// Fields that change nothing in the text.
const WITHOUT_EFFECT: [&str; 10] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
];

/// What a body may say of how a text is generated.
#[derive(Deserialize)]
pub(super) struct Sampling {
    temperature: Option<f64>,
    top_p: Option<f64>,
    n: Option<usize>,
    stop: Option<OneOrMany<String>>,
    seed: Option<Number>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Parameters whose names are the same everywhere.
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Sampling {
    /// Answers to each prompt.
    pub(super) fn count(&self) -> usize {
        self.n.unwrap_or(1)
    }

    /// Whether the answer is a stream.
    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether a stream ends with how many tokens there were.
    pub(super) fn tells_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// Refuses a field of that name, unless it says nothing.
    pub(super) fn refuse(&mut self, name: &str) -> Result<(), Failure> {
        match self.others.remove(name) {
            None | Some(Value::Null | Value::Bool(false)) => Ok(()),
            Some(Value::Array(list)) if list.is_empty() => Ok(()),
            Some(_) => Err(refused(name)),
        }
    }

    /// The parameters of generation, `limits` among them. Tokens are drawn from all, at a temperature of 1, where the body doesn't say.
    pub(super) fn parameters(
        self,
        limits: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Parameters, Failure> {
        let mut parameters = self.others;
        parameters.retain(|name, value| !value.is_null() && !WITHOUT_EFFECT.contains(&name.as_str()));
        let mut insert = |name: &str, value: Value| parameters.insert(name.to_owned(), value);
        let temperature = self.temperature.unwrap_or(1.0);
        insert("do_sample", json!(temperature != 0.0));
        if temperature != 0.0 {
            insert("temperature", json!(temperature));
        }
        insert("top_p", json!(self.top_p.unwrap_or(1.0)));
        insert("num_return_sequences", json!(self.n.unwrap_or(1)));
        if let Some(stop) = self.stop.filter(|stop| !stop.items.is_empty()) {
            insert("stop", json!(stop.items));
        }
        if let Some(seed) = self.seed {
            // A negative one is a seed like any other.
            insert("seed", seed.as_i64().map_or(Value::Number(seed), |seed| json!(seed.cast_unsigned())));
        }
        for (name, value) in limits {
            insert(name, value);
        }
        parameters.entry("top_k").or_insert(json!(0));
        Parameters::from_map(parameters).map_err(|error| Failure::new(Kind::Invalid, error.to_string()))
    }
}

/// The failure of a field that isn't supported.
pub(super) fn refused(name: &str) -> Failure {
    let failure = Failure::new(Kind::Invalid, format!("`{name}` is not supported; leave it out"));
    Failure { field: Some(name.to_owned()), ..failure }
}

/// The model that a body names.
pub(super) fn model(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        model: Option<String>,
    }
    serde_json::from_slice::<Named>(body).ok()?.model
}

/// What all parts of an answer say of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Stamp {
    id: String,
    created: u64,
    pub(super) model: String,
}

impl Stamp {
    /// Of an answer that begins now; `kind` begins its id.
    pub(super) fn new(kind: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { id: format!("{kind}-{:x}", now.as_nanos()), created: now.as_secs(), model: String::new() }
    }

    /// An object of these choices.
    pub(super) fn object<C>(&self, object: &'static str, choices: Vec<C>, usage: Option<Usage>) -> Object<'_, C> {
        Object { object, stamp: self, choices, usage }
    }
}

/// An answer, or a part of one.
#[derive(Serialize)]
pub(super) struct Object<'a, C> {
    object: &'static str,
    #[serde(flatten)]
    stamp: &'a Stamp,
    choices: Vec<C>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// Tokens of prompts and answers.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

impl Usage {
    pub(super) fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// Why an answer ended.
pub(super) fn reason(answer: &Answer) -> Option<&'static str> {
    answer.finish.map(|finish| match finish {
        FinishReason::Length => "length",
        FinishReason::EosToken | FinishReason::StopSequence => "stop",
    })
}

/// The event of a failure.
pub(super) fn failed(failure: &Failure) -> String {
    json!({"error": {"message": failure.message, "type": "server_error", "param": null, "code": null}}).to_string()
}

/// The schemas of the fields that both have.
pub(super) fn properties() -> Map<String, Value> {
    let number = |description: &str| json!({"type": "number", "description": description});
    let properties = json!({
        "model": text(),
        "temperature": number("0 always takes the likeliest token; 1 by default."),
        "top_p": number("Draws among the likeliest tokens that together have this probability."),
        "n": {"type": "integer", "minimum": 1, "default": 1},
        "stop": one_or_many(text()),
        "seed": {"type": "integer"},
        "stream": {"type": "boolean"},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        "presence_penalty": number("Taken once from the logits of tokens that were generated."),
        "frequency_penalty": number("The same each time that the token came."),
        "logit_bias": {"type": "object", "description": "Numbers that are added to logits, by token."},
    });
    properties.as_object().cloned().unwrap_or_default()
}

/// The schema of an answer.
pub(super) fn answer_schema(object: &str, choice: Value) -> Value {
    json!({
        "type": "object",
        "required": ["id", "object", "created", "model", "choices", "usage"],
        "properties": {
            "id": text(),
            "object": {"const": object},
            "created": {"type": "integer"},
            "model": text(),
            "choices": {"type": "array", "items": choice},
            "usage": {"type": "object"},
        },
    })
}
