//! Texts of a request to token sequences: prompts, truncation, and what it amounts to.

use centuple_text::{Text, Truncation};
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
    pool_from: usize,
    truncation: Truncation,
    sequences: Vec<Sequence>,
    usage: Usage,
}

impl<'m> Collector<'m> {
    /// Starts a request whose texts get the prompt of the given name, or the model's default.
    pub(crate) fn new(
        model: &'m Model,
        prompt_name: Option<&str>,
        truncation: Truncation,
    ) -> Result<Self, TaskError> {
        let prompt = find_prompt(model, prompt_name)?;
        let mut collector =
            Self { model, prompt, pool_from: 0, truncation, sequences: Vec::new(), usage: Usage::default() };
        if let Head::SentenceEmbedding(embedding) = &model.card.head
            && !embedding.include_prompt
            && !prompt.is_empty()
        {
            collector.pool_from = collector.prompt_tokens()?;
        }
        Ok(collector)
    }

    /// Tokens of the prompt as it stands before a text: without the final special token.
    fn prompt_tokens(&self) -> Result<usize, TaskError> {
        let encode = |text| {
            let encoding = self.model.tokenizer.encode(Text::Single(text), Truncation::Right);
            encoding.map(|encoding| encoding.ids.clone()).map_err(|source| TaskError::Text { input: 0, source })
        };
        let (prompt, nothing) = (encode(self.prompt)?, encode("")?);
        let closing = nothing.iter().rev().zip(prompt.iter().rev()).take_while(|(a, b)| a == b).count();
        Ok(prompt.len() - closing)
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), TaskError> {
        self.usage.characters += text.chars().count();
        if self.prompt.is_empty() {
            return self.encode(Text::Single(text));
        }
        self.encode(Text::Single(&[self.prompt, text].concat()))
    }

    /// Adds a pair of texts; prompts are for single ones.
    pub(crate) fn pair(&mut self, text: &str, text_pair: &str) -> Result<(), TaskError> {
        self.usage.characters += text.chars().count() + text_pair.chars().count();
        self.encode(Text::Pair(text, text_pair))
    }

    fn encode(&mut self, text: Text<'_>) -> Result<(), TaskError> {
        let input = self.sequences.len();
        let encoding = self
            .model
            .tokenizer
            .encode(text, self.truncation)
            .map_err(|source| TaskError::Text { input, source })?;
        self.push(Sequence {
            ids: encoding.ids.clone(),
            type_ids: encoding.type_ids.clone(),
            pool_from: self.pool_from.min(encoding.ids.len().saturating_sub(1)),
        })
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
