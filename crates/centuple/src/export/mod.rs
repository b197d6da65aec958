//! Export: a checkpoint as ONNX files, with the tokenizer and the configuration beside them, or as a model repository of
//! Triton.

mod triton;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use centuple_graph::{Graph, NodeId, Op};
use centuple_models::Head;
use centuple_onnx::export::{self as onnx, DATA_LIMIT, Dialect, Options, Output, Weights};
use centuple_receipt::data::{self, DataError, DataOptions};
use serde::Serialize;

use crate::artefact::{self, ArtefactError};
use crate::calibrate;
use crate::error::Error;
use crate::host::Host;
use crate::load::Source;
use crate::optimize::Progress;
use crate::options::{LoadOptions, id_of};

/// The file that says that a folder is an export.
const MANIFEST: &str = "centuple_export.json";

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A folder of ONNX files, as Optimum writes it.
    Onnx,
    /// A model repository of Triton.
    Triton,
}

/// One ONNX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExportFile {
    /// `model.onnx`: f32, ONNX's own operators.
    Model,
    /// `model_optimized.onnx`: f32, ONNX Runtime's operators for transformers.
    Optimized,
    /// `model_quantized.onnx`: 8-bit weights per output channel, activations quantised as they come.
    Quantized,
    /// `model_qdq.onnx`: pairs of QuantizeLinear and DequantizeLinear, by ranges that texts have shown.
    Qdq,
}

impl ExportFile {
    /// Every file.
    pub const ALL: [ExportFile; 4] = [ExportFile::Model, ExportFile::Optimized, ExportFile::Quantized, ExportFile::Qdq];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ExportFile::Model => "model.onnx",
            ExportFile::Optimized => "model_optimized.onnx",
            ExportFile::Quantized => "model_quantized.onnx",
            ExportFile::Qdq => "model_qdq.onnx",
        }
    }
}

/// What an export is to be.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// What is written.
    pub format: ExportFormat,
    /// The ONNX files; by default all, `model_qdq.onnx` only with texts. A repository has one, by default `model.onnx`.
    pub files: Option<Vec<ExportFile>>,
    /// A file of texts for the ranges of `model_qdq.onnx`.
    pub calibrate: Option<PathBuf>,
    /// How that file is read.
    pub data: DataOptions,
    /// Bytes from which on the constants of a model go to a file of their own.
    pub max_file_bytes: u64,
    /// Name of the model in a repository; by default its id.
    pub name: Option<String>,
    /// How the model is loaded.
    pub load: LoadOptions,
}

impl Default for ExportOptions {
    fn default() -> ExportOptions {
        ExportOptions {
            format: ExportFormat::Onnx,
            files: None,
            calibrate: None,
            data: DataOptions::default(),
            max_file_bytes: DATA_LIMIT,
            name: None,
            load: LoadOptions::default(),
        }
    }
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportedFile {
    /// Its path in the folder.
    pub file: String,
    /// Bytes of the model and, where they are apart, of its constants.
    pub bytes: u64,
    /// Number of operators.
    pub nodes: usize,
}

/// Why a model could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The model can't be loaded.
    #[error(transparent)]
    Model(#[from] Error),
    /// The graph has something that the format can't say.
    #[error(transparent)]
    Onnx(#[from] onnx::ExportError),
    /// The texts can't be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Ranges were asked for without texts.
    #[error("model_qdq.onnx needs texts that show its ranges; name a file of them with --calibrate")]
    NoTexts,
    /// A repository was asked to hold several files.
    #[error("a Triton model is one file; name one with --files")]
    SeveralFiles,
    /// A name that can't be a folder of a repository.
    #[error("`{0}` can't be the name of a model in a repository; name another with --name")]
    Name(String),
    /// The model is an artefact.
    #[error("{} is optimised already; name the model that it was made of", .0.display())]
    Artefact(PathBuf),
    /// The folder is taken.
    #[error("{} is there and no export; name another folder or remove it", .0.display())]
    Taken(PathBuf),
    /// A file can't be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It was told to stop.
    #[error("stopped; nothing was written")]
    Cancelled,
}

impl From<ArtefactError> for ExportError {
    fn from(error: ArtefactError) -> ExportError {
        ExportError::Model(error.into())
    }
}

impl Host {
    /// Exports a model by folder or hub id to the folder `target`; an export that is there is replaced. The same model,
    /// texts, options and version give the same bytes.
    ///
    /// # Errors
    /// The model or the texts can't be used, `target` is taken, a file can't be written, or `progress` says to stop.
    pub fn export(
        &self,
        name: &str,
        target: &Path,
        options: &ExportOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<ExportedFile>, ExportError> {
        check_target(target)?;
        let files = options.files()?;
        progress.begin("reading the model", 0);
        let folder = options.load.find(name)?;
        if artefact::is_artefact(&folder) {
            return Err(ExportError::Artefact(folder));
        }
        let id = id_of(name, &folder);
        let mut source = Source::open(&folder, &id, &options.load)?.of_one_graph()?;
        source.plain = centuple_passes::fold_constants(&source.plain).map_err(Error::from)?;
        let ranges = match files.contains(&ExportFile::Qdq) {
            true => {
                progress.begin("observing ranges", 0);
                self.ranges(&source, options)?
            }
            false => HashMap::new(),
        };
        let parent = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(failed(parent))?;
        let out = tempfile::Builder::new().prefix(".centuple-").tempdir_in(parent).map_err(failed(parent))?;
        let export = Export { source: &source, options, ranges, progress, out: out.path() };
        let written = match options.format {
            ExportFormat::Onnx => export.onnx(&folder, &files)?,
            ExportFormat::Triton => export.triton(&files)?,
        };
        let manifest = Manifest { version: env!("CARGO_PKG_VERSION"), model: &id, files: &written };
        let mut text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
        text.push('\n');
        write(&out.path().join(MANIFEST), text.as_bytes())?;
        artefact::move_into_place(out, target)?;
        Ok(written)
    }

    /// The largest magnitude of each value that feeds a linear layer, on the shipped texts and the caller's own.
    fn ranges(&self, source: &Source, options: &ExportOptions) -> Result<HashMap<NodeId, f32>, ExportError> {
        let path = options.calibrate.as_deref().ok_or(ExportError::NoTexts)?;
        let data = data::read(path, &options.data)?;
        let texts = data.examples.iter().flat_map(data::Example::texts);
        let observations = calibrate::observe(self, &source.plain, None, &source.model.tokenizer, texts, false)?;
        let largest = |channels: &centuple_passes::Channels| channels.largest.iter().copied().fold(0.0, f32::max);
        Ok(observations.iter().map(|(&value, channels)| (value, largest(channels))).collect())
    }
}

impl ExportOptions {
    /// The ONNX files that are wanted.
    fn files(&self) -> Result<Vec<ExportFile>, ExportError> {
        let all = ExportFile::ALL.into_iter().filter(|&file| file != ExportFile::Qdq || self.calibrate.is_some());
        let mut files = match (&self.files, self.format) {
            (Some(files), _) => files.clone(),
            (None, ExportFormat::Onnx) => all.collect(),
            (None, ExportFormat::Triton) => vec![ExportFile::Model],
        };
        files.sort_unstable();
        files.dedup();
        if self.format == ExportFormat::Triton && files.len() != 1 {
            return Err(ExportError::SeveralFiles);
        }
        if files.contains(&ExportFile::Qdq) && self.calibrate.is_none() {
            return Err(ExportError::NoTexts);
        }
        Ok(files)
    }
}

/// What the folder says of itself.
#[derive(Serialize)]
struct Manifest<'a> {
    version: &'a str,
    model: &'a str,
    files: &'a [ExportedFile],
}

/// An export under way.
struct Export<'a> {
    source: &'a Source,
    options: &'a ExportOptions,
    ranges: HashMap<NodeId, f32>,
    progress: &'a dyn Progress,
    out: &'a Path,
}

impl Export<'_> {
    fn onnx(&self, folder: &Path, files: &[ExportFile]) -> Result<Vec<ExportedFile>, ExportError> {
        let mut written = Vec::with_capacity(files.len());
        self.progress.begin("writing ONNX files", files.len());
        for &file in files {
            written.push(self.write(file, Path::new(file.name()), &outputs(&self.source.plain, self.head(), true))?);
            self.progress.advance();
        }
        for name in artefact::side_files(folder)?.iter().filter(|name| *name != MANIFEST) {
            let (from, to) = (folder.join(name), self.out.join(name));
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(failed(parent))?;
            }
            write(&to, &fs::read(&from).map_err(failed(&from))?)?;
        }
        Ok(written)
    }

    fn head(&self) -> &Head {
        &self.source.description.head
    }

    /// Writes one model to a path in the folder.
    fn write(&self, file: ExportFile, path: &Path, outputs: &[Output]) -> Result<ExportedFile, ExportError> {
        if self.progress.is_cancelled() {
            return Err(ExportError::Cancelled);
        }
        let (dialect, weights) = match file {
            ExportFile::Model => (Dialect::Standard, Weights::Float),
            ExportFile::Optimized => (Dialect::Fused, Weights::Float),
            ExportFile::Quantized => (Dialect::Fused, Weights::Dynamic),
            ExportFile::Qdq => (Dialect::Standard, Weights::Static(self.ranges.clone())),
        };
        let name = self.source.description.architecture.clone();
        let model = onnx::export(&self.source.plain, &Options { dialect, weights, outputs: outputs.to_vec(), name })?;
        let path_in_folder = path.to_string_lossy().into_owned();
        let path = self.out.join(path);
        let data = path.with_extension("onnx_data");
        let location = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(failed(&path))?);
        let open = || Ok(BufWriter::with_capacity(1 << 20, File::create(&data)?));
        let written = model.write(&mut out, self.options.max_file_bytes, &location, open).map_err(failed(&path))?;
        let bytes = written.model + written.data.unwrap_or(0);
        Ok(ExportedFile { file: path_in_folder, bytes, nodes: model.nodes() })
    }
}

/// The outputs by the names that Optimum gives them; those of an answer's start and end are two where `apart` says so.
fn outputs(graph: &Graph, head: &Head, apart: bool) -> Vec<Output> {
    let Some(&(_, value)) = graph.outputs().first() else { return Vec::new() };
    let output = |name: &str, value, column| Output { name: name.to_owned(), value, column };
    match head {
        Head::TokenFeatures { .. } => vec![output("last_hidden_state", value, None)],
        Head::LateInteraction { .. } => vec![output("token_embeddings", value, None)],
        Head::SparseEmbedding { .. } => vec![output("sentence_embedding", value, None)],
        Head::SentenceEmbedding { .. } => {
            let pools = graph.nodes().iter().filter(|node| matches!(node.op, Op::Pool(_)));
            let tokens = pools.filter_map(|node| node.inputs.first()).next();
            let tokens = tokens.map(|&tokens| output("token_embeddings", tokens, None));
            tokens.into_iter().chain([output("sentence_embedding", value, None)]).collect()
        }
        Head::QuestionAnswering if apart => {
            vec![output("start_logits", value, Some(0)), output("end_logits", value, Some(1))]
        }
        Head::QuestionAnswering
        | Head::Classification { .. }
        | Head::TokenClassification { .. }
        | Head::MaskedLm { .. }
        | Head::CausalLm { .. }
        | Head::Seq2SeqLm { .. } => vec![output("logits", value, None)],
    }
}

/// Errors unless `target` is free, empty, or an export.
fn check_target(target: &Path) -> Result<(), ExportError> {
    let is_free = !target.exists() || target.join(MANIFEST).is_file();
    let is_empty = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    if is_free || is_empty() { Ok(()) } else { Err(ExportError::Taken(target.to_owned())) }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let mut file = File::create(path).map_err(failed(path))?;
    file.write_all(bytes).map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> ExportError + use<> {
    let path = path.to_owned();
    move |source| ExportError::File { path: path.clone(), source }
}
