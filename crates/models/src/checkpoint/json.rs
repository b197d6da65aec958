//! Reading the JSON files of a checkpoint folder, with limits.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use super::CheckpointError;

/// The largest JSON file that is read. Index files of the largest public models are a few MiB.
const JSON_LIMIT: u64 = 64 << 20;

/// Parses the JSON file at `path`.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, CheckpointError> {
    let failed = |source| CheckpointError::Read { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(JSON_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > JSON_LIMIT {
        return Err(CheckpointError::TooLarge { path: path.to_path_buf(), limit: JSON_LIMIT });
    }
    serde_json::from_slice(&bytes).map_err(|source| CheckpointError::Json { path: path.to_path_buf(), source })
}

/// Parses the JSON file at `path`, or returns `None` where there is no such file.
pub(super) fn read_json_if_present<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CheckpointError> {
    if path.is_file() { read_json(path).map(Some) } else { Ok(None) }
}

/// `folder/relative`, or `None` if `relative` would lead out of the folder.
///
/// Symbolic links are followed when the file is opened: the hub's own cache consists of them.
pub(super) fn join_inside(folder: &Path, relative: &str) -> Option<PathBuf> {
    let inside =
        Path::new(relative).components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    inside.then(|| folder.join(relative))
}
