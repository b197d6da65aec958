//! Records of a file, one text each: lines of text or JSON, rows of CSV or TSV.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufReader};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::args::TextFormat;
use crate::lines::{BYTES_TOGETHER, Input, LINE_LIMIT, Line, read_line};

/// Fields that hold the text where none is named; the first that is there counts.
const FIELDS: [&str; 2] = ["text", "inputs"];

/// A record and the number of its first line, from 1.
pub(crate) struct Record {
    pub(crate) line: u64,
    pub(crate) raw: Line,
}

impl Record {
    /// Bytes that it has in the file, as far as they were kept.
    pub(crate) fn bytes(&self) -> usize {
        self.raw.as_ref().map_or(0, Vec::len)
    }
}

/// Where the text of a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// It is the line.
    Text,
    /// It is in the first of these fields that an object has.
    Json(Vec<String>),
    /// It is in a column, counted from 0, of fields that may be quoted.
    Csv(usize),
    /// It is in a column of fields between tabs.
    Tsv(usize),
}

/// The records of an input.
pub(crate) struct Records {
    reader: BufReader<Input>,
    layout: Layout,
    header: Vec<u8>,
    /// The first record, which told the layout.
    first: Option<Record>,
    /// Lines that were read.
    lines: u64,
}

impl Records {
    /// Reads as far as the layout needs it. Without a format, a first line that begins with a brace is JSON.
    ///
    /// # Errors
    /// The input can't be read, or has no column of that name.
    pub(crate) fn new(input: Input, format: Option<TextFormat>, field: Option<&str>) -> anyhow::Result<Records> {
        let reader = BufReader::with_capacity(BYTES_TOGETHER, input);
        let is_csv = format == Some(TextFormat::Csv);
        let layout = if is_csv { Layout::Csv(0) } else { Layout::Text };
        let mut records = Records { reader, layout, header: Vec::new(), first: None, lines: 0 };
        let first = records.next()?;
        let raw = first.as_ref().and_then(|record| record.raw.as_deref().ok()).unwrap_or_default();
        let looks_like_json = raw.trim_ascii_start().starts_with(b"{");
        let guess = if looks_like_json { TextFormat::Jsonl } else { TextFormat::Txt };
        let fields = || field.map_or_else(|| FIELDS.map(str::to_owned).to_vec(), |field| vec![field.to_owned()]);
        records.layout = match format.unwrap_or(guess) {
            TextFormat::Txt => {
                anyhow::ensure!(
                    field.is_none(),
                    "lines of plain text have no field; leave --field out, or give --format"
                );
                Layout::Text
            }
            TextFormat::Jsonl => Layout::Json(fields()),
            TextFormat::Csv => Layout::Csv(column(&csv_fields(raw)?, &fields())?),
            TextFormat::Tsv => {
                let names = utf8(without_end(raw)).map_err(anyhow::Error::msg)?;
                Layout::Tsv(column(&names.split('\t').map(str::to_owned).collect::<Vec<_>>(), &fields())?)
            }
        };
        match records.layout {
            Layout::Text | Layout::Json(_) => records.first = first,
            Layout::Csv(_) | Layout::Tsv(_) => records.header = raw.to_vec(),
        }
        Ok(records)
    }

    /// Where the text is.
    pub(crate) fn layout(&self) -> Layout {
        self.layout.clone()
    }

    /// The line with the names of the columns, or nothing.
    pub(crate) fn header(&self) -> &[u8] {
        &self.header
    }

    /// Reads records until the end, an error, or until nobody takes them; those that came together are taken together.
    pub(crate) fn read(mut self, mut take: impl FnMut(Vec<Record>) -> bool) {
        let (mut records, mut bytes) = (Vec::new(), 0);
        loop {
            match self.next() {
                Ok(Some(record)) => {
                    bytes += record.bytes();
                    records.push(record);
                }
                Ok(None) => break,
                Err(error) => {
                    let raw = Err(format!("cannot read the input: {error}"));
                    records.push(Record { line: self.lines + 1, raw });
                    break;
                }
            }
            if bytes >= BYTES_TOGETHER || !self.reader.buffer().contains(&b'\n') {
                if !take(std::mem::take(&mut records)) {
                    return;
                }
                bytes = 0;
            }
        }
        take(records);
    }

    /// The next record that is not blank; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Record>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while let Some(mut raw) = read_line(&mut self.reader)? {
            let line = self.lines + 1;
            self.lines = line;
            if line == 1
                && let Ok(raw) = &mut raw
                && raw.starts_with(b"\xef\xbb\xbf")
            {
                raw.drain(..3);
            }
            if matches!(self.layout, Layout::Csv(_)) {
                raw = self.close_quotes(raw)?;
            }
            if !raw.as_ref().is_ok_and(|raw| raw.trim_ascii().is_empty()) {
                return Ok(Some(Record { line, raw }));
            }
        }
        Ok(None)
    }

    /// Adds lines to a row of CSV while a quotation mark is open.
    fn close_quotes(&mut self, mut raw: Line) -> io::Result<Line> {
        let is_open = |raw: &[u8]| raw.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
        let mut open = raw.as_ref().is_ok_and(|raw| is_open(raw));
        while open {
            let more = read_line(&mut self.reader)?;
            self.lines += u64::from(more.is_some());
            raw = match (raw, more) {
                (Ok(mut raw), Some(Ok(more))) if raw.len() + more.len() <= LINE_LIMIT => {
                    open ^= is_open(&more);
                    raw.extend_from_slice(&more);
                    Ok(raw)
                }
                (Ok(_) | Err(_), Some(_) | None) => {
                    open = false;
                    Err("a quotation mark opens a text that nothing closes; write two marks for one inside of a text"
                        .to_owned())
                }
            };
        }
        Ok(raw)
    }
}

impl Layout {
    /// The text of a record.
    ///
    /// # Errors
    /// The record has none; the reason says what to do.
    pub(crate) fn text<'a>(&self, raw: &'a [u8]) -> Result<Cow<'a, str>, String> {
        match self {
            Layout::Text => utf8(without_end(raw)).map(Cow::Borrowed),
            Layout::Json(names) => json_field(raw, names).map(Cow::Owned),
            Layout::Csv(column) => {
                let mut fields = csv_fields(raw).map_err(|error| error.to_string())?;
                let found = fields.len();
                let field = fields.get_mut(*column).map(std::mem::take);
                field.map(Cow::Owned).ok_or_else(|| missing(found, *column))
            }
            Layout::Tsv(column) => {
                let line = utf8(without_end(raw))?;
                let field = line.split('\t').nth(*column);
                field.map(Cow::Borrowed).ok_or_else(|| missing(line.split('\t').count(), *column))
            }
        }
    }
}

fn missing(found: usize, column: usize) -> String {
    format!("the row has {found} fields, where the text is in field {}", column + 1)
}

/// The place of the first of these names among the columns; the only column needs no name.
fn column(columns: &[String], names: &[String]) -> anyhow::Result<usize> {
    let known = names.iter().find_map(|name| columns.iter().position(|column| column == name));
    let only = (columns.len() == 1 && names.len() > 1).then_some(0);
    known.or(only).ok_or_else(|| {
        let columns = columns.join(", ");
        anyhow::anyhow!(
            "no column is called `{}`; name the one with the text by --field: {columns}",
            names.join("` or `")
        )
    })
}

fn csv_fields(raw: &[u8]) -> anyhow::Result<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(raw);
    let mut record = csv::ByteRecord::new();
    reader.read_byte_record(&mut record)?;
    record.iter().map(|field| utf8(field).map(str::to_owned).map_err(anyhow::Error::msg)).collect()
}

fn without_end(raw: &[u8]) -> &[u8] {
    let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
    raw.strip_suffix(b"\r").unwrap_or(raw)
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes)
        .map_err(|error| format!("byte {} is not UTF-8; save the file in that encoding", error.valid_up_to() + 1))
}

fn json_field(raw: &[u8], names: &[String]) -> Result<String, String> {
    let mut json = serde_json::Deserializer::from_slice(raw);
    let value = Fields { names }.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    let value = value.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        format!("it is not a JSON object ({reason} in column {}); write it as {{\"text\": \"...\"}}", error.column())
    })?;
    match value {
        Some((_, serde_json::Value::String(text))) => Ok(text),
        Some((name, _)) => Err(format!("the field `{}` is not a text", names[name])),
        None => {
            let names = names.join("` or `");
            Err(format!("it has no field `{names}`; name the one with the text by --field"))
        }
    }
}

/// The first of the named fields of an object, with the place of its name.
struct Fields<'a> {
    names: &'a [String],
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Option<(usize, serde_json::Value)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Option<(usize, serde_json::Value)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut best: Self::Value = None;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let place = self.names.iter().position(|wanted| *wanted == name);
            match place.filter(|place| best.as_ref().is_none_or(|(best, _)| place <= best)) {
                Some(place) => best = Some((place, map.next_value()?)),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of an input with their lines, or the reasons why there are none.
    fn texts(input: &str, format: Option<TextFormat>, field: Option<&str>) -> Vec<(u64, Result<String, String>)> {
        let input: Input = Box::new(io::Cursor::new(input.to_owned().into_bytes()));
        let records = Records::new(input, format, field).expect("a layout");
        let layout = records.layout();
        let mut texts = Vec::new();
        records.read(|part| {
            let text =
                |record: Record| (record.line, record.raw.and_then(|raw| layout.text(&raw).map(Cow::into_owned)));
            texts.extend(part.into_iter().map(text));
            true
        });
        texts
    }

    fn good(expected: &[(u64, &str)]) -> Vec<(u64, Result<String, String>)> {
        expected.iter().map(|(line, text)| (*line, Ok((*text).to_owned()))).collect()
    }

    #[test]
    fn each_format_has_its_texts() {
        let plain = texts("\u{feff}one\n\n  \r\ntwo \"\r\n{three", None, None);
        assert_eq!(plain, good(&[(1, "one"), (4, "two \""), (5, "{three")]));
        let json = "\n{\"id\": 1, \"inputs\": \"a\"}\n{\"inputs\": 7, \"text\": \"b\\n\"}\n";
        assert_eq!(texts(json, None, None), good(&[(2, "a"), (3, "b\n")]));
        let csv = "id,text\n1,\"a, \"\"b\"\"\nc\"\n\n2,d\r\n";
        assert_eq!(texts(csv, Some(TextFormat::Csv), None), good(&[(2, "a, \"b\"\nc"), (5, "d")]));
        let tsv = "title\ttext\n\"x\ty\r\nz\t\n";
        assert_eq!(texts(tsv, Some(TextFormat::Tsv), Some("title")), good(&[(2, "\"x"), (3, "z")]));
        assert_eq!(texts("headline\none\n", Some(TextFormat::Csv), None), good(&[(2, "one")]));
        assert_eq!(texts("", None, None), []);
    }

    #[test]
    fn bad_records_say_why() {
        let json = "{\"text\": 5}\n{}\nnonsense\n{\"text\": \"a\"} {}\n";
        let csv = "id,text\n1\n2,\"open\n3,x\n";
        let found = [texts(json, None, None), texts(csv, Some(TextFormat::Csv), None)].concat();
        let words = ["not a text", "--field", "not a JSON object", "not a JSON object", "field 2", "nothing closes"];
        assert_eq!(found.len(), words.len(), "{found:?}");
        for ((line, found), words) in found.iter().zip(words) {
            assert!(found.as_ref().is_err_and(|reason| reason.contains(words)), "line {line}: {found:?}");
        }
    }

    #[test]
    fn columns_are_named() {
        let input = || -> Input { Box::new(io::Cursor::new(b"a,b\n1,2\n".to_vec())) };
        for (format, field) in [(Some(TextFormat::Csv), None), (Some(TextFormat::Csv), Some("c")), (None, Some("a"))] {
            let error = Records::new(input(), format, field).err().expect("no such column").to_string();
            assert!(error.contains("--field"), "{error}");
        }
    }
}
