//! text2text-generation: a text to another, by a model with an encoder; and what it shares with summarization and translation.
//!
//! Body: `{"inputs": TEXT | [TEXT, ...], "parameters": {...}}`. Parameters are those of [text-generation](crate::text_generation),
//! and those of transformers' pipelines:
//!
//! | parameter | meaning |
//! |---|---|
//! | `truncation` | whether a text that is too long is cut (`true`, or a strategy's name) or refused |
//! | `clean_up_tokenization_spaces` | takes out spaces before punctuation; no |
//! | `generate_parameters` | more parameters of generation |
//! | `src_lang`, `tgt_lang` | the languages, for models that know several; see [`crate::translation`] |
//!
//! As in the pipelines of transformers 4.57.6, there are 4 beams and 256 new tokens at most where neither the request nor the
//! model's settings for the task say otherwise, whatever its `generation_config.json` says of these; only a `max_length` in it goes
//! before the 256. Unlike there, so does a `max_length` of the request; and a stream has one beam.
//!
//! Reply: `[{"generated_text": ...}]`, one for each of `num_return_sequences`. For a list of texts a list: of these, or of lists of
//! them where there are several.

use std::collections::BTreeMap;

use centuple_generate::{ParameterError, Parameters};
use centuple_text::{LanguagePlace, Text, TextError, Truncation};
use serde_json::{Map, Value};

use crate::{
    error::TaskError,
    generation_task::GenerationTask,
    model::Model,
    summarization,
    text_generation::{self as asked, Asked, Context},
    translation,
};

/// The hub's name of the task.
pub const NAME: &str = "text2text-generation";

/// The field of a reply that has the text.
pub const REPLY: &str = "generated_text";

/// Beams where nothing is said.
const BEAMS: usize = 4;
/// Most new tokens where nothing is said.
const NEW_TOKENS: usize = 256;

/// What a model's config.json says of tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What texts begin with.
    pub prefix: Option<String>,
    /// By the name of a task: what texts begin with, and parameters.
    pub tasks: BTreeMap<String, (Option<String>, Map<String, Value>)>,
}

impl Settings {
    /// Reads `prefix` and `task_specific_params`.
    ///
    /// # Errors
    /// A value of another type.
    pub fn from_config(config: &Map<String, Value>) -> Result<Self, ParameterError> {
        let wrong = |field: &str| ParameterError::Format(format!("{field}: expected a text or an object"));
        let prefix = |value: Option<&Value>| match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(prefix)) => Ok(Some(prefix.clone())),
            Some(_) => Err(wrong("prefix")),
        };
        let tasks = match config.get("task_specific_params") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(tasks)) => tasks.clone(),
            Some(_) => return Err(wrong("task_specific_params")),
        };
        let task = |(name, value): (String, Value)| {
            let Value::Object(mut parameters) = value else { return Err(wrong("task_specific_params")) };
            let prefix = prefix(parameters.remove("prefix").as_ref())?;
            Parameters::from_generation_config(&parameters)?;
            Ok((name, (prefix, parameters)))
        };
        Ok(Self {
            prefix: prefix(config.get("prefix"))?,
            tasks: tasks.into_iter().map(task).collect::<Result<_, ParameterError>>()?,
        })
    }

    /// The task that is meant where none is named: what the settings are for, or what the languages of texts are for.
    pub(crate) fn main_task(&self, model: &Model) -> GenerationTask {
        let translates = self.tasks.keys().any(|name| name.starts_with(translation::NAME));
        let summarizes = self.tasks.contains_key(summarization::NAME);
        match (translates, summarizes) {
            (false, true) => GenerationTask::Summarization,
            (true, false) => GenerationTask::Translation(None),
            (false, false) if model.tokenizer.languages().is_some() => GenerationTask::Translation(None),
            (true, true) | (false, false) => GenerationTask::Text2TextGeneration,
        }
    }

    /// The parameters of a task over those of the model.
    fn parameters(&self, model: &Parameters, task: Option<&str>, stream: bool) -> Result<Parameters, ParameterError> {
        let parameters = Parameters {
            num_beams: if stream { 1 } else { BEAMS },
            max_new_tokens: model.max_length.is_none().then_some(NEW_TOKENS),
            ..model.clone()
        };
        match task.and_then(|task| self.tasks.get(task)) {
            Some((_, own)) => parameters.with_config(own),
            None => Ok(parameters),
        }
    }

    /// What texts of a task begin with.
    fn prefix(&self, task: Option<&str>) -> String {
        let of_task = task.and_then(|task| self.tasks.get(task)).and_then(|(prefix, _)| prefix.as_ref());
        of_task.or(self.prefix.as_ref()).cloned().unwrap_or_default()
    }
}

/// How the texts of a request are read.
pub(crate) struct Reading {
    /// How answers are generated where the request doesn't say.
    pub(crate) parameters: Parameters,
    /// What the decoder begins with.
    pub(crate) start: u32,
    prefix: String,
    /// The texts' language.
    language: Option<String>,
    truncation: Truncation,
}

impl Reading {
    /// What a request asks of a model with an encoder.
    ///
    /// # Errors
    /// It asks for what there isn't.
    pub(crate) fn new(asked: &asked::Parameters, stream: bool, context: &Context<'_>) -> Result<Self, TaskError> {
        let (model, defaults) = (context.model, context.defaults);
        let refused = |name, reason: &str| Err(TaskError::Parameter { name, reason: reason.to_owned() });
        if asked.return_full_text == Some(true) {
            return refused(
                "return_full_text",
                "the model writes another text, and doesn't go on with the one that it reads",
            );
        }
        if asked.truncate.is_some() {
            return refused("truncate", "the model reads whole texts; use truncation to cut those that are too long");
        }
        let settings = &defaults.settings;
        let task = match &asked.asked {
            Asked::Generate => None,
            Asked::MainTask => Some(settings.main_task(model)),
            Asked::Task(task) => Some(task.clone()),
        };
        let languages = translation::languages(asked, task.as_ref(), context)?;
        let name = match &task {
            None => None,
            Some(GenerationTask::Translation(_)) => translation::settings_name(task.as_ref(), &languages, context)?,
            Some(task) => Some(task.name().to_owned()),
        };
        let mut parameters = match task {
            None => defaults.parameters.clone(),
            Some(_) => settings
                .parameters(&defaults.parameters, name.as_deref(), stream)
                .map_err(centuple_generate::Refusal::from)?,
        };
        if task.is_some() && asked.gives("max_length") && !asked.gives("max_new_tokens") {
            parameters.max_new_tokens = None;
        }
        let mut prefix = settings.prefix(name.as_deref());
        if let Some((language, token)) = languages.target {
            match languages.place {
                Some(LanguagePlace::InText) => prefix = format!("{language} {prefix}"),
                Some(LanguagePlace::Before | LanguagePlace::After) => parameters.forced_bos_token_id = Some(token),
                None => {}
            }
        }
        let Some(start) = parameters.decoder_start_token_id.or(parameters.bos_token_id) else {
            return refused("decoder_start_token_id", "the model doesn't say what its answers begin with; give it");
        };
        Ok(Self {
            parameters,
            start,
            prefix,
            language: languages.source,
            truncation: asked.truncation(Truncation::Refuse),
        })
    }

    /// The tokens of a text.
    pub(crate) fn tokens(&self, model: &Model, text: &str) -> Result<Vec<u32>, TextError> {
        // A text that says its language itself is left alone.
        let prefix = if text.starts_with(">>") && self.prefix.starts_with(">>") { "" } else { &self.prefix };
        let text = [prefix, text].concat();
        let encoding = match &self.language {
            Some(language) => model.tokenizer.encode_in(language, &text, self.truncation)?,
            None => model.tokenizer.encode(Text::Single(&text), self.truncation)?,
        };
        Ok(encoding.ids.clone())
    }
}
