//! Recently encoded texts.

use std::sync::Arc;

use moka::sync::Cache;

use crate::{Encoding, Truncation};

/// Bytes that an entry takes beside its text and its tokens.
const ENTRY_OVERHEAD: usize = 256;

/// Encodings by text, up to a number of bytes; the least useful ones make room.
pub(crate) struct TokenCache(Cache<Key, Arc<Encoding>>);

/// Everything that an encoding depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The text or the first text of a pair, with its prompt.
    pub(crate) first: String,
    /// The second text of a pair.
    pub(crate) second: Option<String>,
    /// How much of `first` is prompt, in bytes.
    pub(crate) prompt: usize,
    /// The text's language, where it isn't the tokenizer's.
    pub(crate) language: Option<String>,
    /// What to do with a text that is too long.
    pub(crate) truncation: Truncation,
}

impl TokenCache {
    /// A cache of at most `bytes`, or none if that is 0.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let weight = |key: &Key, encoding: &Arc<Encoding>| {
            let text = key.first.len() + key.second.as_ref().map_or(0, String::len);
            let tokens = size_of_val(encoding.ids.as_slice()) + size_of_val(encoding.type_ids.as_slice());
            u32::try_from(text + tokens + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        (bytes > 0).then(|| Self(Cache::builder().weigher(weight).max_capacity(bytes).build()))
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Encoding>> {
        self.0.get(key)
    }

    pub(crate) fn insert(&self, key: Key, encoding: Arc<Encoding>) {
        self.0.insert(key, encoding);
    }
}
