//! The values of one leaf of a column, with their levels.

use std::cell::Cell as Counter;

use bytes::Bytes;
use parquet::basic::{Compression, ConvertedType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::RowGroupReader;

use super::thrift::{Packing, check_pages};
use crate::data::cell::Cell;
use crate::data::lines::utf8;
use crate::data::table::Reading;

/// A group of rows of a file.
pub(super) struct Group<'a> {
    /// The file.
    pub(super) bytes: &'a Bytes,
    pub(super) reader: &'a dyn RowGroupReader,
    pub(super) budget: &'a Budget<'a>,
}

/// How much text may still be read.
pub(super) struct Budget<'a> {
    reading: Reading<'a>,
    bytes: Counter<u64>,
}

impl<'a> Budget<'a> {
    pub(super) fn new(reading: Reading<'a>) -> Self {
        Self { reading, bytes: Counter::new(reading.limits.file_bytes) }
    }

    fn text(&self, value: &ByteArray) -> Result<Cell, String> {
        self.reading.check_bytes(value.len())?;
        let limit = self.reading.limits.file_bytes;
        let left = self.bytes.get().checked_sub(value.len() as u64);
        self.bytes.set(left.ok_or_else(|| {
            format!("all texts up to here have more than {limit} bytes, which is the limit; give a part of the file")
        })?);
        utf8(value.data()).map(|text| Cell::Text(text.to_owned()))
    }
}

/// The values of a leaf in one group of rows. They become cells when they are asked for.
pub(super) struct Leaf<'a> {
    values: Box<dyn Iterator<Item = Result<Cell, String>> + 'a>,
    /// Empty where nothing can be null.
    definitions: Vec<i16>,
    /// Empty where nothing is a list.
    repetitions: Vec<i16>,
    /// The definition level of a value.
    most: i16,
    levels: usize,
    /// The next level.
    at: usize,
}

impl Leaf<'_> {
    pub(super) fn definition(&self) -> Result<i16, String> {
        if self.ended() {
            return Err("damaged: its parts differ in length".to_owned());
        }
        Ok(self.definitions.get(self.at).copied().unwrap_or(self.most))
    }

    /// `None` behind the last value.
    pub(super) fn repetition(&self) -> Option<i16> {
        (!self.ended()).then(|| self.repetitions.get(self.at).copied().unwrap_or(0))
    }

    pub(super) fn ended(&self) -> bool {
        self.at == self.levels
    }

    pub(super) fn next(&mut self) -> Result<Cell, String> {
        let there = self.definition()? >= self.most;
        self.at += 1;
        if !there {
            return Ok(Cell::Null);
        }
        self.values.next().unwrap_or_else(|| Err("damaged: it has fewer values than it claims".to_owned()))
    }
}

impl<'a> Group<'a> {
    /// Reads a leaf by its number.
    pub(super) fn leaf(&self, leaf: usize) -> Result<Leaf<'a>, String> {
        let chunk = self.reader.metadata().column(leaf);
        check_chunk(self.bytes, chunk)?;
        let kind = chunk.column_descr().converted_type();
        let budget = self.budget;
        match self.reader.get_column_reader(leaf).map_err(|error| format!("damaged: {error}"))? {
            ColumnReader::BoolColumnReader(reader) => self.decode(reader, chunk, |flag| Ok(Cell::Flag(flag))),
            ColumnReader::Int32ColumnReader(reader) if kind == ConvertedType::UINT_32 => {
                self.decode(reader, chunk, |number| Ok(Cell::Integer(i64::from(number as u32))))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                self.decode(reader, chunk, |number| Ok(Cell::Integer(i64::from(number))))
            }
            ColumnReader::Int64ColumnReader(reader) if kind == ConvertedType::UINT_64 => {
                self.decode(reader, chunk, |number| Ok(Cell::unsigned(number as u64)))
            }
            ColumnReader::Int64ColumnReader(reader) => self.decode(reader, chunk, |number| Ok(Cell::Integer(number))),
            ColumnReader::FloatColumnReader(reader) => {
                self.decode(reader, chunk, |number| Ok(Cell::Number(f64::from(number))))
            }
            ColumnReader::DoubleColumnReader(reader) => self.decode(reader, chunk, |number| Ok(Cell::Number(number))),
            ColumnReader::ByteArrayColumnReader(reader) => self.decode(reader, chunk, |text| budget.text(&text)),
            ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => {
                Err("holds values of an unsupported type".to_owned())
            }
        }
    }

    fn decode<T: DataType>(
        &self,
        mut reader: ColumnReaderImpl<T>,
        chunk: &ColumnChunkMetaData,
        cell: impl FnMut(T::T) -> Result<Cell, String> + 'a,
    ) -> Result<Leaf<'a>, String> {
        let rows = self.rows();
        let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let read = reader.read_records(rows, Some(&mut definitions), Some(&mut repetitions), &mut values);
        let (records, _, levels) = read.map_err(|error| format!("damaged: {error}"))?;
        if records != rows {
            return Err(format!("damaged: it has {records} values for {rows} rows"));
        }
        let (values, most) = (Box::new(values.into_iter().map(cell)), chunk.column_descr().max_def_level());
        Ok(Leaf { values, definitions, repetitions, most, levels, at: 0 })
    }

    pub(super) fn rows(&self) -> usize {
        // The number was found to be positive and small.
        self.reader.metadata().num_rows() as usize
    }
}

/// Checks what the file claims about a part of a column before it is decoded.
fn check_chunk(bytes: &Bytes, chunk: &ColumnChunkMetaData) -> Result<(), String> {
    let packing = match chunk.compression() {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_) => Packing::Sized,
        Compression::GZIP(_) => Packing::Gzip,
        other @ (Compression::LZO | Compression::BROTLI(_) | Compression::LZ4 | Compression::LZ4_RAW) => {
            return Err(format!("is compressed with {other}; write it with snappy, gzip or zstd"));
        }
    };
    let (start, length) = chunk.byte_range();
    let end = start.checked_add(length).filter(|end| *end <= bytes.len() as u64);
    let end = end.ok_or("damaged: it lies outside of the file")?;
    check_pages(&bytes[start as usize..end as usize], packing, chunk.num_values())
}
