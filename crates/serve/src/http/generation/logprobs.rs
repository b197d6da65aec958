//! Probabilities of tokens as chat completions tell them.

use centuple_tasks::text_generation::{Answer, Token, TopToken};
use serde::Serialize;

/// The tokens of an answer, without those that are no part of its text.
#[derive(Serialize)]
pub(super) struct Logprobs {
    content: Vec<TokenLogprob>,
    refusal: Option<()>,
}

#[derive(Serialize)]
struct TokenLogprob {
    #[serde(flatten)]
    token: Likely,
    /// The likeliest tokens at this place.
    top_logprobs: Vec<Likely>,
}

#[derive(Serialize)]
struct Likely {
    token: String,
    /// Natural logarithm of the probability.
    logprob: f32,
    bytes: Vec<u8>,
}

impl Likely {
    fn new(text: &str, logprob: f32) -> Self {
        Self { token: text.to_owned(), logprob, bytes: text.as_bytes().to_vec() }
    }
}

impl Logprobs {
    /// Those from a place on.
    pub(super) fn of(answer: &Answer, from: usize) -> Self {
        let tokens = answer.tokens.iter().enumerate().skip(from).filter(|(_, token)| !token.special);
        let tell = |(place, token): (usize, &Token)| {
            let top = answer.top_tokens.get(place).into_iter().flatten();
            TokenLogprob {
                // Without a probability only where none was asked for.
                token: Likely::new(&token.text, token.logprob.unwrap_or_default()),
                top_logprobs: top.map(|TopToken { text, logprob, .. }| Likely::new(text, *logprob)).collect(),
            }
        };
        Self { content: tokens.map(tell).collect(), refusal: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.content.is_empty()
    }
}
