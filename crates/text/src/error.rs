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
    /// The tokenizer has no chat template.
    #[error(
        "the model has no chat template, so it doesn't say how it wants a conversation written; send the text itself to be gone \
         on with, or put a chat_template.jinja into the model's folder"
    )]
    NoChatTemplate,
    /// The tokenizer has no chat template of that name.
    #[error("the model has no chat template `{name}`; it has {known}")]
    UnknownChatTemplate {
        /// The name.
        name: String,
        /// The names of those that it has.
        known: String,
    },
    /// The chat template says that it doesn't take this conversation.
    #[error("the model's chat template refuses this: {reason}")]
    RefusedByTemplate {
        /// What the template says.
        reason: String,
    },
    /// The chat template can't be run, or does too much.
    #[error("the model's chat template fails: {reason}")]
    ChatTemplate {
        /// Why.
        reason: String,
    },
    /// A language that the tokenizer doesn't know.
    #[error(
        "the tokenizer knows no language `{language}`{}",
        example.as_ref().map_or_else(String::new, |example| format!("; it has others, as `{example}`"))
    )]
    Language {
        /// The language.
        language: String,
        /// One that it knows.
        example: Option<String>,
    },
    /// The tokenizer can't tell where in the text a token comes from.
    #[error("this tokenizer doesn't tell where in the text its tokens are")]
    NoOffsets,
    /// The tokenizer is of a class that no tokenizer.json can describe.
    #[error("this tokenizer has no form as a tokenizer.json, so an answer can't be kept to a grammar with it")]
    NoJson,
    /// The tokenizer failed on this text.
    #[error("the text cannot be tokenised: {reason}")]
    Encode {
        /// The tokenizer's reason.
        reason: String,
    },
}
