//! Constants that lie in files beside the model.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use centuple_tensor::{Buffer, Bytes};

use crate::proto::StringStringEntryProto;

/// The files beside a model.
pub(super) struct External {
    /// The folder that the model is in, and the one that it really is in where it is a link, as in caches of the hub.
    folders: Vec<PathBuf>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    files: HashMap<PathBuf, Opened>,
    /// Ranges that were read, so that constants which share one share its bytes.
    ranges: HashMap<(PathBuf, u64, usize), Bytes>,
    /// Bytes that were read.
    read: usize,
}

struct Opened {
    file: File,
    length: u64,
    /// Bytes that may still be read; ranges that overlap without being equal use it up.
    left: u64,
}

impl External {
    /// The files beside the model at a path; without one there are none.
    pub(super) fn new(model: Option<&Path>) -> External {
        let parent = |path: &Path| path.parent().map(|parent| parent.join("."));
        let own = model.and_then(parent);
        let real = model.and_then(|model| model.canonicalize().ok()).as_deref().and_then(parent);
        External { folders: own.into_iter().chain(real).collect(), state: RefCell::default() }
    }

    /// The `expected` bytes that the entries of a constant point to.
    pub(super) fn read(&self, entries: &[StringStringEntryProto], expected: usize) -> Result<Bytes, String> {
        let entry = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let number = |key: &str, default: u64| match entry(key) {
            None | Some("") => Ok(default),
            Some(text) => text.parse::<u64>().map_err(|_| format!("has external data with a strange {key}")),
        };
        let location = entry("location").ok_or("has external data without a location")?;
        let path = self.inside(location)?;
        let offset = number("offset", 0)?;
        if number("length", expected as u64)? != expected as u64 {
            return Err(format!("needs {expected} bytes, but its external data has another length"));
        }
        let mut state = self.state.borrow_mut();
        if let Some(bytes) = state.ranges.get(&(path.clone(), offset, expected)) {
            return Ok(Arc::clone(bytes));
        }
        let bytes = state.read(&path, location, offset, expected)?;
        state.ranges.insert((path, offset, expected), Arc::clone(&bytes));
        Ok(bytes)
    }

    /// Bytes that were read.
    pub(super) fn length(&self) -> usize {
        self.state.borrow().read
    }

    /// The real path of a file in the model's folder.
    fn inside(&self, location: &str) -> Result<PathBuf, String> {
        let shown = crate::error::shown(location);
        let folder = self.folders.first().ok_or("has external data, but the model is not in a folder")?;
        let plain = |component| matches!(component, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !Path::new(location).components().all(plain) {
            return Err(format!("has external data in `{shown}`, which is outside of the model's folder"));
        }
        let failed = |error| format!("has external data in `{shown}`, which can't be read: {error}");
        let path = folder.join(location).canonicalize().map_err(failed)?;
        let real = self.folders.iter().filter_map(|folder| folder.canonicalize().ok());
        if !real.into_iter().any(|folder| path.starts_with(folder)) {
            return Err(format!("has external data in `{shown}`, a link that leads out of the model's folder"));
        }
        Ok(path)
    }
}

impl State {
    fn read(&mut self, path: &Path, location: &str, offset: u64, length: usize) -> Result<Bytes, String> {
        let shown = crate::error::shown(location);
        let failed = |error: std::io::Error| format!("has external data in `{shown}`, which can't be read: {error}");
        if !self.files.contains_key(path) {
            let file = File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            if !metadata.is_file() {
                return Err(format!("has external data in `{shown}`, which is no file"));
            }
            let length = metadata.len();
            self.files.insert(path.to_owned(), Opened { file, length, left: length });
        }
        let Some(opened) = self.files.get_mut(path) else { return Err(String::new()) };
        if offset.checked_add(length as u64).is_none_or(|end| end > opened.length) {
            let has = opened.length;
            return Err(format!("needs {length} bytes from byte {offset} of `{shown}`, which has {has}"));
        }
        let overlap = || format!("overlaps with other tensors in `{shown}`");
        opened.left = opened.left.checked_sub(length as u64).ok_or_else(overlap)?;
        let mut buffer = Buffer::try_zeroed(length).ok_or_else(|| format!("needs {length} bytes of memory"))?;
        opened.file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        opened.file.read_exact(buffer.as_bytes_mut()).map_err(failed)?;
        self.read = self.read.saturating_add(length);
        Ok(Arc::new(buffer))
    }
}
