//! What a Parquet file claims about itself, checked before the parquet crate believes it.
//!
//! That crate reserves memory and recurses as the metadata says. So this reads Thrift's compact protocol into plain
//! values first, and holds every count against the bytes that are there.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

/// Deepest nesting of values; Parquet's own structures need ten levels.
const DEEPEST_VALUE: usize = 24;
/// Deepest nesting of columns.
const DEEPEST_COLUMN: usize = 32;
/// Most bytes of metadata.
const MOST_METADATA: usize = 16 << 20;
/// Most bytes of a page; writers make pages of a mebibyte.
const LARGEST_PAGE: i64 = 256 << 20;

/// A value of Thrift's compact protocol; numbers and truth values are integers.
enum Value {
    Integer(i64),
    List(Vec<Value>),
    Struct(Vec<(i64, Value)>),
    /// Bytes, floating-point numbers and maps: nothing that is asked for here.
    Other,
}

impl Value {
    /// The value of a field; the last one, should it come twice.
    fn field(&self, id: i64) -> Option<&Value> {
        match self {
            Value::Struct(fields) => fields.iter().rev().find(|(field, _)| *field == id).map(|(_, value)| value),
            Value::Integer(_) | Value::List(_) | Value::Other => None,
        }
    }

    fn integer(&self, id: i64) -> Option<i64> {
        match self.field(id)? {
            Value::Integer(integer) => Some(*integer),
            Value::List(_) | Value::Struct(_) | Value::Other => None,
        }
    }
}

/// Bytes that are read from the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let count = usize::try_from(count).ok().filter(|count| *count <= self.0.len());
        let (taken, rest) = self.0.split_at(count.ok_or("damaged: its metadata ends too early")?);
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    /// A variable-length number.
    fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("damaged: its metadata holds a number without an end".to_owned())
    }

    /// A signed number: the lowest bit is the sign.
    fn zigzag(&mut self) -> Result<i64, String> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Value, String> {
        if depth == 0 {
            return Err(format!("damaged: its metadata nests deeper than {DEEPEST_VALUE} levels"));
        }
        match kind {
            1 | 2 => Ok(Value::Integer(i64::from(kind == 1))),
            3 => self.byte().map(|byte| Value::Integer(i64::from(byte as i8))),
            4..=6 => self.zigzag().map(Value::Integer),
            7 => self.take(8).map(|_| Value::Other),
            8 => {
                let length = self.varint()?;
                self.take(length).map(|_| Value::Other)
            }
            9 | 10 => self.list(depth),
            11 => self.map(depth),
            12 => self.structure(depth),
            13 => self.take(16).map(|_| Value::Other),
            _ => Err(format!("damaged: its metadata holds a value of the unknown type {kind}")),
        }
    }

    /// An element of a list or a map; there, other than in structures, a truth value takes a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Result<Value, String> {
        match kind {
            1 | 2 => self.byte().map(|byte| Value::Integer(i64::from(byte == 1))),
            _ => self.value(kind, depth - 1),
        }
    }

    /// Refuses more elements, of at least so many bytes, than there are bytes.
    fn check_count(&self, count: u64, least: u64) -> Result<(), String> {
        if count <= self.0.len() as u64 / least {
            return Ok(());
        }
        Err(format!("damaged: its metadata claims a list of {count}, which is longer than the file"))
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        let kind = head & 15;
        // A structure that says anything takes three bytes.
        self.check_count(count, if kind == 12 { 3 } else { 1 })?;
        (0..count).map(|_| self.element(kind, depth)).collect::<Result<_, _>>().map(Value::List)
    }

    fn map(&mut self, depth: usize) -> Result<Value, String> {
        let count = self.varint()?;
        self.check_count(count, 2)?;
        let kinds = if count == 0 { 0 } else { self.byte()? };
        for _ in 0..count {
            self.element(kinds >> 4, depth)?;
            self.element(kinds & 15, depth)?;
        }
        Ok(Value::Other)
    }

    fn structure(&mut self, depth: usize) -> Result<Value, String> {
        let (mut fields, mut id) = (Vec::new(), 0);
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(Value::Struct(fields));
            }
            id = if head >> 4 == 0 { self.zigzag()? } else { id + i64::from(head >> 4) };
            fields.push((id, self.value(head & 15, depth - 1)?));
        }
    }
}

/// Checks the end of a Parquet file: that its metadata is there and whole, claims no list that it does not hold, and
/// that columns nest no deeper than any data set's.
pub(crate) fn check_footer(file: &[u8]) -> Result<(), String> {
    let (rest, end) = file.split_last_chunk::<8>().ok_or("no Parquet file: it is too short")?;
    match &end[4..] {
        b"PAR1" => {}
        b"PARE" => return Err("encrypted, which is not supported; decrypt it".to_owned()),
        _ => return Err("no Parquet file, or its end is missing".to_owned()),
    }
    let length = u32::from_le_bytes([end[0], end[1], end[2], end[3]]) as usize;
    if length > rest.len() {
        return Err("damaged: its metadata is longer than the file".to_owned());
    }
    if length > MOST_METADATA {
        return Err(format!(
            "its metadata has {length} bytes, where {MOST_METADATA} are allowed; write fewer row groups"
        ));
    }
    let metadata = Input(&rest[rest.len() - length..]).structure(DEEPEST_VALUE)?;
    let Some(Value::List(elements)) = metadata.field(2) else {
        return Err("damaged: its metadata has no columns".to_owned());
    };
    check_nesting(elements)
}

/// Checks a tree of columns, which is stored as a list in which each group says how many of the next belong to it.
fn check_nesting(elements: &[Value]) -> Result<(), String> {
    let mut open: Vec<usize> = Vec::new();
    for element in elements {
        if let Some(children) = open.last_mut() {
            *children -= 1;
        }
        let children = element.integer(5).unwrap_or(0);
        let children = usize::try_from(children).ok().filter(|children| *children < elements.len());
        open.push(children.ok_or("damaged: a column claims more parts than there are")?);
        if open.len() > DEEPEST_COLUMN {
            return Err(format!("its columns nest deeper than {DEEPEST_COLUMN} levels, which is not supported"));
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    Ok(())
}

/// How the pages of a column are compressed, as far as it matters here.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Packing {
    /// By a codec that reports the size of what it holds, or not at all.
    Sized,
    /// By gzip, whose contents may be of any size.
    Gzip,
}

/// Checks the pages of a column before they are decoded: their sizes, and that they hold no more than `values` values.
pub(crate) fn check_pages(chunk: &[u8], packing: Packing, values: i64) -> Result<(), String> {
    let (mut input, mut left) = (Input(chunk), u64::try_from(values).map_err(|error| error.to_string())?);
    while !input.0.is_empty() {
        let header = input.structure(DEEPEST_VALUE)?;
        let size = header.integer(2).filter(|size| (0..=LARGEST_PAGE).contains(size));
        let size = size.ok_or_else(|| format!("a page that is not between 0 and {LARGEST_PAGE} bytes"))? as u64;
        let stored = header.integer(3).and_then(|size| u64::try_from(size).ok());
        let page = input.take(stored.ok_or("damaged: a page of a negative size")?)?;
        let count = |id: i64| header.field(id).map(|part| part.integer(1).and_then(|count| u64::try_from(count).ok()));
        for count in [5, 8].into_iter().filter_map(count) {
            left = count.and_then(|count| left.checked_sub(count)).ok_or("damaged: more values than it claims")?;
        }
        for (id, encoding) in [(5, 2), (7, 2), (8, 4)] {
            header.field(id).map_or(Ok(()), |part| check_encoding(part.integer(encoding)))?;
        }
        // An entry of a dictionary takes a byte at least.
        if let Some(entries) = count(7)
            && entries.is_none_or(|entries| entries > size)
        {
            return Err("damaged: a dictionary claims more entries than it has bytes".to_owned());
        }
        if packing == Packing::Gzip {
            check_gzip(&header, page, size)?;
        }
    }
    Ok(())
}

/// Checks that values are encoded in a way whose decoder reserves no more than it was asked for. Those for texts that
/// store differences believe counts of their own, which lie within compressed bytes.
fn check_encoding(encoding: Option<i64>) -> Result<(), String> {
    let name = match encoding {
        // Plain, dictionaries of both versions, runs, packed bits, differences of numbers, split streams of bytes.
        Some(0 | 2 | 3 | 4 | 5 | 8 | 9) => return Ok(()),
        Some(6) => "DELTA_LENGTH_BYTE_ARRAY",
        Some(7) => "DELTA_BYTE_ARRAY",
        Some(10) => "ALP",
        Some(_) | None => return Err("damaged: a page of an unknown encoding".to_owned()),
    };
    Err(format!("is encoded as {name}, which is not supported; write it with a dictionary, or plain"))
}

/// Checks that a page of gzip holds no more bytes than it claims.
fn check_gzip(header: &Value, page: &[u8], size: u64) -> Result<(), String> {
    let levels = |id: i64| header.field(8).and_then(|part| part.integer(id)).unwrap_or(0);
    let compressed = header.field(8).and_then(|part| part.integer(7)) != Some(0);
    let plain = usize::try_from(levels(5).saturating_add(levels(6))).unwrap_or(usize::MAX).min(page.len());
    if !compressed || size == 0 {
        return Ok(());
    }
    let mut bounded = MultiGzDecoder::new(&page[plain..]).take(size + 1);
    let found = io::copy(&mut bounded, &mut io::sink()).map_err(|error| format!("damaged: {error}"))?;
    if found > size { Err("damaged: a page holds more bytes than it claims".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// A file of nothing but metadata.
    fn file(metadata: &[u8]) -> Vec<u8> {
        let length = u32::try_from(metadata.len()).expect("small metadata").to_le_bytes();
        [metadata, &length, b"PAR1"].concat()
    }

    /// Metadata of columns, each by its number of children, in a structure that a list is in.
    fn columns(children: &[u8]) -> Vec<u8> {
        let mut metadata = vec![0x29, 0xfc];
        let count = children.len();
        metadata.extend([(count & 0x7f) as u8 | 0x80, (count >> 7 & 0x7f) as u8 | 0x80, (count >> 14) as u8]);
        children.iter().for_each(|children| metadata.extend([0x55, children * 2, 0]));
        metadata.push(0);
        metadata
    }

    #[track_caller]
    fn refused(file: &[u8], expected: &str) {
        let reason = check_footer(file).expect_err("not sound");
        assert!(reason.contains(expected), "{reason}");
    }

    #[test]
    fn metadata_that_is_not_believed() {
        assert_eq!(check_footer(&file(&columns(&[2, 0, 0]))), Ok(()));
        refused(b"PAR1", "too short");
        refused(b"12345678PARE", "encrypted");
        refused(b"text,label\na,1\n", "no Parquet file");
        refused(&[&100u32.to_le_bytes()[..], b"PAR1"].concat(), "longer than the file");
        refused(&file(&columns(&[1; 100_000])), "deeper than 32 levels");
        refused(&file(&columns(&[3, 0, 0])), "more parts than there are");
        refused(&file(&[0x15, 0x02, 0]), "no columns");
        // A list of 2^28 structures; a structure in structures; a number without an end.
        refused(&file(&[0x29, 0xfc, 0xff, 0xff, 0xff, 0x7f, 0, 0]), "a list of 268435455");
        refused(&file(&[0x1c; 1000]), "deeper than 24 levels");
        refused(&file(&[&[0x15][..], &[0xff; 12]].concat()), "without an end");
        refused(&file(&[0x18, 0x7f, 0]), "ends too early");
        // A map of 2^60 pairs of truth values.
        let pairs = [&[0x1b][..], &[0xff; 8], &[0x0f, 0x11, 0]].concat();
        refused(&file(&pairs), "a list of 1152921504606846975");
        refused(&file(&[0x1e, 0]), "unknown type 14");
    }

    /// A data page of `count` values that claims to be of `size` bytes.
    fn page(count: u8, size: u8, encoding: u8, content: &[u8]) -> Vec<u8> {
        let stored = u8::try_from(content.len()).expect("a small page");
        let number = |number: u8| [0x15, (number & 0x3f) << 1 | 0x80, number >> 6];
        let part = [&[0x2c][..], &number(count), &number(encoding), &[0]].concat();
        [&number(0)[..], &number(size), &number(stored), &part, &[0], content].concat()
    }

    #[test]
    fn pages_that_are_not_believed() {
        let two = [page(3, 4, 0, b"abcd"), page(2, 4, 8, b"abcd")].concat();
        assert_eq!(check_pages(&two, Packing::Sized, 5), Ok(()));
        assert!(check_pages(&two, Packing::Sized, 4).is_err_and(|reason| reason.contains("more values")));
        assert!(check_pages(&two[..two.len() - 1], Packing::Sized, 5).is_err());
        assert!(check_pages(&two, Packing::Sized, -1).is_err());
        for (encoding, expected) in [(7, "encoded as DELTA_BYTE_ARRAY"), (77, "unknown encoding")] {
            let reason = check_pages(&page(1, 4, encoding, b"abcd"), Packing::Sized, 1).expect_err("not supported");
            assert!(reason.contains(expected), "{reason}");
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&[7; 100]).expect("memory is there");
        let packed = packed.finish().expect("memory is there");
        assert_eq!(check_pages(&page(1, 100, 0, &packed), Packing::Gzip, 1), Ok(()));
        let reason = check_pages(&page(1, 99, 0, &packed), Packing::Gzip, 1).expect_err("a byte too many");
        assert!(reason.contains("more bytes than it claims"), "{reason}");
    }
}
