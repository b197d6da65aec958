//! Finished models in caches, and the staging of unfinished ones.
//!
//! Two caches are read: the hub's own (`models--ORG--NAME/refs/REVISION` names a commit,
//! `models--ORG--NAME/snapshots/COMMIT` holds its files), which other programs fill too, so a
//! snapshot may be partial; and Centuple's, whose folders are whole.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

use super::HubError;
use super::id::ModelId;
use crate::checkpoint::json::{join_inside, read_json};
use crate::checkpoint::onnx::has_only_onnx;
use crate::checkpoint::weights::{Format, Index};

/// Length of a commit in hexadecimal digits.
const COMMIT_DIGITS: usize = 40;

/// Prefix of staging folders; with the lock held, none of them is in use.
const STAGING: &str = "incomplete-";

/// The folder of a model's snapshot in the hub cache `cache`, if the cache knows the revision.
pub(super) fn snapshot(cache: &Path, id: &ModelId) -> Option<PathBuf> {
    let repository = cache.join(id.cache_folder());
    let commit = match fs::read_to_string(repository.join("refs").join(id.revision())) {
        Ok(commit) => commit.trim().to_string(),
        Err(_) => id.revision().to_string(),
    };
    is_commit(&commit).then(|| repository.join("snapshots").join(commit))
}

pub(super) fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_DIGITS && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// What `modules.json` says about files; a folder without one has its transformer at the top.
#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    class: String,
}

impl Module {
    fn list(folder: &Path) -> Vec<Self> {
        read_json(&folder.join("modules.json")).unwrap_or_default()
    }

    fn is(&self, class: &str) -> bool {
        self.class.rsplit('.').next() == Some(class)
    }
}

/// The folder of the transformer in the model folder `folder`.
pub(super) fn transformer(folder: &Path) -> PathBuf {
    let module = Module::list(folder).into_iter().find(|module| module.is("Transformer"));
    module.and_then(|module| join_inside(folder, &module.path)).unwrap_or_else(|| folder.to_path_buf())
}

/// The first file that `folder` lacks to be a model, as a path in it.
///
/// Only names are looked at; the checkpoint's parsers judge the contents.
pub(super) fn missing_file(folder: &Path) -> Option<String> {
    let transformer = transformer(folder);
    let mut needed = vec![transformer.join("config.json")];
    if !transformer.join("vocab.txt").is_file() {
        needed.push(transformer.join("tokenizer.json"));
    }
    if !has_only_onnx(folder) {
        needed.extend(weight_files(&transformer));
    }
    for module in Module::list(folder) {
        let place = folder.join(&module.path);
        if module.is("Pooling") || module.is("Dense") {
            needed.push(place.join("config.json"));
        }
        if module.is("Dense") {
            needed.extend(weight_files(&place));
        }
    }
    let missing = needed.into_iter().find(|path| !path.is_file())?;
    Some(missing.strip_prefix(folder).unwrap_or(&missing).display().to_string())
}

/// The files with the weights of `folder`, in the format that is there; where there is none, safetensors are missed.
fn weight_files(folder: &Path) -> Vec<PathBuf> {
    for format in Format::ALL {
        let single = folder.join(format.single());
        if single.is_file() {
            return vec![single];
        }
        if let Ok(index) = read_json::<Index>(&folder.join(format.index())) {
            return index.weight_map.values().map(|shard| folder.join(shard)).collect();
        }
    }
    vec![folder.join(Format::Safetensors.single())]
}

/// The folders in the model folder `folder` that should have weights and have none, as paths in it; "" for itself.
pub(super) fn without_weights(folder: &Path) -> Vec<String> {
    let modules = Module::list(folder);
    let mut places: Vec<String> = modules
        .into_iter()
        .filter(|module| module.is("Dense") || module.is("Transformer"))
        .map(|module| module.path)
        .collect();
    if places.is_empty() {
        places.push(String::new());
    }
    let lacks =
        |format: Format, place: &Path| !place.join(format.single()).exists() && !place.join(format.index()).exists();
    places.retain(|path| {
        join_inside(folder, path).is_some_and(|place| Format::ALL.into_iter().all(|format| lacks(format, &place)))
    });
    places
}

/// A place to assemble a model next to the cache where it will live.
///
/// Nothing is visible in the cache before one of the `publish` functions moves it there. Whatever
/// an interrupted run has left is removed when the next one stages the same model.
pub(super) struct Staging {
    folder: TempDir,
    /// Held until the staging is dropped, so that one process at a time fetches a model.
    _lock: Option<File>,
}

impl Staging {
    /// Waits for other processes that fetch the same model into `cache`, then makes an empty folder.
    pub(super) fn new(cache: &Path, id: &ModelId) -> Result<Self, HubError> {
        let place = cache.join(".locks").join(id.cache_folder());
        Self::try_new(&place, id).map_err(|source| HubError::Cache { path: place, source })
    }

    fn try_new(place: &Path, id: &ModelId) -> io::Result<Self> {
        fs::create_dir_all(place)?;
        let lock = lock(&place.join("centuple.lock"), id)?;
        if lock.is_some() {
            for entry in fs::read_dir(place)?.flatten() {
                if entry.file_name().to_string_lossy().starts_with(STAGING) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
        }
        let folder = tempfile::Builder::new().prefix(STAGING).tempdir_in(place)?;
        // A folder inside of the private one: it is published with ordinary permissions.
        fs::create_dir(folder.path().join("model"))?;
        Ok(Self { folder, _lock: lock })
    }

    /// The folder to fill with the model's files.
    pub(super) fn model(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    /// A scratch folder that is never published.
    pub(super) fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Moves the model to `target`, replacing an incomplete one.
    pub(super) fn publish(self, target: &Path) -> Result<(), HubError> {
        let failed = |source| HubError::Cache { path: target.to_path_buf(), source };
        if target.exists() {
            fs::rename(target, self.folder.path().join("replaced")).map_err(failed)?;
        }
        fs::rename(self.model(), target).map_err(failed)
    }

    /// Moves the model into the hub cache as the snapshot `commit`, and makes its revision refer to it.
    ///
    /// Files that an existing snapshot has already are kept.
    pub(super) fn publish_snapshot(self, cache: &Path, id: &ModelId, commit: &str) -> Result<PathBuf, HubError> {
        let repository = cache.join(id.cache_folder());
        let snapshot = repository.join("snapshots").join(commit);
        let publish = || {
            move_missing(&self.model(), &snapshot)?;
            if id.revision() != commit {
                let reference = repository.join("refs").join(id.revision());
                fs::create_dir_all(reference.parent().unwrap_or(&repository))?;
                let fresh = self.scratch().join("ref");
                fs::write(&fresh, commit)?;
                fs::rename(fresh, reference)?;
            }
            Ok(())
        };
        publish().map_err(|source| HubError::Cache { path: repository.clone(), source })?;
        Ok(snapshot)
    }
}

/// Moves `from` to `to`; where `to` is a folder, everything in `from` that it lacks.
fn move_missing(from: &Path, to: &Path) -> io::Result<()> {
    if !to.exists() {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        return fs::rename(from, to);
    }
    if from.is_dir() && to.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            move_missing(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Locks `path`; `None` on file systems that know no locks.
fn lock(path: &Path, id: &ModelId) -> io::Result<Option<File>> {
    let file = File::create(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            tracing::info!("waiting for another process that fetches {id}");
            file.lock().map(|()| Some(file))
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}
