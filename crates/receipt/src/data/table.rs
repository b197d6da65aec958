//! Rows of named values: what every format is read into before its columns are understood.

use std::path::Path;

use super::cell::Cell;
use super::columns::Columns;
use super::error::{DataError, Fault, Position};

/// How much of a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows.
    pub rows: usize,
    /// Bytes of one line of a text file, and of one text of any file.
    pub field_bytes: usize,
    /// Bytes of the file, and of all texts that a compressed file holds.
    pub file_bytes: u64,
    /// Values of one Parquet column, where each element of a list is one.
    pub values: usize,
}

impl Default for Limits {
    /// A million rows, 1 MiB, 4 GiB and 16 Mi values.
    fn default() -> Self {
        Self { rows: 1_000_000, field_bytes: 1 << 20, file_bytes: 4 << 30, values: 16 << 20 }
    }
}

/// What a reader is told beside the bytes.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// How much is read.
    pub(crate) limits: &'a Limits,
    /// Columns that are called by name; others are read if their name is well known.
    pub(crate) columns: &'a Columns,
}

impl Reading<'_> {
    /// Whether a column may matter.
    pub(crate) fn wants(&self, column: &str) -> bool {
        self.columns.names(column)
    }

    /// Refuses a row beyond the limit; `rows` are there already.
    pub(crate) fn check_rows(&self, rows: usize) -> Result<(), Fault> {
        if rows < self.limits.rows {
            return Ok(());
        }
        Err(Fault::file(format!("more than {} rows, which is the limit; give a part of it", self.limits.rows)))
    }

    /// Refuses a text beyond the limit.
    pub(crate) fn check_bytes(&self, bytes: usize) -> Result<(), String> {
        if bytes <= self.limits.field_bytes {
            return Ok(());
        }
        Err(format!("{bytes} bytes, where {} are allowed; shorten the text or leave it out", self.limits.field_bytes))
    }
}

/// A file as rows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The names of all columns, in the order of the file.
    pub(crate) columns: Vec<String>,
    /// For columns that can't be read, why.
    pub(crate) unreadable: Vec<(usize, String)>,
    /// Names of classes that the file itself gives, by column.
    pub(crate) names: Vec<(usize, Vec<String>)>,
    /// The rows.
    pub(crate) rows: Vec<Row>,
    /// Whether the format knows texts only.
    pub(crate) untyped: bool,
}

/// One row: the values that are there and may matter, each with the index of its column.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) position: Position,
    pub(crate) cells: Vec<(usize, Cell)>,
}

impl Row {
    /// Takes the value of a column; null if there is none.
    pub(crate) fn take(&mut self, column: usize) -> Cell {
        let index = self.cells.iter().position(|(index, _)| *index == column);
        index.map_or(Cell::Null, |index| self.cells.swap_remove(index).1)
    }

    /// The value of a column, if there is one.
    pub(crate) fn cell(&self, column: usize) -> Option<&Cell> {
        self.cells.iter().find(|(index, _)| *index == column).map(|(_, cell)| cell)
    }
}

impl Fault {
    /// With the file.
    pub(crate) fn of(self, path: &Path) -> DataError {
        DataError::Broken { path: path.to_owned(), place: self.place, reason: self.reason }
    }
}
