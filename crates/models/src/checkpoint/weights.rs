//! Tensors by name from one safetensors file or from shards.
//!
//! Files of up to [`READ_LIMIT`] bytes in total are read into memory once, larger ones are mapped.
//! F32 tensors share those bytes; F16 and BF16 are converted when [`Weights::tensor`] asks for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use centuple_tensor::{Buffer, Bytes, DType, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;

use super::CheckpointError;
use super::json::{join_inside, read_json};
use super::mapping::FileBytes;

/// Weights of up to this many bytes are read into memory; larger ones are mapped.
pub const READ_LIMIT: u64 = 1 << 30;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PICKLES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Bytes of the length field in front of a safetensors header.
const LENGTH_FIELD: usize = 8;
/// The largest header that is parsed; the format's own limit.
const HEADER_LIMIT: u64 = 100_000_000;

/// The tensors of a folder, by name.
#[derive(Debug)]
pub struct Weights {
    /// Where the tensors are, for messages: a file or a folder of shards.
    place: PathBuf,
    files: Vec<WeightFile>,
    /// Tensor name → position of its file in `files`.
    index: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    bytes: Arc<FileBytes>,
    header: Header,
}

/// The parsed header of a safetensors file.
#[derive(Debug)]
struct Header {
    metadata: Metadata,
    /// Offset of the first tensor's first byte in the file.
    data_start: usize,
}

impl Weights {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let single = folder.join(SINGLE);
        if single.exists() {
            let map = file_length(&single)? > READ_LIMIT;
            let bytes = FileBytes::open(&single, map)?;
            return Self::single(single, bytes);
        }
        let index = folder.join(INDEX);
        if index.exists() {
            return Self::sharded(folder, &index);
        }
        match PICKLES.iter().find(|file| folder.join(file).exists()) {
            Some(file) => Err(CheckpointError::OnlyPickle { folder: folder.to_path_buf(), file }),
            None => Err(CheckpointError::MissingFile { folder: folder.to_path_buf(), file: SINGLE }),
        }
    }

    /// Reads a safetensors file that is already in memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        Self::single(PathBuf::from("(memory)"), FileBytes::copy_of(bytes))
    }

    fn single(path: PathBuf, bytes: FileBytes) -> Result<Self, CheckpointError> {
        let file = WeightFile::new(path.clone(), bytes)?;
        let index = file.header.metadata.offset_keys().into_iter().map(|name| (name, 0)).collect();
        Ok(Self { place: path, files: vec![file], index })
    }

    fn sharded(folder: &Path, index_path: &Path) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }

        let Index { weight_map } = read_json(index_path)?;
        let mut shards = BTreeMap::new();
        let mut total = 0u64;
        for shard in weight_map.values() {
            if shards.contains_key(shard) {
                continue;
            }
            let path = join_inside(folder, shard).ok_or_else(|| {
                CheckpointError::config(index_path, format!("the shard `{shard}` lies outside of the model's folder"))
            })?;
            total = total.saturating_add(file_length(&path)?);
            shards.insert(shard.clone(), path);
        }
        let mut files = Vec::with_capacity(shards.len());
        let mut positions = BTreeMap::new();
        for (shard, path) in shards {
            positions.insert(shard, files.len());
            let bytes = FileBytes::open(&path, total > READ_LIMIT)?;
            files.push(WeightFile::new(path, bytes)?);
        }
        let index = weight_map.into_iter().filter_map(|(name, shard)| Some((name, *positions.get(&shard)?))).collect();
        let weights = Self { place: folder.to_path_buf(), files, index };
        if let Some(name) = weights.names().find(|name| weights.shape(name).is_none()) {
            return Err(CheckpointError::config(index_path, format!("its shard for `{name}` has no such tensor")));
        }
        Ok(weights)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// The shape that the file gives a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let file = self.files.get(*self.index.get(name)?)?;
        Some(&file.header.metadata.info(name)?.shape)
    }

    /// The tensor `name` as f32, stored as F32, F16 or BF16 and of exactly the shape `expected`.
    pub fn tensor(&self, name: &str, expected: &[usize]) -> Result<Tensor, CheckpointError> {
        let missing = || CheckpointError::MissingTensor {
            name: name.to_string(),
            place: format!("`{}`", self.place.display()),
            count: self.index.len(),
        };
        let file = self.index.get(name).and_then(|&position| self.files.get(position)).ok_or_else(missing)?;
        let info = file.header.metadata.info(name).ok_or_else(missing)?;
        if info.shape != expected {
            return Err(CheckpointError::Shape {
                name: name.to_string(),
                path: file.path.clone(),
                expected: expected.to_vec(),
                found: info.shape.clone(),
            });
        }
        let start = file.header.data_start + info.data_offsets.0;
        let end = file.header.data_start + info.data_offsets.1;
        let bytes = (*file.bytes).as_ref().get(start..end).ok_or_else(missing)?;
        let tensor = if info.dtype == Dtype::F32 {
            let shared: Bytes = file.bytes.clone();
            Tensor::from_shared(DType::F32, expected, shared, start..end)
        } else if let Some(widened) = widen(info.dtype, bytes) {
            let length = widened.as_ref().len();
            Tensor::from_shared(DType::F32, expected, Arc::new(widened), 0..length)
        } else {
            return Err(CheckpointError::Dtype {
                name: name.to_string(),
                path: file.path.clone(),
                found: info.dtype.to_string(),
            });
        };
        tensor.map_err(|source| CheckpointError::Tensor { name: name.to_string(), path: file.path.clone(), source })
    }
}

impl WeightFile {
    fn new(path: PathBuf, bytes: FileBytes) -> Result<Self, CheckpointError> {
        match parse_header(bytes.as_ref()) {
            Ok(header) => Ok(Self { path, bytes: Arc::new(bytes), header }),
            Err(reason) => Err(CheckpointError::Safetensors { path, reason }),
        }
    }
}

/// Parses a safetensors header and checks that the tensors it lists fill the file exactly,
/// one after the other, each with as many bytes as its shape and dtype need.
fn parse_header(bytes: &[u8]) -> Result<Header, String> {
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
    Ok(Header { metadata, data_start: LENGTH_FIELD + header.len() })
}

/// Little-endian half-precision numbers as f32; `None` for any other dtype.
fn widen(dtype: Dtype, data: &[u8]) -> Option<Buffer> {
    let (words, _) = data.as_chunks::<2>();
    let mut values = Buffer::zeroed_f32(words.len());
    if dtype == Dtype::F16 {
        let halves: Vec<f16> = words.iter().map(|word| f16::from_le_bytes(*word)).collect();
        halves.convert_to_f32_slice(values.as_f32_mut());
    } else if dtype == Dtype::BF16 {
        let halves: Vec<bf16> = words.iter().map(|word| bf16::from_le_bytes(*word)).collect();
        halves.convert_to_f32_slice(values.as_f32_mut());
    } else {
        return None;
    }
    Some(values)
}

fn file_length(path: &Path) -> Result<u64, CheckpointError> {
    let failed = |source| CheckpointError::Read { path: path.to_path_buf(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    Ok(metadata.len())
}
