//! What can be wrong with a GGUF file.

use thiserror::Error;

/// Why a file, or a part of it, could not be read. Whoever reports it adds the file's name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GgufError {
    /// The bytes are no sound GGUF file.
    #[error("it is no sound GGUF file: {0}; if it was downloaded, download it again")]
    Damaged(String),
    /// The file is sound but uses what isn't supported, or says what has no meaning. The text has the remedy.
    #[error("{0}")]
    Unsupported(String),
}

pub(crate) fn damaged(reason: impl Into<String>) -> GgufError {
    GgufError::Damaged(reason.into())
}

/// Text of a file in the words of an error: escaped, and not longer than a line.
pub(crate) fn quoted(text: &str) -> String {
    const LIMIT: usize = 100;
    let short: String = text.chars().take(LIMIT).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(LIMIT).is_some() { "…" } else { "" };
    format!("`{short}{more}`")
}
