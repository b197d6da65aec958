//! The tokenizer of a model, with its limit and its cache.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use centuple_guard::guarded;
use tokenizers::PostProcessor;
use tokenizers::utils::parallelism::set_parallelism;

use crate::cache::{Key, TokenCache};
use crate::truncation::longest_first;
use crate::{TextError, Truncation, folder};

/// Turns texts into token ids. Encoding takes `&self` and may be called from many threads.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    max_tokens: usize,
    vocabulary_size: usize,
    cache: Option<TokenCache>,
}

/// How a tokenizer is opened.
#[derive(Debug, Clone)]
pub struct TextOptions {
    /// The largest number of tokens of a sequence, special tokens included; see [`crate::max_tokens`].
    pub max_tokens: usize,
    /// Whether text is lower-cased before the tokenizer's own normalisation.
    pub lowercase: bool,
    /// How much memory recently encoded texts may take, in bytes; 0 switches the cache off.
    pub cache_bytes: u64,
}

impl TextOptions {
    /// Text as it is, and a cache of 32 MiB.
    pub fn new(max_tokens: usize) -> Self {
        Self { max_tokens, lowercase: false, cache_bytes: 32 << 20 }
    }
}

/// One input of a model: a text, or two that it sees together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text<'a> {
    /// A text.
    Single(&'a str),
    /// Two texts, for example a premise and a hypothesis.
    Pair(&'a str, &'a str),
}

/// The tokens of an input, with the special tokens that the model expects around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids; at least one.
    pub ids: Vec<u32>,
    /// For each token the segment it belongs to.
    pub type_ids: Vec<u32>,
    /// How many tokens at the beginning come from the prompt, with the special tokens before it.
    pub prompt_tokens: usize,
    /// Whether tokens were cut off.
    pub truncated: bool,
}

/// What a panic inside of the tokenizers crate, which unwraps in hundreds of places, means to the caller.
fn unhandled(panic: &str) -> String {
    format!("the tokenizers crate cannot handle it ({panic})")
}

impl Tokenizer {
    /// Opens the tokenizer of a model folder: `tokenizer.json`, or a BERT `vocab.txt`.
    pub fn open(folder: &Path, options: &TextOptions) -> Result<Self, TextError> {
        let broken = |panic: &str| TextError::Broken { path: folder.to_path_buf(), reason: unhandled(panic) };
        guarded(|| Self::open_unguarded(folder, options), broken)
    }

    fn open_unguarded(folder: &Path, options: &TextOptions) -> Result<Self, TextError> {
        set_parallelism(false);
        let inner = folder::open(folder, options.lowercase)?;
        let largest = inner.get_vocab(true).into_values().max();
        let tokenizer = Self {
            inner,
            max_tokens: options.max_tokens,
            vocabulary_size: largest.map_or(0, |id| id as usize + 1),
            cache: TokenCache::new(options.cache_bytes),
        };
        tokenizer.room(false)?;
        Ok(tokenizer)
    }

    /// The largest number of tokens of a sequence, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// One more than the largest token id.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// The tokens of a text or a pair. Where a pair is too long, its longer text is cut first.
    pub fn encode(&self, text: Text<'_>, truncation: Truncation) -> Result<Arc<Encoding>, TextError> {
        let (first, second) = match text {
            Text::Single(first) => (first, None),
            // As transformers does: a second text that is empty is none.
            Text::Pair(first, second) => (first, Some(second).filter(|second| !second.is_empty())),
        };
        self.encode_key(Key { first: first.to_string(), second: second.map(str::to_string), prompt: 0, truncation })
    }

    /// The tokens of `prompt` and `text` written one after the other.
    ///
    /// `prompt_tokens` of the result counts as sentence-transformers does: the tokens of the prompt
    /// alone, without the special token that may end it.
    pub fn encode_prompted(
        &self,
        prompt: &str,
        text: &str,
        truncation: Truncation,
    ) -> Result<Arc<Encoding>, TextError> {
        self.encode_key(Key { first: [prompt, text].concat(), second: None, prompt: prompt.len(), truncation })
    }

    fn encode_key(&self, key: Key) -> Result<Arc<Encoding>, TextError> {
        let Some(cache) = &self.cache else {
            return self.encode_anew(&key).map(Arc::new);
        };
        if let Some(encoding) = cache.get(&key) {
            return Ok(encoding);
        }
        let encoding = Arc::new(self.encode_anew(&key)?);
        cache.insert(key, Arc::clone(&encoding));
        Ok(encoding)
    }

    fn encode_anew(&self, key: &Key) -> Result<Encoding, TextError> {
        guarded(|| self.encode_unguarded(key), |panic| TextError::Encode { reason: unhandled(panic) })
    }

    fn encode_unguarded(&self, key: &Key) -> Result<Encoding, TextError> {
        let (tokens, truncated) = self.tokenise(&key.first, key.second.as_deref(), key.truncation)?;
        if tokens.is_empty() {
            return Err(TextError::Empty);
        }
        let prompt_tokens = match key.first.get(..key.prompt) {
            Some(prompt) if !prompt.is_empty() => {
                let (prompt, _) = self.tokenise(prompt, None, Truncation::Right)?;
                let ends_special = prompt.get_special_tokens_mask().last() == Some(&1);
                (prompt.len() - usize::from(ends_special)).min(tokens.len())
            }
            _ => 0,
        };
        Ok(Encoding {
            ids: tokens.get_ids().to_vec(),
            type_ids: tokens.get_type_ids().to_vec(),
            prompt_tokens,
            truncated,
        })
    }

    /// Tokens with special tokens, and whether any were cut off.
    fn tokenise(
        &self,
        first: &str,
        second: Option<&str>,
        truncation: Truncation,
    ) -> Result<(tokenizers::Encoding, bool), TextError> {
        let failed = |error: tokenizers::Error| TextError::Encode { reason: error.to_string() };
        let first = self.inner.encode_fast(first, false).map_err(failed)?;
        let second = second.map(|second| self.inner.encode_fast(second, false)).transpose().map_err(failed)?;
        let room = self.room(second.is_some())?;
        let lengths = (first.len(), second.as_ref().map_or(0, tokenizers::Encoding::len));
        let tokens = lengths.0.saturating_add(lengths.1);
        if tokens > room && truncation == Truncation::Refuse {
            let special = self.max_tokens - room;
            return Err(TextError::TooLong { tokens: tokens + special, limit: self.max_tokens });
        }
        let kept = match second {
            None => (room, 0),
            Some(_) => longest_first(lengths.0, lengths.1, room),
        };
        let first = part(first, truncation.range(lengths.0, kept.0), 0);
        let second = second.map(|second| part(second, truncation.range(lengths.1, kept.1), 1));
        let encoding = self.inner.post_process(first, second, true).map_err(failed)?;
        Ok((encoding, tokens > room))
    }

    /// How many tokens of text fit beside the special tokens.
    fn room(&self, pair: bool) -> Result<usize, TextError> {
        let special = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(pair));
        let limit = self.max_tokens;
        limit.checked_sub(special).filter(|room| *room > 0).ok_or(TextError::NoRoom { limit, special })
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inner: _, max_tokens, vocabulary_size, cache: _ } = self;
        f.debug_struct("Tokenizer")
            .field("max_tokens", max_tokens)
            .field("vocabulary_size", vocabulary_size)
            .finish_non_exhaustive()
    }
}

/// The tokens of `encoding` in `range`, as segment `segment`.
fn part(encoding: tokenizers::Encoding, range: Range<usize>, segment: u32) -> tokenizers::Encoding {
    fn cut<T: Clone>(values: &[T], range: &Range<usize>) -> Vec<T> {
        values.get(range.clone()).unwrap_or_default().to_vec()
    }

    tokenizers::Encoding::new(
        cut(encoding.get_ids(), &range),
        vec![segment; range.len()],
        cut(encoding.get_tokens(), &range),
        cut(encoding.get_word_ids(), &range),
        cut(encoding.get_offsets(), &range),
        cut(encoding.get_special_tokens_mask(), &range),
        cut(encoding.get_attention_mask(), &range),
        Vec::new(),
        Default::default(),
    )
}
