//! The bytes of a weight file: read into memory when small, mapped when large.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use centuple_tensor::Buffer;
use memmap2::Mmap;

use super::CheckpointError;

/// Read-only bytes of a file.
#[derive(Debug)]
pub(super) enum FileBytes {
    /// A private copy; what happens to the file afterwards does not matter.
    Read(Buffer),
    /// A mapping of the file. The operator must not truncate the file while the model is loaded.
    Mapped(Mmap),
}

impl FileBytes {
    /// Reads the regular file `path` into memory, or maps it if `map` is set.
    pub(super) fn open(path: &Path, map: bool) -> Result<Self, CheckpointError> {
        Self::try_open(path, map).map_err(|source| CheckpointError::Read { path: path.to_path_buf(), source })
    }

    fn try_open(path: &Path, map: bool) -> Result<Self, Error> {
        let mut file = File::open(path)?;
        if map {
            // SAFETY: the mapping is read-only and private to this value. Its bytes are only ever
            // taken as numbers, for which every bit pattern is valid, so a concurrent writer could
            // change values but not break memory safety; truncation is excluded above.
            return unsafe { Mmap::map(&file) }.map(Self::Mapped);
        }
        let length =
            usize::try_from(file.metadata()?.len()).map_err(|error| Error::new(ErrorKind::OutOfMemory, error))?;
        let mut buffer = Buffer::zeroed(length);
        file.read_exact(buffer.as_bytes_mut())?;
        Ok(Self::Read(buffer))
    }

    /// A copy of bytes that are already in memory.
    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Buffer::zeroed(bytes.len());
        buffer.as_bytes_mut().copy_from_slice(bytes);
        Self::Read(buffer)
    }
}

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Read(buffer) => buffer.as_ref(),
            Self::Mapped(map) => map,
        }
    }
}
