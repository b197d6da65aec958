//! How many tokens a model takes.

use std::path::Path;

use crate::TextError;
use crate::folder::TokenizerConfig;

/// The largest number of tokens of a sequence for the model in `folder`, special tokens included.
///
/// `positions` is what the model itself can take. A sentence-transformers folder's `max_seq_length`
/// overrides the tokenizer's own `model_max_length`; neither can raise the limit above `positions`.
pub fn max_tokens(folder: &Path, positions: usize, max_seq_length: Option<usize>) -> Result<usize, TextError> {
    let limit = match max_seq_length {
        Some(limit) => Some(limit),
        None => TokenizerConfig::open(folder)?.model_max_length()?,
    };
    Ok(limit.map_or(positions, |limit| limit.min(positions)))
}
