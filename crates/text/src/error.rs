//! What can go wrong between a text and its tokens.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a tokenizer could not be opened or a text could not be encoded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TextError {
    /// The folder holds no tokenizer.
    #[error("`{}` has neither tokenizer.json nor vocab.txt; save the model's fast tokenizer into it", folder.display())]
    Missing {
        /// The model's folder.
        folder: PathBuf,
    },
    /// The operating system refused to read a file.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A tokenizer file is damaged, or asks for something unknown or unsupported.
    #[error("`{}`: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The text is too long and the caller refused truncation.
    #[error("the text has {tokens} tokens, but at most {limit} are allowed; shorten it or allow truncation")]
    TooLong {
        /// Length in tokens, special tokens included.
        tokens: usize,
        /// The largest length allowed.
        limit: usize,
    },
    /// The limit leaves no room for text.
    #[error("a limit of {limit} tokens leaves no room for text beside {special} special tokens")]
    NoRoom {
        /// The largest length allowed.
        limit: usize,
        /// The special tokens that the tokenizer adds.
        special: usize,
    },
    /// The text has no tokens, and the tokenizer adds none.
    #[error("the text has no tokens")]
    Empty,
    /// The tokenizer failed on this text.
    #[error("the text cannot be tokenised: {reason}")]
    Encode {
        /// The tokenizer's reason.
        reason: String,
    },
}
