//! The artefact: a compiled model as a folder that any Centuple opens at once. `docs/artefact.md` says what is in it.
//!
//! Nothing of it is believed before it was compared with the hashes in `centuple.json`, whose own is its last field.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use centuple_graph::{Document, DocumentError};
use centuple_models::Description;
use centuple_models::checkpoint::CheckpointError;
use centuple_models::checkpoint::gguf::Gguf;
use centuple_models::checkpoint::onnx::OnnxFile;
use centuple_receipt::report::{Findings, Verdict};
use centuple_runtime::{RuntimeError, lower_stored, restore};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Purpose;
use crate::device::Device;
use crate::error::Error;
use crate::host::Host;
use crate::load::{Compiled, TextSettings, model_of};
use crate::options::{LoadOptions, Target};
use crate::precision::Precision;

const MANIFEST: &str = "centuple.json";
const WEIGHTS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";
/// Field of the manifest that holds the hash of the others.
const CHECKSUM: &str = "sha256";
/// The format that this version writes and reads.
const FORMAT: u64 = 2;
/// Largest manifest that is read.
const MANIFEST_LIMIT: u64 = 256 << 20;
/// Largest file that is copied from the source.
const COPY_LIMIT: u64 = 256 << 20;

/// Why an artefact could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The manifest is no manifest of this format.
    #[error("{}: {reason}; optimise the model again", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file is not the one that was written.
    #[error("{} is not the file that was written ({reason}); optimise the model again, or copy the folder once more", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// How that was noticed.
        reason: String,
    },
    /// The graph is no graph.
    #[error("{}: {source}; optimise the model again", path.display())]
    Graph {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        source: Box<DocumentError>,
    },
    /// The artefact has another precision than the one asked for.
    #[error("{} was optimised to {found}, not {asked}; leave --precision out, or take the model that it was made of", path.display())]
    Precision {
        /// The folder.
        path: PathBuf,
        /// Its precision.
        found: Precision,
        /// The one asked for.
        asked: Precision,
    },
    /// The artefact answers another question.
    #[error("{} holds the model with its own head; for features of tokens take the model that it was made of", path.display())]
    Purpose {
        /// The folder.
        path: PathBuf,
    },
    /// The place for the artefact is taken.
    #[error("{} is there already and is no artefact; name another folder, or remove it", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
}

/// What an artefact says of itself: `centuple.json` but for its own hash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of the folder.
    pub format: u64,
    /// Version of Centuple that wrote it.
    pub version: String,
    /// What it was made of.
    pub source: Origin,
    /// The numbers that linear layers compute with.
    pub precision: Precision,
    /// What was decided on the way, and on what grounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Findings>,
    description: Description,
    text: TextSettings,
    /// Size and hash of every file, by its path.
    files: BTreeMap<String, Record>,
    graph: Document,
}

/// What an artefact was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Name of the model: a hub id, or the name of its folder.
    pub model: String,
    /// Hash of its configuration and weights.
    pub sha256: String,
}

impl Origin {
    /// A model by its name and its folder.
    pub(crate) fn of(model: &str, folder: &Path) -> Result<Origin, ArtefactError> {
        Ok(Origin { model: model.to_owned(), sha256: hash_of_source(folder)? })
    }
}

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    bytes: u64,
    sha256: String,
}

/// Whether a folder is an artefact, be it damaged or not.
pub(crate) fn is_artefact(folder: &Path) -> bool {
    folder.join(MANIFEST).is_file()
}

/// Reads an artefact.
pub(crate) fn compile(host: &Host, folder: &Path, id: &str, options: &LoadOptions) -> Result<Compiled, Error> {
    let manifest = Manifest::open(folder)?;
    let (path, found) = (folder.to_owned(), manifest.precision);
    match (options.purpose, options.precision) {
        (Purpose::TokenFeatures, _) => return Err(ArtefactError::Purpose { path }.into()),
        (Purpose::Own, Some(asked)) if asked != found => {
            return Err(ArtefactError::Precision { path, found, asked }.into());
        }
        (Purpose::Own, _) => {}
    }
    options.device.takes(found)?;
    manifest.check_side_files(folder)?;
    let mut model = model_of(folder, id, &manifest.description, &manifest.text, options)?;
    model.card.dtype = found.dtype().to_owned();
    let manifest_path = folder.join(MANIFEST);
    let graph = manifest
        .graph
        .graph()
        .map_err(|source| ArtefactError::Graph { path: manifest_path, source: Box::new(source) })?;
    let weights = folder.join(WEIGHTS);
    let (mut plan, graph) = match options.device {
        Device::Cpu => (manifest.read_weights(&weights, |file| lower_stored(&graph, host.isa, file))?, graph),
        // A GPU's own lowering wants the elements.
        Device::Cuda(_) => manifest.read_weights(&weights, |file| restore(&graph, host.isa, file))?,
    };
    plan.share(&host.weights);
    let Manifest { description, text, source, receipt, .. } = manifest;
    let artefact = Some(Arc::new(Artefact { folder: folder.to_owned(), source, receipt }));
    let (model, plan) = (Arc::new(model), Arc::new(plan));
    let (passes, notes) = (Vec::new(), Vec::new());
    Ok(Compiled {
        model,
        description,
        precision: found,
        target: Target::of(options),
        choice: None,
        text,
        plain: None,
        graph,
        encoder: None,
        passes,
        notes,
        gguf: None,
        plan,
        artefact,
    })
}

/// What an artefact that was loaded says of itself.
#[derive(Clone, Debug)]
pub struct Artefact {
    folder: PathBuf,
    /// What it was made of.
    pub source: Origin,
    /// What was decided on the way; `None` where it was saved without being judged.
    pub receipt: Option<Findings>,
}

impl Artefact {
    /// Whether it lost more accuracy than it was allowed to.
    pub fn is_over_budget(&self) -> bool {
        self.receipt.as_ref().is_some_and(|receipt| receipt.verdict == Verdict::Over)
    }

    /// The receipt as a page and as JSON; `None` where there is none, or not any more.
    pub fn report(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let read = |name| fs::read(self.folder.join(name)).ok();
        read("report.html").zip(read("report.json"))
    }

    /// Whether a model folder is the one that the artefact was made of.
    ///
    /// # Errors
    /// A file of it cannot be read.
    pub fn is_made_of(&self, folder: &Path) -> Result<bool, ArtefactError> {
        Ok(hash_of_source(folder)? == self.source.sha256)
    }
}

impl Manifest {
    /// Reads the manifest of an artefact and compares it with its hash; files are not looked at.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or is of another format.
    pub fn open(folder: &Path) -> Result<Manifest, ArtefactError> {
        let path = folder.join(MANIFEST);
        let failed = |source| ArtefactError::File { path: path.clone(), source };
        let refused = |reason: String| ArtefactError::Manifest { path: path.clone(), reason };
        let mut text = Vec::new();
        File::open(&path).map_err(failed)?.take(MANIFEST_LIMIT + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > MANIFEST_LIMIT {
            return Err(refused(format!("it is larger than {} MiB", MANIFEST_LIMIT >> 20)));
        }
        let mut value: Value = serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
        let format = value.get("format").and_then(Value::as_u64);
        if format != Some(FORMAT) {
            let found = format.map_or("another format".to_owned(), |format| format!("format {format}"));
            return Err(refused(format!("it is of {found}, this Centuple reads format {FORMAT}")));
        }
        let stated = value.as_object_mut().and_then(|fields| fields.shift_remove(CHECKSUM));
        if stated != Some(Value::from(checksum(&value))) {
            let reason = format!("its contents do not have the hash in `{CHECKSUM}`");
            return Err(ArtefactError::Changed { path, reason });
        }
        serde_json::from_value(value).map_err(|error| refused(error.to_string()))
    }

    /// Compares every file but the weights with its record.
    fn check_side_files(&self, folder: &Path) -> Result<(), ArtefactError> {
        let refused = |name: &dyn std::fmt::Debug| {
            let reason = format!("it names {name:?}, which is no file within the folder");
            ArtefactError::Manifest { path: folder.join(MANIFEST), reason }
        };
        let inside = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        if !inside(&self.text.folder) {
            return Err(refused(&self.text.folder));
        }
        for (name, record) in self.files.iter().filter(|(name, _)| *name != WEIGHTS) {
            let path = folder.join(name);
            if !inside(Path::new(name)) {
                return Err(refused(name));
            }
            record.check(&path, &Record::of(&path, record.bytes)?)?;
        }
        Ok(())
    }

    /// What is made of the file of weights, which is compared with its record.
    fn read_weights<T>(
        &self,
        path: &Path,
        read: impl FnOnce(&mut dyn Read) -> Result<T, RuntimeError>,
    ) -> Result<T, Error> {
        let failed = |source| ArtefactError::File { path: path.to_owned(), source };
        let record = self.files.get(WEIGHTS).ok_or_else(|| {
            let reason = format!("it lists no {WEIGHTS}");
            ArtefactError::Manifest { path: path.with_file_name(MANIFEST), reason }
        })?;
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes != record.bytes {
            let reason = format!("it has {bytes} bytes, not {}", record.bytes);
            return Err(ArtefactError::Changed { path: path.to_owned(), reason }.into());
        }
        let mut file = Hashed::new(file);
        let made = read(&mut file).map_err(|error| {
            if let RuntimeError::Weights(reason) = error {
                return Error::from(ArtefactError::Changed { path: path.to_owned(), reason });
            }
            Error::from(error)
        })?;
        record.check(path, &file.record())?;
        Ok(made)
    }
}

/// An artefact to be written.
pub(crate) struct Draft<'a> {
    /// The folder, or the ONNX file, that the model was compiled from.
    pub(crate) source: &'a Path,
    pub(crate) origin: Origin,
    pub(crate) compiled: &'a Compiled,
    pub(crate) receipt: Option<Findings>,
    /// Further files that the manifest lists: names and contents.
    pub(crate) files: &'a [(&'a str, Vec<u8>)],
    /// Files that it does not list, as they may differ from run to run.
    pub(crate) reports: &'a [(&'a str, Vec<u8>)],
}

impl Draft<'_> {
    /// Writes the artefact beside `target` and moves it there when it is whole. An artefact that was there is replaced.
    ///
    /// # Errors
    /// `target` is taken by something else, or a file cannot be read or written.
    pub(crate) fn write(&self, target: &Path) -> Result<Manifest, ArtefactError> {
        check_target(target)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ArtefactError::File { path, source }
        };
        let parent = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(failed(parent))?;
        let folder = tempfile::Builder::new().prefix(".centuple-").tempdir_in(parent).map_err(failed(parent))?;
        let path = |name: &str| folder.path().join(name);

        let mut files = BTreeMap::new();
        let (source, _) = parts(self.source)?;
        for name in side_files(&source)? {
            let (from, to) = (source.join(&name), path(&name));
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(failed(parent))?;
            }
            let contents = fs::read(&from).map_err(failed(&from))?;
            files.insert(name, write_file(&to, |out| out.write_all(&contents))?);
        }
        for (name, contents) in self.files {
            files.insert((*name).to_owned(), write_file(&path(name), |out| out.write_all(contents))?);
        }
        let weights = write_file(&path(WEIGHTS), |mut out| self.compiled.plan.write_weights(&mut out))?;
        files.insert(WEIGHTS.to_owned(), weights);
        let manifest = Manifest {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source: self.origin.clone(),
            precision: self.compiled.precision,
            receipt: self.receipt.clone(),
            description: self.compiled.description.clone(),
            text: self.compiled.text.clone(),
            files,
            graph: self.compiled.graph.document(),
        };
        write_file(&path(MANIFEST), |out| out.write_all(&manifest.to_json()))?;
        for (name, contents) in self.reports {
            write_file(&path(name), |out| out.write_all(contents))?;
        }
        move_into_place(folder, target)?;
        Ok(manifest)
    }
}

impl Manifest {
    /// The text of the file.
    fn to_json(&self) -> Vec<u8> {
        // Through text, so that the hash is that of the numbers as they will be read.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let mut value: Value = serde_json::from_slice(&text).unwrap_or_default();
        let checksum = checksum(&value);
        if let Some(fields) = value.as_object_mut() {
            fields.insert(CHECKSUM.to_owned(), checksum.into());
        }
        let mut text = serde_json::to_vec_pretty(&value).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

/// Errors unless `target` is free, empty, or an artefact.
pub(crate) fn check_target(target: &Path) -> Result<(), ArtefactError> {
    let is_free = !target.exists() || is_artefact(target);
    let is_empty = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    if is_free || is_empty() { Ok(()) } else { Err(ArtefactError::Taken { path: target.to_owned() }) }
}

pub(crate) fn move_into_place(folder: tempfile::TempDir, target: &Path) -> Result<(), ArtefactError> {
    let failed = |source| ArtefactError::File { path: target.to_owned(), source };
    #[cfg(unix)]
    {
        // Temporary folders are private; this one is to be read by whoever may read its parent.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(failed)?;
    }
    let old = if target.exists() {
        let parent = folder.path().parent().unwrap_or(Path::new("."));
        let old = tempfile::Builder::new().prefix(".centuple-old-").tempdir_in(parent).map_err(failed)?;
        fs::rename(target, old.path().join("artefact")).map_err(failed)?;
        Some(old)
    } else {
        None
    };
    let moved = fs::rename(folder.path(), target).map_err(failed);
    if moved.is_err() {
        if let Some(old) = &old {
            let _ = fs::rename(old.path().join("artefact"), target);
        }
        return moved;
    }
    // It is not there any more, so there is nothing to remove.
    let _ = folder.keep();
    Ok(())
}

/// Writes a file to the disk, hashing it.
fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Record, ArtefactError> {
    let failed = |source| ArtefactError::File { path: path.to_owned(), source };
    let mut out = Hashed::new(BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?));
    write(&mut out).and_then(|()| out.flush()).map_err(failed)?;
    out.inner.get_ref().sync_all().map_err(failed)?;
    Ok(out.record())
}

/// Paths of the files that an artefact takes over: configuration, tokenizer, licence; at most one folder down.
pub(crate) fn side_files(folder: &Path) -> Result<Vec<String>, ArtefactError> {
    let files = files_within(folder)?;
    let wanted = |(path, bytes): &&(String, u64)| {
        let (parent, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(parent, name)| (parent, name));
        let lower = name.to_ascii_lowercase();
        let kind = lower.rsplit_once('.').map(|(_, kind)| kind);
        let is_text = matches!(kind, Some("json" | "txt" | "model" | "jinja" | "md")) || lower.starts_with("licen");
        // What tokenizer.json says again.
        let beside = if parent.is_empty() { TOKENIZER.to_owned() } else { format!("{parent}/{TOKENIZER}") };
        let again =
            ["vocab.txt", "vocab.json", "merges.txt"].contains(&name) && files.iter().any(|(path, _)| *path == beside);
        let foreign =
            lower.ends_with(".index.json") || [MANIFEST, "report.json"].contains(&name) || name.starts_with('.');
        is_text && !again && !foreign && *bytes <= COPY_LIMIT
    };
    Ok(files.iter().filter(wanted).map(|(path, _)| path.clone()).collect())
}

/// The folder of configuration and tokenizer of a source, and the ONNX file that it is read from, where it is.
fn parts(source: &Path) -> Result<(PathBuf, Option<PathBuf>), ArtefactError> {
    let failed = |error: CheckpointError| ArtefactError::File {
        path: source.to_owned(),
        source: io::Error::other(error.to_string()),
    };
    if let Some(path) = Gguf::find(source).map_err(failed)? {
        let reason = "a GGUF file can't become an artefact or be exported; run or serve it as it is, with --precision";
        return Err(ArtefactError::File { path, source: io::Error::new(io::ErrorKind::Unsupported, reason) });
    }
    Ok(match OnnxFile::find(source).map_err(failed)? {
        Some(file) => (file.folder, Some(file.path)),
        None => (source.to_owned(), None),
    })
}

/// An ONNX file, and the files beside it that may hold its tensors: their paths and sizes.
fn onnx_files(file: &Path) -> Result<Vec<(PathBuf, u64)>, ArtefactError> {
    let bytes = fs::metadata(file).map_err(|source| ArtefactError::File { path: file.to_owned(), source })?.len();
    let own = (file.to_owned(), bytes);
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let beside = files_within(folder)?.into_iter().map(|(name, bytes)| (folder.join(name), bytes));
    let kind = |path: &Path| path.extension().and_then(|kind| kind.to_str()).map(str::to_owned);
    let is_data = |(path, _): &(PathBuf, u64)| {
        path.parent() == Some(folder) && matches!(kind(path).as_deref(), Some("onnx_data" | "data" | "bin" | "weight"))
    };
    Ok([own].into_iter().chain(beside.filter(is_data)).collect())
}

/// Hash of the names and contents of configuration and weights.
fn hash_of_source(source: &Path) -> Result<String, ArtefactError> {
    let (folder, onnx) = parts(source)?;
    let mut all = Sha256::new();
    let weights: &[&str] = if onnx.is_some() { &[] } else { &["safetensors", "bin"] };
    for (name, bytes) in files_within(&folder)? {
        let kind = Path::new(&name).extension().and_then(|extension| extension.to_str());
        if kind.is_some_and(|kind| kind == "json" || weights.contains(&kind)) {
            all.update(format!("{} {name}\n", Record::of(&folder.join(&name), bytes)?.sha256));
        }
    }
    for (path, bytes) in onnx.map_or_else(|| Ok(Vec::new()), |file| onnx_files(&file))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        all.update(format!("{} {name}\n", Record::of(&path, bytes)?.sha256));
    }
    Ok(hex(all))
}

/// Bytes of a checkpoint's weight files.
pub(crate) fn weight_bytes(source: &Path) -> Result<u64, ArtefactError> {
    let (folder, onnx) = parts(source)?;
    if let Some(file) = onnx {
        return Ok(onnx_files(&file)?.iter().map(|(_, bytes)| bytes).sum());
    }
    let is_weights = |name: &str| name.ends_with(".safetensors") || name.ends_with(".bin");
    Ok(files_within(&folder)?.iter().filter(|(name, _)| is_weights(name)).map(|(_, bytes)| bytes).sum())
}

/// Paths and sizes of the regular files of a folder and of its folders, sorted; `/` parts them on every system.
fn files_within(folder: &Path) -> Result<Vec<(String, u64)>, ArtefactError> {
    let list = |folder: &Path| -> Result<Vec<(String, fs::Metadata)>, ArtefactError> {
        let failed = |source| ArtefactError::File { path: folder.to_owned(), source };
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // What cannot be read or named is no part of a model.
            if let (Ok(metadata), Ok(name)) = (fs::metadata(entry.path()), entry.file_name().into_string()) {
                entries.push((name, metadata));
            }
        }
        Ok(entries)
    };
    let mut files = Vec::new();
    for (name, metadata) in list(folder)? {
        if metadata.is_file() {
            files.push((name, metadata.len()));
        } else if metadata.is_dir() && !name.starts_with('.') {
            let inner = list(&folder.join(&name))?.into_iter().filter(|(_, metadata)| metadata.is_file());
            files.extend(inner.map(|(inner, metadata)| (format!("{name}/{inner}"), metadata.len())));
        }
    }
    files.sort_unstable();
    Ok(files)
}

impl Record {
    /// The record of a file on disk, of which not much more than `limit` bytes are read.
    fn of(path: &Path, limit: u64) -> Result<Record, ArtefactError> {
        let failed = |source| ArtefactError::File { path: path.to_owned(), source };
        let mut file = Hashed::new(File::open(path).map_err(failed)?.take(limit.saturating_add(1)));
        let mut chunk = vec![0; 1 << 18];
        while file.read(&mut chunk).map_err(failed)? > 0 {}
        Ok(file.record())
    }

    /// Errors unless what was found at `path` is this.
    fn check(&self, path: &Path, found: &Record) -> Result<(), ArtefactError> {
        let reason = if found.bytes != self.bytes {
            format!("it has {} bytes, not {}", found.bytes, self.bytes)
        } else if found.sha256 != self.sha256 {
            "it has another hash".to_owned()
        } else {
            return Ok(());
        };
        Err(ArtefactError::Changed { path: path.to_owned(), reason })
    }
}

/// A file whose bytes are hashed as they pass.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

/// Bytes that are hashed while they are in the cache.
const CHUNK: usize = 1 << 18;

impl<T> Hashed<T> {
    fn new(inner: T) -> Hashed<T> {
        Hashed { inner, hash: Sha256::new(), bytes: 0 }
    }

    fn record(&self) -> Record {
        Record { bytes: self.bytes, sha256: hex(self.hash.clone()) }
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = out.len().min(CHUNK);
        let read = self.inner.read(&mut out[..length])?;
        self.pass(&out[..read]);
        Ok(read)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(&bytes[..bytes.len().min(CHUNK)])?;
        self.pass(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hash of a manifest without its hash.
fn checksum(value: &Value) -> String {
    hex(Sha256::new_with_prefix(serde_json::to_vec(value).unwrap_or_default()))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
