//! GGUF files as checkpoints: one file with configuration, tokenizer and weights.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use centuple_gguf::{Header, Metadata, TensorInfo, TensorType};
use centuple_tensor::{Buffer, Bytes, DType, Tensor, TensorError};

use super::mapping::FileBytes;
use super::onnx::has_other_weights;
use super::weights::{READ_LIMIT, file_length};
use super::{CheckpointError, onnx};

/// A GGUF file: its header, and the bytes of its tensors.
#[derive(Clone, Debug)]
pub struct Gguf {
    path: PathBuf,
    header: Arc<Header>,
    bytes: Arc<FileBytes>,
}

impl Gguf {
    /// The file at `place`, which is a `.gguf` file or a folder with a single one and no other weights; `None` where it is
    /// neither.
    ///
    /// # Errors
    /// A folder has several such files.
    pub fn find(place: &Path) -> Result<Option<PathBuf>, CheckpointError> {
        if place.is_file() {
            return Ok(is_gguf(place).then(|| place.to_owned()));
        }
        let files = files_of(place);
        match files.as_slice() {
            [] => Ok(None),
            _ if has_other_weights(place) || onnx::has_only_onnx(place) => Ok(None),
            [only] => Ok(Some(only.clone())),
            several => {
                let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
                let reason = format!("it has several models; name one of {}", names.join(", "));
                Err(CheckpointError::config(place, reason))
            }
        }
    }

    /// Reads a file's header. The rest is read into memory once where the file has up to [`READ_LIMIT`] bytes, and mapped
    /// where it has more.
    ///
    /// # Errors
    /// The file can't be read, or is no sound GGUF file of types that are read.
    pub fn open(path: &Path) -> Result<Gguf, CheckpointError> {
        let map = file_length(path)? > READ_LIMIT;
        Gguf::new(path.to_owned(), FileBytes::open(path, map)?)
    }

    /// Reads a file that is already in memory.
    ///
    /// # Errors
    /// As for [`Gguf::open`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Gguf, CheckpointError> {
        Gguf::new(PathBuf::from("(memory)"), FileBytes::copy_of(bytes))
    }

    fn new(path: PathBuf, bytes: FileBytes) -> Result<Gguf, CheckpointError> {
        let header =
            Header::read(bytes.as_ref()).map_err(|source| CheckpointError::Gguf { path: path.clone(), source })?;
        Ok(Gguf { path, header: Arc::new(header), bytes: Arc::new(bytes) })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says of itself.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// Its tensors by name, as the file has them.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.header.tensors
    }

    /// The numbers of a tensor, in the order in which they are stored.
    ///
    /// # Errors
    /// There is no such tensor, or the system grants no memory for it.
    pub(crate) fn values(&self, name: &str) -> Result<Buffer, CheckpointError> {
        let tensor = self.tensors().get(name).ok_or_else(|| CheckpointError::MissingTensor {
            name: name.to_owned(),
            place: format!("`{}`", self.path.display()),
            count: self.tensors().len(),
        })?;
        let too_large = || CheckpointError::Tensor {
            name: name.to_owned(),
            path: self.path.clone(),
            source: TensorError::Volume(tensor.shape.clone()),
        };
        let bytes = (*self.bytes).as_ref().get(tensor.range.clone()).ok_or_else(too_large)?;
        let length = tensor.elements().checked_mul(size_of::<f32>()).ok_or_else(too_large)?;
        let mut values = Buffer::try_zeroed(length).ok_or_else(too_large)?;
        tensor.kind.dequantize(bytes, values.as_f32_mut());
        Ok(values)
    }
}

/// Whether a path is called like a GGUF file.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The GGUF files of a folder, in the order of their names.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| is_gguf(path) && path.is_file()).collect();
    files.sort();
    files
}

/// What a tensor of a file must undergo to be the one that a family knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// The file has the two halves of each of so many heads' rows in turn: row 0 of the first, row 0 of the second, row 1 of
    /// the first and so on.
    HeadRows(usize),
    /// The file has every number greater by one.
    LessOne,
    /// The file has rows for columns.
    Transposed,
}

/// A tensor under the name that a family has for it.
#[derive(Clone, Debug)]
pub(crate) struct Renamed {
    /// Its name in the file.
    pub(crate) stored: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) change: Change,
}

/// A file's tensors under the names that a family has for them.
#[derive(Debug)]
pub(crate) struct GgufWeights {
    pub(crate) file: Gguf,
    pub(crate) tensors: BTreeMap<String, Renamed>,
}

impl GgufWeights {
    /// The tensor `name` as f32, of exactly the shape `expected`.
    pub(super) fn tensor(&self, name: &str, expected: &[usize]) -> Result<Tensor, CheckpointError> {
        let path = || self.file.path.clone();
        let renamed = self.tensors.get(name).ok_or_else(|| CheckpointError::MissingTensor {
            name: name.to_owned(),
            place: format!("`{}`", self.file.path.display()),
            count: self.tensors.len(),
        })?;
        let Renamed { stored, shape, change } = renamed;
        if shape != expected {
            let (expected, found) = (expected.to_vec(), shape.clone());
            return Err(CheckpointError::Shape { name: stored.clone(), path: path(), expected, found });
        }
        let failed = |source| CheckpointError::Tensor { name: stored.clone(), path: path(), source };
        if let Some(tensor) = self.shared(stored, shape, *change) {
            return tensor.map_err(failed);
        }
        let mut values = self.file.values(stored)?;
        change.apply(values.as_f32_mut(), shape);
        let length = values.as_ref().len();
        Tensor::from_shared(DType::F32, shape, Arc::new(values), 0..length).map_err(failed)
    }

    /// F32 numbers that stay as they are share the file's bytes.
    fn shared(&self, stored: &str, shape: &[usize], change: Change) -> Option<Result<Tensor, TensorError>> {
        let info = self.file.tensors().get(stored)?;
        if info.kind != TensorType::F32 || change != Change::None {
            return None;
        }
        let bytes: Bytes = self.file.bytes.clone();
        Some(Tensor::from_shared(DType::F32, shape, bytes, info.range.clone()))
    }
}

impl Change {
    /// Changes the numbers of a tensor, which has the `shape` afterwards.
    fn apply(self, values: &mut [f32], shape: &[usize]) {
        match self {
            Change::None => {}
            Change::LessOne => values.iter_mut().for_each(|value| *value -= 1.0),
            Change::HeadRows(heads) => {
                let row = shape.get(1).copied().unwrap_or(1);
                let head = values.len() / heads.max(1);
                values.chunks_exact_mut(head.max(1)).for_each(|head| part_halves(head, row));
            }
            Change::Transposed => {
                let columns = shape.get(1).copied().unwrap_or(1).max(1);
                let rows = values.len() / columns;
                let stored = values.to_vec();
                for (row, values) in values.chunks_exact_mut(columns).enumerate() {
                    let column = stored.iter().skip(row).step_by(rows.max(1));
                    values.iter_mut().zip(column).for_each(|(value, stored)| *value = *stored);
                }
            }
        }
    }
}

/// Puts rows that come from two halves in turn into their halves.
fn part_halves(head: &mut [f32], row: usize) {
    let stored = head.to_vec();
    let (first, second) = head.split_at_mut(head.len() / 2);
    let halves = first.chunks_exact_mut(row.max(1)).zip(second.chunks_exact_mut(row.max(1)));
    for ((first, second), pair) in halves.zip(stored.chunks_exact(2 * row.max(1))) {
        let (even, odd) = pair.split_at(row);
        first.copy_from_slice(even);
        second.copy_from_slice(odd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_heads_return_to_their_halves() {
        // Two heads of four rows of one element.
        let mut values = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        Change::HeadRows(2).apply(&mut values, &[8]);
        assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        // One head of two rows of two elements, whose order there is nothing to say about.
        let mut values = [1.0, 2.0, 3.0, 4.0];
        Change::HeadRows(1).apply(&mut values, &[2, 2]);
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn transposed_matrices_become_what_they_were() {
        let mut values = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
        Change::Transposed.apply(&mut values, &[2, 3]);
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
