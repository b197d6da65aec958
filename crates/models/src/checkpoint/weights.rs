//! Tensors by name from one weight file or from shards: safetensors, or else PyTorch's own format.
//!
//! Files of up to [`READ_LIMIT`] bytes in total are read into memory once, larger ones are mapped. F32 tensors share
//! those bytes; F16, BF16, F64 and what does not lie row by row is converted when [`Weights::tensor`] asks for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use centuple_tensor::Tensor;
use serde::Deserialize;

use super::CheckpointError;
use super::json::{join_inside, read_json};
use super::mapping::FileBytes;
use super::stored::{Stored, Unread};
use super::{safetensors, torch};

/// Weights of up to this many bytes are read into memory; larger ones are mapped.
pub const READ_LIMIT: u64 = 1 << 30;

/// A format of weight files.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    /// A JSON header, then the tensors.
    Safetensors,
    /// What `torch.save` writes: a pickle, then the tensors.
    PyTorch,
}

impl Format {
    /// In the order in which a folder is searched for them.
    pub(super) const ALL: [Self; 2] = [Self::Safetensors, Self::PyTorch];

    /// The name of a file that holds all weights.
    pub(super) fn single(self) -> &'static str {
        match self {
            Self::Safetensors => "model.safetensors",
            Self::PyTorch => "pytorch_model.bin",
        }
    }

    /// The name of the file that says which shard holds which tensor.
    pub(super) fn index(self) -> &'static str {
        match self {
            Self::Safetensors => "model.safetensors.index.json",
            Self::PyTorch => "pytorch_model.bin.index.json",
        }
    }

    /// The shards' names, as a glob for downloads.
    pub(super) fn shards(self) -> &'static str {
        match self {
            Self::Safetensors => "model-*.safetensors",
            Self::PyTorch => "pytorch_model-*.bin",
        }
    }
}

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
    tensors: BTreeMap<String, Stored>,
}

/// What an index file says about files.
#[derive(Deserialize)]
pub(super) struct Index {
    /// Tensor name → the shard that holds it.
    pub(super) weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// No weights.
    pub(super) fn none() -> Self {
        Self { place: PathBuf::new(), files: Vec::new(), index: BTreeMap::new() }
    }

    /// Opens `model.safetensors`, or the shards that its index lists, or else `pytorch_model.bin` in the same way.
    ///
    /// # Errors
    /// There are no weights, or a file cannot be read, is damaged, or is a pickle of anything but plain tensors.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        for format in Format::ALL {
            let single = folder.join(format.single());
            if single.exists() {
                let map = file_length(&single)? > READ_LIMIT;
                let bytes = FileBytes::open(&single, map)?;
                return Self::single(format, single, bytes);
            }
            let index = folder.join(format.index());
            if index.exists() {
                return Self::sharded(format, folder, &index);
            }
        }
        Err(CheckpointError::MissingFile { folder: folder.to_path_buf(), file: Format::Safetensors.single() })
    }

    /// Reads a safetensors file that is already in memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        Self::single(Format::Safetensors, PathBuf::from("(memory)"), FileBytes::copy_of(bytes))
    }

    /// Reads a file of `torch.save` that is already in memory.
    pub fn from_pytorch_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        Self::single(Format::PyTorch, PathBuf::from("(memory)"), FileBytes::copy_of(bytes))
    }

    fn single(format: Format, path: PathBuf, bytes: FileBytes) -> Result<Self, CheckpointError> {
        let file = WeightFile::new(format, path.clone(), bytes)?;
        let index = file.tensors.keys().map(|name| (name.clone(), 0)).collect();
        Ok(Self { place: path, files: vec![file], index })
    }

    fn sharded(format: Format, folder: &Path, index_path: &Path) -> Result<Self, CheckpointError> {
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
            files.push(WeightFile::new(format, path, bytes)?);
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
        self.find(name).map(|(_, stored)| stored.shape.as_slice())
    }

    /// The tensor `name` as f32, stored as F32, F16, BF16 or F64 and of exactly the shape `expected`.
    pub fn tensor(&self, name: &str, expected: &[usize]) -> Result<Tensor, CheckpointError> {
        let (file, stored) = self.find(name).ok_or_else(|| CheckpointError::MissingTensor {
            name: name.to_string(),
            place: format!("`{}`", self.place.display()),
            count: self.index.len(),
        })?;
        let (name, path) = (name.to_string(), file.path.clone());
        if stored.shape != expected {
            let (expected, found) = (expected.to_vec(), stored.shape.clone());
            return Err(CheckpointError::Shape { name, path, expected, found });
        }
        stored.tensor(&file.bytes).map_err(|unread| match unread {
            Unread::Dtype => CheckpointError::Dtype { name, path, found: stored.dtype.to_string() },
            Unread::Tensor(source) => CheckpointError::Tensor { name, path, source },
        })
    }

    fn find(&self, name: &str) -> Option<(&WeightFile, &Stored)> {
        let file = self.files.get(*self.index.get(name)?)?;
        Some((file, file.tensors.get(name)?))
    }
}

impl WeightFile {
    fn new(format: Format, path: PathBuf, bytes: FileBytes) -> Result<Self, CheckpointError> {
        let tensors = match format {
            Format::Safetensors => safetensors::parse(bytes.as_ref())
                .map_err(|reason| CheckpointError::Safetensors { path: path.clone(), reason }),
            Format::PyTorch => {
                torch::parse(bytes.as_ref()).map_err(|reason| CheckpointError::PyTorch { path: path.clone(), reason })
            }
        }?;
        Ok(Self { path, bytes: Arc::new(bytes), tensors })
    }
}

pub(super) fn file_length(path: &Path) -> Result<u64, CheckpointError> {
    let failed = |source| CheckpointError::Read { path: path.to_path_buf(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    Ok(metadata.len())
}
