//! One input tensor: its shape, its type and its values, in JSON or as bytes.
//!
//! What a client claims is only ever compared with what it has sent; nothing is reserved by it.

use std::fmt;

use centuple_tasks::TaskError;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, SeqAccess, Visitor},
};

/// An input as the JSON has it.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    data: Option<Data>,
    parameters: Option<Parameters>,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    binary_data_size: Option<u64>,
    shared_memory_region: Option<IgnoredAny>,
}

/// A tensor whose number of values is that of its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

/// The values of a tensor, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Values {
    Texts(Vec<String>),
    Integers(Vec<i64>),
}

/// The types that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Bytes,
    Int32,
    Int64,
}

/// An error of the input of that name.
pub(super) fn invalid(name: &str, reason: impl fmt::Display) -> TaskError {
    TaskError::Shape { field: "inputs".into(), message: format!("input `{name}`: {reason}") }
}

impl Tensor {
    /// Reads a tensor; one of bytes takes them from the front of `binary`, where the body has any.
    pub(super) fn read(header: Header, binary: Option<&mut &[u8]>) -> Result<Self, TaskError> {
        let Header { name, shape, datatype, data, parameters } = header;
        let shape = shape
            .into_iter()
            .map(|dim| usize::try_from(dim).map_err(|_| invalid(&name, format!("dimension {dim} is negative"))))
            .collect::<Result<Vec<_>, _>>()?;
        let count = shape.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim));
        let count = count.ok_or_else(|| invalid(&name, "the shape has more elements than can be counted"))?;
        let datatype = match datatype.as_str() {
            "BYTES" => Type::Bytes,
            "INT32" => Type::Int32,
            "INT64" => Type::Int64,
            _ => {
                let reason = format!("datatype `{datatype}` is not taken; texts are BYTES, tokens INT64 or INT32");
                return Err(invalid(&name, reason));
            }
        };
        let Parameters { binary_data_size, shared_memory_region } = parameters.unwrap_or_default();
        if shared_memory_region.is_some() {
            return Err(invalid(&name, "shared memory is not supported; send the tensor in the body"));
        }
        let values = match (data, binary_data_size, binary) {
            (Some(_), Some(_), _) => {
                return Err(invalid(&name, "it has both `data` and `binary_data_size`; send one of them"));
            }
            (None, None, _) => return Err(invalid(&name, "it has neither `data` nor `binary_data_size`")),
            (Some(data), None, _) => datatype.of_json(&name, data, count)?,
            (None, Some(_), None) => {
                let reason = "it has `binary_data_size`, but the request lacks the header \
                              `Inference-Header-Content-Length`";
                return Err(invalid(&name, reason));
            }
            (None, Some(size), Some(binary)) => {
                let bytes = take(&name, size, binary)?;
                datatype.of_bytes(&name, bytes, count)?
            }
        };
        Ok(Self { name, shape, values })
    }
}

/// Takes `size` bytes from the front.
fn take<'a>(name: &str, size: u64, binary: &mut &'a [u8]) -> Result<&'a [u8], TaskError> {
    let taken = usize::try_from(size).ok().and_then(|size| binary.split_at_checked(size));
    let Some((bytes, rest)) = taken else {
        let reason = format!("`binary_data_size` is {size}, but {} bytes are left of the body", binary.len());
        return Err(invalid(name, reason));
    };
    *binary = rest;
    Ok(bytes)
}

impl Type {
    fn of_json(self, name: &str, data: Data, count: usize) -> Result<Values, TaskError> {
        let Data { texts, integers } = data;
        let (values, found) = match self {
            Type::Bytes if !integers.is_empty() => return Err(invalid(name, "BYTES in JSON must be texts")),
            Type::Int32 | Type::Int64 if !texts.is_empty() => {
                return Err(invalid(name, "`data` has texts, but the datatype is one of integers"));
            }
            Type::Bytes => {
                let found = texts.len();
                (Values::Texts(texts), found)
            }
            Type::Int32 | Type::Int64 => {
                if self == Type::Int32
                    && let Some(value) = integers.iter().find(|value| i32::try_from(**value).is_err())
                {
                    return Err(invalid(name, format!("{value} is no INT32")));
                }
                let found = integers.len();
                (Values::Integers(integers), found)
            }
        };
        if found != count {
            return Err(invalid(name, format!("the shape has {count} elements, `data` has {found}")));
        }
        Ok(values)
    }

    fn of_bytes(self, name: &str, bytes: &[u8], count: usize) -> Result<Values, TaskError> {
        let width = match self {
            Type::Bytes => return texts(name, bytes, count).map(Values::Texts),
            Type::Int32 => 4,
            Type::Int64 => 8,
        };
        if count.checked_mul(width) != Some(bytes.len()) {
            let reason = format!("{count} elements of {width} bytes don't fill `binary_data_size`, {}", bytes.len());
            return Err(invalid(name, reason));
        }
        let integers = match self {
            Type::Int32 => bytes.as_chunks().0.iter().map(|four| i32::from_le_bytes(*four).into()).collect(),
            Type::Bytes | Type::Int64 => bytes.as_chunks().0.iter().map(|eight| i64::from_le_bytes(*eight)).collect(),
        };
        Ok(Values::Integers(integers))
    }
}

/// Texts, each after its length in 4 bytes.
fn texts(name: &str, mut bytes: &[u8], count: usize) -> Result<Vec<String>, TaskError> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let element = texts.len();
        if element == count {
            return Err(invalid(name, format!("bytes are left after {count} elements, which are all of the shape")));
        }
        let broken = |what| invalid(name, format!("element {element}: {what}"));
        let (length, rest) = bytes.split_first_chunk().ok_or_else(|| broken("its length is not 4 bytes"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (text, rest) = rest.split_at_checked(length).ok_or_else(|| broken("its length is over what is left"))?;
        let text = std::str::from_utf8(text).map_err(|_| broken("it is not UTF-8"))?;
        texts.push(text.to_owned());
        bytes = rest;
    }
    if texts.len() != count {
        return Err(invalid(name, format!("the shape has {count} elements, {} were sent", texts.len())));
    }
    Ok(texts)
}

/// Values in JSON, flat or in nested lists, of one kind.
#[derive(Debug, Default)]
struct Data {
    texts: Vec<String>,
    integers: Vec<i64>,
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut data = Self::default();
        deserializer.deserialize_seq(Collect(&mut data))?;
        Ok(data)
    }
}

/// Adds what it finds.
struct Collect<'a>(&'a mut Data);

impl<'de> DeserializeSeed<'de> for Collect<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Collect<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of texts or of integers")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if !self.0.integers.is_empty() {
            return Err(E::custom("texts and integers are mixed"));
        }
        self.0.texts.push(text.to_owned());
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        if !self.0.texts.is_empty() {
            return Err(E::custom("texts and integers are mixed"));
        }
        self.0.integers.push(value);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        let value = i64::try_from(value).map_err(|_| E::custom(format!("{value} is no INT64")))?;
        self.visit_i64(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Collect(self.0))?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(header: serde_json::Value, mut binary: &[u8]) -> Result<Tensor, String> {
        let header = serde_json::from_value(header).map_err(|error| error.to_string())?;
        Tensor::read(header, Some(&mut binary)).map_err(|error| error.to_string())
    }

    fn bytes(texts: &[&[u8]]) -> Vec<u8> {
        texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text].concat()).collect()
    }

    #[test]
    fn nested_and_flat_lists_are_the_same() {
        let flat = read(json!({"name": "a", "shape": [2, 2], "datatype": "INT64", "data": [1, 2, 3, -4]}), b"");
        let nested = read(json!({"name": "a", "shape": [2, 2], "datatype": "INT64", "data": [[1, 2], [3, -4]]}), b"");
        assert_eq!(flat, nested);
        assert_eq!(flat.unwrap().values, Values::Integers(vec![1, 2, 3, -4]));
    }

    #[test]
    fn bytes_of_each_type() {
        let header = |datatype: &str, size: usize| json!({"name": "a", "shape": [2], "datatype": datatype, "parameters": {"binary_data_size": size}});
        let eight = [5i64.to_le_bytes(), (-1i64).to_le_bytes()].concat();
        assert_eq!(read(header("INT64", 16), &eight).unwrap().values, Values::Integers(vec![5, -1]));
        let four = [5i32.to_le_bytes(), (-1i32).to_le_bytes()].concat();
        assert_eq!(read(header("INT32", 8), &four).unwrap().values, Values::Integers(vec![5, -1]));
        let texts = bytes(&["dög".as_bytes(), b""]);
        assert_eq!(
            read(header("BYTES", texts.len()), &texts).unwrap().values,
            Values::Texts(vec!["dög".into(), String::new()])
        );
    }

    proptest! {
        #[test]
        fn whatever_is_claimed_is_checked(
            shape in proptest::collection::vec(prop_oneof![-3i64..5, any::<i64>()], 0..4),
            size in prop_oneof![0u64..40, any::<u64>()],
            datatype in prop_oneof![Just("BYTES"), Just("INT32"), Just("INT64")],
            binary in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 0..40),
        ) {
            let header = json!({
                "name": "a", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}
            });
            if let Ok(tensor) = read(header, &binary) {
                let count = match tensor.values {
                    Values::Texts(texts) => texts.len(),
                    Values::Integers(integers) => integers.len(),
                };
                prop_assert_eq!(count as i64, shape.iter().product::<i64>());
            }
        }
    }
}
