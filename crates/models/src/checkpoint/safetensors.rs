//! The header of a safetensors file.

use std::collections::BTreeMap;

use safetensors::tensor::Metadata;

use super::stored::Stored;

/// Bytes of the length field in front of a header.
const LENGTH_FIELD: usize = 8;
/// The largest header that is parsed; the format's own limit.
const HEADER_LIMIT: u64 = 100_000_000;

/// Parses a header and checks that the tensors it lists fill the file exactly, one after the other, each with as many
/// bytes as its shape and dtype need.
pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Stored>, String> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_FIELD>() else {
        return Err(format!("it has {} bytes, fewer than its length field", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT {
        return Err(format!("it claims a header of {length} bytes, more than the format's {HEADER_LIMIT}"));
    }
    let header = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let Some((header, data)) = header else {
        return Err(format!("it claims a header of {length} bytes, but ends after {}", rest.len()));
    };
    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| format!("in its header: {error}"))?;
    if metadata.data_len() != data.len() {
        return Err(format!("its tensors take {} bytes, but {} follow the header", metadata.data_len(), data.len()));
    }
    let data_start = LENGTH_FIELD + header.len();
    let stored = metadata.tensors().into_iter().map(|(name, info)| {
        let start = data_start + info.data_offsets.0;
        (name, Stored { dtype: info.dtype, shape: info.shape.clone(), strides: None, start })
    });
    Ok(stored.collect())
}
