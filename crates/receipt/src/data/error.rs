//! What can be wrong with an evaluation file.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a file gave no examples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused to read the file.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The name does not say what the file holds.
    #[error("`{}`: the name does not end in {known}; say what it is with {FORMAT_FLAG}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The endings that are known.
        known: String,
    },
    /// The file is larger than allowed.
    #[error("`{}` has more than {limit} bytes, which is the limit; give a part of it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// There is nothing to evaluate on.
    #[error("`{}` has no examples: {reason}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What is there instead, and what should be.
        reason: String,
    },
    /// The columns do not say what the examples are.
    #[error("`{}`: {reason}; its columns are {}", path.display(), quoted(found))]
    Columns {
        /// The file.
        path: PathBuf,
        /// What is missing or ambiguous, and the flag that helps.
        reason: String,
        /// The columns of the file.
        found: Vec<String>,
    },
    /// Something in the file is not as it must be.
    #[error("`{}`{place}: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// The flag that names a column.
pub(crate) const COLUMN_FLAG: &str = "--eval-column";
/// The flag that names the format.
pub(crate) const FORMAT_FLAG: &str = "--eval-format";
/// The flag that says what examples are.
pub(crate) const KIND_FLAG: &str = "--eval-kind";
/// The flag that names the classes behind numbers.
pub(crate) const NAMES_FLAG: &str = "--eval-names";

/// Where in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The row, if it is about one.
    pub position: Option<Position>,
    /// The column, if it is about one.
    pub column: Option<String>,
}

/// A row of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The line it begins in, from 1; of text files.
    Line(u64),
    /// Its number, from 1; of Parquet files.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(Position::Line(line)) => write!(formatter, ", line {line}")?,
            Some(Position::Row(row)) => write!(formatter, ", row {row}")?,
            None => {}
        }
        match &self.column {
            Some(column) => write!(formatter, ", column `{column}`"),
            None => Ok(()),
        }
    }
}

/// The longest list of columns in a message.
const MOST_NAMES: usize = 40;
/// The longest name in a message, in characters.
const LONGEST_NAME: usize = 60;

/// Names in backticks, separated by commas; long lists and names are cut.
pub(crate) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let mut list: Vec<String> = names.iter().take(MOST_NAMES).map(|name| format!("`{}`", cut(name.as_ref()))).collect();
    if names.len() > MOST_NAMES {
        list.push(format!("{} more", names.len() - MOST_NAMES));
    }
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

/// The beginning of a text, short enough for a message.
pub(crate) fn cut(text: &str) -> String {
    let mut kept: String = text.chars().take(LONGEST_NAME).collect();
    if kept.len() < text.len() {
        kept.push('…');
    }
    kept
}

/// What is wrong with one row, before the file is known.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) place: Place,
    pub(crate) reason: String,
}

impl Fault {
    /// About the file as a whole.
    pub(crate) fn file(reason: impl Into<String>) -> Fault {
        Fault { place: Place::default(), reason: reason.into() }
    }

    /// About a row.
    pub(crate) fn row(position: Position, reason: impl Into<String>) -> Fault {
        Fault { place: Place { position: Some(position), column: None }, reason: reason.into() }
    }

    /// About a value.
    pub(crate) fn value(position: Position, column: &str, reason: impl Into<String>) -> Fault {
        Fault { place: Place { position: Some(position), column: Some(column.to_owned()) }, reason: reason.into() }
    }
}
