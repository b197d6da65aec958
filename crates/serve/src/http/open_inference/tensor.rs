//! An input in JSON: its values are in the JSON, or bytes behind it.

use std::fmt;

use centuple_tasks::TaskError;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, SeqAccess, Visitor},
};

use crate::open_inference::{Claim, Tensor, invalid};

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

impl Header {
    /// Reads the tensor; one of bytes takes them from the front of `binary`, where the body has any.
    pub(super) fn read(self, binary: Option<&mut &[u8]>) -> Result<Tensor, TaskError> {
        let Header { name, shape, datatype, data, parameters } = self;
        let claim = Claim::new(name, &shape, &datatype)?;
        let Parameters { binary_data_size, shared_memory_region } = parameters.unwrap_or_default();
        if shared_memory_region.is_some() {
            return Err(invalid(claim.name(), "shared memory is not supported; send the tensor in the body"));
        }
        let name = claim.name();
        match (data, binary_data_size, binary) {
            (Some(_), Some(_), _) => Err(invalid(name, "it has both `data` and `binary_data_size`; send one of them")),
            (None, None, _) => Err(invalid(name, "it has neither `data` nor `binary_data_size`")),
            (Some(Data { texts, integers }), None, _) => claim.values(texts, integers),
            (None, Some(_), None) => {
                let reason = "it has `binary_data_size`, but the request lacks the header \
                              `Inference-Header-Content-Length`";
                Err(invalid(name, reason))
            }
            (None, Some(size), Some(binary)) => {
                let bytes = take(name, size, binary)?;
                claim.bytes(bytes)
            }
        }
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
        let header: Header = serde_json::from_value(header).map_err(|error| error.to_string())?;
        header.read(Some(&mut binary)).map_err(|error| error.to_string())
    }

    #[test]
    fn nested_and_flat_lists_are_the_same() {
        let header = |data| json!({"name": "a", "shape": [2, 2], "datatype": "INT64", "data": data});
        let flat = read(header(json!([1, 2, 3, -4])), b"");
        assert!(flat.is_ok());
        assert_eq!(flat, read(header(json!([[1, 2], [3, -4]])), b""));
        assert_ne!(flat, read(header(json!([[1, 2], [3, 4]])), b""));
    }

    proptest! {
        #[test]
        fn only_bytes_that_are_there_are_taken(
            size in prop_oneof![0u64..40, any::<u64>()],
            binary in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let header = json!({
                "name": "a", "shape": [size / 8], "datatype": "INT64", "parameters": {"binary_data_size": size}
            });
            prop_assert_eq!(read(header, &binary).is_ok(), size % 8 == 0 && size <= binary.len() as u64);
        }
    }
}
