//! One value of a row, whatever the format.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::cut;

/// A value as the file has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// Nothing.
    Null,
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Any other number, or one that the file stores as a fraction.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// A list.
    List(Vec<Cell>),
    /// Named values.
    Record(Vec<(String, Cell)>),
}

impl Cell {
    /// A whole number that may be beyond signed ones.
    pub(crate) fn unsigned(number: u64) -> Cell {
        i64::try_from(number).map_or(Cell::Number(number as f64), Cell::Integer)
    }

    /// What it is, for messages.
    pub(crate) fn described(&self) -> String {
        match self {
            Cell::Null => "null".to_owned(),
            Cell::Text(text) => format!("the text \"{}\"", cut(text)),
            Cell::Integer(number) => format!("the number {number}"),
            Cell::Number(number) => format!("the number {number}"),
            Cell::Flag(flag) => flag.to_string(),
            Cell::List(cells) => format!("a list of {}", cells.len()),
            Cell::Record(_) => "an object".to_owned(),
        }
    }

    /// A text.
    pub(crate) fn text(self) -> Result<String, String> {
        match self {
            Cell::Text(text) => Ok(text),
            Cell::Null | Cell::Integer(_) | Cell::Number(_) | Cell::Flag(_) | Cell::List(_) | Cell::Record(_) => {
                Err(format!("must be a text, and is {}", self.described()))
            }
        }
    }

    /// A list.
    pub(crate) fn list(self) -> Result<Vec<Cell>, String> {
        match self {
            Cell::List(cells) => Ok(cells),
            Cell::Null | Cell::Text(_) | Cell::Integer(_) | Cell::Number(_) | Cell::Flag(_) | Cell::Record(_) => {
                Err(format!("must be a list, and is {}", self.described()))
            }
        }
    }

    /// A finite number.
    pub(crate) fn number(&self) -> Result<f64, String> {
        let number = match self {
            Cell::Integer(number) => Some(*number as f64),
            Cell::Number(number) => Some(*number),
            Cell::Null | Cell::Text(_) | Cell::Flag(_) | Cell::List(_) | Cell::Record(_) => None,
        };
        let finite = number.filter(|number| number.is_finite());
        finite.ok_or_else(|| format!("must be a finite number, and is {}", self.described()))
    }

    /// A whole number of 0 or more.
    pub(crate) fn index(&self) -> Result<usize, String> {
        let index = match self {
            Cell::Integer(number) => usize::try_from(*number).ok(),
            Cell::Null | Cell::Text(_) | Cell::Number(_) | Cell::Flag(_) | Cell::List(_) | Cell::Record(_) => None,
        };
        index.ok_or_else(|| format!("must be a whole number of 0 or more, and is {}", self.described()))
    }

    /// Reads a cell of a file without types whose value is no plain text: it is JSON.
    pub(crate) fn from_json(text: &str) -> Result<Cell, String> {
        serde_json::from_str(text).map_err(|error| json_reason(&error))
    }
}

/// What serde_json says, without the line, which is not the file's.
pub(crate) fn json_reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let reason = message.rfind(" at line ").map_or(message.as_str(), |end| &message[..end]);
    format!("not valid JSON: {reason} at byte {} of the line", error.column())
}

/// Takes a field out of a record.
pub(crate) fn take(record: &mut Vec<(String, Cell)>, name: &str) -> Option<Cell> {
    let index = record.iter().position(|(field, _)| field == name)?;
    Some(record.swap_remove(index).1)
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Cell, E> {
        Ok(Cell::Flag(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Cell, E> {
        Ok(Cell::Integer(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Cell, E> {
        Ok(Cell::unsigned(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Cell, E> {
        Ok(Cell::Number(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Cell, E> {
        Ok(Cell::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cell, A::Error> {
        let mut cells = Vec::new();
        while let Some(cell) = list.next_element()? {
            cells.push(cell);
        }
        Ok(Cell::List(cells))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
        let (mut fields, mut names) = (Vec::new(), HashSet::new());
        while let Some((name, cell)) = map.next_entry::<String, Cell>()? {
            if !names.insert(name.clone()) {
                return Err(de::Error::custom(format!("the key `{}` comes twice", cut(&name))));
            }
            fields.push((name, cell));
        }
        Ok(Cell::Record(fields))
    }
}
