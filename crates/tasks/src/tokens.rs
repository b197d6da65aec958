//! Texts of a request to token sequences: prompts, truncation, and what it amounts to.

use std::sync::Arc;

use centuple_text::{Encoding, Text, TextError, Truncation, Window, WindowOptions};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{engine::Sequence, error::TaskError, model::Model};

/// Which end of a text that is too long is cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
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

/// Most windows of a request.
const MAX_WINDOWS: usize = 4096;

/// Most bytes of a text that goes with each of several others, times their number.
const MAX_REPEATED_BYTES: usize = 16 << 20;

/// Refuses a text that would be tokenised too often; `name` is what is too long or too many.
pub(crate) fn check_repeated(name: &'static str, text: &str, times: usize) -> Result<(), TaskError> {
    if text.len().saturating_mul(times) <= MAX_REPEATED_BYTES {
        return Ok(());
    }
    let reason = format!(
        "a text of {} bytes would be read {times} times, which is more than {MAX_REPEATED_BYTES} bytes; \
         send a shorter text or several requests",
        text.len()
    );
    Err(TaskError::Parameter { name, reason })
}

/// The characters of a text, in which offsets count.
pub(crate) fn characters(text: &str) -> Vec<char> {
    text.chars().collect()
}

fn sequence(encoding: &Encoding) -> Sequence {
    Sequence { type_ids: encoding.type_ids.clone(), ..Sequence::from_ids(encoding.ids.clone()) }
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
    /// How many of them are windows.
    windows: usize,
    usage: Usage,
}

impl<'m> Collector<'m> {
    /// Starts a request whose texts get the prompt of the given name, or the model's default.
    pub(crate) fn new(model: &'m Model, prompt_name: Option<&str>, truncation: Truncation) -> Result<Self, TaskError> {
        let prompt = find_prompt(model, prompt_name)?;
        let pools_prompt = model.card.head.sentence_embedding().is_none_or(|embedding| embedding.include_prompt);
        let (sequences, usage) = (Vec::new(), Usage::default());
        Ok(Self { model, prompt, pools_prompt, truncation, sequences, windows: 0, usage })
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

    /// Adds a text whose tokens `mask` are to be found, and tells how many these are.
    pub(crate) fn masked(&mut self, text: &str, mask: u32) -> Result<usize, TaskError> {
        self.usage.characters += text.chars().count();
        let encoding = self.model.tokenizer.encode(Text::Single(text), self.truncation);
        let encoding = encoding.map_err(|source| TaskError::Text { input: self.sequences.len(), source })?;
        let masks = encoding.ids.iter().enumerate().filter(|(_, id)| **id == mask);
        let selected: Vec<usize> = masks.map(|(token, _)| token).collect();
        let count = selected.len();
        let (ids, type_ids) = (encoding.ids.clone(), encoding.type_ids.clone());
        self.push(Sequence { ids, type_ids, pool_from: 0, selected })?;
        Ok(count)
    }

    /// Adds the windows over a text or a pair, the `input` of that index in the request.
    pub(crate) fn windows(
        &mut self,
        input: usize,
        text: Text<'_>,
        options: &WindowOptions,
    ) -> Result<Vec<Window>, TaskError> {
        let max_windows = MAX_WINDOWS.saturating_sub(self.windows);
        let windows = self.model.tokenizer.windows(text, &WindowOptions { max_windows, ..options.clone() });
        let windows = windows.map_err(|source| TaskError::Text { input, source })?;
        self.windows += windows.len();
        self.count_characters(text);
        windows.iter().try_for_each(|window| self.push(sequence(&window.encoding)))?;
        Ok(windows)
    }

    /// Adds the first of these windows; what the others hold is cut off.
    pub(crate) fn first_window(
        &mut self,
        input: usize,
        text: Text<'_>,
        options: &WindowOptions,
    ) -> Result<Window, TaskError> {
        let windows = self.model.tokenizer.windows(text, options);
        let windows = windows.map_err(|source| TaskError::Text { input, source })?;
        let first = windows.into_iter().next().ok_or(TaskError::Text { input, source: TextError::Empty })?;
        self.count_characters(text);
        self.push(sequence(&first.encoding))?;
        Ok(first)
    }

    fn count_characters(&mut self, text: Text<'_>) {
        let (first, second) = match text {
            Text::Single(text) => (text, ""),
            Text::Pair(first, second) | Text::FullPair(first, second) => (first, second),
        };
        self.usage.characters += first.chars().count() + second.chars().count();
    }

    /// Adds a pair of texts, of which the second is one even if it is empty.
    pub(crate) fn full_pair(&mut self, text: &str, text_pair: &str) -> Result<(), TaskError> {
        let pair = Text::FullPair(text, text_pair);
        self.count_characters(pair);
        self.add(self.model.tokenizer.encode(pair, self.truncation))
    }

    /// Adds a pair of texts; prompts are for single ones.
    pub(crate) fn pair(&mut self, text: &str, text_pair: &str) -> Result<(), TaskError> {
        let pair = Text::Pair(text, text_pair);
        self.count_characters(pair);
        self.add(self.model.tokenizer.encode(pair, self.truncation))
    }

    fn add(&mut self, encoding: Result<Arc<Encoding>, TextError>) -> Result<(), TaskError> {
        let input = self.sequences.len();
        let encoding = encoding.map_err(|source| TaskError::Text { input, source })?;
        let last = encoding.ids.len().saturating_sub(1);
        let pool_from = if self.pools_prompt { 0 } else { encoding.prompt_tokens.min(last) };
        self.push(Sequence { pool_from, ..sequence(&encoding) })
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
