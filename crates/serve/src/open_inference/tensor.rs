//! One input tensor: its shape, its type and its values, as a list or as bytes.
//!
//! What a client claims is only ever compared with what it has sent; nothing is reserved by it.

use std::fmt;

use centuple_tasks::TaskError;

/// A tensor whose number of values is that of its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

impl Tensor {
    /// Its texts, if that is what it has.
    pub(crate) fn into_texts(self) -> Option<Vec<String>> {
        match self.values {
            Values::Texts(texts) => Some(texts),
            Values::Integers(_) => None,
        }
    }
}

/// The values of a tensor, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Values {
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
pub(crate) fn invalid(name: &str, reason: impl fmt::Display) -> TaskError {
    TaskError::Shape { field: "inputs".into(), message: format!("input `{name}`: {reason}") }
}

/// What a client says of a tensor before its values.
pub(crate) struct Claim {
    name: String,
    shape: Vec<usize>,
    datatype: Type,
    /// Number of values of that shape.
    count: usize,
}

impl Claim {
    /// Checks what can be checked without the values.
    pub(crate) fn new(name: String, shape: &[i64], datatype: &str) -> Result<Self, TaskError> {
        let shape = shape
            .iter()
            .map(|&dim| usize::try_from(dim).map_err(|_| invalid(&name, format!("dimension {dim} is negative"))))
            .collect::<Result<Vec<_>, _>>()?;
        let count = shape.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim));
        let count = count.ok_or_else(|| invalid(&name, "the shape has more elements than can be counted"))?;
        let datatype = match datatype {
            "BYTES" => Type::Bytes,
            "INT32" => Type::Int32,
            "INT64" => Type::Int64,
            _ => {
                let reason = format!("datatype `{datatype}` is not taken; texts are BYTES, tokens INT64 or INT32");
                return Err(invalid(&name, reason));
            }
        };
        Ok(Self { name, shape, datatype, count })
    }

    /// The tensor's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The tensor of these values, of which one list must be empty.
    pub(crate) fn values(self, texts: Vec<String>, integers: Vec<i64>) -> Result<Tensor, TaskError> {
        let name = &self.name;
        let (values, found) = match self.datatype {
            Type::Bytes if !integers.is_empty() => return Err(invalid(name, "BYTES must be texts, not integers")),
            Type::Int32 | Type::Int64 if !texts.is_empty() => {
                return Err(invalid(name, "its values are texts, but the datatype is one of integers"));
            }
            Type::Bytes => {
                let found = texts.len();
                (Values::Texts(texts), found)
            }
            Type::Int32 | Type::Int64 => {
                if self.datatype == Type::Int32
                    && let Some(value) = integers.iter().find(|value| i32::try_from(**value).is_err())
                {
                    return Err(invalid(name, format!("{value} is no INT32")));
                }
                let found = integers.len();
                (Values::Integers(integers), found)
            }
        };
        if found != self.count {
            return Err(invalid(name, format!("the shape has {} elements, {found} were sent", self.count)));
        }
        Ok(Tensor { name: self.name, shape: self.shape, values })
    }

    /// The tensor of values that lie one behind the other, in little-endian order.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<Tensor, TaskError> {
        let Self { name, shape, datatype, count } = self;
        let integers = |width: usize| match count.checked_mul(width) == Some(bytes.len()) {
            true => Ok(()),
            false => {
                let reason = format!("{count} elements of {width} bytes are not the {} bytes sent", bytes.len());
                Err(invalid(&name, reason))
            }
        };
        let values = match datatype {
            Type::Bytes => Values::Texts(texts(&name, bytes, count)?),
            Type::Int32 => {
                integers(4)?;
                Values::Integers(bytes.as_chunks().0.iter().map(|four| i32::from_le_bytes(*four).into()).collect())
            }
            Type::Int64 => {
                integers(8)?;
                Values::Integers(bytes.as_chunks().0.iter().map(|eight| i64::from_le_bytes(*eight)).collect())
            }
        };
        Ok(Tensor { name, shape, values })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(shape: &[i64], datatype: &str, bytes: &[u8]) -> Result<Tensor, String> {
        let claim = Claim::new("a".into(), shape, datatype);
        claim.and_then(|claim| claim.bytes(bytes)).map_err(|error| error.to_string())
    }

    fn packed(texts: &[&[u8]]) -> Vec<u8> {
        texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text].concat()).collect()
    }

    #[test]
    fn bytes_of_each_type() {
        let eight = [5i64.to_le_bytes(), (-1i64).to_le_bytes()].concat();
        assert_eq!(read(&[2], "INT64", &eight).unwrap().values, Values::Integers(vec![5, -1]));
        let four = [5i32.to_le_bytes(), (-1i32).to_le_bytes()].concat();
        assert_eq!(read(&[2], "INT32", &four).unwrap().values, Values::Integers(vec![5, -1]));
        let texts = packed(&["dög".as_bytes(), b""]);
        assert_eq!(read(&[2], "BYTES", &texts).unwrap().values, Values::Texts(vec!["dög".into(), String::new()]));
    }

    proptest! {
        #[test]
        fn whatever_is_claimed_is_checked(
            shape in proptest::collection::vec(prop_oneof![-3i64..5, any::<i64>()], 0..4),
            datatype in prop_oneof![Just("BYTES"), Just("INT32"), Just("INT64")],
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..4, any::<u8>()], 0..40),
        ) {
            if let Ok(tensor) = read(&shape, datatype, &bytes) {
                let count = match tensor.values {
                    Values::Texts(texts) => texts.len(),
                    Values::Integers(integers) => integers.len(),
                };
                prop_assert_eq!(count as i64, shape.iter().product::<i64>());
            }
        }
    }
}
