//! CSV and TSV: a header, then a row a line.
//!
//! CSV quotes as RFC 4180 says. TSV does not quote at all: the data sets that come as TSV hold single quotation marks
//! in their texts, and no tabs.

use super::cell::Cell;
use super::error::{Fault, Position};
use super::lines::{lines, utf8, without_mark};
use super::table::{Reading, Row, Table};

/// Reads a CSV file; empty lines are skipped.
pub(crate) fn read_csv(bytes: &[u8], reading: Reading<'_>) -> Result<Table, Fault> {
    let bytes = without_mark(bytes);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut filling = Filling::new(reading);
    let mut record = csv::ByteRecord::new();
    let (mut begin, mut line) = (0, 1);
    while reader.read_byte_record(&mut record).map_err(|error| Fault::file(error.to_string()))? {
        // The reader has not skipped empty lines yet where it says that the record begins.
        let found = record.position().map_or(0, |position| position.byte() as usize);
        let blank = bytes[found..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        line += bytes[begin..found + blank].iter().filter(|byte| **byte == b'\n').count() as u64;
        begin = found + blank;
        filling.add(Position::Line(line), record.iter())?;
    }
    if ends_in_quotes(&bytes[begin..]) {
        let reason = "a quotation mark opens a text that nothing closes; write two marks for one inside of a text";
        return Err(Fault::row(Position::Line(line), reason));
    }
    Ok(filling.table)
}

/// Reads a TSV file; empty lines are skipped.
pub(crate) fn read_tsv(bytes: &[u8], reading: Reading<'_>) -> Result<Table, Fault> {
    let mut filling = Filling::new(reading);
    for line in lines(bytes, reading) {
        let (position, line) = line?;
        if !line.is_empty() {
            filling.add(position, line.split('\t').map(str::as_bytes))?;
        }
    }
    Ok(filling.table)
}

/// Whether a record ends within quotes. The reader takes that for a text like any other, and with it the rest of the
/// file.
fn ends_in_quotes(record: &[u8]) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Start,
        Plain,
        Quoted,
        Closed,
    }
    let step = |state: State, byte: &u8| match (state, *byte) {
        (State::Quoted, b'"') => State::Closed,
        (State::Quoted, _) | (State::Start | State::Closed, b'"') => State::Quoted,
        (State::Start | State::Plain | State::Closed, b',' | b'\r' | b'\n') => State::Start,
        (State::Start | State::Plain | State::Closed, _) => State::Plain,
    };
    record.iter().fold(State::Start, step) == State::Quoted
}

/// A table that is filled row by row, the header first.
struct Filling<'a> {
    table: Table,
    /// Which columns may matter.
    wanted: Vec<bool>,
    reading: Reading<'a>,
}

impl<'a> Filling<'a> {
    fn new(reading: Reading<'a>) -> Self {
        Self { table: Table { untyped: true, ..Table::default() }, wanted: Vec::new(), reading }
    }

    fn add<'b>(&mut self, position: Position, fields: impl Iterator<Item = &'b [u8]>) -> Result<(), Fault> {
        let reading = self.reading;
        if self.table.columns.is_empty() {
            let name = |field| utf8(field).map(str::to_owned).map_err(|reason| Fault::row(position, reason));
            self.table.columns = fields.map(name).collect::<Result<_, _>>()?;
            self.wanted = self.table.columns.iter().map(|name| reading.wants(name)).collect();
            return Ok(());
        }
        reading.check_rows(self.table.rows.len())?;
        let (mut cells, mut count) = (Vec::new(), 0);
        for (column, field) in fields.enumerate() {
            count += 1;
            if self.wanted.get(column) == Some(&true) {
                let text = reading.check_bytes(field.len()).and_then(|()| utf8(field));
                let text = text.map_err(|reason| Fault::value(position, &self.table.columns[column], reason))?;
                cells.push((column, Cell::Text(text.to_owned())));
            }
        }
        if count != self.wanted.len() {
            let reason = format!("has {count} fields, where the header has {}", self.wanted.len());
            return Err(Fault::row(position, reason));
        }
        self.table.rows.push(Row { position, cells });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ends_in_quotes;

    #[test]
    fn open_quotes() {
        for open in ["\"", "a,\"b", "a,\"b\"\"", "a,\"b\nc,d\n", "\"a\"\"\"\""] {
            assert!(ends_in_quotes(open.as_bytes()), "{open}");
        }
        for closed in ["", "a,b", "a,\"b\"", "\"a\"\"b\"\n", "5\",\"x\"", "a\"", "\"a\"\"\"", "\"a\"b\"c\""] {
            assert!(!ends_in_quotes(closed.as_bytes()), "{closed}");
        }
    }
}
