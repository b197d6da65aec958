//! Texts in overlapping windows, with the origin of each token.

use std::ops::Range;

use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings};

use crate::folder::Inner;
use crate::tokenizer::not_encoded;
use crate::{Encoding, Text, TextError, Tokenizer, Truncation};

/// How a text that is too long is split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowOptions {
    /// The largest number of tokens of a window, special tokens included; the tokenizer's own limit holds too.
    pub max_tokens: usize,
    /// How many tokens of the split text a window shares with the one before it.
    pub stride: usize,
    /// Which text of a pair is split; the other one is in each window.
    pub split: Split,
    /// From which end the windows are counted, or that more than one is an error.
    pub truncation: Truncation,
    /// Most windows; a text that needs more is an error.
    pub max_windows: usize,
}

impl WindowOptions {
    /// Any number of windows over the first text from its beginning.
    pub fn new(max_tokens: usize, stride: usize) -> Self {
        Self { max_tokens, stride, split: Split::First, truncation: Truncation::Right, max_windows: usize::MAX }
    }
}

/// Which text of a pair is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The first text, or the only one.
    First,
    /// The second text.
    Second,
}

/// Tokens of a part of an input, with the special tokens around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// What the model is given.
    pub encoding: Encoding,
    /// For each token where it comes from.
    pub origins: Vec<Origin>,
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whether it was put around the texts. A special token that a text spells out is not special in this sense.
    pub special: bool,
    /// The text it comes from, 0 or 1; none for special tokens.
    pub text: Option<usize>,
    /// Its word: the piece of the text, counted from 0, that the tokenizer looked at apart from others.
    pub word: Option<u32>,
    /// Its characters (Unicode scalar values) in its text; empty for special tokens.
    pub characters: Range<usize>,
    /// Whether it goes on with the word of the token before it, as transformers tells when it groups entities.
    pub continues_word: bool,
}

impl Tokenizer {
    /// The tokens of a text or a pair in as many windows as it takes; at least one.
    ///
    /// The windows are those of transformers' `return_overflowing_tokens` with the truncation `only_first` or
    /// `only_second`, the last one included. Nothing of this is cached.
    pub fn windows(&self, text: Text<'_>, options: &WindowOptions) -> Result<Vec<Window>, TextError> {
        self.guarded(|| self.windows_unguarded(text, options))
    }

    fn windows_unguarded(&self, text: Text<'_>, options: &WindowOptions) -> Result<Vec<Window>, TextError> {
        let (first, second) = text.parts();
        let Inner::Fast(inner) = self.inner() else { return Err(TextError::NoOffsets) };
        let encode = |text| inner.encode_char_offsets(text, false).map_err(not_encoded);
        let encodings = (encode(first)?, second.map(encode).transpose()?.map(second_segment));
        let (first, second) = self.split(encodings.0, encodings.1, options)?;
        let mut whole = self.post_process(first, second)?;
        let others = whole.take_overflowing();
        if whole.is_empty() {
            return Err(TextError::Empty);
        }
        let windows = others.len() + 1;
        let (first, second) = text.parts();
        let starts = [character_starts(first), character_starts(second.unwrap_or_default())];
        let texts = [first, second.unwrap_or_default()];
        let window = |encoding: tokenizers::Encoding| Window {
            origins: self.origins(&encoding, &texts, &starts),
            encoding: Encoding {
                ids: encoding.get_ids().to_vec(),
                type_ids: encoding.get_type_ids().to_vec(),
                prompt_tokens: 0,
                truncated: windows > 1,
            },
        };
        Ok(std::iter::once(whole).chain(others).map(window).collect())
    }

    /// Cuts the text to be split; its other windows are among the overflowing ones of the encoding.
    fn split(
        &self,
        first: tokenizers::Encoding,
        second: Option<tokenizers::Encoding>,
        options: &WindowOptions,
    ) -> Result<(tokenizers::Encoding, Option<tokenizers::Encoding>), TextError> {
        let limit = options.max_tokens.min(self.max_tokens());
        let room = self.room(second.is_some(), limit)?;
        let lengths = (first.len(), second.as_ref().map_or(0, tokenizers::Encoding::len));
        let tokens = lengths.0.saturating_add(lengths.1);
        if tokens <= room {
            return Ok((first, second));
        }
        let (direction, special) = match options.truncation {
            Truncation::Right => (TruncationDirection::Right, limit - room),
            Truncation::Left => (TruncationDirection::Left, limit - room),
            Truncation::Refuse => return Err(TextError::TooLong { tokens: tokens + (limit - room), limit }),
        };
        let (kept, strategy) = match options.split {
            Split::First => (lengths.1, TruncationStrategy::OnlyFirst),
            Split::Second => (lengths.0, TruncationStrategy::OnlySecond),
        };
        if room.saturating_sub(kept) <= options.stride {
            return Err(TextError::NoRoomForWindow { kept: kept + special, limit, stride: options.stride });
        }
        let share = room - kept;
        let windows = 1 + (tokens - kept).saturating_sub(share).div_ceil(share - options.stride);
        if windows > options.max_windows {
            return Err(TextError::TooManyWindows { windows, maximum: options.max_windows });
        }
        let parameters = TruncationParams { direction, max_length: room, strategy, stride: options.stride };
        truncate_encodings(first, second, &parameters).map_err(not_encoded)
    }

    fn origins(&self, encoding: &tokenizers::Encoding, texts: &[&str; 2], starts: &[Vec<usize>; 2]) -> Vec<Origin> {
        let (ids, words, offsets) = (encoding.get_ids(), encoding.get_word_ids(), encoding.get_offsets());
        let (masks, sequences) = (encoding.get_special_tokens_mask(), encoding.get_sequence_ids());
        let origin = |index: usize| {
            let (special, text, (start, end)) = (masks[index] == 1, sequences[index], offsets[index]);
            let continues_word = !special
                && text.is_some_and(|text| match (texts.get(text), starts.get(text)) {
                    (Some(text), Some(starts)) => self.continues_word(ids[index], text, starts, start..end),
                    _ => false,
                });
            Origin { special, text, word: words[index], characters: start..end, continues_word }
        };
        (0..ids.len()).map(origin).collect()
    }

    /// Whether a token is part of the word before it, where `starts` are the bytes at which characters of `text` begin.
    ///
    /// The token of an unknown word never is. With word pieces, a token is whose text differs in length from what it
    /// stands for; with other models, one with no space at its beginning or before it.
    fn continues_word(&self, id: u32, text: &str, starts: &[usize], characters: Range<usize>) -> bool {
        if self.special_tokens().unk.as_ref().is_some_and(|unk| unk.id == id) {
            return false;
        }
        if self.has_word_pieces() {
            let length = self.id_to_token(id).map_or(0, |token| token.chars().count());
            return length != characters.end.min(starts.len()).saturating_sub(characters.start);
        }
        let is_space = |character: usize| starts.get(character).is_some_and(|&byte| text[byte..].starts_with(' '));
        characters.start > 0 && !is_space(characters.start - 1) && !is_space(characters.start)
    }
}

fn character_starts(text: &str) -> Vec<usize> {
    text.char_indices().map(|(byte, _)| byte).collect()
}

/// The tokens of a second text as its segment.
fn second_segment(mut encoding: tokenizers::Encoding) -> tokenizers::Encoding {
    encoding.set_type_ids(vec![1; encoding.len()]);
    encoding
}
