//! text-generation: texts to how they go on.
//!
//! Body: `{"inputs": TEXT | [TEXT, ...], "parameters": {...}, "stream": false}`. Unlike the other tasks it takes a model many steps, so a
//! body becomes requests of a scheduler ([`Request::prepare`]), and their updates become the reply ([`Finish::reply`]).
//!
//! Parameters are those of transformers' `generate`, by name and default, and beside them what text-generation-inference has:
//!
//! | parameter | meaning |
//! |---|---|
//! | `return_full_text` | whether the text begins with the prompt; absent: as the route says |
//! | `details` | tells tokens with their log-probabilities, and why the text ended |
//! | `stop`, `stop_sequences` | texts that end the answer, as `stop_strings` |
//! | `truncate` | keeps so many of the prompt's last tokens |
//! | `grammar` | `{"type": "json", "value": SCHEMA}` or `{"type": "regex", "value": "..."}`: what the answer must be |
//! | `best_of`, `watermark`, `decoder_input_details`, `adapter_id` | refused, unless they say nothing |
//!
//! One of `temperature`, `top_k`, `top_p`, `typical_p` and `min_p` without a word on `do_sample` means that tokens are drawn, as in
//! text-generation-inference; transformers would take no notice of it.
//!
//! Reply: `[{"generated_text": ...}, ...]`, one for each of `num_return_sequences`; a list of these for a list of texts.

mod generator;
mod parameters;
mod reply;

use std::sync::Arc;

use centuple_generate::{self as generate, Constraint, Decode, ParameterError, Refusal};
use centuple_text::{Text, Truncation};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

pub use generator::{Running, TextGenerator};
pub use parameters::{Grammar, Parameters};
pub use reply::{Answer, Answers, Details, Finish, FinishReason, Generated, Reply, Token, TopToken};

use crate::{
    body::{OneOrMany, from_json},
    error::TaskError,
    model::Model,
    tokens::Usage,
};

/// The hub's name of the task.
pub const NAME: &str = "text-generation";

/// What to go on with, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The texts.
    pub inputs: OneOrMany<String>,
    /// How.
    pub parameters: Parameters,
    /// Whether the answer is wanted token by token.
    pub stream: bool,
}

/// The body as it is written.
#[derive(Deserialize)]
struct Body {
    inputs: OneOrMany<String>,
    parameters: Option<Parameters>,
    stream: Option<bool>,
    #[serde(rename = "options")]
    _options: Option<IgnoredAny>,
    #[serde(flatten)]
    root: Map<String, Value>,
}

/// A request as tokens, and what is left to do afterwards.
#[derive(Debug)]
pub struct Prepared {
    /// What a scheduler is to run, one request for each text.
    pub requests: Vec<generate::Request>,
    /// How much that is.
    pub usage: Usage,
    /// What makes a reply of the answers.
    pub finish: Finish,
}

/// What a model brings to generation.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The model.
    pub model: &'a Arc<Model>,
    /// How it generates where a request doesn't say.
    pub defaults: &'a generate::Parameters,
    /// Where draws come from where a request doesn't say.
    pub seed: u64,
    /// Whether the text begins with the prompt where a request doesn't say.
    pub full_text: bool,
    /// Whose request it is: those of one client reuse each other's prompts.
    pub client: Option<u64>,
    /// Makes a constraint of a grammar.
    pub constrain: &'a dyn Fn(&Grammar) -> Result<Constraint, ParameterError>,
}

impl Request {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no JSON, or not of the form that is described above.
    pub fn parse(body: &[u8]) -> Result<Self, TaskError> {
        let Body { inputs, parameters, stream, root, .. } = from_json::<Body>(body)?;
        let parameters = match parameters {
            Some(_) if !root.is_empty() => {
                let (field, message) = (root.keys().next().cloned().unwrap_or_default(), BOTH.to_owned());
                return Err(TaskError::Shape { field, message });
            }
            Some(parameters) => parameters,
            None => serde_json::from_value(Value::Object(root)).map_err(|error| TaskError::from_json(".", &error))?,
        };
        Ok(Self { inputs, parameters, stream: stream.unwrap_or(false) })
    }

    /// Checks a request and turns its texts into tokens.
    ///
    /// # Errors
    /// There is no text, one can't become tokens, or a parameter has no meaning.
    pub fn prepare(self, context: &Context<'_>) -> Result<Prepared, TaskError> {
        if self.inputs.items.is_empty() {
            return Err(TaskError::Empty("inputs"));
        }
        let parameters = self.parameters.generate(context.defaults).map_err(Refusal::from)?;
        let constraint = self.parameters.grammar.as_ref().map(context.constrain).transpose().map_err(Refusal::from)?;
        let decoder: Arc<dyn Decode> = Arc::new(TextOf(Arc::clone(context.model)));
        let mut usage = Usage::default();
        let mut requests = Vec::with_capacity(self.inputs.items.len());
        for (input, text) in self.inputs.items.iter().enumerate() {
            let prompt = prompt(context.model, text, self.parameters.truncate)
                .map_err(|source| TaskError::Text { input, source })?;
            usage.characters += text.chars().count();
            usage.tokens += prompt.len();
            requests.push(generate::Request {
                prompt,
                source: None,
                parameters: parameters.clone(),
                seed: context.seed,
                client: context.client,
                decoder: Some(Arc::clone(&decoder)),
                constraint: constraint.clone(),
            });
        }
        let full_text = self.parameters.return_full_text.unwrap_or(context.full_text);
        let seed = parameters.do_sample.then(|| parameters.seed.unwrap_or(context.seed));
        let finish = Finish {
            single: self.inputs.single,
            prompts: if full_text { self.inputs.items } else { vec![String::new(); requests.len()] },
            answers: parameters.num_return_sequences,
            details: self.parameters.details.unwrap_or(false),
            seed,
        };
        Ok(Prepared { requests, usage, finish })
    }
}

const BOTH: &str = "parameters stand both at the root and in `parameters`; use one of the two";

/// The tokens of a prompt, of which `keep` are left.
fn prompt(model: &Model, text: &str, keep: Option<usize>) -> Result<Vec<u32>, centuple_text::TextError> {
    let truncation = if keep.is_some() { Truncation::Left } else { Truncation::Refuse };
    let mut ids = model.tokenizer.encode(Text::Single(text), truncation)?.ids.clone();
    let keep = keep.unwrap_or(usize::MAX);
    Ok(ids.split_off(ids.len().saturating_sub(keep)))
}

/// The tokenizer as what writes text.
struct TextOf(Arc<Model>);

impl Decode for TextOf {
    fn decode(&self, ids: &[u32]) -> Result<String, String> {
        self.0.tokenizer.decode(ids, true).map_err(|error| error.to_string())
    }
}
