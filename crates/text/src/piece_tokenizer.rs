//! Tokenizers whose pieces come from sentencepiece and whose ids come from a list: Marian's and M2M100's.
//!
//! transformers has them in Python only, so this follows what its `PreTrainedTokenizer` does.

use std::collections::{BTreeSet, HashMap};

use tokenizers::AddedToken;

use crate::sentencepiece::{SPACE, SentencePiece};

/// A tokenizer of pieces.
#[derive(Debug)]
pub(crate) struct PieceTokenizer {
    pub(crate) kind: PieceKind,
    pub(crate) source: SentencePiece,
    /// Where texts are written by another model than they are read by.
    pub(crate) target: Option<SentencePiece>,
    /// Ids of pieces.
    pub(crate) ids: HashMap<String, u32>,
    /// Pieces of ids, where they are not those of `ids`.
    pub(crate) pieces: HashMap<u32, String>,
    pub(crate) unknown: (String, u32),
    /// Tokens of languages behind the pieces.
    pub(crate) languages: HashMap<String, u32>,
    pub(crate) added: Added,
}

/// What a class does beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceKind {
    /// Texts may begin with the language that is wanted, as `>>fra<<`.
    Marian,
    /// Languages are tokens.
    M2m100,
}

/// Tokens that are found in texts before all else.
#[derive(Debug, Default)]
pub(crate) struct Added {
    pub(crate) by_id: HashMap<u32, AddedToken>,
    pub(crate) ids: HashMap<String, u32>,
    /// Those that are left out of decoded text.
    pub(crate) special: BTreeSet<String>,
    /// Those with spaces around them in decoded text.
    pub(crate) apart: BTreeSet<String>,
}

/// A token with its id.
pub(crate) type Token = (String, u32);

/// A part of a text.
#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Text(&'a str),
    Added(&'a AddedToken),
}

impl PieceTokenizer {
    /// The tokens of a text.
    pub(crate) fn encode(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        for part in self.added.split(text) {
            match part {
                Part::Added(token) => tokens.push(self.token(token.content.clone())),
                Part::Text(text) => {
                    let (language, text) = self.language(text);
                    tokens.extend(language.map(|language| self.token(language.to_owned())));
                    tokens.extend(self.source.encode(text).into_iter().map(|piece| self.token(piece)));
                }
            }
        }
        tokens
    }

    /// The language that a text begins with, as a token, and what follows.
    fn language<'a>(&self, text: &'a str) -> (Option<&'a str>, &'a str) {
        let end = match self.kind {
            PieceKind::Marian if text.starts_with(">>") => text.find("<<"),
            PieceKind::Marian | PieceKind::M2m100 => None,
        };
        match end.and_then(|end| text.split_at_checked(end + 2)) {
            Some((language, rest)) => (Some(language), rest),
            None => (None, text),
        }
    }

    fn token(&self, text: String) -> Token {
        match self.token_to_id(&text) {
            Some(id) => (text, id),
            None => (text, self.unknown.1),
        }
    }

    /// The id of a token.
    pub(crate) fn token_to_id(&self, token: &str) -> Option<u32> {
        let own = || self.languages.get(token).or_else(|| self.ids.get(token));
        self.added.ids.get(token).or_else(own).copied()
    }

    /// How a token is written.
    pub(crate) fn id_to_token(&self, id: u32) -> Option<String> {
        let added = self.added.by_id.get(&id).map(|token| token.content.clone());
        added.or_else(|| self.pieces.get(&id).cloned())
    }

    /// One more than the largest id.
    pub(crate) fn size(&self) -> usize {
        let largest = self.added.by_id.keys().chain(self.pieces.keys()).max();
        largest.map_or(0, |id| *id as usize + 1)
    }

    /// The text of ids; those that there aren't are the unknown token.
    pub(crate) fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let tokens = ids.iter().map(|id| self.id_to_token(*id).unwrap_or_else(|| self.unknown.0.clone()));
        let mut texts = Vec::new();
        let mut run = Vec::new();
        for token in tokens.filter(|token| !(skip_special && self.added.special.contains(token))) {
            if self.added.apart.contains(&token) {
                texts.extend(Some(self.join(&std::mem::take(&mut run))).filter(|text| !text.is_empty()));
                texts.push(token);
            } else {
                run.push(token);
            }
        }
        texts.extend((!run.is_empty()).then(|| self.join(&run)));
        texts.join(" ")
    }

    /// The text of tokens.
    pub(crate) fn join(&self, tokens: &[String]) -> String {
        let model = self.target.as_ref().unwrap_or(&self.source);
        let mut text = String::new();
        for run in
            tokens.chunk_by(|first, second| !self.added.special.contains(first) && !self.added.special.contains(second))
        {
            match run {
                [token] if self.added.special.contains(token) => {
                    text.push_str(token);
                    text.push_str(match self.kind {
                        PieceKind::Marian => " ",
                        PieceKind::M2m100 => "",
                    });
                }
                pieces => text.push_str(&model.decode(pieces.iter().map(String::as_str))),
            }
        }
        match self.kind {
            PieceKind::Marian => text.replace(SPACE, " ").trim().to_owned(),
            PieceKind::M2m100 => text.trim().to_owned(),
        }
    }
}

impl Added {
    /// A text in parts, with the spaces taken that tokens take.
    fn split<'a>(&'a self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut start = 0;
        while let Some((before, from)) = rest.split_at_checked(start) {
            let Some(character) = from.chars().next() else { break };
            let longest = self.by_id.values().filter(|token| from.starts_with(&token.content));
            let longest = longest.filter(|token| !token.content.is_empty()).max_by_key(|token| token.content.len());
            match longest {
                Some(token) => {
                    parts.extend([Part::Text(before), Part::Added(token)]);
                    (rest, start) = (from.get(token.content.len()..).unwrap_or_default(), 0);
                }
                None => start += character.len_utf8(),
            }
        }
        parts.push(Part::Text(rest));
        for place in 0..parts.len() {
            let Some(Part::Added(token)) = parts.get(place).copied() else { continue };
            if token.rstrip
                && let Some(Part::Text(after)) = parts.get_mut(place + 1)
            {
                *after = after.trim_start();
            }
            if token.lstrip
                && let Some(Part::Text(before)) = place.checked_sub(1).and_then(|place| parts.get_mut(place))
            {
                *before = before.trim_end();
            }
        }
        parts.retain(|part| !matches!(part, Part::Text("")));
        parts
    }
}
