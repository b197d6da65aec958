//! What can go wrong between a text and its tokens.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a tokenizer could not be opened or a text could not be encoded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TextError {
    /// The folder holds no tokenizer.
    #[error(
        "`{}` has neither tokenizer.json nor vocab.txt, and no tokenizer_config.json or config.json names a class that \
         reads other files; save the model's fast tokenizer into it",
        folder.display()
    )]
    Missing {
        /// The model's folder.
        folder: PathBuf,
    },
    /// A file of the folder's tokenizer class is not there.
    #[error("`{}` has neither tokenizer.json nor {file}, which {class} needs", folder.display())]
    MissingFile {
        /// The model's folder.
        folder: PathBuf,
        /// The tokenizer's class.
        class: String,
        /// The file.
        file: &'static str,
    },
    /// The files of the folder's tokenizer class are not understood.
    #[error(
        "`{}` has no tokenizer.json, and other files are not understood for {class}; save one with transformers: \
         AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        folder.display()
    )]
    Unsupported {
        /// The model's folder.
        folder: PathBuf,
        /// The tokenizer's class.
        class: String,
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
    /// The text needs more windows than the caller allows.
    #[error("the text makes {windows} windows, at most {maximum} are allowed; let them overlap less or send less text")]
    TooManyWindows {
        /// Windows that it takes.
        windows: usize,
        /// Most windows.
        maximum: usize,
    },
    /// The limit leaves no room for text.
    #[error("a limit of {limit} tokens leaves no room for text beside {special} special tokens")]
    NoRoom {
        /// The largest length allowed.
        limit: usize,
        /// The special tokens that the tokenizer adds.
        special: usize,
    },
    /// What stands in every window leaves no room for the text that is split.
    #[error(
        "{kept} of {limit} tokens are taken in each window, which leaves no room for a text whose windows overlap by \
         {stride} tokens; allow longer windows, or let them overlap less"
    )]
    NoRoomForWindow {
        /// Tokens that stand in every window.
        kept: usize,
        /// The largest length of a window.
        limit: usize,
        /// How many tokens windows share.
        stride: usize,
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
