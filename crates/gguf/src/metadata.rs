//! What a file says of itself, by key.

use std::collections::BTreeMap;

use crate::GgufError;
use crate::error::{damaged, quoted};
use crate::reader::Reader;

/// The value of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// Any float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list.
    List(List),
}

/// Values of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum List {
    /// Integers.
    Integers(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Truth values.
    Bools(Vec<bool>),
    /// Texts.
    Texts(Vec<String>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Unsigned(_) | Value::Signed(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a truth value",
            Value::Text(_) => "a text",
            Value::List(List::Integers(_)) => "a list of integers",
            Value::List(List::Floats(_)) => "a list of floats",
            Value::List(List::Bools(_)) => "a list of truth values",
            Value::List(List::Texts(_)) => "a list of texts",
        }
    }

    fn unsigned(&self) -> Option<u64> {
        match self {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            Value::Float(_) | Value::Bool(_) | Value::Text(_) | Value::List(_) => None,
        }
    }
}

/// The types of values as files number them.
mod kinds {
    pub(super) const UINT8: u32 = 0;
    pub(super) const INT8: u32 = 1;
    pub(super) const UINT16: u32 = 2;
    pub(super) const INT16: u32 = 3;
    pub(super) const UINT32: u32 = 4;
    pub(super) const INT32: u32 = 5;
    pub(super) const FLOAT32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const UINT64: u32 = 10;
    pub(super) const INT64: u32 = 11;
    pub(super) const FLOAT64: u32 = 12;
}

/// Bytes of a value of a type, the fewest where they differ; `None` for what no list can have.
fn least_bytes(kind: u32) -> Option<usize> {
    Some(match kind {
        kinds::UINT8 | kinds::INT8 | kinds::BOOL => 1,
        kinds::UINT16 | kinds::INT16 => 2,
        kinds::UINT32 | kinds::INT32 | kinds::FLOAT32 => 4,
        kinds::UINT64 | kinds::INT64 | kinds::FLOAT64 | kinds::STRING => 8,
        _ => return None,
    })
}

/// What a file says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// Reads `count` pairs of key and value.
    pub(crate) fn read(reader: &mut Reader, count: usize) -> Result<Metadata, GgufError> {
        let mut values = BTreeMap::new();
        for _ in 0..count {
            let key = reader.text()?.to_owned();
            let kind = reader.u32()?;
            let value = read_value(reader, kind).map_err(|error| within(&key, error))?;
            if values.contains_key(&key) {
                return Err(damaged(format!("the key {} is there twice", quoted(&key))));
            }
            values.insert(key, value);
        }
        Ok(Metadata { values })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The integer of a key; `None` where it isn't there.
    ///
    /// # Errors
    /// It is negative or no integer.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "an integer of at least 0", Value::unsigned)
    }

    /// The same as a size.
    ///
    /// # Errors
    /// As for [`Metadata::unsigned`], or it is beyond the address space.
    pub fn size(&self, key: &str) -> Result<Option<usize>, GgufError> {
        self.typed(key, "a size", |value| usize::try_from(value.unsigned()?).ok())
    }

    /// A token id.
    ///
    /// # Errors
    /// As for [`Metadata::unsigned`], or it is no token id.
    pub fn token(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "a token id", |value| u32::try_from(value.unsigned()?).ok())
    }

    /// The number of a key, a float or an integer; `None` where it isn't there.
    ///
    /// # Errors
    /// It is no number.
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a number", |value| match value {
            Value::Float(value) => Some(*value),
            Value::Unsigned(value) => Some(*value as f64),
            Value::Signed(value) => Some(*value as f64),
            Value::Bool(_) | Value::Text(_) | Value::List(_) => None,
        })
    }

    /// The truth value of a key; `None` where it isn't there.
    ///
    /// # Errors
    /// It is none.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a truth value", |value| if let Value::Bool(value) = value { Some(*value) } else { None })
    }

    /// The text of a key; `None` where it isn't there.
    ///
    /// # Errors
    /// It is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a text", |value| if let Value::Text(value) = value { Some(value.as_str()) } else { None })
    }

    /// The texts of a key; `None` where it isn't there.
    ///
    /// # Errors
    /// It is no list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "a list of texts", |value| {
            if let Value::List(List::Texts(values)) = value { Some(values.as_slice()) } else { None }
        })
    }

    /// The floats of a key; `None` where it isn't there.
    ///
    /// # Errors
    /// It is no list of floats.
    pub fn floats(&self, key: &str) -> Result<Option<&[f32]>, GgufError> {
        self.typed(key, "a list of floats", |value| {
            if let Value::List(List::Floats(values)) = value { Some(values.as_slice()) } else { None }
        })
    }

    /// The integers of a key; `None` where it isn't there.
    ///
    /// # Errors
    /// It is no list of integers.
    pub fn integers(&self, key: &str) -> Result<Option<&[i64]>, GgufError> {
        self.typed(key, "a list of integers", |value| {
            if let Value::List(List::Integers(values)) = value { Some(values.as_slice()) } else { None }
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let wrong =
            || GgufError::Unsupported(format!("`{key}` is {}, not {wanted}; convert the model again", value.kind()));
        read(value).map(Some).ok_or_else(wrong)
    }
}

/// An error about the value of a key.
fn within(key: &str, error: GgufError) -> GgufError {
    match error {
        GgufError::Damaged(reason) => damaged(format!("in the value of {}: {reason}", quoted(key))),
        GgufError::Unsupported(reason) => GgufError::Unsupported(format!("the value of {}: {reason}", quoted(key))),
    }
}

fn read_value(reader: &mut Reader, kind: u32) -> Result<Value, GgufError> {
    Ok(match kind {
        kinds::UINT8 => Value::Unsigned(u8::from_le_bytes(reader.bytes()?).into()),
        kinds::UINT16 => Value::Unsigned(u16::from_le_bytes(reader.bytes()?).into()),
        kinds::UINT32 => Value::Unsigned(reader.u32()?.into()),
        kinds::UINT64 => Value::Unsigned(reader.u64()?),
        kinds::INT8 => Value::Signed(i8::from_le_bytes(reader.bytes()?).into()),
        kinds::INT16 => Value::Signed(i16::from_le_bytes(reader.bytes()?).into()),
        kinds::INT32 => Value::Signed(i32::from_le_bytes(reader.bytes()?).into()),
        kinds::INT64 => Value::Signed(i64::from_le_bytes(reader.bytes()?)),
        kinds::FLOAT32 => Value::Float(f32::from_le_bytes(reader.bytes()?).into()),
        kinds::FLOAT64 => Value::Float(f64::from_le_bytes(reader.bytes()?)),
        kinds::BOOL => Value::Bool(read_bool(reader)?),
        kinds::STRING => Value::Text(reader.text()?.to_owned()),
        kinds::ARRAY => {
            let kind = reader.u32()?;
            if kind == kinds::ARRAY {
                let reason = "lists of lists are not read; take a file that was converted by llama.cpp";
                return Err(GgufError::Unsupported(reason.to_owned()));
            }
            let least = least_bytes(kind).ok_or_else(|| unknown(kind))?;
            let count = reader.count("values", least)?;
            Value::List(read_list(reader, kind, count)?)
        }
        other => return Err(unknown(other)),
    })
}

fn unknown(kind: u32) -> GgufError {
    damaged(format!("{kind} is the number of no type"))
}

fn read_bool(reader: &mut Reader) -> Result<bool, GgufError> {
    match reader.bytes()? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(damaged(format!("{other} is no truth value"))),
    }
}

/// The values of a list; their bytes are known to be there.
fn read_list(reader: &mut Reader, kind: u32, count: usize) -> Result<List, GgufError> {
    fn all<T>(count: usize, read: impl FnMut() -> Result<T, GgufError>) -> Result<Vec<T>, GgufError> {
        std::iter::repeat_with(read).take(count).collect()
    }
    let above = |value: u64| i64::try_from(value).map_err(|_| damaged(format!("the integer {value} is out of range")));
    Ok(match kind {
        kinds::UINT8 => List::Integers(all(count, || Ok(u8::from_le_bytes(reader.bytes()?).into()))?),
        kinds::INT8 => List::Integers(all(count, || Ok(i8::from_le_bytes(reader.bytes()?).into()))?),
        kinds::UINT16 => List::Integers(all(count, || Ok(u16::from_le_bytes(reader.bytes()?).into()))?),
        kinds::INT16 => List::Integers(all(count, || Ok(i16::from_le_bytes(reader.bytes()?).into()))?),
        kinds::UINT32 => List::Integers(all(count, || Ok(reader.u32()?.into()))?),
        kinds::INT32 => List::Integers(all(count, || Ok(i32::from_le_bytes(reader.bytes()?).into()))?),
        kinds::UINT64 => List::Integers(all(count, || above(reader.u64()?))?),
        kinds::INT64 => List::Integers(all(count, || Ok(i64::from_le_bytes(reader.bytes()?)))?),
        kinds::FLOAT32 => List::Floats(all(count, || Ok(f32::from_le_bytes(reader.bytes()?)))?),
        kinds::FLOAT64 => List::Floats(all(count, || Ok(f64::from_le_bytes(reader.bytes()?) as f32))?),
        kinds::BOOL => List::Bools(all(count, || read_bool(reader))?),
        kinds::STRING => List::Texts(all(count, || Ok(reader.text()?.to_owned()))?),
        other => return Err(unknown(other)),
    })
}
