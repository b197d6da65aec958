//! Types for the cells of a format that knows texts only: numbers, and JSON where a list is needed.

use super::cell::Cell;
use super::error::Fault;
use super::shape::Shape;
use super::table::{Row, Table};

/// Gives cells the types that their columns need. A text that does not fit stays one, for whoever reads it to refuse.
pub(crate) fn give_types(table: &mut Table, shape: Shape) -> Result<(), Fault> {
    match shape {
        Shape::Plain { .. } => Ok(()),
        Shape::Text { label, .. } if all_whole(&table.rows, label) => retype(table, label, whole),
        Shape::Text { label, .. } => retype(table, label, list),
        Shape::Similarity { score, .. } => retype(table, score, number),
        Shape::Spans { entities: column, .. } | Shape::Answer { answers: column, .. } => retype(table, column, json),
        Shape::Tags { tokens, tags } => {
            retype(table, tokens, json)?;
            retype(table, tags, json)
        }
    }
}

/// What becomes of a text: a cell, nothing else, or why it is neither.
type Typed = Result<Option<Cell>, String>;

fn retype(table: &mut Table, column: usize, typed: fn(&str) -> Typed) -> Result<(), Fault> {
    for row in &mut table.rows {
        let position = row.position;
        for (_, cell) in row.cells.iter_mut().filter(|(index, _)| *index == column) {
            let Cell::Text(text) = &cell else { continue };
            match typed(text) {
                Ok(Some(typed)) => *cell = typed,
                Ok(None) => {}
                Err(reason) => return Err(Fault::value(position, &table.columns[column], reason)),
            }
        }
    }
    Ok(())
}

/// Whether a column holds whole numbers only: then they are numbers of classes, otherwise all are names.
fn all_whole(rows: &[Row], column: usize) -> bool {
    rows.iter().all(|row| matches!(row.cell(column), Some(Cell::Text(text)) if text.parse::<i64>().is_ok()))
}

fn whole(text: &str) -> Typed {
    Ok(text.parse().ok().map(Cell::Integer))
}

fn number(text: &str) -> Typed {
    Ok(text.trim().parse().ok().map(Cell::Number))
}

/// A list as JSON. Anything else is a name, even if it begins with a bracket.
fn list(text: &str) -> Typed {
    Ok(json(text).ok().flatten().filter(|cell| matches!(cell, Cell::List(_))))
}

/// JSON, if it begins like a list or an object.
fn json(text: &str) -> Typed {
    if text.trim_start().starts_with(['[', '{']) { Cell::from_json(text).map(Some) } else { Ok(None) }
}
