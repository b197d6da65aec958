//! A folder of models: `NAME/`, `ORG/NAME/`, and versions of either as `NAME/1/`, `NAME/2/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use centuple::is_model;
use centuple_serve::{Origin, Source};

/// Folders below a model's own that belong to it, as those of sentence-transformers modules.
const DEPTH: usize = 3;
/// More files than this are no model.
const MOST_FILES: usize = 10_000;

/// A folder of models. Nothing outside of it is ever read for them, whatever links say.
pub(super) struct Repository {
    root: PathBuf,
    origin: Origin,
    /// What was warned of before.
    warned: Mutex<BTreeSet<String>>,
}

impl Repository {
    /// The models in `root`; `eager`: they are loaded without being asked for.
    pub(super) fn new(root: &Path, eager: bool) -> Repository {
        Repository { root: root.to_owned(), origin: Origin::Found { eager }, warned: Mutex::default() }
    }

    /// The folder.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Every version of every model, by name.
    pub(super) fn scan(&self) -> io::Result<Vec<Source>> {
        let root = self.root.canonicalize()?;
        let mut sources = Vec::new();
        for (name, folder) in self.folders(&root, &root)? {
            if let Some(found) = self.versions(&root, &name, &folder)? {
                sources.extend(found);
                continue;
            }
            for (last, folder) in self.folders(&root, &folder)? {
                sources.extend(self.versions(&root, &format!("{name}/{last}"), &folder)?.unwrap_or_default());
            }
        }
        sources.sort_by(|one, other| (&one.name, one.version).cmp(&(&other.name, other.version)));
        Ok(sources)
    }

    /// The model in a folder, or the versions of one; `None` where neither is there.
    fn versions(&self, root: &Path, name: &str, folder: &Path) -> io::Result<Option<Vec<Source>>> {
        if is_model(folder) {
            return Ok(Some(self.source(root, name, 1, folder).into_iter().collect()));
        }
        let mut sources = Vec::new();
        for (version, folder) in self.folders(root, folder)? {
            if let Some(version) = version_of(&version)
                && is_model(&folder)
            {
                sources.extend(self.source(root, name, version, &folder));
            }
        }
        Ok(Some(sources).filter(|sources| !sources.is_empty()))
    }

    fn source(&self, root: &Path, name: &str, version: u64, folder: &Path) -> Option<Source> {
        match Files::of(folder, Some(root)) {
            Ok(files) => Some(Source {
                name: name.to_owned(),
                version,
                place: folder.to_owned(),
                fingerprint: files.fingerprint,
                bytes: files.weights,
                origin: self.origin,
            }),
            Err(error) => {
                self.warn(format!("{} is left out: {error}", folder.display()));
                None
            }
        }
    }

    /// The folders in `folder` that could be models, with their names.
    fn folders(&self, root: &Path, folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
        let mut folders = Vec::new();
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && folder != root => {
                self.warn(format!("{} is left out: {error}", folder.display()));
                return Ok(folders);
            }
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            // What has gone meanwhile, or leads nowhere.
            let Ok(place) = path.canonicalize() else { continue };
            let name = path.file_name().unwrap_or_default();
            if !place.is_dir() || name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match name.to_str() {
                Some(name) if is_name(name) && place.starts_with(root) => folders.push((name.to_owned(), path)),
                Some(name) if is_name(name) => {
                    self.warn(format!("{} is left out: it leads out of the repository", path.display()));
                }
                Some(_) | None => self.warn(format!("{path:?} is left out: its name is none that clients could send")),
            }
        }
        Ok(folders)
    }

    /// Warns, of each thing once.
    pub(super) fn warn(&self, message: String) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if !warned.contains(&message) {
            tracing::warn!("{message}");
            warned.insert(message);
        }
    }
}

/// Whether a folder's name can be (a part of) a model's.
fn is_name(name: &str) -> bool {
    !name.contains("..") && !name.chars().any(|c| c.is_control() || matches!(c, '\\' | '?' | '#' | '%'))
}

/// The number that a folder's name is, from 1.
fn version_of(name: &str) -> Option<u64> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_digit()) && !name.starts_with('0') && name.len() < 19;
    name.parse().ok().filter(|_| is_plain)
}

/// What a model folder's files are, without reading them.
pub(super) struct Files {
    /// Differs if a file was written, replaced, added or removed.
    pub(super) fingerprint: u64,
    /// Bytes of the weights.
    pub(super) weights: u64,
}

impl Files {
    /// Looks at a folder; no file of it may lie outside of `root`.
    pub(super) fn of(folder: &Path, root: Option<&Path>) -> io::Result<Files> {
        // A model that is a file belongs to its folder.
        let folder = if folder.is_file() { folder.parent().unwrap_or(folder) } else { folder };
        let folder = if folder == Path::new("") { Path::new(".") } else { folder };
        let mut files = BTreeMap::new();
        collect(folder, DEPTH, root, &mut files)?;
        let (mut hasher, mut kinds) = (DefaultHasher::new(), BTreeMap::<_, u64>::new());
        for (path, metadata) in &files {
            path.strip_prefix(folder).unwrap_or(path).hash(&mut hasher);
            stamp(metadata).hash(&mut hasher);
            *kinds.entry(path.extension()).or_default() += metadata.len();
        }
        // A folder may have its weights in several formats, one of which is read.
        Ok(Files { fingerprint: hasher.finish(), weights: kinds.into_values().max().unwrap_or(0) })
    }
}

fn collect(
    folder: &Path,
    depth: usize,
    root: Option<&Path>,
    files: &mut BTreeMap<PathBuf, Metadata>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        // Files that are being copied, and what version control keeps.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type()?.is_symlink()
            && let Some(root) = root
            && path.canonicalize().is_ok_and(|place| !place.starts_with(root))
        {
            return Err(io::Error::other(format!("{} leads out of the repository", path.display())));
        }
        // What has gone meanwhile, and links that lead nowhere.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_file() {
            files.insert(path, metadata);
        } else if metadata.is_dir() && depth > 1 {
            match (collect(&path, depth - 1, root, files), root) {
                (Err(error), Some(_)) => return Err(error),
                (Err(_), None) | (Ok(()), _) => {}
            }
        }
        match (files.len() > MOST_FILES, root) {
            (true, Some(_)) => return Err(io::Error::other(format!("it has more than {MOST_FILES} files"))),
            (true, None) => return Ok(()),
            (false, _) => {}
        }
    }
    Ok(())
}

/// What changes when a file is written or replaced, also by one of the same size and time.
fn stamp(metadata: &Metadata) -> (u64, u128, [u64; 3]) {
    #[cfg(unix)]
    let inode = {
        use std::os::unix::fs::MetadataExt;
        [metadata.ino(), metadata.ctime() as u64, metadata.ctime_nsec() as u64]
    };
    #[cfg(not(unix))]
    let inode = [0; 3];
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    (metadata.len(), modified.unwrap_or_default().as_nanos(), inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_clients_can_send() {
        assert!(["bert", "all-MiniLM-L6-v2", "a.b", "größe", "a b"].iter().all(|name| is_name(name)));
        assert!(!["..", "a..b", "a\nb", "a\u{7f}", "a\\b", "a?b"].iter().any(|name| is_name(name)));
    }

    #[test]
    fn versions_are_plain_numbers_from_one() {
        assert_eq!(
            ["1", "20", "999999999999999999"].map(version_of),
            [Some(1), Some(20), Some(999_999_999_999_999_999)]
        );
        assert!(
            ["", "0", "01", "+1", "-1", "1_Pooling", "1e3", "9999999999999999999"]
                .iter()
                .all(|name| version_of(name).is_none())
        );
    }
}
