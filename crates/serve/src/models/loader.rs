//! Where models come from, as far as the server knows it: a [`Loader`] lists them and makes them servable.

use std::{path::PathBuf, sync::Arc, time::Duration};

use centuple_tasks::{Engine, Model};

use super::Report;
use crate::{generation::Generation, metrics::Accelerator, shadow::Shadow};

/// A model and what computes it.
pub struct ServedModel {
    /// The model. Its card's id is the name that clients use, that of its [`Source`] if it has one.
    pub model: Arc<Model>,
    /// Its engine, which moves to a thread of its own.
    pub engine: Box<dyn Engine>,
    /// What makes it generate, if it does. Its engine then computes nothing else.
    pub generation: Option<Generation>,
    /// What the engine computes on, where that isn't the CPU.
    pub accelerators: Vec<Arc<dyn Accelerator>>,
    /// Bytes that the engine takes, weights included; 0 where that is not known.
    pub memory: u64,
    /// What measures the engine's drift on served sequences, if anything does.
    pub shadow: Option<Shadow>,
    /// What its optimisation was found to cost in accuracy, if it was optimised.
    pub report: Option<Arc<Report>>,
}

/// One version of a model that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name that clients use: `name` or `org/name`.
    pub name: String,
    /// Its version, from 1; where several have the same name, the largest one is the one that is meant.
    pub version: u64,
    /// Where the loader finds it; the server doesn't look there.
    pub place: PathBuf,
    /// Differs wherever its files differ.
    pub fingerprint: u64,
    /// Bytes of its weights as they are stored: how much memory it will take, until it was loaded once.
    pub bytes: u64,
    /// How it came to be served.
    pub origin: Origin,
}

/// How a model came to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was named at the start. It is loaded then, and if that fails the server ends; where
    /// memory is limited, as many are as there is room for. It is loaded again only when that is asked for.
    Named,
    /// It was found in a repository. What changes there is followed while the server runs.
    Found {
        /// Whether it is loaded as soon as it is known, and not only when it is first asked for.
        eager: bool,
    },
}

/// Why a model could not be loaded, or models could not be listed: a sentence that says what and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);

/// Lists models and loads them. Both are called on threads that may wait.
pub trait Loader: Send + Sync + 'static {
    /// Everything that can be loaded now, in the order in which it is listed to clients.
    ///
    /// # Errors
    /// It can't be told what there is; then nothing changes.
    fn scan(&self) -> Result<Vec<Source>, LoadError>;

    /// Loads a model, warm-up included. Never called for two at the same time.
    ///
    /// # Errors
    /// The model is missing, damaged or not supported.
    fn load(&self, source: &Source) -> Result<ServedModel, LoadError>;
}

/// How models are kept.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Most bytes that all loaded models may take together. Where it is set, models that were not
    /// used for longest make room for others; without it all stay.
    pub max_memory: Option<u64>,
    /// How long a request waits for its model to be loaded.
    pub load_timeout: Duration,
    /// How long a model that failed to load is not tried again by requests, which get the reason meanwhile.
    pub retry_pause: Duration,
    /// How often the loader is asked what there is; none: only when that is asked for.
    pub watch: Option<Duration>,
    /// Whether clients may load and unload models.
    pub control: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            max_memory: None,
            load_timeout: Duration::from_secs(300),
            retry_pause: Duration::from_secs(5),
            watch: None,
            control: false,
        }
    }
}
