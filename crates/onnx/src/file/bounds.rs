//! A walk over the bytes of a file before they are decoded.
//!
//! It knows which fields are messages, so it can say how much memory decoding takes and how deep messages are nested, and
//! refuses what would take more than a sound file of that size.

use crate::proto;

/// Messages within messages; a graph within a node takes three levels.
const DEPTH: usize = 40;
/// Bytes of a name.
const NAME: usize = 16 << 10;
/// Memory that any file may take.
const BASE: usize = 64 << 20;
/// Memory for each byte of a file beyond that.
const FACTOR: usize = 16;

/// The messages that occur in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Model,
    Opset,
    Entry,
    Graph,
    Node,
    Attribute,
    Tensor,
    Segment,
    Sparse,
    Value,
    Type,
    TensorType,
    ListType,
    MapType,
    Shape,
    Dimension,
    Annotation,
    Function,
}

/// What a field with a length holds.
enum Field {
    Message(Message),
    Name,
    Bytes,
}

impl Message {
    /// Memory of a decoded one, without what it refers to.
    fn size(self) -> usize {
        match self {
            Message::Model => size_of::<proto::ModelProto>(),
            Message::Opset => size_of::<proto::OperatorSetIdProto>(),
            Message::Entry => size_of::<proto::StringStringEntryProto>(),
            Message::Graph => size_of::<proto::GraphProto>(),
            Message::Node => size_of::<proto::NodeProto>(),
            Message::Attribute => size_of::<proto::AttributeProto>(),
            Message::Tensor => size_of::<proto::TensorProto>(),
            Message::Segment => size_of::<proto::tensor_proto::Segment>(),
            Message::Sparse => size_of::<proto::SparseTensorProto>(),
            Message::Value => size_of::<proto::ValueInfoProto>(),
            Message::Type | Message::TensorType | Message::ListType | Message::MapType => size_of::<proto::TypeProto>(),
            Message::Shape => size_of::<proto::TensorShapeProto>(),
            Message::Dimension => size_of::<proto::tensor_shape_proto::Dimension>(),
            Message::Annotation => size_of::<proto::TensorAnnotation>(),
            Message::Function => size_of::<proto::FunctionProto>(),
        }
    }

    /// What a field with a length holds, by the numbers of `proto/onnx.proto`.
    fn field(self, number: u64) -> Field {
        use Message::{
            Annotation, Attribute, Dimension, Entry, Function, Graph, ListType, MapType, Model, Node, Opset, Segment,
            Shape, Sparse, Tensor, TensorType, Type, Value,
        };
        let message = match (self, number) {
            (Model, 7) | (Attribute, 6 | 11) => Graph,
            (Model, 8) | (Function, 9) => Opset,
            (Model | Function, 14) | (Graph | Tensor, 16) | (Node, 9) | (Tensor, 13) | (Value, 4) => Entry,
            (Annotation, 2) => Entry,
            (Model, 25) => Function,
            (Graph, 1) | (Function, 7) => Node,
            (Graph, 5) | (Attribute, 5 | 10) | (Sparse, 1 | 2) => Tensor,
            (Graph, 11..=13) | (Function, 12) => Value,
            (Graph, 14) => Annotation,
            (Graph, 15) | (Attribute, 22 | 23) => Sparse,
            (Node, 5) | (Function, 11) => Attribute,
            (Attribute, 14 | 15) | (Value | MapType, 2) | (ListType, 1) => Type,
            (Tensor, 3) => Segment,
            (Type, 1 | 8) => TensorType,
            (Type, 4 | 9) => ListType,
            (Type, 5) => MapType,
            (TensorType, 2) => Shape,
            (Shape, 1) => Dimension,
            (Node, 1..=4 | 7 | 8) | (Attribute, 1 | 21) | (Tensor | Function, 8) | (Value, 1) => return Field::Name,
            (Function, 1 | 4..=6 | 10) | (Annotation | Opset, 1) | (Dimension, 2) => return Field::Name,
            _ => return Field::Bytes,
        };
        Field::Message(message)
    }
}

/// Checks that `bytes`, decoded as a model, take memory in proportion to their length and no deep stack.
///
/// # Errors
/// What is wrong and at which byte.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    let mut walk = Walk { bytes, place: 0, memory: 0, limit: BASE.saturating_add(bytes.len().saturating_mul(FACTOR)) };
    walk.message(Message::Model, bytes.len(), 0)
}

struct Walk<'a> {
    bytes: &'a [u8],
    place: usize,
    memory: usize,
    limit: usize,
}

impl Walk<'_> {
    fn message(&mut self, message: Message, end: usize, depth: usize) -> Result<(), String> {
        if depth > DEPTH {
            return Err(self.problem("messages are nested too deeply"));
        }
        self.take(message.size())?;
        while self.place < end {
            let key = self.varint()?;
            let number = key >> 3;
            match key & 7 {
                0 => {
                    self.varint()?;
                    self.take(2 * size_of::<u64>())?;
                }
                1 => self.skip(8, end)?,
                5 => self.skip(4, end)?,
                2 => self.delimited(message.field(number), end, depth)?,
                _ => return Err(self.problem("this is no field of a protobuf message")),
            }
        }
        if self.place == end { Ok(()) } else { Err(self.problem("a field is longer than the message that it is in")) }
    }

    /// A field with a length.
    fn delimited(&mut self, field: Field, end: usize, depth: usize) -> Result<(), String> {
        let length = usize::try_from(self.varint()?).ok();
        let inner = length.and_then(|length| self.place.checked_add(length)).filter(|&inner| inner <= end);
        let Some(inner) = inner else { return Err(self.problem("a field is longer than the message that it is in")) };
        let length = inner - self.place;
        match field {
            Field::Message(message) => return self.message(message, inner, depth + 1),
            Field::Name if length > NAME => return Err(self.problem("a name is longer than 16 KiB")),
            Field::Name | Field::Bytes => {}
        }
        self.take(2 * size_of::<String>() + length)?;
        self.place = inner;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.place) else { return Err(self.problem("the file ends here")) };
            self.place += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.problem("a number has more than 64 bits"))
    }

    fn skip(&mut self, length: usize, end: usize) -> Result<(), String> {
        self.place += length;
        if self.place > end {
            return Err(self.problem("the file ends within a number"));
        }
        self.take(2 * length)
    }

    fn take(&mut self, memory: usize) -> Result<(), String> {
        self.memory = self.memory.saturating_add(memory);
        if self.memory > self.limit {
            return Err(self.problem("it would take far more memory than its size allows for"));
        }
        Ok(())
    }

    fn problem(&self, problem: &str) -> String {
        format!("this is no sound ONNX file: {problem} (byte {})", self.place)
    }
}
