//! How text is generated, as bodies say it.

use centuple_generate::{self as generate, ParameterError};
use centuple_text::Truncation;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::generation_task::GenerationTask;

/// What a body may say: parameters of text-generation-inference, and all others by their names in transformers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Parameters {
    /// What they are for.
    #[serde(skip)]
    pub asked: Asked,
    /// Whether the text begins with the prompt.
    pub return_full_text: Option<bool>,
    /// Whether tokens are told.
    pub details: Option<bool>,
    /// Texts that end the answer.
    #[serde(alias = "stop_sequences")]
    stop: Option<Vec<String>>,
    /// Tokens of the prompt's end that are kept.
    pub truncate: Option<usize>,
    /// What the answer must be.
    pub grammar: Option<Grammar>,
    /// Whether spaces before punctuation are taken out.
    pub clean_up_tokenization_spaces: Option<bool>,
    /// The texts' language.
    pub src_lang: Option<String>,
    /// The answers' language.
    pub tgt_lang: Option<String>,
    truncation: Option<Cut>,
    #[serde(alias = "generation_parameters")]
    generate_parameters: Option<Map<String, Value>>,
    return_text: Option<bool>,
    return_tensors: Option<bool>,
    best_of: Option<usize>,
    watermark: Option<bool>,
    decoder_input_details: Option<bool>,
    adapter_id: Option<String>,
    /// The others.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// What parameters are for, which decides on defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Asked {
    /// Just text, as `generate` of transformers writes it.
    #[default]
    Generate,
    /// What the model is for.
    MainTask,
    /// A task.
    Task(GenerationTask),
}

/// Whether a text that is too long is cut.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected true, false, longest_first, only_first, only_second or do_not_truncate")]
enum Cut {
    Flag(bool),
    Named(Strategy),
}

/// Of two texts, which is cut; there is only one.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Strategy {
    LongestFirst,
    OnlyFirst,
    OnlySecond,
    DoNotTruncate,
}

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum Grammar {
    /// JSON of this schema.
    #[serde(alias = "json_object", alias = "json_schema")]
    Json(Value),
    /// What a regular expression describes.
    Regex(String),
}

/// Parameters that only mean something where tokens are drawn.
const OF_DRAWS: [&str; 5] = ["temperature", "top_k", "top_p", "typical_p", "min_p"];

impl Parameters {
    /// Parameters by their names.
    ///
    /// # Errors
    /// A value of another type.
    pub fn from_map(map: Map<String, Value>) -> Result<Self, ParameterError> {
        serde_json::from_value(Value::Object(map)).map_err(|error| ParameterError::Format(error.to_string()))
    }

    /// The same, and that each token is told with its log-probability.
    #[must_use]
    pub fn with_logprobs(mut self) -> Self {
        self.others.insert("logprobs".to_owned(), json!(true));
        self
    }

    /// Whether a parameter of generation is given.
    pub(crate) fn gives(&self, name: &str) -> bool {
        let all = [Some(&self.others), self.generate_parameters.as_ref()];
        all.into_iter().flatten().any(|all| all.get(name).is_some_and(|value| !value.is_null()))
    }

    /// What becomes of texts that are too long, where `other` is the case if nothing is said.
    pub(crate) fn truncation(&self, other: Truncation) -> Truncation {
        match self.truncation {
            None => other,
            Some(Cut::Flag(false) | Cut::Named(Strategy::DoNotTruncate)) => Truncation::Refuse,
            Some(Cut::Flag(true) | Cut::Named(Strategy::LongestFirst | Strategy::OnlyFirst | Strategy::OnlySecond)) => {
                Truncation::Right
            }
        }
    }

    /// All parameters of generation, over those of the model.
    pub(super) fn generate(&self, defaults: &generate::Parameters) -> Result<generate::Parameters, ParameterError> {
        self.refuse()?;
        let given = |name: &str| self.gives(name);
        let mut all = self.others.clone();
        for (name, value) in self.generate_parameters.iter().flatten() {
            if all.insert(name.clone(), value.clone()).is_some() {
                let reason = format!("{name} stands twice; leave it out in generate_parameters");
                return Err(ParameterError::Combination(reason));
            }
        }
        let draws = match &self.asked {
            Asked::Generate | Asked::MainTask => true,
            Asked::Task(task) => *task == GenerationTask::TextGeneration,
        };
        if draws && !given("do_sample") && OF_DRAWS.iter().any(|name| given(name)) {
            all.insert("do_sample".to_owned(), json!(true));
        }
        if let Some(stop) = self.stop.as_ref().filter(|stop| !stop.is_empty()) {
            if given("stop_strings") {
                let reason = "stop and stop_strings mean the same; use one of the two".to_owned();
                return Err(ParameterError::Combination(reason));
            }
            all.insert("stop_strings".to_owned(), json!(stop));
        }
        if self.details == Some(true) {
            all.insert("logprobs".to_owned(), json!(true));
        }
        defaults.with(&all)
    }

    /// Refuses what isn't supported.
    fn refuse(&self) -> Result<(), ParameterError> {
        let refused = |name: &str, value: String| Err(ParameterError::Unsupported { name: name.to_owned(), value });
        match self {
            Parameters { best_of: Some(best), .. } if *best != 1 => refused("best_of", best.to_string()),
            Parameters { watermark: Some(true), .. } => refused("watermark", "true".to_owned()),
            Parameters { decoder_input_details: Some(true), .. } => refused("decoder_input_details", "true".to_owned()),
            Parameters { return_tensors: Some(true), .. } => refused("return_tensors", "true".to_owned()),
            Parameters { return_text: Some(false), .. } => refused("return_text", "false".to_owned()),
            Parameters { adapter_id: Some(id), .. } => refused("adapter_id", format!("{id:?}")),
            _ => Ok(()),
        }
    }
}
