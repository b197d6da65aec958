//! Answers that a JSON schema or a regular expression describes: before each token, those that lead out of it are forbidden.
//!
//! llguidance knows what may come. It is given the bytes of each token, so that tokens which end within a word, a character or a number
//! are all there.

use std::fmt;
use std::sync::Arc;

use centuple_guard::guarded;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, token_bytes_from_tokenizer_json};
use serde_json::Value;

use crate::{ParameterError, SampleError};

/// The tokens of a model as a grammar sees them. Made once per model, which takes a while.
pub struct Grammars {
    factory: ParserFactory,
    eos: Vec<u32>,
}

/// What one answer may be, and how far it has come.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
    eos: Arc<[u32]>,
}

impl Grammars {
    /// For a model whose tokens are these bytes, in the order of their ids: empty for special tokens, which no text has. `eos` are
    /// the tokens that end a text.
    ///
    /// # Errors
    /// A model without an end, or an end that it doesn't have.
    pub fn new(mut tokens: Vec<Vec<u8>>, eos: &[u32]) -> Result<Self, ParameterError> {
        let vocabulary = tokens.len();
        let Some(&first) = eos.first() else {
            return Err(ParameterError::Combination("constraints need an eos_token_id".to_owned()));
        };
        if let Some(&token) = eos.iter().find(|token| **token as usize >= vocabulary) {
            return Err(ParameterError::Vocabulary { name: "eos_token_id", token, vocabulary });
        }
        for (id, token) in tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty()) {
            *token = [&[TokTrie::SPECIAL_TOKEN_MARKER], format!("<{id}>").as_bytes()].concat();
        }
        let factory = || {
            let info = TokRxInfo::new(vocabulary as u32, first);
            let trie = TokTrie::from(&info, &tokens).with_eos_tokens(eos);
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let mut factory = ParserFactory::new_simple(&environment).map_err(|error| format(&error))?;
            factory.quiet();
            Ok(factory)
        };
        let factory = guarded(factory, |reason| ParameterError::Format(reason.to_owned()))?;
        Ok(Self { factory, eos: eos.to_vec() })
    }

    /// For a model with this tokenizer.json and so many tokens.
    ///
    /// # Errors
    /// A tokenizer whose tokens are not bytes in a known way, and what [`Grammars::new`] refuses.
    pub fn from_tokenizer_json(tokenizer: &Value, vocabulary: usize, eos: &[u32]) -> Result<Self, ParameterError> {
        let bytes = || token_bytes_from_tokenizer_json(tokenizer).map_err(|error| format(&error));
        let mut tokens = guarded(bytes, |reason| ParameterError::Format(reason.to_owned()))?;
        for token in &mut tokens {
            if token.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) {
                token.clear();
            }
        }
        tokens.resize(vocabulary, Vec::new());
        Self::new(tokens, eos)
    }

    /// Answers that are JSON of this schema.
    ///
    /// # Errors
    /// A schema that isn't one, or that has what isn't supported.
    pub fn json_schema(&self, schema: Value) -> Result<Constraint, ParameterError> {
        self.constraint("the JSON schema", TopLevelGrammar::from_json_schema(schema))
    }

    /// Answers that are wholly matched by a regular expression.
    ///
    /// # Errors
    /// An expression that isn't one, or that has what isn't supported.
    pub fn regex(&self, expression: &str) -> Result<Constraint, ParameterError> {
        self.constraint("the regular expression", TopLevelGrammar::from_regex(expression))
    }

    fn constraint(&self, what: &str, grammar: TopLevelGrammar) -> Result<Constraint, ParameterError> {
        let refused = |reason: &str| ParameterError::Format(format!("{what} can't be used: {reason}"));
        let matcher = guarded(|| Ok(Matcher::new(self.factory.create_parser(grammar))), refused)?;
        match matcher.get_error() {
            Some(reason) => Err(refused(&reason)),
            None => Ok(Constraint { matcher, eos: self.eos.as_slice().into() }),
        }
    }
}

/// An error as a parameter's.
fn format(error: &impl fmt::Display) -> ParameterError {
    ParameterError::Format(error.to_string())
}

impl Constraint {
    /// Forbids the tokens that can't come next. At the end only tokens that end the text are left.
    pub(crate) fn restrict(&mut self, row: &mut [f32]) -> Result<(), SampleError> {
        let failed = |reason: &str| SampleError::Constraint(reason.to_owned());
        let mask = guarded(|| self.matcher.compute_mask_or_eos().map_err(|error| failed(&error.to_string())), failed)?;
        for (scores, allowed) in row.chunks_mut(32).zip(mask.as_slice().iter().copied().chain(std::iter::repeat(0))) {
            for (bit, score) in scores.iter_mut().enumerate() {
                if allowed >> bit & 1 == 0 {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }

    /// Takes the token that was chosen.
    pub(crate) fn accept(&mut self, token: u32) -> Result<(), SampleError> {
        if self.eos.contains(&token) {
            return Ok(());
        }
        let failed = |reason: &str| SampleError::Constraint(reason.to_owned());
        guarded(|| self.matcher.consume_token(token).map_err(|error| failed(&error.to_string())), failed)
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Constraint")
    }
}
