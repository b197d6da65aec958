//! The filter `tojson` of chat templates: JSON as Python's `json.dumps` writes it.

use std::io::{self, Write};

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Spaces of one level that make sense; the deepest value has 128 levels.
const WIDEST: usize = 16;

pub(super) fn tojson(value: &Value, given: Option<usize>, options: Kwargs) -> Result<Value, Error> {
    let indent = match given {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let between = if indent.is_some() { "," } else { ", " };
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let [item, key] = match separators.map(<[String; 2]>::try_from) {
        None => [between, ": "].map(str::to_owned),
        Some(Ok(separators)) => separators,
        Some(Err(_)) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson takes two separators")),
    };
    options.assert_all_used()?;
    let failed = |reason: String| Error::new(ErrorKind::BadSerialization, reason);
    if indent.is_some_and(|indent| indent > WIDEST) {
        return Err(failed(format!("tojson indents by at most {WIDEST}")));
    }
    let mut value = serde_json::to_value(value).map_err(|error| failed(error.to_string()))?;
    if sorted {
        value.sort_all_objects();
    }
    let mut written = Vec::new();
    let python = Python { indent, level: 0, filled: false, item, key };
    value
        .serialize(&mut Serializer::with_formatter(&mut written, python))
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&written);
    Ok(Value::from_safe_string(if ascii { escaped(&text) } else { text.into_owned() }))
}

/// The text with every character beyond ASCII as JSON escapes it.
fn escaped(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            written.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                written.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    written
}

/// Where Python puts spaces and line ends.
struct Python {
    indent: Option<usize>,
    level: usize,
    /// Whether what is being closed has elements.
    filled: bool,
    /// Between elements.
    item: String,
    /// Between a key and its value.
    key: String,
}

impl Python {
    fn line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        match self.indent {
            Some(indent) => write!(writer, "\n{:1$}", "", indent * self.level),
            None => Ok(()),
        }
    }

    fn open<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level += 1;
        self.filled = false;
        writer.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level = self.level.saturating_sub(1);
        if self.filled {
            self.line(writer)?;
        }
        writer.write_all(bracket)
    }

    fn next<W: ?Sized + Write>(&self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.line(writer)
    }
}

impl Formatter for Python {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }
}
