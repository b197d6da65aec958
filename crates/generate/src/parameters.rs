//! The parameters of generation: transformers' `GenerationConfig` by name and default, and those of other interfaces beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::ParameterError;

mod names;

/// Number of new tokens where neither `max_new_tokens` nor `max_length` is said, as transformers has it.
const DEFAULT_NEW_TOKENS: usize = 20;

/// How generation goes on and ends. In JSON a `null` is as if nothing were said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Most tokens of prompt and answer; `max_new_tokens` goes before it. 20 new tokens if neither is there.
    pub max_length: Option<usize>,
    /// Most new tokens.
    pub max_new_tokens: Option<usize>,
    /// Least tokens of prompt and answer; `min_new_tokens` goes before it.
    pub min_length: usize,
    /// Least new tokens.
    pub min_new_tokens: Option<usize>,
    /// When a beam search ends.
    pub early_stopping: EarlyStopping,
    /// Texts that end generation.
    #[serde(deserialize_with = "one_or_many")]
    pub stop_strings: Vec<String>,

    /// Whether tokens are drawn, and not the likeliest taken.
    pub do_sample: bool,
    /// Beams; 1 is no beam search.
    pub num_beams: usize,
    /// Sequences to return.
    pub num_return_sequences: usize,
    /// Where the draws come from. With it, the same request gives the same tokens in any company.
    pub seed: Option<u64>,

    /// Divides logits before a draw.
    pub temperature: f32,
    /// Only so many of the likeliest tokens are drawn; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability are drawn.
    pub top_p: f32,
    /// Only tokens with this part of the likeliest one's probability are drawn.
    pub min_p: Option<f32>,
    /// Only the most typical tokens that together have this probability are drawn.
    pub typical_p: f32,
    /// Only tokens of at least this probability are drawn; 0 for all.
    pub epsilon_cutoff: f32,
    /// As `epsilon_cutoff`, but less where the entropy is high; 0 for all.
    pub eta_cutoff: f32,

    /// Divides (or multiplies, if negative) logits of tokens that are there already.
    pub repetition_penalty: f32,
    /// The inverse for tokens of the encoder's input (or the prompt, without an encoder).
    pub encoder_repetition_penalty: f32,
    /// Taken from logits of tokens that were generated, once.
    pub presence_penalty: f32,
    /// Taken from logits of tokens that were generated, each time.
    pub frequency_penalty: f32,
    /// Exponent of the length that scores of beams are divided by.
    pub length_penalty: f32,
    /// No sequence of so many tokens comes twice; 0 for no such rule.
    pub no_repeat_ngram_size: usize,
    /// No such sequence of the encoder's input comes again; 0 for no such rule.
    pub encoder_no_repeat_ngram_size: usize,
    /// Sequences of tokens that must not come.
    pub bad_words_ids: Option<Vec<Vec<u32>>>,
    /// Added to the logit of the last token of a sequence where the others came before.
    pub sequence_bias: Option<Vec<(Vec<u32>, f32)>>,
    /// Added to logits, by token.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Whether what is drawn from (or what beams add up) is normalised once more.
    pub renormalize_logits: bool,
    /// Whether logits that are no finite numbers are replaced.
    pub remove_invalid_values: bool,
    /// From which new token on the end becomes likelier, and by which factor per token.
    pub exponential_decay_length_penalty: Option<(usize, f32)>,
    /// Tokens that never come.
    pub suppress_tokens: Option<Vec<u32>>,
    /// Tokens that don't come first.
    pub begin_suppress_tokens: Option<Vec<u32>>,
    /// The token that follows the decoder's first: the language, for many translators.
    pub forced_bos_token_id: Option<u32>,
    /// The tokens of which one is last when `max_length` is reached.
    #[serde(deserialize_with = "one_or_many")]
    pub forced_eos_token_id: Vec<u32>,

    /// What fills up shorter sequences. Nothing here needs it.
    pub pad_token_id: Option<u32>,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text.
    #[serde(deserialize_with = "one_or_many")]
    pub eos_token_id: Vec<u32>,
    /// The token that begins a decoder's text.
    pub decoder_start_token_id: Option<u32>,

    /// Tokens that are guessed ahead out of the text so far, and verified in one step.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// Most tokens that must match for a guess; 2 if not said.
    pub max_matching_ngram_size: Option<usize>,

    /// Whether the log-probability of each token is told.
    pub logprobs: bool,
    /// How many of the likeliest tokens are told beside each token.
    pub top_n_tokens: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            max_length: None,
            max_new_tokens: None,
            min_length: 0,
            min_new_tokens: None,
            early_stopping: EarlyStopping::No,
            stop_strings: Vec::new(),
            do_sample: false,
            num_beams: 1,
            num_return_sequences: 1,
            seed: None,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            min_p: None,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
            repetition_penalty: 1.0,
            encoder_repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            length_penalty: 1.0,
            no_repeat_ngram_size: 0,
            encoder_no_repeat_ngram_size: 0,
            bad_words_ids: None,
            sequence_bias: None,
            logit_bias: BTreeMap::new(),
            renormalize_logits: false,
            remove_invalid_values: false,
            exponential_decay_length_penalty: None,
            suppress_tokens: None,
            begin_suppress_tokens: None,
            forced_bos_token_id: None,
            forced_eos_token_id: Vec::new(),
            pad_token_id: None,
            bos_token_id: None,
            eos_token_id: Vec::new(),
            decoder_start_token_id: None,
            prompt_lookup_num_tokens: None,
            max_matching_ngram_size: None,
            logprobs: false,
            top_n_tokens: 0,
        }
    }
}

/// When a beam search ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When the best open beam, at its present length, is worse than the worst finished one.
    #[default]
    No,
    /// As soon as there are as many finished sequences as beams.
    Yes,
    /// When no open beam can become better than the worst finished one at any length.
    Never,
}

impl Parameters {
    /// The parameters of a model's `generation_config.json`.
    ///
    /// As in transformers, names that mean nothing are passed over.
    ///
    /// # Errors
    /// A value of another type or out of its range, or a parameter that would change the text and isn't supported.
    pub fn from_generation_config(config: &Map<String, Value>) -> Result<Self, ParameterError> {
        Self::default().with_config(config)
    }

    /// These parameters, with what a model's configuration says in their place. Names that mean nothing are passed over.
    ///
    /// # Errors
    /// As for [`from_generation_config`](Self::from_generation_config).
    pub fn with_config(&self, config: &Map<String, Value>) -> Result<Self, ParameterError> {
        let known = config.iter().filter(|(name, _)| names::is_known(name));
        // A length of 20 is what every configuration has that was never asked.
        let said =
            known.filter(|(name, value)| *name != "max_length" || value.as_u64() != Some(DEFAULT_NEW_TOKENS as u64));
        self.with(&said.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// These parameters, with what a request says in their place.
    ///
    /// # Errors
    /// An unknown name, a value of another type or out of its range, or a parameter of transformers that isn't supported.
    pub fn with(&self, overrides: &Map<String, Value>) -> Result<Self, ParameterError> {
        let mut all = match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            Ok(other) => return Err(ParameterError::Format(format!("parameters are an object, not {other}"))),
            Err(error) => return Err(ParameterError::Format(error.to_string())),
        };
        for (name, value) in names::supported(overrides)? {
            all.insert(name.clone(), value.clone());
        }
        all.retain(|_, value| !value.is_null());
        let parameters: Self = serde_path_to_error::deserialize(Value::Object(all))
            .map_err(|error| ParameterError::Format(format!("{}: {}", error.path(), error.inner())))?;
        parameters.check()?;
        Ok(parameters)
    }

    /// Checks all that doesn't depend on model and prompt.
    ///
    /// # Errors
    /// The first value out of its range, or the first combination that has no meaning.
    pub fn check(&self) -> Result<(), ParameterError> {
        self.check_ranges()?;
        if self.num_return_sequences > 1 && self.num_beams == 1 && !self.do_sample {
            let given = self.num_return_sequences;
            return Err(ParameterError::Combination(format!(
                "num_return_sequences is {given}, but without do_sample and num_beams all would be the same"
            )));
        }
        if self.num_beams > 1 && self.num_return_sequences > self.num_beams {
            let (sequences, beams) = (self.num_return_sequences, self.num_beams);
            return Err(ParameterError::Combination(format!(
                "num_return_sequences is {sequences}, but there are only {beams} beams; raise num_beams"
            )));
        }
        if self.exponential_decay_length_penalty.is_some() && self.eos_token_id.is_empty() {
            return Err(ParameterError::Combination(
                "exponential_decay_length_penalty needs an eos_token_id".to_owned(),
            ));
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<(), ParameterError> {
        let finite = "a finite number";
        let above = "above 0";
        range("max_new_tokens", self.max_new_tokens, self.max_new_tokens != Some(0), above)?;
        range("max_length", self.max_length, self.max_length != Some(0), above)?;
        range("num_beams", self.num_beams, self.num_beams > 0, above)?;
        range("num_return_sequences", self.num_return_sequences, self.num_return_sequences > 0, above)?;
        range(
            "temperature",
            self.temperature,
            positive(self.temperature),
            "above 0; to always take the likeliest token, set do_sample to false",
        )?;
        range("top_p", self.top_p, (0.0..=1.0).contains(&self.top_p), "from 0 to 1")?;
        range("min_p", self.min_p, self.min_p.is_none_or(|least| (0.0..=1.0).contains(&least)), "from 0 to 1")?;
        range("typical_p", self.typical_p, self.typical_p > 0.0 && self.typical_p <= 1.0, "above 0 and at most 1")?;
        range("epsilon_cutoff", self.epsilon_cutoff, (0.0..1.0).contains(&self.epsilon_cutoff), "from 0 to below 1")?;
        range("eta_cutoff", self.eta_cutoff, (0.0..1.0).contains(&self.eta_cutoff), "from 0 to below 1")?;
        range("repetition_penalty", self.repetition_penalty, positive(self.repetition_penalty), above)?;
        let penalty = self.encoder_repetition_penalty;
        range("encoder_repetition_penalty", penalty, positive(penalty), above)?;
        range("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite(), finite)?;
        range("frequency_penalty", self.frequency_penalty, self.frequency_penalty.is_finite(), finite)?;
        range("length_penalty", self.length_penalty, self.length_penalty.is_finite(), finite)?;
        let decay = self.exponential_decay_length_penalty.map(|(_, factor)| factor);
        range("exponential_decay_length_penalty", decay, decay.is_none_or(positive), "a start and a factor above 0")?;
        range(
            "prompt_lookup_num_tokens",
            self.prompt_lookup_num_tokens,
            self.prompt_lookup_num_tokens != Some(0),
            above,
        )?;
        range("max_matching_ngram_size", self.max_matching_ngram_size, self.max_matching_ngram_size != Some(0), above)?;
        let empty = |sequences: &[Vec<u32>]| sequences.iter().any(Vec::is_empty);
        let words = self.bad_words_ids.as_deref().is_some_and(empty);
        range("bad_words_ids", "a list with an empty one", !words, "lists of at least one token")?;
        let mut biases = self.sequence_bias.iter().flatten();
        let biased = biases.any(|(sequence, bias)| sequence.is_empty() || bias.is_nan());
        range("sequence_bias", "a list with an empty one", !biased, "pairs of at least one token and a number")?;
        range("logit_bias", "a bias", !self.logit_bias.values().any(|bias| bias.is_nan()), finite)?;
        range("stop_strings", "an empty text", !self.stop_strings.iter().any(String::is_empty), "texts with characters")
    }

    /// Most tokens of prompt and answer, for a prompt of so many tokens and a model of so many positions.
    ///
    /// # Errors
    /// A prompt that leaves no room for a new token.
    pub fn longest(&self, prompt: usize, positions: Option<usize>) -> Result<usize, ParameterError> {
        let longest = match (self.max_new_tokens, self.max_length) {
            (Some(new), _) => prompt.saturating_add(new),
            (None, Some(all)) => all,
            (None, None) => prompt.saturating_add(DEFAULT_NEW_TOKENS).min(positions.unwrap_or(usize::MAX)),
        };
        if longest <= prompt {
            return Err(ParameterError::PromptTooLong { prompt, maximum: longest });
        }
        Ok(longest)
    }

    /// Least tokens of prompt and answer, for a prompt of so many tokens.
    pub fn shortest(&self, prompt: usize) -> usize {
        self.min_new_tokens.map_or(self.min_length, |new| prompt.saturating_add(new))
    }
}

fn positive(value: f32) -> bool {
    value > 0.0 && value.is_finite()
}

fn range(name: &'static str, value: impl Serialize, holds: bool, expected: &'static str) -> Result<(), ParameterError> {
    if holds {
        return Ok(());
    }
    let value = serde_json::to_string(&value).unwrap_or_default();
    Err(ParameterError::Range { name, value, expected })
}

/// One value, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected one value or a list of them")]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(value) => vec![value],
        OneOrMany::Many(values) => values,
    })
}

impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            EarlyStopping::No => serializer.serialize_bool(false),
            EarlyStopping::Yes => serializer.serialize_bool(true),
            EarlyStopping::Never => serializer.serialize_str("never"),
        }
    }
}

impl<'de> Deserialize<'de> for EarlyStopping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match (value.as_bool(), value.as_str()) {
            (Some(true), _) => Ok(EarlyStopping::Yes),
            (Some(false), _) => Ok(EarlyStopping::No),
            (None, Some("never")) => Ok(EarlyStopping::Never),
            (None, _) => Err(serde::de::Error::custom(format!("expected true, false or \"never\", not {value}"))),
        }
    }
}
