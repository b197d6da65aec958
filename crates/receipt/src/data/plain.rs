//! Plain text: a text a line.

use super::cell::Cell;
use super::error::Fault;
use super::lines::lines;
use super::table::{Reading, Row, Table};

/// Reads a file; lines of white space are skipped.
pub(crate) fn read(bytes: &[u8], reading: Reading<'_>) -> Result<Table, Fault> {
    let mut table = Table { columns: vec!["inputs".to_owned()], untyped: true, ..Table::default() };
    for line in lines(bytes, reading) {
        let (position, line) = line?;
        if !line.trim().is_empty() {
            reading.check_rows(table.rows.len())?;
            table.rows.push(Row { position, cells: vec![(0, Cell::Text(line.to_owned()))] });
        }
    }
    Ok(table)
}
