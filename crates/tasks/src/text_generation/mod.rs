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
//! | `truncation` | whether a prompt that is too long loses its end (`true`, or a strategy's name) or is refused |
//! | `clean_up_tokenization_spaces` | takes out spaces before punctuation; absent: as the tokenizer says |
//! | `generate_parameters` | more parameters of generation |
//! | `best_of`, `watermark`, `decoder_input_details`, `adapter_id` | refused, unless they say nothing |
//!
//! One of `temperature`, `top_k`, `top_p`, `typical_p` and `min_p` without a word on `do_sample` means that tokens are drawn, as in
//! text-generation-inference; transformers would take no notice of it.
//!
//! Reply: `[{"generated_text": ...}, ...]`, one for each of `num_return_sequences`; a list of these for a list of texts.

mod chat;
mod generator;
mod parameters;
mod reply;

use std::sync::Arc;

use centuple_generate::{self as generate, Constraint, Decode, ParameterError, Refusal};
use centuple_text::{Text, Truncation};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

pub use chat::Chat;
pub use generator::{Running, TextGenerator};
pub use parameters::{Asked, Grammar, Parameters};
pub use reply::{Answer, Answers, Details, Finish, FinishReason, Generated, Reply, Token, TopToken};

use crate::{
    body::{OneOrMany, from_json},
    error::TaskError,
    generation_task::GenerationTask,
    model::{Head, Model},
    text2text_generation::{Reading, Settings},
    tokens::Usage,
};

/// The hub's name of the task.
pub const NAME: &str = "text-generation";

/// The field of a reply that has the text.
pub const REPLY: &str = "generated_text";

/// How a model generates where a request doesn't say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// In any case.
    pub parameters: generate::Parameters,
    /// In tasks of models with an encoder.
    pub settings: Settings,
}

impl From<generate::Parameters> for Defaults {
    fn from(parameters: generate::Parameters) -> Self {
        Self { parameters, settings: Settings::default() }
    }
}

/// What to go on with, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The texts.
    pub inputs: OneOrMany<String>,
    /// Whether these have their special tokens in them, as a chat template writes them.
    pub verbatim: bool,
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
    pub defaults: &'a Defaults,
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
        Ok(Self { inputs, verbatim: false, parameters, stream: stream.unwrap_or(false) })
    }

    /// Reads the body of a task.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse).
    pub fn parse_for(task: GenerationTask, body: &[u8]) -> Result<Self, TaskError> {
        let mut request = Self::parse(body)?;
        request.parameters.asked = Asked::Task(task);
        Ok(request)
    }

    /// Checks a request and turns its texts into tokens.
    ///
    /// # Errors
    /// There is no text, one can't become tokens, a parameter has no meaning, or the model doesn't do the task.
    pub fn prepare(self, context: &Context<'_>) -> Result<Prepared, TaskError> {
        if self.inputs.items.is_empty() {
            return Err(TaskError::Empty("inputs"));
        }
        let (given, model) = (&self.parameters, context.model);
        if let Asked::Task(task) = &given.asked
            && !model.card.generates(task)
        {
            let (model, offers) = (model.card.id.clone(), model.card.offers());
            return Err(TaskError::Unsupported { model, task: task.to_string(), offers });
        }
        let reading = if matches!(model.card.head, Head::Seq2SeqLm { .. }) {
            Some(Reading::new(given, self.stream, context)?)
        } else if given.src_lang.is_some() || given.tgt_lang.is_some() {
            let reason = "the model doesn't translate; leave it out".to_owned();
            return Err(TaskError::Parameter { name: "src_lang", reason });
        } else {
            None
        };
        let defaults = reading.as_ref().map_or(&context.defaults.parameters, |reading| &reading.parameters);
        let parameters = given.generate(defaults).map_err(Refusal::from)?;
        let constraint = given.grammar.as_ref().map(context.constrain).transpose().map_err(Refusal::from)?;
        let cleans_up = given.clean_up_tokenization_spaces.or(reading.as_ref().map(|_| false));
        let decoder: Arc<dyn Decode> = Arc::new(TextOf { model: Arc::clone(model), cleans_up });
        let mut usage = Usage::default();
        let mut requests = Vec::with_capacity(self.inputs.items.len());
        for (input, text) in self.inputs.items.iter().enumerate() {
            let tokens = match &reading {
                Some(reading) => reading.tokens(model, text),
                None => self.prompt(model, text),
            };
            let tokens = tokens.map_err(|source| TaskError::Text { input, source })?;
            usage.characters += text.chars().count();
            usage.tokens += tokens.len();
            let (prompt, source) = match &reading {
                Some(reading) => (vec![parameters.decoder_start_token_id.unwrap_or(reading.start)], Some(tokens)),
                None => (tokens, None),
            };
            requests.push(generate::Request {
                prompt,
                source,
                parameters: parameters.clone(),
                seed: context.seed,
                client: context.client,
                decoder: Some(Arc::clone(&decoder)),
                constraint: constraint.clone(),
            });
        }
        let finish = self.finish(context, &parameters, reading.is_some());
        Ok(Prepared { requests, usage, finish })
    }

    /// What makes a reply of the answers.
    fn finish(self, context: &Context<'_>, parameters: &generate::Parameters, reads: bool) -> Finish {
        let given = &self.parameters;
        let task = match &given.asked {
            Asked::Generate => GenerationTask::TextGeneration,
            Asked::MainTask if reads => context.defaults.settings.main_task(context.model),
            Asked::MainTask => GenerationTask::TextGeneration,
            Asked::Task(task) => task.clone(),
        };
        let full_text = !reads && given.return_full_text.unwrap_or(context.full_text);
        let details = given.details.unwrap_or(false);
        let prompts = if full_text { self.inputs.items } else { vec![String::new(); self.inputs.items.len()] };
        Finish {
            single: self.inputs.single,
            prompts,
            answers: parameters.num_return_sequences,
            details,
            seed: parameters.do_sample.then(|| parameters.seed.unwrap_or(context.seed)),
            field: task.reply(),
            flat: reads && parameters.num_return_sequences == 1,
        }
    }
}

impl Request {
    /// The tokens of a prompt, or its last ones if so many are to be kept.
    fn prompt(&self, model: &Model, text: &str) -> Result<Vec<u32>, centuple_text::TextError> {
        let given = &self.parameters;
        let truncation = if given.truncate.is_some() { Truncation::Left } else { Truncation::Refuse };
        let mut ids = match self.verbatim {
            true => model.tokenizer.encode_verbatim(text)?,
            false => model.tokenizer.encode(Text::Single(text), given.truncation(truncation))?.ids.clone(),
        };
        let keep = given.truncate.unwrap_or(usize::MAX);
        Ok(ids.split_off(ids.len().saturating_sub(keep)))
    }
}

const BOTH: &str = "parameters stand both at the root and in `parameters`; use one of the two";

/// The tokenizer as what writes text.
struct TextOf {
    model: Arc<Model>,
    /// Whether text is cleaned up; absent: as the tokenizer says.
    cleans_up: Option<bool>,
}

impl Decode for TextOf {
    fn decode(&self, ids: &[u32]) -> Result<String, String> {
        let tokenizer = &self.model.tokenizer;
        let text = match self.cleans_up {
            Some(cleans_up) => tokenizer.decode_as(ids, true, cleans_up),
            None => tokenizer.decode(ids, true),
        };
        text.map_err(|error| error.to_string())
    }
}
