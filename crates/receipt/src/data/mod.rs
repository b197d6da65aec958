//! Evaluation files: labelled examples in the formats that data sets come in.
//!
//! | format | what |
//! |---|---|
//! | `.jsonl`, `.ndjson`, `.json` | an object a line |
//! | `.csv` | a header, quotes as in RFC 4180 |
//! | `.tsv` | a header, no quotes |
//! | `.parquet` | as the hub stores data sets: plain or with dictionaries; snappy, gzip, zstd or not compressed |
//! | `.txt` | a text a line, without labels |
//!
//! Which column is what is told by [`Columns`] or by well known names; which kind of example a file holds follows from
//! its columns. Where that is ambiguous the error says which flag decides.
//!
//! In JSON Lines, `inputs` may be what the server takes: a text, `{"text", "text_pair"}`, `{"question", "context"}`,
//! `{"source_sentence", "sentences": [one]}`; or a pair `[a, b]`. In CSV and TSV, lists (of labels, entities, words,
//! tags or answers) are JSON; labels that are all whole numbers are numbers of classes, otherwise all are names.

mod cell;
mod columns;
mod delimited;
mod error;
mod example;
mod format;
mod json_lines;
mod lines;
mod parquet;
mod plain;
mod rows;
mod shape;
mod table;
mod tags;
mod types;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ::bytes::Bytes;
use sha2::{Digest, Sha256};

pub use columns::{Columns, Role};
pub use error::{DataError, Place, Position};
pub use example::{Class, Example, Kind, Label, Span};
pub use format::Format;
pub use table::Limits;
pub use tags::{TagError, tagged_spans};

use shape::Shape;
use table::Reading;

/// How a file is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataOptions {
    /// The format; otherwise the file's name says it.
    pub format: Option<Format>,
    /// What the examples must be; otherwise the columns say it.
    pub kind: Option<Kind>,
    /// Columns that are called by name.
    pub columns: Columns,
    /// Names of classes that the file has by number; otherwise those that a Parquet file of the hub gives itself.
    pub names: Vec<String>,
    /// How much is read.
    pub limits: Limits,
}

/// The examples of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// What all examples are.
    pub kind: Kind,
    /// The examples in the order of the file; at least one.
    pub examples: Vec<Example>,
    /// Names of the classes by number, where they are known.
    pub names: Option<Vec<String>>,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub sha256: String,
}

/// Reads a file.
///
/// # Errors
/// It can't be read, is too large, damaged or empty, or its columns don't say what its examples are.
pub fn read(path: &Path, options: &DataOptions) -> Result<Data, DataError> {
    // Before a large file is read for nothing.
    let format = options.format.map_or_else(|| Format::of(path), Ok)?;
    let refused = |source| DataError::Read { path: path.to_owned(), source };
    let limit = options.limits.file_bytes;
    let file = File::open(path).map_err(refused)?;
    let length = file.metadata().map_err(refused)?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(limit)).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(refused)?;
    parse(path, bytes, &DataOptions { format: Some(format), ..options.clone() })
}

/// Reads the bytes of a file that is called `path`.
///
/// # Errors
/// Those of [`read`].
pub fn parse(path: &Path, bytes: Vec<u8>, options: &DataOptions) -> Result<Data, DataError> {
    let format = options.format.map_or_else(|| Format::of(path), Ok)?;
    let limit = options.limits.file_bytes;
    if bytes.len() as u64 > limit {
        return Err(DataError::TooLarge { path: path.to_owned(), limit });
    }
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let reading = Reading { limits: &options.limits, columns: &options.columns };
    let mut table = format.read(Bytes::from(bytes), reading).map_err(|fault| fault.of(path))?;
    if table.rows.is_empty() {
        let reason = if table.columns.is_empty() { "the file is empty" } else { "there are no rows" };
        return Err(DataError::Empty { path: path.to_owned(), reason: reason.to_owned() });
    }
    let shape = Shape::of(&table, &options.columns, options.kind);
    let shape =
        shape.map_err(|reason| DataError::Columns { path: path.to_owned(), reason, found: table.columns.clone() })?;
    let own = shape.classes().and_then(|column| table.names.iter().find(|(index, _)| *index == column));
    let own = own.map_or(Vec::new(), |(_, names)| names.clone());
    let names = if options.names.is_empty() { own } else { options.names.clone() };
    if table.untyped {
        types::give_types(&mut table, shape).map_err(|fault| fault.of(path))?;
    }
    let examples = rows::examples(table, shape, &names).map_err(|fault| fault.of(path))?;
    let names = Some(names).filter(|names| !names.is_empty());
    Ok(Data { kind: shape.kind(), examples, names, sha256 })
}
