//! Parquet, as the hub stores data sets.
//!
//! The parquet crate finds and decodes columns; this puts rows together again from their values and levels (Melnik et
//! al. 2010, "Dremel"). A column may hold texts, numbers, truth values, lists and objects of these.

mod leaf;
mod node;
mod thrift;

use bytes::Bytes;
use centuple_guard::guarded;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::cell::Cell;
use super::error::{Fault, Position};
use super::table::{Reading, Row, Table};
use leaf::{Budget, Group, Leaf};
use node::{Node, leaves_of};
use thrift::check_footer;

/// Reads a file.
pub(crate) fn read(bytes: Bytes, reading: Reading<'_>) -> Result<Table, Fault> {
    check_footer(&bytes).map_err(Fault::file)?;
    // That crate asserts and indexes where damaged files lead.
    let damaged = |panic: &str| Fault::file(format!("damaged: the parquet crate cannot handle it ({panic})"));
    guarded(|| read_table(&bytes, reading), damaged)
}

/// A column that may matter.
struct Column {
    number: usize,
    node: Node,
    leaves: usize,
}

fn read_table(bytes: &Bytes, reading: Reading<'_>) -> Result<Table, Fault> {
    let damaged = |error| Fault::file(format!("damaged: {error}"));
    let file = SerializedFileReader::new(bytes.clone()).map_err(damaged)?;
    let metadata = file.metadata();
    let mut table = Table::default();
    let columns = wanted(metadata, reading, &mut table);
    check_rows(metadata, reading)?;
    for column in &columns {
        check_values(metadata, column, reading).map_err(|reason| in_column(&table, column, reason))?;
    }
    let budget = Budget::new(reading);
    for group in 0..file.num_row_groups() {
        let reader = file.get_row_group(group).map_err(damaged)?;
        let group = Group { bytes, reader: &*reader, budget: &budget };
        let first = table.rows.len();
        let row = |row: usize| Row { position: Position::Row(row as u64 + 1), cells: Vec::new() };
        table.rows.extend((first..first + group.rows()).map(row));
        for column in &columns {
            read_column(&group, column, &mut table, first)?;
        }
    }
    Ok(table)
}

/// The columns that may matter; fills in what the table says of its columns.
fn wanted(metadata: &ParquetMetaData, reading: Reading<'_>, table: &mut Table) -> Vec<Column> {
    let (mut columns, mut first) = (Vec::new(), 0);
    for (number, field) in metadata.file_metadata().schema().get_fields().iter().enumerate() {
        let leaves = leaves_of(field);
        table.columns.push(field.name().to_owned());
        if reading.wants(field.name()) {
            match Node::new(field, 0, 0, &mut first.clone()) {
                Ok(node) => columns.push(Column { number, node, leaves }),
                Err(reason) => table.unreadable.push((number, reason)),
            }
        }
        first += leaves;
    }
    table.names = class_names(metadata, &table.columns);
    columns
}

/// Reads a column of a group into the rows from `first` on.
fn read_column(group: &Group<'_>, column: &Column, table: &mut Table, first: usize) -> Result<(), Fault> {
    let base = column.node.leaf;
    let leaves = (base..base + column.leaves).map(|leaf| group.leaf(leaf)).collect::<Result<Vec<_>, _>>();
    let mut leaves = leaves.map_err(|reason| in_column(table, column, reason))?;
    for row in &mut table.rows[first..] {
        let cell = column.node.next(&mut leaves, base);
        let cell = cell.map_err(|reason| Fault::value(row.position, &table.columns[column.number], reason))?;
        if !matches!(cell, Cell::Null) {
            row.cells.push((column.number, cell));
        }
    }
    if leaves.iter().all(Leaf::ended) {
        return Ok(());
    }
    Err(in_column(table, column, "damaged: it has more values than rows".to_owned()))
}

/// A fault of a column as a whole.
fn in_column(table: &Table, column: &Column, reason: String) -> Fault {
    let mut fault = Fault::file(reason);
    fault.place.column = Some(table.columns[column.number].clone());
    fault
}

/// Checks the numbers of rows that the file claims.
fn check_rows(metadata: &ParquetMetaData, reading: Reading<'_>) -> Result<(), Fault> {
    let mut rows = metadata.row_groups().iter().map(|group| usize::try_from(group.num_rows()).ok());
    let rows = rows.try_fold(0usize, |sum, rows| sum.checked_add(rows?));
    let rows = rows.ok_or_else(|| Fault::file("damaged: a negative number of rows"))?;
    // As many as are allowed are fine, one more is not.
    reading.check_rows(rows.saturating_sub(1))
}

/// Checks the number of values that the file claims for each leaf of a column.
fn check_values(metadata: &ParquetMetaData, column: &Column, reading: Reading<'_>) -> Result<(), String> {
    let limit = reading.limits.values as u64;
    for leaf in column.node.leaf..column.node.leaf + column.leaves {
        let mut counts = metadata.row_groups().iter().map(|group| u64::try_from(group.column(leaf).num_values()).ok());
        let count = counts.try_fold(0u64, |sum, count| sum.checked_add(count?));
        if count.ok_or("damaged: a negative number of values")? > limit {
            let all = "counting those in lists, which is the limit; give a part of the file";
            return Err(format!("has more than {limit} values, {all}"));
        }
    }
    Ok(())
}

/// Names of classes that the `datasets` library left in the file.
fn class_names(metadata: &ParquetMetaData, columns: &[String]) -> Vec<(usize, Vec<String>)> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let note = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface"));
    let note = note.and_then(|note| serde_json::from_str::<serde_json::Value>(note.value.as_deref()?).ok());
    let Some(note) = note else { return Vec::new() };
    let features = &note["info"]["features"];
    let of = |(column, name): (usize, &String)| {
        let feature = &features[name];
        let places = [feature, &feature["feature"], &feature[0]];
        let names = places.into_iter().find_map(|place| place["names"].as_array())?;
        let names = names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()?;
        Some((column, names))
    };
    columns.iter().enumerate().filter_map(of).collect()
}
