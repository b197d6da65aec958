//! Generation: from a model folder to something that takes requests and yields tokens.
//!
//! ```text
//! folder ── Compiled ── PlanSteps: the plan over a cache of keys and values ── Generator ── TextGenerator
//! ```

mod defaults;
pub(crate) mod encoder;
mod likelihoods;
mod memory;
pub(crate) mod steps;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use centuple_generate::{StepEngine, StepLimits};
use centuple_kernels::KvPrecision;
use centuple_tasks::text_generation::{Defaults, TextGenerator};
use centuple_tasks::{Head, Model};

pub(crate) use likelihoods::Likelihoods;
pub use steps::PlanSteps;

use crate::device_engine::DeviceSteps;
use crate::error::Error;
use crate::host::Host;
use crate::load::Compiled;
use crate::options::LoadOptions;
use crate::precision::Precision;

/// What generation may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationOptions {
    /// Bytes for keys and values of all sequences together; by default a share of the free memory, at most what
    /// `sequences_per_step` longest sequences need.
    pub kv_memory: Option<usize>,
    /// The numbers that keys and values are kept as; by default f32 where the model's precision is f32, and f16
    /// where it is a narrower one.
    pub kv_precision: Option<KvPrecision>,
    /// Most tokens that are computed together, at which prompts are cut. Many let prompts pass sooner, few let the streams
    /// beside them wait less.
    pub tokens_per_step: usize,
    /// Most sequences that are computed together.
    pub sequences_per_step: usize,
}

impl Default for GenerationOptions {
    fn default() -> GenerationOptions {
        GenerationOptions { kv_memory: None, kv_precision: None, tokens_per_step: 256, sequences_per_step: 64 }
    }
}

/// The numbers that keys and values are kept as where nobody says. Weights of f16 are rounded as much, others more.
pub(crate) fn kept_by(precision: Precision) -> KvPrecision {
    match precision {
        Precision::F32 => KvPrecision::F32,
        Precision::F16 | Precision::Bf16 | Precision::Int8 | Precision::Int4 | Precision::Fp8 => KvPrecision::F16,
    }
}

/// A model that is ready to generate.
pub struct Generating {
    /// What tasks need to know of it.
    pub model: Arc<Model>,
    /// How it generates where a request doesn't say.
    pub defaults: Defaults,
    /// What computes.
    pub engine: DeviceSteps,
    /// The numbers that linear layers compute with.
    pub precision: Precision,
    /// The folder, or the GGUF file, that it was loaded from.
    pub folder: PathBuf,
}

impl Generating {
    /// What its engine takes.
    pub fn limits(&self) -> StepLimits {
        self.engine.limits()
    }

    /// Starts the thread that runs the engine.
    ///
    /// # Errors
    /// The system grants none.
    pub fn start(self) -> io::Result<TextGenerator> {
        let Generating { model, defaults, engine, folder, .. } = self;
        TextGenerator::start(model, defaults, Box::new(engine), folder.join("tokenizer.json"))
    }
}

impl Host {
    /// Loads a model that generates, by folder or hub id.
    ///
    /// # Errors
    /// As for [`Host::load`]; the model doesn't generate; what it says of how it generates has no meaning; or the memory for keys
    /// and values isn't granted.
    pub fn load_generating(
        &self,
        name: &str,
        options: &LoadOptions,
        generation: &GenerationOptions,
    ) -> Result<Generating, Error> {
        let (folder, id) = options.locate(name)?;
        let compiled = self.compile_folder(&folder, &id, options)?;
        self.start_generating(&compiled, &folder, generation)
    }

    /// Gives a compiled model that generates its memory; `folder` is the one that it was compiled from.
    ///
    /// # Errors
    /// As for [`Host::load_generating`].
    pub fn start_generating(
        &self,
        compiled: &Compiled,
        folder: &Path,
        generation: &GenerationOptions,
    ) -> Result<Generating, Error> {
        let card = &compiled.model.card;
        if !card.head.generates() {
            return Err(Error::NotGenerating { model: card.id.clone(), offers: card.offers() });
        }
        let reads = matches!(card.head, Head::Seq2SeqLm { .. });
        let (defaults, folder) = match &compiled.gguf {
            Some(settings) => (defaults::of_gguf(settings)?, settings.path.as_path()),
            None => (defaults::read(folder, reads)?, folder),
        };
        let vocabulary = card.dimension();
        let positions = compiled.description.max_tokens;
        let kv_precision = generation.kv_precision.unwrap_or_else(|| kept_by(compiled.precision));
        let generation = GenerationOptions { kv_precision: Some(kv_precision), ..*generation };
        let engine = compiled.device_plan()?.steps(self, [positions, vocabulary], &generation)?;
        let (model, precision) = (Arc::clone(&compiled.model), compiled.precision);
        Ok(Generating { model, defaults, engine, precision, folder: folder.to_owned() })
    }
}
