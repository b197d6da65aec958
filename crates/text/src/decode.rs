//! From token ids back to text.

use tokenizers::{Decoder, Model};

use crate::folder::Inner;
use crate::tokenizer::not_encoded;
use crate::{TextError, Tokenizer};

impl Tokenizer {
    /// The id of a token of the vocabulary, written as it stands there.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        match self.inner() {
            Inner::Fast(inner) => inner.token_to_id(token),
            Inner::Pieces(inner) => inner.token_to_id(token),
        }
    }

    /// How a token is written in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        match self.inner() {
            Inner::Fast(inner) => {
                // Not the tokenizer's own function: since 0.23 it gives added tokens as the normaliser leaves them.
                let added = inner.get_added_vocabulary().get_added_tokens_decoder().get(&id);
                added.map(|token| token.content.clone()).or_else(|| inner.get_model().id_to_token(id))
            }
            Inner::Pieces(inner) => inner.id_to_token(id),
        }
    }

    /// Whether a token is special, so that text is written without it.
    pub fn is_special(&self, id: u32) -> bool {
        match self.inner() {
            Inner::Fast(inner) => {
                let added = inner.get_added_vocabulary().get_added_tokens_decoder();
                added.get(&id).is_some_and(|token| token.special)
            }
            Inner::Pieces(inner) => inner.id_to_token(id).is_some_and(|token| inner.added.special.contains(&token)),
        }
    }

    /// The text of tokens, as transformers' `decode` has it; ids that the vocabulary lacks are left out.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TextError> {
        self.decode_as(ids, skip_special_tokens, self.clean_up)
    }

    /// The same, where the caller says whether the text is cleaned up.
    pub fn decode_as(&self, ids: &[u32], skip_special_tokens: bool, cleans_up: bool) -> Result<String, TextError> {
        let decoded = match self.inner() {
            Inner::Fast(inner) => {
                let added = inner.get_added_vocabulary();
                let tokens = ids.iter().filter_map(|id| self.id_to_token(*id));
                let tokens = tokens.filter(|token| !skip_special_tokens || !added.is_special_token(token));
                self.join(tokens.collect())?
            }
            Inner::Pieces(inner) => inner.decode(ids, skip_special_tokens),
        };
        Ok(if cleans_up { clean_up(&decoded) } else { decoded })
    }

    /// The text of tokens as the vocabulary writes them, as transformers' `convert_tokens_to_string` has it.
    pub fn join(&self, tokens: Vec<String>) -> Result<String, TextError> {
        let inner = match self.inner() {
            Inner::Fast(inner) => inner,
            Inner::Pieces(inner) => return Ok(inner.join(&tokens)),
        };
        self.guarded(|| match inner.get_decoder() {
            Some(decoder) => decoder.decode(tokens).map_err(not_encoded),
            None => Ok(tokens.join(" ")),
        })
    }
}

/// Takes out the spaces that joining tokens leaves in English text, as `clean_up_tokenization` of transformers.
fn clean_up(text: &str) -> String {
    const REPLACED: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    REPLACED.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}
