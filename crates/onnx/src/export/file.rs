//! Writing: constants go from where they lie to the file, one after the other.

use std::io::{self, Write};

use centuple_tensor::{DType, Tensor};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::Exported;
use super::emitter::{Content, Initializer};
use crate::proto::tensor_proto::{DataLocation, DataType};
use crate::proto::{StringStringEntryProto, TensorProto};

/// Largest file that readers of protobuf take: 2 GiB.
pub const DATA_LIMIT: u64 = (1 << 31) - 1;
/// Constants below this many bytes stay in the model file.
const SMALL: usize = 1024;
/// Where constants begin in a file of their own, so that it can be mapped.
const ALIGNMENT: u64 = 4096;

/// Field numbers of ModelProto.graph, GraphProto.initializer and TensorProto.raw_data.
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

/// What has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the model file.
    pub model: u64,
    /// Bytes of the file of constants, where there is one.
    pub data: Option<u64>,
}

impl Exported {
    /// Bytes of the file with all constants in it.
    pub fn len(&self) -> u64 {
        let Headers { shell, graph, initializers } = self.headers(None);
        shell.len() as u64 + field_len(GRAPH, body_len(&graph, &self.initializers, &initializers))
    }

    /// Whether there is nothing to write; there always is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the model. Where the file would be larger than `limit` bytes, its constants go to a second one, which `data`
    /// opens and which the first calls `location`.
    ///
    /// # Errors
    /// What writing says.
    pub fn write<D: Write>(
        &self,
        out: &mut dyn Write,
        limit: u64,
        location: &str,
        data: impl FnOnce() -> io::Result<D>,
    ) -> io::Result<Written> {
        if self.len() <= limit {
            return Ok(Written { model: self.write_model(out, None)?, data: None });
        }
        let mut data = data()?;
        let mut at = 0u64;
        for initializer in self.initializers.iter().filter(|initializer| initializer.bytes() >= SMALL) {
            let begin = at.next_multiple_of(ALIGNMENT);
            data.write_all(&vec![0; usize::try_from(begin - at).unwrap_or_default()])?;
            initializer.content.write(&mut data)?;
            at = begin + initializer.bytes() as u64;
        }
        data.flush()?;
        Ok(Written { model: self.write_model(out, Some(location))?, data: Some(at) })
    }

    /// The whole file in memory.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to memory can't fail.
        let _ = self.write_model(&mut bytes, None);
        bytes
    }

    fn write_model(&self, out: &mut dyn Write, location: Option<&str>) -> io::Result<u64> {
        let Headers { shell, graph, initializers } = self.headers(location);
        let body = body_len(&graph, &self.initializers, &initializers);
        let mut head = shell;
        encode_key(GRAPH, WireType::LengthDelimited, &mut head);
        encode_varint(body, &mut head);
        out.write_all(&head)?;
        out.write_all(&graph)?;
        for (initializer, header) in self.initializers.iter().zip(&initializers) {
            let mut head = Vec::new();
            encode_key(INITIALIZER, WireType::LengthDelimited, &mut head);
            encode_varint(header.len(initializer), &mut head);
            head.extend_from_slice(&header.message);
            if header.inline {
                encode_key(RAW_DATA, WireType::LengthDelimited, &mut head);
                encode_varint(initializer.bytes() as u64, &mut head);
            }
            out.write_all(&head)?;
            if header.inline {
                initializer.content.write(out)?;
            }
        }
        out.flush()?;
        Ok(head.len() as u64 + body)
    }

    fn headers(&self, location: Option<&str>) -> Headers {
        let mut shell = self.model.clone();
        let graph = shell.graph.take().unwrap_or_default();
        let mut at = 0u64;
        let mut header = |initializer: &Initializer| {
            let external = location.filter(|_| initializer.bytes() >= SMALL);
            let external = external.map(|location| {
                let begin = at.next_multiple_of(ALIGNMENT);
                at = begin + initializer.bytes() as u64;
                (location, begin)
            });
            Header::new(initializer, external)
        };
        let initializers = self.initializers.iter().map(&mut header).collect();
        Headers { shell: shell.encode_to_vec(), graph: graph.encode_to_vec(), initializers }
    }
}

/// The messages around the constants.
struct Headers {
    /// The model without its graph.
    shell: Vec<u8>,
    /// The graph without its initializers.
    graph: Vec<u8>,
    initializers: Vec<Header>,
}

/// A constant's message without its elements.
struct Header {
    message: Vec<u8>,
    /// Whether the elements follow.
    inline: bool,
}

impl Header {
    fn new(initializer: &Initializer, external: Option<(&str, u64)>) -> Header {
        let (data_type, dims) = initializer.content.fact();
        let mut tensor = TensorProto {
            name: initializer.name.clone(),
            data_type: data_type.into(),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            ..TensorProto::default()
        };
        if let Some((location, offset)) = external {
            let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
            tensor.external_data = vec![
                entry("location", location.to_owned()),
                entry("offset", offset.to_string()),
                entry("length", initializer.bytes().to_string()),
            ];
            tensor.data_location = DataLocation::External.into();
        }
        Header { message: tensor.encode_to_vec(), inline: external.is_none() }
    }

    /// Bytes of the message with the elements.
    fn len(&self, initializer: &Initializer) -> u64 {
        let elements = if self.inline { field_len(RAW_DATA, initializer.bytes() as u64) } else { 0 };
        self.message.len() as u64 + elements
    }
}

/// Bytes of the graph's message.
fn body_len(graph: &[u8], initializers: &[Initializer], headers: &[Header]) -> u64 {
    let fields =
        initializers.iter().zip(headers).map(|(initializer, header)| field_len(INITIALIZER, header.len(initializer)));
    graph.len() as u64 + fields.sum::<u64>()
}

/// Bytes of a field of so many bytes, its key and length included.
fn field_len(tag: u32, bytes: u64) -> u64 {
    key_len(tag) as u64 + encoded_len_varint(bytes) as u64 + bytes
}

impl Initializer {
    /// Bytes of the elements.
    fn bytes(&self) -> usize {
        match &self.content {
            Content::Tensor(tensor) | Content::Transposed(tensor) => tensor.bytes().len(),
            Content::Joined(tensors) => tensors.iter().map(|tensor| tensor.bytes().len()).sum(),
            Content::Computed { bytes, .. } => bytes.len(),
        }
    }
}

impl Content {
    /// Type and shape.
    fn fact(&self) -> (DataType, Vec<usize>) {
        match self {
            Content::Tensor(tensor) => (data_type(tensor.dtype()), tensor.shape().to_vec()),
            Content::Transposed(tensor) => (data_type(tensor.dtype()), tensor.shape().iter().rev().copied().collect()),
            Content::Joined(tensors) => {
                let rows = tensors.iter().map(|tensor| tensor.shape().first().copied().unwrap_or(0)).sum();
                let first = tensors.first();
                let columns = first.and_then(|tensor| tensor.shape().get(1).copied());
                let dtype = first.map_or(DataType::Float, |tensor| data_type(tensor.dtype()));
                (dtype, columns.into_iter().chain([rows]).collect())
            }
            Content::Computed { data_type, dims, .. } => (*data_type, dims.clone()),
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Content::Tensor(tensor) => out.write_all(tensor.bytes()),
            Content::Transposed(tensor) => write_transposed(std::slice::from_ref(tensor), out),
            Content::Joined(tensors) => write_transposed(tensors, out),
            Content::Computed { bytes, .. } => out.write_all(bytes),
        }
    }
}

/// Writes column by column what lies row by row; vectors as they are.
fn write_transposed(tensors: &[Tensor], out: &mut dyn Write) -> io::Result<()> {
    let size = tensors.first().map_or(1, |tensor| tensor.dtype().size());
    let columns = tensors.first().and_then(|tensor| tensor.shape().get(1).copied()).unwrap_or(1);
    // So many columns at a time that lines of memory are read once.
    let block = 64 / size;
    let rows: usize = tensors.iter().map(|tensor| tensor.len() / columns.max(1)).sum();
    for first in (0..columns).step_by(block) {
        let width = block.min(columns - first);
        let mut part = vec![0u8; width * rows * size];
        let elements =
            tensors.iter().flat_map(|tensor| tensor.bytes().chunks_exact((columns * size).max(1))).enumerate();
        for (row, bytes) in elements {
            let bytes = bytes.get(first * size..(first + width) * size).unwrap_or_default();
            for (column, element) in bytes.chunks_exact(size).enumerate() {
                let at = (column * rows + row) * size;
                part[at..at + size].copy_from_slice(element);
            }
        }
        out.write_all(&part)?;
    }
    Ok(())
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I8 => DataType::Int8,
        DType::I64 => DataType::Int64,
    }
}
