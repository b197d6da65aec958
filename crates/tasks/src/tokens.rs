//! Texts of a request to token sequences: prompts, truncation, and what it amounts to.

use std::sync::Arc;

use centuple_text::{Encoding, Text, TextError, Truncation};
use serde::Deserialize;

use crate::{
    engine::Sequence,
    error::TaskError,
    model::{Head, Model},
};

/// Which end of a text that is too long is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Direction {
    /// The beginning.
    #[serde(alias = "left")]
    Left,
    /// The end.
    #[default]
    #[serde(alias = "right")]
    Right,
}

/// The tokenizer's order for `truncate` and `truncation_direction`: cutting is the default.
pub(crate) fn truncation(truncate: Option<bool>, direction: Option<Direction>) -> Truncation {
    match (truncate, direction.unwrap_or_default()) {
        (Some(false), _) => Truncation::Refuse,
        (_, Direction::Left) => Truncation::Left,
        (_, Direction::Right) => Truncation::Right,
    }
}

/// How much a request asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Characters of all texts, before truncation.
    pub characters: usize,
    /// Tokens of all sequences, special tokens included.
    pub tokens: usize,
}

/// Collects the sequences of one request.
pub(crate) struct Collector<'m> {
    model: &'m Model,
    prompt: &'m str,
    pools_prompt: bool,
    truncation: Truncation,
    sequences: Vec<Sequence>,
    usage: Usage,
}

impl<'m> Collector<'m> {
    /// Starts a request whose texts get the prompt of the given name, or the model's default.
    pub(crate) fn new(model: &'m Model, prompt_name: Option<&str>, truncation: Truncation) -> Result<Self, TaskError> {
        let prompt = find_prompt(model, prompt_name)?;
        let pools_prompt = match &model.card.head {
            Head::SentenceEmbedding(embedding) => embedding.include_prompt,
            Head::TokenFeatures { .. } | Head::Classification { .. } => true,
        };
        Ok(Self { model, prompt, pools_prompt, truncation, sequences: Vec::new(), usage: Usage::default() })
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), TaskError> {
        self.usage.characters += text.chars().count();
        let tokenizer = &self.model.tokenizer;
        let encoding = match self.prompt {
            "" => tokenizer.encode(Text::Single(text), self.truncation),
            prompt => tokenizer.encode_prompted(prompt, text, self.truncation),
        };
        self.add(encoding)
    }

    /// Adds a pair of texts; prompts are for single ones.
    pub(crate) fn pair(&mut self, text: &str, text_pair: &str) -> Result<(), TaskError> {
        self.usage.characters += text.chars().count() + text_pair.chars().count();
        self.add(self.model.tokenizer.encode(Text::Pair(text, text_pair), self.truncation))
    }

    fn add(&mut self, encoding: Result<Arc<Encoding>, TextError>) -> Result<(), TaskError> {
        let input = self.sequences.len();
        let encoding = encoding.map_err(|source| TaskError::Text { input, source })?;
        let last = encoding.ids.len().saturating_sub(1);
        let pool_from = if self.pools_prompt { 0 } else { encoding.prompt_tokens.min(last) };
        self.push(Sequence { ids: encoding.ids.clone(), type_ids: encoding.type_ids.clone(), pool_from })
    }

    /// Adds tokens as they are.
    pub(crate) fn push(&mut self, sequence: Sequence) -> Result<(), TaskError> {
        let input = self.sequences.len();
        self.model.limits.check(&sequence).map_err(|source| TaskError::Ids { input, source })?;
        self.usage.tokens += sequence.len();
        self.sequences.push(sequence);
        Ok(())
    }

    /// The sequences in the order in which they were added.
    pub(crate) fn finish(self) -> (Vec<Sequence>, Usage) {
        (self.sequences, self.usage)
    }
}

fn find_prompt<'m>(model: &'m Model, name: Option<&str>) -> Result<&'m str, TaskError> {
    let Some(name) = name.or(model.card.default_prompt.as_deref()) else {
        return Ok("");
    };
    model.card.prompts.get(name).map(String::as_str).ok_or_else(|| {
        let names: Vec<_> = model.card.prompts.keys().map(String::as_str).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        TaskError::Parameter {
            name: "prompt_name",
            reason: format!("the model has no prompt `{name}`; its prompts: {known}"),
        }
    })
}
