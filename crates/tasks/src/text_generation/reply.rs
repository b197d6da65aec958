//! Answers that grow token by token, and the reply that they make.

use centuple_generate::{self as generate, TokenLogprob, Update};
use serde::{
    Serialize,
    ser::{SerializeMap, Serializer},
};

use crate::{body::OneOrMany, engine::EngineError, error::TaskError, model::Model};

/// A token of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that it completed; for a special one, how it is written.
    pub text: String,
    /// Natural logarithm of its probability.
    pub logprob: Option<f32>,
    /// Whether it is no part of the text.
    pub special: bool,
}

/// A likely token beside the one that was chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopToken {
    /// Its id.
    pub id: u32,
    /// How it is written.
    pub text: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Whether it is no part of the text.
    pub special: bool,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It has as many tokens as it may have.
    Length,
    /// The model ended it.
    EosToken,
    /// A stop string came.
    StopSequence,
}

/// An answer as far as it has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// The likeliest ones beside each, where asked for.
    pub top_tokens: Vec<Vec<TopToken>>,
    /// Why it ended, if it did.
    pub finish: Option<FinishReason>,
}

/// The answers to one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    answers: Vec<Answer>,
}

impl Answers {
    /// So many answers, without a token yet.
    pub fn new(count: usize) -> Self {
        Self { answers: vec![Answer::default(); count] }
    }

    /// The answers.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Takes what a step gave. Yields the tokens that came.
    ///
    /// # Errors
    /// The answer could not be computed.
    pub fn take(&mut self, model: &Model, update: Update) -> Result<&[Token], TaskError> {
        let Some(answer) = self.answers.get_mut(update.sequence as usize) else { return Ok(&[]) };
        let before = answer.tokens.len();
        let last = update.tokens.len().saturating_sub(1);
        let mut text = Some(update.text.clone());
        for (place, sampled) in update.tokens.into_iter().enumerate() {
            let special = model.tokenizer.is_special(sampled.token);
            // What several tokens of one step said together is the last one's.
            let own = if place == last { text.take().unwrap_or_default() } else { String::new() };
            let text = if special { written(model, sampled.token) } else { own };
            answer.tokens.push(Token { id: sampled.token, text, logprob: sampled.logprob, special });
            if !sampled.top.is_empty() {
                answer.top_tokens.push(sampled.top.into_iter().map(|top| top_token(model, top)).collect());
            }
        }
        answer.text.push_str(&update.text);
        answer.finish = match update.finish {
            None => answer.finish,
            Some(generate::Finish::Length) => Some(FinishReason::Length),
            Some(generate::Finish::EndOfText(_)) => Some(FinishReason::EosToken),
            Some(generate::Finish::Stop(_)) => Some(FinishReason::StopSequence),
            Some(generate::Finish::Failed(reason)) => return Err(EngineError::execution(reason).into()),
        };
        Ok(answer.tokens.get(before..).unwrap_or_default())
    }

    /// Whether all have ended.
    pub fn are_done(&self) -> bool {
        self.answers.iter().all(|answer| answer.finish.is_some())
    }
}

/// How a token is written.
fn written(model: &Model, id: u32) -> String {
    model.tokenizer.id_to_token(id).unwrap_or_default()
}

fn top_token(model: &Model, TokenLogprob { token, logprob }: TokenLogprob) -> TopToken {
    let special = model.tokenizer.is_special(token);
    let text =
        if special { written(model, token) } else { model.tokenizer.decode(&[token], false).unwrap_or_default() };
    TopToken { id: token, text, logprob, special }
}

/// What makes a reply of answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    pub(super) single: bool,
    /// What each text begins with.
    pub(super) prompts: Vec<String>,
    /// Answers to each text.
    pub(super) answers: usize,
    pub(super) details: bool,
    pub(super) seed: Option<u64>,
    /// The field of a reply that has the text.
    pub(super) field: &'static str,
    /// Whether a list of texts has a list of answers, and not one of lists.
    pub(super) flat: bool,
}

impl Finish {
    /// Room for the answers to each text.
    pub fn answers(&self) -> Vec<Answers> {
        vec![Answers::new(self.answers); self.prompts.len()]
    }

    /// What the answers to a text begin with: the prompt, where it is told.
    pub fn before(&self, input: usize) -> &str {
        self.prompts.get(input).map_or("", String::as_str)
    }

    /// Where draws come from, if there are any.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The reply.
    ///
    /// # Errors
    /// An answer is missing or has not ended.
    pub fn reply(self, answers: Vec<Answers>) -> Result<Reply, TaskError> {
        let ended = answers.len() == self.prompts.len() && answers.iter().all(Answers::are_done);
        if !ended {
            return Err(EngineError::Stopped.into());
        }
        let of_text = |(prompt, answers): (&String, Answers)| {
            answers.answers.into_iter().map(|answer| self.generated(prompt, answer)).collect::<Vec<_>>()
        };
        let items = self.prompts.iter().zip(answers).map(of_text).collect();
        Ok(Reply { texts: OneOrMany { items, single: self.single }, flat: self.flat })
    }

    /// An answer that has ended, as it is told.
    pub fn generated(&self, prompt: &str, answer: Answer) -> Generated {
        let details = self.details.then(|| Details {
            finish_reason: answer.finish.unwrap_or(FinishReason::Length),
            generated_tokens: answer.tokens.len(),
            seed: self.seed,
            prefill: [],
            tokens: answer.tokens,
            top_tokens: Some(answer.top_tokens).filter(|top| !top.is_empty()),
        });
        Generated { field: self.field, text: [prompt, &answer.text].concat(), details }
    }
}

/// A text that was generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The name under which a reply has the text.
    pub field: &'static str,
    /// The text.
    pub text: String,
    /// What else is known, where asked for.
    pub details: Option<Details>,
}

impl Serialize for Generated {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.field, &self.text)?;
        if let Some(details) = &self.details {
            map.serialize_entry("details", details)?;
        }
        map.end()
    }
}

/// How a text came about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Details {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Number of its tokens.
    pub generated_tokens: usize,
    /// Where its draws came from.
    pub seed: Option<u64>,
    /// Tokens of the prompt, which aren't told.
    prefill: [Token; 0],
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// The likeliest ones beside each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_tokens: Option<Vec<Vec<TopToken>>>,
}

/// The reply to a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// What was generated for each text.
    pub texts: OneOrMany<Vec<Generated>>,
    /// Whether a list of texts has a list of answers, and not one of lists.
    flat: bool,
}

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.flat && !self.texts.single {
            return serializer.collect_seq(self.texts.items.iter().flatten());
        }
        self.texts.serialize(serializer)
    }
}

impl Reply {
    /// The JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        // Writing numbers and strings to memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
