//! JSON Lines: an object a line.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::cell::{Cell, json_reason};
use super::error::{Fault, cut};
use super::lines::lines;
use super::table::{Reading, Row, Table};

/// Reads a file. Its columns are the keys of all lines; blank lines are skipped.
pub(crate) fn read(bytes: &[u8], reading: Reading<'_>) -> Result<Table, Fault> {
    let mut table = Table::default();
    let mut known = HashMap::new();
    for line in lines(bytes, reading) {
        let (position, line) = line?;
        if line.trim().is_empty() {
            continue;
        }
        reading.check_rows(table.rows.len())?;
        let mut json = serde_json::Deserializer::from_str(line);
        let fields = Object { reading }.deserialize(&mut json).and_then(|fields| json.end().map(|()| fields));
        let fields = fields.map_err(|error| Fault::row(position, json_reason(&error)))?;
        let mut cells = Vec::new();
        for (name, cell) in fields {
            let column = *known.entry(name).or_insert_with_key(|name| {
                table.columns.push(name.clone());
                table.columns.len() - 1
            });
            cells.extend(cell.map(|cell| (column, cell)));
        }
        table.rows.push(Row { position, cells });
    }
    Ok(table)
}

/// The fields of an object; those that can't matter without their values.
struct Object<'a> {
    reading: Reading<'a>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Vec<(String, Option<Cell>)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Vec<(String, Option<Cell>)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object, such as {\"inputs\": \"a text\", \"label\": 1}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if !self.reading.wants(&name) {
                map.next_value::<IgnoredAny>()?;
                fields.push((name, None));
                continue;
            }
            // Few names are wanted, so this search is short.
            if fields.iter().any(|(field, cell)| cell.is_some() && *field == name) {
                return Err(de::Error::custom(format!("the key `{}` comes twice", cut(&name))));
            }
            fields.push((name, Some(map.next_value()?)));
        }
        Ok(fields)
    }
}
