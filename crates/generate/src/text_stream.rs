//! Text out of tokens that come one by one.

use std::fmt;
use std::sync::Arc;

use crate::StopStrings;

/// Turns token ids into text; a tokenizer.
pub trait Decode: Send + Sync {
    /// The text of some tokens in a row, without special ones. Bytes that are no UTF-8, such as the first half of a
    /// character, become U+FFFD.
    ///
    /// # Errors
    /// Why there is no text, in words.
    fn decode(&self, ids: &[u32]) -> Result<String, String>;
}

impl fmt::Debug for dyn Decode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Decode")
    }
}

/// Text that a token completed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The text; empty while a character or a stop string is incomplete.
    pub text: String,
    /// The stop string that ended the text. It is not part of it.
    pub stop: Option<String>,
}

/// Most tokens of one character: after so many, bytes that are no UTF-8 stay so.
const TOKENS_PER_CHARACTER: usize = 4;
/// Tokens of the prompt that say how the first token of the answer is written (whether with a space before it).
const CONTEXT: usize = 6;
/// Most tokens that are kept for the same, where many in a row have no text.
const MOST_CONTEXT: usize = 32;

/// The text of one answer, in pieces that are whole characters and never part of a stop string.
pub struct TextStream {
    decoder: Arc<dyn Decode>,
    stops: StopStrings,
    /// The latest tokens. Those before `read` are told already, and only there for the ones after them.
    ids: Vec<u32>,
    read: usize,
}

impl TextStream {
    /// A stream that follows a prompt.
    pub fn new(decoder: Arc<dyn Decode>, prompt: &[u32], stops: &[String]) -> Self {
        let ids = prompt.get(prompt.len().saturating_sub(CONTEXT)..).unwrap_or(prompt).to_vec();
        Self { decoder, stops: StopStrings::new(stops), read: ids.len(), ids }
    }

    /// Takes the next token.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn push(&mut self, token: u32) -> Result<Piece, String> {
        self.ids.push(token);
        let whole = self.decoder.decode(&self.ids)?;
        if whole.ends_with('\u{FFFD}') && self.ids.len() - self.read < TOKENS_PER_CHARACTER {
            return Ok(Piece::default());
        }
        let fresh = self.fresh(&whole)?;
        // Without text, as of special tokens, it doesn't say how the next one is written.
        if !fresh.is_empty() || self.ids.len() > MOST_CONTEXT {
            self.ids.drain(..self.read);
        }
        self.read = self.ids.len();
        let scan = self.stops.push(&fresh);
        Ok(Piece { text: scan.text, stop: scan.stop })
    }

    /// What is left at the end.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn finish(&mut self) -> Result<Piece, String> {
        let whole = self.decoder.decode(&self.ids)?;
        let fresh = self.fresh(&whole)?;
        self.read = self.ids.len();
        let scan = self.stops.push(&fresh);
        let rest = if scan.stop.is_none() { self.stops.finish() } else { String::new() };
        Ok(Piece { text: scan.text + &rest, stop: scan.stop })
    }

    /// The part of the text that wasn't told.
    fn fresh(&self, whole: &str) -> Result<String, String> {
        let told = self.decoder.decode(self.ids.get(..self.read).unwrap_or_default())?;
        // Counted and not compared: a decoder may write a token in another way once another follows, but told is told.
        Ok(whole.chars().skip(told.chars().count()).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each token is one byte, but 300 is special and stands for no text.
    struct Bytes;

    impl Decode for Bytes {
        fn decode(&self, ids: &[u32]) -> Result<String, String> {
            let bytes: Vec<u8> = ids.iter().filter_map(|id| u8::try_from(*id).ok()).collect();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
    }

    fn run(prompt: &str, text: &str, stops: &[String]) -> Result<(Vec<String>, Option<String>), String> {
        let prompt: Vec<u32> = prompt.bytes().map(u32::from).collect();
        let mut stream = TextStream::new(Arc::new(Bytes), &prompt, stops);
        let mut pieces = Vec::new();
        for byte in text.bytes() {
            let piece = stream.push(u32::from(byte))?;
            pieces.push(piece.text);
            if piece.stop.is_some() {
                return Ok((pieces, piece.stop));
            }
        }
        pieces.push(stream.finish()?.text);
        Ok((pieces, None))
    }

    proptest! {
        #[test]
        fn pieces_are_whole_characters_and_make_the_text(prompt in "[aé€😀 ]{0,4}", text in "[aé€😀 ]{0,20}") {
            let (pieces, _) = run(&prompt, &text, &[]).map_err(TestCaseError::fail)?;
            let broken = pieces.iter().any(|piece| piece.contains('\u{FFFD}'));
            prop_assert!(!broken);
            prop_assert_eq!(pieces.concat(), text);
        }

        #[test]
        fn stops_end_it(text in "[ab€]{0,12}", stop in "[ab€]{1,2}") {
            let (pieces, found) = run("€", &text, std::slice::from_ref(&stop)).map_err(TestCaseError::fail)?;
            let expected = text.find(&stop).map_or(text.as_str(), |start| &text[..start]);
            prop_assert_eq!(pieces.concat(), expected);
            prop_assert_eq!(found.is_some(), text.contains(&stop));
        }

        #[test]
        fn bytes_that_are_no_text_do_not_stop_it(tokens in proptest::collection::vec(0..301_u32, 0..40)) {
            let mut stream = TextStream::new(Arc::new(Bytes), &[], &[]);
            for token in tokens {
                stream.push(token).map_err(TestCaseError::fail)?;
            }
            stream.finish().map_err(TestCaseError::fail)?;
        }
    }

    /// Words with a space between any two; 300 is special.
    struct Words;

    impl Decode for Words {
        fn decode(&self, ids: &[u32]) -> Result<String, String> {
            let words: Vec<String> = ids.iter().filter(|id| **id != 300).map(u32::to_string).collect();
            Ok(words.join(" "))
        }
    }

    #[test]
    fn special_tokens_take_no_space_away() -> Result<(), String> {
        let mut stream = TextStream::new(Arc::new(Words), &[7], &[]);
        let pieces: Result<Vec<String>, String> =
            [300, 8, 300, 300, 9].into_iter().map(|token| Ok(stream.push(token)?.text)).collect();
        assert_eq!(pieces?, ["", " 8", "", "", " 9"]);
        for _ in 0..100 {
            stream.push(300)?;
        }
        assert!(stream.ids.len() <= MOST_CONTEXT + 1);
        Ok(())
    }

    #[test]
    fn half_a_character_waits() -> Result<(), String> {
        let mut stream = TextStream::new(Arc::new(Bytes), &[], &[]);
        let pieces: Result<Vec<String>, String> =
            "a€b".bytes().map(|byte| Ok(stream.push(byte.into())?.text)).collect();
        assert_eq!(pieces?, ["a", "", "", "€", "b"]);
        assert_eq!(stream.push(0xE2)?.text, "");
        assert_eq!(stream.finish()?.text, "\u{FFFD}");
        Ok(())
    }
}
