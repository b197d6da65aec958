//! The keys of a tokenizer, checked against each other.

use std::collections::BTreeMap;
use std::path::Path;

use centuple_gguf::{GgufError, Metadata};
use tokenizers::AddedToken;

use crate::chat::DEFAULT;
use crate::{SpecialToken, TextError};

/// What stands before every key.
const PREFIX: &str = "tokenizer.ggml.";
/// The key of the chat template; those of others have a point and a name behind it.
const CHAT: &str = "tokenizer.chat_template";
/// The longest token, in characters; the longest of public models are runs of some hundred spaces.
const LONGEST: usize = 1024;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    /// Found in texts before all else, as control tokens, but part of the text.
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    fn of(number: i64) -> Option<Kind> {
        Some(match number {
            // Converters of other tools write 0 for what they don't know.
            0 | 1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }
}

/// The tokens of a file.
pub(super) struct Vocabulary<'a> {
    file: &'a Path,
    metadata: &'a Metadata,
    pub(super) tokens: &'a [String],
    pub(super) kinds: Vec<Kind>,
    pub(super) adds_bos: Option<bool>,
    pub(super) adds_eos: Option<bool>,
}

impl<'a> Vocabulary<'a> {
    /// Reads what both kinds of tokenizers have.
    pub(super) fn read(file: &'a Path, metadata: &'a Metadata) -> Result<Vocabulary<'a>, TextError> {
        let mut vocabulary =
            Vocabulary { file, metadata, tokens: &[], kinds: Vec::new(), adds_bos: None, adds_eos: None };
        let tokens = vocabulary.checked(metadata.texts(&key("tokens")))?;
        vocabulary.tokens = match tokens {
            Some(tokens) if !tokens.is_empty() && u32::try_from(tokens.len()).is_ok() => tokens,
            _ => return Err(vocabulary.broken("tokens", "there are none; take a file that has a tokenizer")),
        };
        let length = |token: &String| token.chars().count();
        if let Some(id) = vocabulary.tokens.iter().position(|token| length(token) > LONGEST) {
            return Err(vocabulary.broken("tokens", &format!("token {id} has more than {LONGEST} characters")));
        }
        vocabulary.kinds = match vocabulary.checked(metadata.integers(&key("token_type")))? {
            None => vec![Kind::Normal; vocabulary.tokens.len()],
            Some(numbers) => {
                vocabulary.check_length("token_type", numbers.len())?;
                let kinds: Option<Vec<Kind>> = numbers.iter().map(|number| Kind::of(*number)).collect();
                kinds.ok_or_else(|| vocabulary.broken("token_type", "a number is none from 0 to 6"))?
            }
        };
        vocabulary.adds_bos = vocabulary.flag("add_bos_token")?;
        vocabulary.adds_eos = vocabulary.flag("add_eos_token")?;
        Ok(vocabulary)
    }

    fn checked<T>(&self, found: Result<T, GgufError>) -> Result<T, TextError> {
        found.map_err(|error| self.failed(&error.to_string()))
    }

    fn check_length(&self, name: &str, length: usize) -> Result<(), TextError> {
        let tokens = self.tokens.len();
        if length == tokens {
            return Ok(());
        }
        Err(self.broken(name, &format!("it has {length} entries for {tokens} tokens; convert the model again")))
    }

    /// An error about a key.
    pub(super) fn broken(&self, name: &str, reason: &str) -> TextError {
        self.failed(&format!("`{PREFIX}{name}`: {reason}"))
    }

    /// An error about the file.
    pub(super) fn failed(&self, reason: &str) -> TextError {
        TextError::Broken { path: self.file.to_path_buf(), reason: reason.to_owned() }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, TextError> {
        self.checked(self.metadata.text(&key(name)))
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, TextError> {
        self.checked(self.metadata.flag(&key(name)))
    }

    /// The pairs that are merged, best first.
    pub(super) fn merges(&self) -> Result<Vec<(String, String)>, TextError> {
        let lines = self.checked(self.metadata.texts(&key("merges")))?;
        let lines = lines.ok_or_else(|| self.broken("merges", "it is missing; convert the model again"))?;
        let pair = |line: &String| {
            // A piece may begin with a space that stands for itself.
            let place = line.char_indices().skip(1).find(|(_, character)| *character == ' ').map(|(place, _)| place);
            let (first, second) = place.and_then(|place| line.split_at_checked(place))?;
            Some((first.to_owned(), second.strip_prefix(' ')?.to_owned()))
        };
        let wrong = |line: &String| self.broken("merges", &format!("\"{}\" is no pair", shown(line)));
        lines.iter().map(|line| pair(line).ok_or_else(|| wrong(line))).collect()
    }

    /// The score of each token.
    pub(super) fn scores(&self) -> Result<&'a [f32], TextError> {
        let scores = self.checked(self.metadata.floats(&key("scores")))?;
        let scores = scores.ok_or_else(|| self.broken("scores", "it is missing; convert the model again"))?;
        self.check_length("scores", scores.len())?;
        if scores.iter().any(|score| score.is_nan()) {
            return Err(self.broken("scores", "a score is not a number"));
        }
        Ok(scores)
    }

    /// The token that a key names.
    pub(super) fn token(&self, name: &str) -> Result<Option<SpecialToken>, TextError> {
        // What isn't there is sometimes written as -1.
        let id = self.checked(self.metadata.token(&key(name)))?.filter(|id| *id != u32::MAX);
        let Some(id) = id else { return Ok(None) };
        match self.tokens.get(id as usize) {
            Some(text) => Ok(Some(SpecialToken { text: text.clone(), id })),
            None => Err(self.broken(name, &format!("{id} is none of {} tokens", self.tokens.len()))),
        }
    }

    /// Chat templates by name.
    pub(super) fn chat_templates(&self) -> Result<BTreeMap<String, String>, TextError> {
        let mut templates = BTreeMap::new();
        for key in self.metadata.keys() {
            let Some(rest) = key.strip_prefix(CHAT) else { continue };
            let name = if rest.is_empty() { Some(DEFAULT) } else { rest.strip_prefix('.') };
            // The list of names has a similar key.
            let Some(name) = name else { continue };
            let template = self.checked(self.metadata.text(key))?;
            templates.extend(template.map(|template| (name.to_owned(), template.to_owned())));
        }
        Ok(templates)
    }

    /// Tokens of a kind, with how they are written.
    pub(super) fn of_kind(&self, kinds: &[Kind]) -> impl Iterator<Item = (Kind, &'a str)> {
        let all = self.kinds.iter().copied().zip(self.tokens).map(|(kind, token)| (kind, token.as_str()));
        all.filter(move |(kind, token)| kinds.contains(kind) && !token.is_empty())
    }

    /// Control tokens, and those that are found before all else; a token of the latter counts in normalised texts where
    /// `normalized` says so of it.
    pub(super) fn added(&self, normalized: impl Fn(&str) -> bool) -> Vec<AddedToken> {
        let found = self.of_kind(&[Kind::Control, Kind::UserDefined, Kind::Unknown]);
        let token = |(kind, text): (Kind, &str)| {
            let special = kind != Kind::UserDefined;
            AddedToken::from(text.to_owned(), special).normalized(!special && normalized(text))
        };
        found.map(token).collect()
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// Text of a file in the words of an error.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}
