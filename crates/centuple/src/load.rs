//! Loading: from a name to an engine, and what was learnt on the way.

use std::path::Path;
use std::sync::Arc;

use centuple_graph::Graph;
use centuple_models::checkpoint::hub;
use centuple_models::{Description, Head, ModelError, Problem, Purpose};
use centuple_passes::{PassError, Report};
use centuple_runtime::{Plan, RuntimeError, Session, lower};
use centuple_tasks::{self as tasks, Limits, Model, ModelCard};
use centuple_tensor::Bindings;
use centuple_text::{TextError, TextOptions, Tokenizer, max_tokens};

use crate::engine::PlanEngine;
use crate::host::Host;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name leads to no folder.
    #[error(transparent)]
    Hub(#[from] hub::HubError),
    /// The folder is no model that is understood.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer is missing or damaged.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A pass broke the graph.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The graph could not be compiled.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// How a model is loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What the model is wanted for.
    pub purpose: Purpose,
    /// Most tokens that are computed together; raised to the model's longest sequence where it is smaller.
    pub max_batch_tokens: usize,
    /// Memory for recently tokenised texts in bytes; 0 switches the cache off.
    pub token_cache_bytes: u64,
    /// Where names are looked up; by default where the environment says.
    pub hub: Option<hub::HubOptions>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions { purpose: Purpose::Own, max_batch_tokens: 4096, token_cache_bytes: 32 << 20, hub: None }
    }
}

/// A model that is ready to answer.
pub struct Loaded {
    /// What tasks need to know of it.
    pub model: Arc<Model>,
    /// What computes.
    pub engine: PlanEngine,
}

/// A model folder after every step that needs no tokenizer and no memory for batches.
pub struct Compiled {
    /// What the folder says.
    pub description: Description,
    /// The graph before the passes.
    pub plain: Graph,
    /// The graph after the passes.
    pub graph: Graph,
    /// What each pass did.
    pub passes: Vec<Report>,
    /// The plan.
    pub plan: Arc<Plan>,
}

impl Host {
    /// Loads a model by folder or hub id.
    ///
    /// # Errors
    /// The name leads to no model, a file of it is missing, damaged or unsupported, or it cannot be compiled.
    pub fn load(&self, name: &str, options: &LoadOptions) -> Result<Loaded, Error> {
        let folder = match &options.hub {
            Some(hub) => hub::resolve(name, hub)?,
            None => hub::resolve(name, &hub::HubOptions::from_env()?)?,
        };
        self.load_folder(&folder, &id_of(name, &folder), options)
    }

    /// Loads a model folder under the name `id`.
    ///
    /// # Errors
    /// As for [`Host::load`].
    pub fn load_folder(&self, folder: &Path, id: &str, options: &LoadOptions) -> Result<Loaded, Error> {
        let model = centuple_models::load(folder, options.purpose)?;
        let modules = model.sentence_transformer.as_ref();
        let text_folder = modules.map_or(folder, |modules| &modules.transformer);
        let description = &model.description;
        let max_tokens =
            max_tokens(text_folder, description.max_tokens, modules.and_then(|modules| modules.max_seq_length))?;
        let text = TextOptions {
            max_tokens,
            lowercase: modules.is_some_and(|modules| modules.do_lower_case),
            cache_bytes: options.token_cache_bytes,
        };
        let tokenizer = Tokenizer::open(text_folder, &text)?;
        let limits = Limits {
            max_tokens_per_sequence: description.max_tokens,
            max_tokens_per_batch: options.max_batch_tokens.max(description.max_tokens),
            vocabulary: description.vocabulary,
        };
        let card = ModelCard {
            id: id.to_owned(),
            revision: revision_of(folder),
            architecture: description.architecture.clone(),
            dtype: "float32".to_owned(),
            head: head(&description.head),
            prompts: modules.map(|modules| modules.prompts.clone()).unwrap_or_default(),
            default_prompt: modules.and_then(|modules| modules.default_prompt_name.clone()),
        };
        let per_token = matches!(description.head, Head::TokenFeatures { .. });
        let compiled = self.compile(model)?;
        let tokens = limits.max_tokens_per_batch;
        let capacity = Bindings { tokens, sequences: tokens, ..Bindings::default() };
        let session = Session::new(compiled.plan, Arc::clone(&self.pool), capacity)?;
        Ok(Loaded {
            model: Arc::new(Model { card, tokenizer, limits }),
            engine: PlanEngine::new(session, limits, per_token),
        })
    }

    /// Compiles a model for this machine.
    ///
    /// # Errors
    /// The graph cannot be optimised or lowered.
    pub fn compile(&self, model: centuple_models::Model) -> Result<Compiled, Error> {
        let (graph, passes) = centuple_passes::optimize(&model.graph)?;
        let plan = Arc::new(lower(&graph, self.isa)?);
        Ok(Compiled { description: model.description, plain: model.graph, graph, passes, plan })
    }
}

/// The id that clients use: the hub id without its revision, or the folder's name.
fn id_of(name: &str, folder: &Path) -> String {
    if Path::new(name).exists() {
        let absolute = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        return absolute.file_name().map_or_else(|| name.to_owned(), |last| last.to_string_lossy().into_owned());
    }
    name.split('@').next().unwrap_or(name).to_owned()
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
    }
}
