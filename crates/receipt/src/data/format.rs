//! The formats of evaluation files.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::{DataError, Fault};
use super::table::{Reading, Table};
use super::{delimited, json_lines, parquet, plain};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON Lines: an object a line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
    /// Tab-separated values with a header, without quoting.
    Tsv,
    /// Apache Parquet.
    Parquet,
    /// A text a line.
    Txt,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 5] = [Format::Jsonl, Format::Csv, Format::Tsv, Format::Parquet, Format::Txt];

    /// The word for it, which is also the usual end of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Parquet => "parquet",
            Format::Txt => "txt",
        }
    }

    /// The format that a file's name says; `.json` and `.ndjson` are JSON Lines too.
    ///
    /// # Errors
    /// The name says none.
    pub fn of(path: &Path) -> Result<Self, DataError> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "json" | "ndjson" => Ok(Format::Jsonl),
            extension => extension.parse().map_err(|_| {
                let known = Format::ALL.map(|format| format!(".{format}")).join(", ");
                DataError::Format { path: path.to_owned(), known }
            }),
        }
    }

    pub(crate) fn read(self, bytes: Bytes, reading: Reading<'_>) -> Result<Table, Fault> {
        match self {
            Format::Jsonl => json_lines::read(&bytes, reading),
            Format::Csv => delimited::read_csv(&bytes, reading),
            Format::Tsv => delimited::read_tsv(&bytes, reading),
            Format::Parquet => parquet::read(bytes, reading),
            Format::Txt => plain::read(&bytes, reading),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let formats = Format::ALL.map(Format::name).join(", ");
        let known = Format::ALL.into_iter().find(|format| format.name() == name);
        known.ok_or_else(|| format!("`{name}` is no format of examples; there are {formats}"))
    }
}
