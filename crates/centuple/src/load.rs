//! Loading: from a name to an engine, and what was learnt on the way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use centuple_graph::Graph;
use centuple_models::checkpoint::gguf::Gguf;
use centuple_models::checkpoint::onnx::{OnnxFile, has_only_onnx};
use centuple_models::{Description, Head, ModelError, Problem};
use centuple_passes::{Quantization, Quantizer, Report};
use centuple_runtime::{Plan, lower};
use centuple_tasks::{self as tasks, Limits, Model, ModelCard, Sequence};
use centuple_text::{TextOptions, Tokenizer, max_tokens};
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact, Draft, Manifest, Origin};
use crate::calibrate;
use crate::cuda;
use crate::device::Device;
use crate::device_engine::{DeviceEngine, DevicePlan};
use crate::engine;
use crate::error::Error;
use crate::fastest::Choice;
use crate::gguf::{self, GgufSettings};
use crate::host::Host;
use crate::onnx::{self, Raised};
use crate::options::{LoadOptions, Target};
use crate::precision::Precision;
use crate::rounding;

/// Whether a folder looks like a model: whether it has the files that are read first.
pub fn is_model(folder: &Path) -> bool {
    artefact::is_artefact(folder)
        || ["config.json", "modules.json"].iter().any(|file| folder.join(file).is_file())
        || has_only_onnx(folder)
        || matches!(Gguf::find(folder), Ok(Some(_)))
}

/// A model that is ready to answer.
pub struct Loaded {
    /// What tasks need to know of it.
    pub model: Arc<Model>,
    /// What computes.
    pub engine: DeviceEngine,
    /// The numbers that linear layers compute with.
    pub precision: Precision,
    /// What the artefact says of itself, where the model is one.
    pub artefact: Option<Arc<Artefact>>,
}

/// The encoder in front of a decoder: it yields the keys and values that the decoder's layers look at.
pub struct CompiledEncoder {
    /// The graph after the passes.
    pub graph: Graph,
    /// The plan.
    pub plan: Arc<Plan>,
}

/// A model folder after every step that needs no memory for batches.
pub struct Compiled {
    /// What tasks need to know of it.
    pub model: Arc<Model>,
    /// What the folder says.
    pub description: Description,
    /// The numbers that linear layers compute with.
    pub precision: Precision,
    /// What is to compute it.
    pub(crate) target: Target,
    /// Why that, where it was chosen for its speed.
    pub choice: Option<Choice>,
    /// What tasks need of the folder's text files.
    pub(crate) text: TextSettings,
    /// The graph before the passes; an artefact has none.
    pub plain: Option<Graph>,
    /// The graph after the passes.
    pub graph: Graph,
    /// What comes before it, where it is a decoder that answers a text.
    pub encoder: Option<CompiledEncoder>,
    /// What each pass did.
    pub passes: Vec<Report>,
    /// What is to be known of the file that the model was imported from.
    pub notes: Vec<String>,
    /// What the GGUF file says of generation, where the model is one.
    pub(crate) gguf: Option<GgufSettings>,
    /// The plan.
    pub plan: Arc<Plan>,
    /// What the artefact says of itself, where the model is one.
    pub artefact: Option<Arc<Artefact>>,
}

impl Compiled {
    /// What is to compute it.
    pub fn device(&self) -> Device {
        self.target.device
    }

    /// The model as that computes it.
    pub(crate) fn device_plan(&self) -> Result<DevicePlan, Error> {
        Ok(match self.target.device {
            Device::Cpu => {
                let encoder = self.encoder.as_ref().map(|encoder| Arc::clone(&encoder.plan));
                DevicePlan::Cpu { plan: Arc::clone(&self.plan), encoder }
            }
            Device::Cuda(number) => {
                let encoder = self.encoder.as_ref().map(|encoder| cuda::encoder_plan(&encoder.graph, self.precision));
                let encoder = encoder.transpose()?.map(Box::new);
                let plan = Box::new(cuda::plan(&self.graph, self.precision)?);
                DevicePlan::Cuda { plan, encoder, number, files: self.target.cuda.clone() }
            }
        })
    }

    /// Multiply-accumulates of a batch: those of the weight matrices and of attention.
    pub fn macs(&self, batch: &[&Sequence]) -> u64 {
        engine::layout(batch).map_or(0, |layout| self.plan.macs(&layout))
    }

    /// Writes the model as an artefact, a folder that is loaded at once; `source` is the folder that it was compiled
    /// from. An artefact that is at `target` is replaced, anything else is left alone.
    ///
    /// # Errors
    /// `target` is taken by something else, a file cannot be read or written, or the model has an encoder and a decoder.
    pub fn save(&self, source: &Path, target: &Path) -> Result<Manifest, Error> {
        if self.encoder.is_some() {
            return Err(Error::TwoGraphs { model: self.model.card.id.clone() });
        }
        let origin = Origin::of(&self.model.card.id, source)?;
        Ok(Draft { source, origin, compiled: self, receipt: None, files: &[], reports: &[] }.write(target)?)
    }
}

impl Host {
    /// Loads a model by folder or hub id.
    ///
    /// # Errors
    /// The name leads to no model, a file of it is missing, damaged or unsupported, or it cannot be compiled.
    pub fn load(&self, name: &str, options: &LoadOptions) -> Result<Loaded, Error> {
        self.start(&self.compile(name, options)?)
    }

    /// Loads a model folder under the name `id`.
    ///
    /// # Errors
    /// As for [`Host::load`].
    pub fn load_folder(&self, folder: &Path, id: &str, options: &LoadOptions) -> Result<Loaded, Error> {
        self.start(&self.compile_folder(folder, id, options)?)
    }

    /// Compiles a model by folder or hub id.
    ///
    /// # Errors
    /// As for [`Host::load`].
    pub fn compile(&self, name: &str, options: &LoadOptions) -> Result<Compiled, Error> {
        let (folder, id) = options.locate(name)?;
        self.compile_folder(&folder, &id, options)
    }

    /// Compiles a model folder under the name `id`.
    ///
    /// # Errors
    /// As for [`Host::load`].
    pub fn compile_folder(&self, folder: &Path, id: &str, options: &LoadOptions) -> Result<Compiled, Error> {
        if options.or_cpu {
            return self.compile_fastest(folder, id, options);
        }
        options.check()?;
        if artefact::is_artefact(folder) {
            return artefact::compile(self, folder, id, options);
        }
        let mut source = Source::open(folder, id, options)?;
        let (graph, reports) = match options.fusion {
            true => centuple_passes::optimize(&source.plain)?,
            false => (centuple_passes::fold_constants(&source.plain)?, Vec::new()),
        };
        let mut passes = [std::mem::take(&mut source.reports), reports].concat();
        let precision = match (options.precision, options.device, source.precision) {
            (None, Device::Cuda(_), Precision::F32) => Precision::F16,
            (asked, _, found) => asked.unwrap_or(found),
        };
        let encoder = match source.encoder.take() {
            Some(plain) => {
                let (encoder, reports) = centuple_passes::optimize(&plain)?;
                passes.extend(reports);
                Some(encoder)
            }
            None => None,
        };
        let model = &source.model;
        let graph = self.round(graph, encoder.as_ref(), model, options, &mut passes)?;
        source.encoder = encoder.map(|encoder| self.round(encoder, None, model, options, &mut passes)).transpose()?;
        self.lower(source, graph, passes, precision, Target::of(options))
    }

    /// Gives a graph, which may be a decoder behind an `encoder`, the numbers that the options ask for.
    fn round(
        &self,
        graph: Graph,
        encoder: Option<&Graph>,
        model: &Model,
        options: &LoadOptions,
        passes: &mut Vec<Report>,
    ) -> Result<Graph, Error> {
        let asked = options.precision.unwrap_or(Precision::F32);
        let generates = model.card.head.generates();
        let (graph, report) = match asked.quantization(&options.quantization, generates) {
            Some(quantization) => {
                let quantization = match options.device {
                    Device::Cpu => quantization,
                    // What a GPU multiplies bytes with holds sums of any 8-bit codes.
                    Device::Cuda(_) => Quantization { bits: 8, activated_bits: 8, ..quantization },
                };
                let (tokenizer, none) = (&model.tokenizer, std::iter::empty);
                let by_turns = asked.groups() && encoder.is_none();
                let moments = asked.groups() && !by_turns;
                let observations = calibrate::observe(self, &graph, encoder, tokenizer, none(), moments)?;
                if by_turns {
                    let rounded = rounding::round(self, &graph, tokenizer, &observations, &quantization)?;
                    Quantizer::new(&graph, &observations).with_rounded(rounded).quantize(&quantization)?
                } else {
                    centuple_passes::quantize(&graph, &observations, &quantization)?
                }
            }
            None if asked == Precision::F16 && options.device == Device::Cpu => centuple_passes::halve_weights(&graph)?,
            None => return Ok(graph),
        };
        passes.push(report);
        Ok(graph)
    }

    /// Makes a plan of a graph that was made of `source`.
    pub(crate) fn lower(
        &self,
        source: Source,
        graph: Graph,
        mut passes: Vec<Report>,
        precision: Precision,
        target: Target,
    ) -> Result<Compiled, Error> {
        let mut plan = lower(&graph, self.isa)?;
        plan.share(&self.weights);
        let mut on_device = |graph: Graph| -> Result<Graph, Error> {
            if target.device == Device::Cpu {
                return Ok(graph);
            }
            let (graph, report) = centuple_passes::byte_activations(&graph)?;
            passes.push(report);
            Ok(graph)
        };
        let graph = on_device(graph)?;
        let Source { mut model, description, text, plain, encoder, notes, gguf, .. } = source;
        let encoder = match encoder {
            Some(graph) => {
                let mut plan = lower(&graph, self.isa)?;
                plan.share(&self.weights);
                Some(CompiledEncoder { graph: on_device(graph)?, plan: Arc::new(plan) })
            }
            None => None,
        };
        model.card.dtype = precision.dtype().to_owned();
        Ok(Compiled {
            model: Arc::new(model),
            description,
            precision,
            target,
            choice: None,
            text,
            plain: Some(plain),
            graph,
            encoder,
            passes,
            notes,
            gguf,
            plan: Arc::new(plan),
            artefact: None,
        })
    }

    /// Gives a compiled model its memory for batches.
    ///
    /// # Errors
    /// The memory is beyond the address space, or the model has a decoder behind an encoder: see [`Host::start_generating`].
    pub fn start(&self, compiled: &Compiled) -> Result<Loaded, Error> {
        if compiled.encoder.is_some() {
            return Err(Error::OnlyGenerates { model: compiled.model.card.id.clone() });
        }
        let limits = compiled.model.limits;
        let engine = compiled.device_plan()?.engine(self, limits)?;
        Ok(Loaded {
            model: Arc::clone(&compiled.model),
            engine,
            precision: compiled.precision,
            artefact: compiled.artefact.clone(),
        })
    }
}

/// A checkpoint before any pass.
pub(crate) struct Source {
    pub(crate) model: Model,
    pub(crate) description: Description,
    pub(crate) text: TextSettings,
    pub(crate) plain: Graph,
    /// The encoder that the graph is a decoder behind.
    pub(crate) encoder: Option<Graph>,
    /// What raising the graph of an ONNX file has done.
    pub(crate) reports: Vec<Report>,
    /// What is to be known of that file.
    pub(crate) notes: Vec<String>,
    /// The precision that the weights have come in.
    pub(crate) precision: Precision,
    /// What the GGUF file says of generation, where the model is one.
    pub(crate) gguf: Option<GgufSettings>,
}

impl Source {
    /// Reads a checkpoint folder, or an ONNX or GGUF file, under the name `id`.
    pub(crate) fn open(place: &Path, id: &str, options: &LoadOptions) -> Result<Source, Error> {
        if let Some(path) = Gguf::find(place).map_err(ModelError::from)? {
            return gguf::open(&path, id, options);
        }
        let file = OnnxFile::find(place).map_err(ModelError::from)?;
        let folder = file.as_ref().map_or(place, |file| &file.folder);
        let Raised { model, reports, notes } = match &file {
            Some(file) => onnx::open(file, options.purpose)?,
            None => Raised {
                model: centuple_models::load(folder, options.purpose)?,
                reports: Vec::new(),
                notes: Vec::new(),
            },
        };
        let centuple_models::Model { graph, encoder, description, sentence_transformer } = model;
        let precision = if onnx::is_quantized(&graph) { Precision::Int8 } else { Precision::F32 };
        let text = sentence_transformer.map_or_else(TextSettings::default, |modules| TextSettings {
            folder: modules.transformer.strip_prefix(folder).unwrap_or(Path::new("")).to_owned(),
            max_seq_length: modules.max_seq_length,
            lowercase: modules.do_lower_case,
            prompts: modules.prompts,
            default_prompt: modules.default_prompt_name,
        });
        let model = model_of(folder, id, &description, &text, options)?;
        Ok(Source { model, description, text, plain: graph, encoder, reports, notes, precision, gguf: None })
    }
}

impl Source {
    /// Refuses a model that consists of two graphs.
    pub(crate) fn of_one_graph(self) -> Result<Source, Error> {
        match self.encoder {
            Some(_) => Err(Error::TwoGraphs { model: self.model.card.id }),
            None => Ok(self),
        }
    }
}

/// What tasks need of a folder's text files, besides the tokenizer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextSettings {
    /// Where the tokenizer lies within the folder.
    pub(crate) folder: PathBuf,
    pub(crate) max_seq_length: Option<usize>,
    pub(crate) lowercase: bool,
    pub(crate) prompts: BTreeMap<String, String>,
    pub(crate) default_prompt: Option<String>,
}

/// What tasks need to know of a model folder.
pub(crate) fn model_of(
    folder: &Path,
    id: &str,
    description: &Description,
    settings: &TextSettings,
    options: &LoadOptions,
) -> Result<Model, Error> {
    let text_folder = folder.join(&settings.folder);
    let text = TextOptions {
        max_tokens: max_tokens(&text_folder, description.max_tokens, settings.max_seq_length)?,
        lowercase: settings.lowercase,
        cache_bytes: options.token_cache_bytes,
    };
    let tokenizer = Tokenizer::open(&text_folder, &text)?;
    Ok(model_with(tokenizer, folder, id, description, settings, options))
}

/// The same with a tokenizer that has been read.
pub(crate) fn model_with(
    tokenizer: Tokenizer,
    place: &Path,
    id: &str,
    description: &Description,
    settings: &TextSettings,
    options: &LoadOptions,
) -> Model {
    let limits = Limits {
        max_tokens_per_sequence: description.max_tokens,
        max_tokens_per_batch: options.max_batch_tokens.max(description.max_tokens),
        vocabulary: description.vocabulary,
    };
    let card = ModelCard {
        id: id.to_owned(),
        revision: revision_of(place),
        architecture: description.architecture.clone(),
        dtype: Precision::F32.dtype().to_owned(),
        head: head(&description.head),
        prompts: settings.prompts.clone(),
        default_prompt: settings.default_prompt.clone(),
        ranks_by_logit: description.ranks_by_logit,
    };
    Model { card, tokenizer, limits }
}

/// The commit, where the folder lies in a hub cache (`snapshots/<commit>`).
fn revision_of(folder: &Path) -> Option<String> {
    let parent = folder.parent()?.file_name()?;
    let commit = folder.file_name()?.to_str()?;
    (parent == "snapshots" && commit.len() == 40).then(|| commit.to_owned())
}

fn head(head: &Head) -> tasks::Head {
    match head {
        Head::TokenFeatures { dimension } => tasks::Head::TokenFeatures { dimension: *dimension },
        Head::SentenceEmbedding { dimension, pooling, normalised, include_prompt } => {
            tasks::Head::SentenceEmbedding(tasks::Embedding {
                dimension: *dimension,
                pooling: pooling.join("+"),
                normalised: *normalised,
                include_prompt: *include_prompt,
            })
        }
        Head::Classification { labels, problem } => tasks::Head::Classification {
            labels: labels.clone(),
            problem: match problem {
                Problem::SingleLabel => tasks::Problem::SingleLabel,
                Problem::MultiLabel => tasks::Problem::MultiLabel,
                Problem::Regression => tasks::Problem::Regression,
            },
        },
        Head::TokenClassification { labels } => tasks::Head::TokenClassification { labels: labels.clone() },
        Head::QuestionAnswering => tasks::Head::QuestionAnswering,
        Head::MaskedLm { vocabulary } => tasks::Head::MaskedLm { vocabulary: *vocabulary },
        Head::CausalLm { vocabulary } => tasks::Head::CausalLm { vocabulary: *vocabulary },
        Head::Seq2SeqLm { vocabulary } => tasks::Head::Seq2SeqLm { vocabulary: *vocabulary },
        Head::SparseEmbedding { vocabulary } => tasks::Head::SparseEmbedding { vocabulary: *vocabulary },
        Head::LateInteraction { dimension } => tasks::Head::LateInteraction { dimension: *dimension },
    }
}
