//! The tokenizer of a model, with its limit and its cache.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use centuple_gguf::Metadata;
use centuple_guard::guarded;
use serde_json::Value;
use tokenizers::utils::parallelism::set_parallelism;
use tokenizers::{ModelWrapper, PostProcessor, PostProcessorWrapper};

use crate::cache::{Key, TokenCache};
use crate::folder::Inner;
use crate::language::{Languages, around};
use crate::piece_tokenizer::Token;
use crate::truncation::longest_first;
use crate::{ChatTemplates, SpecialTokens, TextError, Truncation, folder, gguf};

/// Turns texts into token ids. Encoding takes `&self` and may be called from many threads.
pub struct Tokenizer {
    inner: Inner,
    /// Puts special tokens around texts.
    processor: Option<PostProcessorWrapper>,
    special: SpecialTokens,
    pub(crate) languages: Option<Languages>,
    /// Whether decoded text is cleaned up.
    pub(crate) clean_up: bool,
    word_pieces: bool,
    max_tokens: usize,
    vocabulary_size: usize,
    chat: ChatTemplates,
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
    /// A pair also where the second text is empty, as transformers has it in a batch of pairs.
    FullPair(&'a str, &'a str),
}

impl<'a> Text<'a> {
    /// The first text and the second; as transformers has it, an empty second text of a single pair is none.
    pub(crate) fn parts(self) -> (&'a str, Option<&'a str>) {
        match self {
            Text::Single(first) => (first, None),
            Text::Pair(first, second) => (first, Some(second).filter(|second| !second.is_empty())),
            Text::FullPair(first, second) => (first, Some(second)),
        }
    }
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
    /// Opens the tokenizer of a model folder: `tokenizer.json`, or the files of an older class of transformers.
    pub fn open(folder: &Path, options: &TextOptions) -> Result<Self, TextError> {
        let broken = |panic: &str| TextError::Broken { path: folder.to_path_buf(), reason: unhandled(panic) };
        guarded(|| Self::open_unguarded(folder, options), broken)
    }

    fn open_unguarded(folder: &Path, options: &TextOptions) -> Result<Self, TextError> {
        Self::with(folder::open(folder, options.lowercase)?, options)
    }

    /// Opens the tokenizer of a GGUF file, whose `metadata` it is; `file` is for messages.
    ///
    /// # Errors
    /// The file has no tokenizer, or one that is damaged or of a kind that isn't read.
    pub fn from_gguf(file: &Path, metadata: &Metadata, options: &TextOptions) -> Result<Self, TextError> {
        let broken = |panic: &str| TextError::Broken { path: file.to_path_buf(), reason: unhandled(panic) };
        guarded(|| Self::with(gguf::open(file, metadata)?, options), broken)
    }

    fn with(opened: folder::Opened, options: &TextOptions) -> Result<Self, TextError> {
        set_parallelism(false);
        let folder::Opened { tokenizer: inner, processor, special, languages, clean_up, chat } = opened;
        let tokenizer = Self {
            word_pieces: inner.has_word_pieces(),
            vocabulary_size: inner.size(),
            inner,
            processor,
            special,
            languages,
            clean_up,
            max_tokens: options.max_tokens,
            chat,
            cache: TokenCache::new(options.cache_bytes),
        };
        tokenizer.room(false, options.max_tokens)?;
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

    /// The special tokens by role.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// How the model wants conversations written.
    pub fn chat_templates(&self) -> &ChatTemplates {
        &self.chat
    }

    /// Whether the vocabulary marks the pieces that go on with a word.
    pub(crate) fn has_word_pieces(&self) -> bool {
        self.word_pieces
    }

    /// What a tokenizer.json would say of vocabulary and decoding.
    ///
    /// # Errors
    /// A part of it can't be written as JSON.
    pub fn to_json(&self) -> Result<Value, TextError> {
        let failed = |error: serde_json::Error| TextError::Encode { reason: error.to_string() };
        match &self.inner {
            Inner::Fast(tokenizer) => self.guarded(|| serde_json::to_value(tokenizer).map_err(failed)),
            Inner::Pieces(_) => Err(TextError::NoJson),
        }
    }

    /// The tokenizer without special tokens.
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The tokens of a text or a pair. Where a pair is too long, its longer text is cut first.
    pub fn encode(&self, text: Text<'_>, truncation: Truncation) -> Result<Arc<Encoding>, TextError> {
        let (first, second) = text.parts();
        self.encode_key(Key {
            first: first.to_string(),
            second: second.map(str::to_string),
            prompt: 0,
            language: None,
            truncation,
        })
    }

    /// The tokens of a text in a language, where texts say theirs.
    ///
    /// # Errors
    /// Also that there is no such language.
    pub fn encode_in(&self, language: &str, text: &str, truncation: Truncation) -> Result<Arc<Encoding>, TextError> {
        let language = Some(language.to_owned());
        self.encode_key(Key { first: text.to_owned(), second: None, prompt: 0, language, truncation })
    }

    /// The tokens of a text that has its special tokens in it, as a chat template writes them: none are added, and none cut off.
    ///
    /// # Errors
    /// The text has more tokens than a sequence may have, or none, or can't be tokenised.
    pub fn encode_verbatim(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoded = self.guarded(|| self.inner.encode(text))?;
        match encoded.len() {
            0 => Err(TextError::Empty),
            tokens if tokens > self.max_tokens => Err(TextError::TooLong { tokens, limit: self.max_tokens }),
            _ => Ok(encoded.get_ids().to_vec()),
        }
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
        self.encode_key(Key {
            first: [prompt, text].concat(),
            second: None,
            prompt: prompt.len(),
            language: None,
            truncation,
        })
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
        self.guarded(|| self.encode_unguarded(key))
    }

    /// Runs what may panic inside of the tokenizers crate.
    pub(crate) fn guarded<T>(&self, run: impl FnOnce() -> Result<T, TextError>) -> Result<T, TextError> {
        guarded(run, |panic| TextError::Encode { reason: unhandled(panic) })
    }

    fn encode_unguarded(&self, key: &Key) -> Result<Encoding, TextError> {
        let processor = key.language.as_deref().map(|language| self.of_language(language)).transpose()?;
        let processor = processor.as_ref().or(self.processor.as_ref());
        let (first, second, truncated) = self.tokenise(&key.first, key.second.as_deref(), key.truncation)?;
        let tokens = process(processor, first, second)?;
        if tokens.is_empty() {
            return Err(TextError::Empty);
        }
        let prompt_tokens = match key.first.get(..key.prompt) {
            Some(prompt) if !prompt.is_empty() => {
                let (prompt, ..) = self.tokenise(prompt, None, Truncation::Right)?;
                let prompt = self.post_process(prompt, None)?;
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

    /// What puts a language around texts.
    fn of_language(&self, language: &str) -> Result<PostProcessorWrapper, TextError> {
        let id = self.language_token(language)?;
        let reason = || "a language needs an end of texts, which the tokenizer doesn't have".to_owned();
        let failed = |reason: String| TextError::Encode { reason };
        let (Some(languages), Some(eos)) = (&self.languages, &self.special.eos) else { return Err(failed(reason())) };
        let token = languages.token(language);
        Ok(around(languages.place, (&token, id), (&eos.text, eos.id)).map_err(failed)?.into())
    }

    /// The tokens of texts as far as they have room, without special tokens, and whether any were cut off.
    fn tokenise(
        &self,
        first: &str,
        second: Option<&str>,
        truncation: Truncation,
    ) -> Result<(tokenizers::Encoding, Option<tokenizers::Encoding>, bool), TextError> {
        let first = self.inner.encode(first)?;
        let second = second.map(|second| self.inner.encode(second)).transpose()?;
        let room = self.room(second.is_some(), self.max_tokens)?;
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
        Ok((first, second, tokens > room))
    }

    /// Puts the special tokens around texts.
    pub(crate) fn post_process(
        &self,
        first: tokenizers::Encoding,
        second: Option<tokenizers::Encoding>,
    ) -> Result<tokenizers::Encoding, TextError> {
        process(self.processor.as_ref(), first, second)
    }

    /// How many tokens of text fit beside the special tokens in a sequence of `limit`.
    pub(crate) fn room(&self, pair: bool, limit: usize) -> Result<usize, TextError> {
        let special = self.processor.as_ref().map_or(0, |processor| processor.added_tokens(pair));
        limit.checked_sub(special).filter(|room| *room > 0).ok_or(TextError::NoRoom { limit, special })
    }
}

/// An error of the tokenizers crate on a text.
pub(crate) fn not_encoded(error: tokenizers::Error) -> TextError {
    TextError::Encode { reason: error.to_string() }
}

/// Puts special tokens around texts.
fn process(
    processor: Option<&PostProcessorWrapper>,
    first: tokenizers::Encoding,
    second: Option<tokenizers::Encoding>,
) -> Result<tokenizers::Encoding, TextError> {
    match processor {
        Some(processor) => processor.process(first, second, true).map_err(not_encoded),
        None => {
            let texts = std::iter::once(first).chain(second).collect();
            let texts = <dyn PostProcessor>::default_process(texts, true).map_err(not_encoded)?;
            Ok(tokenizers::Encoding::merge(texts, false))
        }
    }
}

impl Inner {
    /// The tokens of a text; their offsets may be missing.
    fn encode(&self, text: &str) -> Result<tokenizers::Encoding, TextError> {
        match self {
            Inner::Fast(tokenizer) => tokenizer.encode_fast(text, false).map_err(not_encoded),
            Inner::Pieces(tokenizer) => Ok(without_offsets(tokenizer.encode(text))),
        }
    }

    /// One more than the largest id.
    fn size(&self) -> usize {
        match self {
            Inner::Fast(tokenizer) => {
                tokenizer.get_vocab(true).into_values().max().map_or(0, |largest| largest as usize + 1)
            }
            Inner::Pieces(tokenizer) => tokenizer.size(),
        }
    }

    fn has_word_pieces(&self) -> bool {
        match self {
            Inner::Fast(tokenizer) => has_word_pieces(tokenizer.get_model()),
            Inner::Pieces(_) => false,
        }
    }
}

fn without_offsets(tokens: Vec<Token>) -> tokenizers::Encoding {
    let length = tokens.len();
    let (tokens, ids) = tokens.into_iter().unzip();
    let zeros = || vec![0; length];
    let (words, offsets) = (vec![None; length], vec![(0, 0); length]);
    tokenizers::Encoding::new(
        ids,
        zeros(),
        tokens,
        words,
        offsets,
        zeros(),
        vec![1; length],
        Vec::new(),
        Default::default(),
    )
}

fn has_word_pieces(model: &ModelWrapper) -> bool {
    match model {
        ModelWrapper::WordPiece(model) => !model.continuing_subword_prefix.is_empty(),
        ModelWrapper::BPE(model) => model.continuing_subword_prefix.as_ref().is_some_and(|prefix| !prefix.is_empty()),
        ModelWrapper::WordLevel(_) | ModelWrapper::Unigram(_) => false,
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_tokens, vocabulary_size, .. } = self;
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
