//! What sentencepiece does to a text before it looks for pieces.

use super::SPACE;
use super::charsmap::Charsmap;
use super::pieces::Pieces;

/// How texts are prepared.
#[derive(Debug)]
pub(super) struct Normalizer {
    pub(super) charsmap: Option<Charsmap>,
    /// Whether a text begins with a space that isn't there.
    pub(super) adds_space: bool,
    /// Whether several spaces become one, and those at the ends none.
    pub(super) joins_spaces: bool,
    /// Whether spaces are written as [`SPACE`].
    pub(super) escapes_spaces: bool,
    /// Pieces that stay as they are.
    pub(super) kept: Pieces,
}

impl Normalizer {
    /// The text in which pieces are looked for.
    pub(super) fn normalize(&self, text: &str) -> String {
        let mut rest = text;
        if self.joins_spaces {
            while let (" ", length) = self.first(rest) {
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        let mut normalized = String::with_capacity(rest.len() + SPACE.len());
        if rest.is_empty() {
            return normalized;
        }
        let space = if self.escapes_spaces { SPACE } else { " " };
        if self.adds_space {
            normalized.push_str(space);
        }
        let mut after_space = self.joins_spaces;
        while !rest.is_empty() {
            let (mut part, length) = self.first(rest);
            if after_space {
                part = part.trim_start_matches(' ');
            }
            for (place, word) in part.split(' ').enumerate() {
                normalized.push_str(if place > 0 { space } else { "" });
                normalized.push_str(word);
            }
            if !part.is_empty() {
                after_space = part.ends_with(' ');
            }
            after_space &= self.joins_spaces;
            rest = rest.get(length..).unwrap_or_default();
        }
        if self.joins_spaces {
            let length = normalized.trim_end_matches(space).len();
            normalized.truncate(length);
        }
        normalized
    }

    /// What the beginning of a text becomes, and the length of that beginning in bytes.
    fn first<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        let beginning = |length: usize| text.get(..length).map(|part| (part, length));
        let kept = || self.kept.longest(text.as_bytes()).and_then(beginning);
        let replaced = || {
            let found = self.charsmap.as_ref()?.longest(text.as_bytes())?;
            text.is_char_boundary(found.1).then_some(found)
        };
        let character = || beginning(text.chars().next().map_or(0, char::len_utf8));
        kept().or_else(replaced).or_else(character).unwrap_or((text, text.len()))
    }
}
