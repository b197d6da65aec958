//! From names and folders to models that can be served.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use centuple::generation::{Encoding, Logits, Source as StepSource, Step, StepEngine, StepLimits, StepSpan};
use centuple::tasks::{Engine, EngineError, Limits, Output, Sequence};
use centuple::{
    Compiled, Device, Generating, GenerationOptions, Gpu, Host, HostOptions, LoadOptions, Loaded, Precision,
};
use centuple_serve::{Accelerator, Generation, LoadError, Loader, Origin, Report, ServedModel, Shadow, Source};

use super::repository::{Files, Repository};
use super::without::{Padded, Recomputing};
use crate::args::{Serve, Stage};
use crate::explain;

/// Length of the sequence that each model runs before it serves.
const WARM_UP_TOKENS: usize = 16;

/// How models become servable, and which there are.
pub(super) struct Folders {
    host: Host,
    options: LoadOptions,
    generation: GenerationOptions,
    shadow: Option<f64>,
    shadow_model: Option<String>,
    accept_over_budget: bool,
    padded: bool,
    recomputing: bool,
    named: Vec<Named>,
    repository: Option<Repository>,
}

/// A model that was named on the command line.
struct Named {
    /// As it was named.
    name: String,
    id: String,
    folder: PathBuf,
}

impl Folders {
    /// Finds the models that a command names, which may mean to download them.
    pub(super) fn find(command: &Serve, names: &[String]) -> anyhow::Result<Folders> {
        let repository = command.model_repository.as_ref().map(|root| Repository::new(root, command.eager));
        if command.shadow_model.is_some() && (names.len() > 1 || repository.is_some()) {
            bail!("--shadow-model is for one model, and several are served; start a server for each");
        }
        let options = LoadOptions {
            max_batch_tokens: command.max_batch_tokens,
            fusion: !command.lacks(Stage::Fusion),
            ..command.machine.load_options()
        };
        let mut generation = command.generation.options();
        if command.lacks(Stage::Batching) {
            generation.sequences_per_step = 1;
        }
        let mut named: Vec<Named> = Vec::with_capacity(names.len());
        for name in names {
            let (folder, id) = options.locate(name)?;
            let known = named.iter().any(|other| other.id == id);
            ensure!(!known, "two models are called `{id}`, so clients could not tell them apart; rename one folder");
            named.push(Named { name: name.clone(), id, folder });
        }
        Ok(Folders {
            host: command.machine.host()?,
            options,
            generation,
            shadow: command.shadow.filter(|share| *share > 0.0),
            shadow_model: command.shadow_model.clone(),
            accept_over_budget: command.accept_over_budget,
            padded: command.lacks(Stage::Packing),
            recomputing: command.lacks(Stage::KvCache),
            named,
            repository,
        })
    }

    /// The ids of the models that were named.
    pub(super) fn ids(&self) -> Vec<String> {
        self.named.iter().map(|named| named.id.clone()).collect()
    }

    /// Named models first; a folder of a repository does not take the name of one.
    fn list(&self) -> anyhow::Result<Vec<Source>> {
        let mut sources = Vec::with_capacity(self.named.len());
        for Named { id, folder, .. } in &self.named {
            let files = Files::of(folder, None).with_context(|| format!("cannot read {}", folder.display()))?;
            sources.push(Source {
                name: id.clone(),
                version: 1,
                place: folder.clone(),
                fingerprint: files.fingerprint,
                bytes: files.weights,
                origin: Origin::Named,
            });
        }
        if let Some(repository) = &self.repository {
            let found = repository.scan().with_context(|| {
                format!("cannot read {}, which should be a folder of models", repository.root().display())
            })?;
            for source in found {
                match self.named.iter().any(|named| named.id == source.name) {
                    true => repository.warn(format!(
                        "{} is left out: a model of the command line is called `{}`",
                        source.place.display(),
                        source.name
                    )),
                    false => sources.push(source),
                }
            }
        }
        Ok(sources)
    }

    fn load_one(&self, source: &Source) -> anyhow::Result<ServedModel> {
        let named = self.named.iter().find(|named| named.folder == source.place);
        let name = named.map_or_else(|| source.place.display().to_string(), |named| named.name.clone());
        let compiled = self.host.compile_folder(&source.place, &source.name, &self.options)?;
        if let Some(choice) = &compiled.choice {
            tracing::info!("{name}: {choice}");
        }
        if let Some(artefact) = &compiled.artefact {
            ensure!(
                self.accept_over_budget || !artefact.is_over_budget(),
                "{name} has lost more accuracy than its budget allowed, as its report.html shows; optimise it again, or \
                 serve it all the same with --accept-over-budget"
            );
        }
        if compiled.model.card.head.generates() {
            return self.generating(&name, source, &compiled);
        }
        let mut loaded = self.host.start(&compiled)?;
        // The first client finds every page touched and every thread awake.
        let tokens = WARM_UP_TOKENS.min(loaded.engine.limits().max_tokens_per_sequence);
        loaded.engine.run(&[&Sequence::from_ids(vec![0; tokens])])?;
        let gpus = loaded.engine.gpus();
        match gpus.as_slice() {
            [] => tracing::info!("loaded {name}: {} threads, {}", self.host.threads(), self.host.isa()),
            gpus => gpus.iter().for_each(|gpu| tracing::info!("loaded {name}: GPU {}, {}", gpu.number, gpu.name)),
        }
        let memory = loaded.engine.memory();
        let memory = (memory.weights + memory.arena + memory.workers) as u64;
        let shadow = self.shadow.map(|share| self.shadow(&name, source, &loaded, share)).transpose()?.flatten();
        let accelerators = gpus.into_iter().map(|gpu| Arc::new(OnGpu(gpu)) as _).collect();
        let report = loaded.artefact.as_ref().and_then(|artefact| artefact.report());
        let report = report.map(|(html, json)| Arc::new(Report { html, json }));
        let engine: Box<dyn Engine> =
            if self.padded { Box::new(Padded(loaded.engine)) } else { Box::new(loaded.engine) };
        Ok(ServedModel { model: loaded.model, engine, generation: None, accelerators, memory, shadow, report })
    }

    /// A model that generates.
    fn generating(&self, name: &str, source: &Source, compiled: &Compiled) -> anyhow::Result<ServedModel> {
        let Generating { model, defaults, mut engine, folder, .. } =
            self.host.start_generating(compiled, &source.place, &self.generation)?;
        engine.run(&first_step(engine.limits()), &mut Logits::default())?;
        let (memory, cache) = (engine.memory(), engine.cache_bytes());
        let gpu = engine.gpu();
        let place = match &gpu {
            None => format!("{} threads, {}", self.host.threads(), self.host.isa()),
            Some(gpu) => format!("GPU {}, {}", gpu.number, gpu.name),
        };
        tracing::info!(
            "loaded {name}: {place}, {} MiB for keys and values of {} tokens",
            cache >> 20,
            engine.limits().pages * engine.limits().page_tokens
        );
        let memory = (memory.weights + memory.arena + memory.workers + cache) as u64;
        let report = compiled.artefact.as_ref().and_then(|artefact| artefact.report());
        let report = report.map(|(html, json)| Arc::new(Report { html, json }));
        let limits = model.limits;
        let engine: Box<dyn StepEngine> =
            if self.recomputing { Box::new(Recomputing::new(engine)) } else { Box::new(engine) };
        let generation = Generation { defaults, engine, tokenizer: folder.join("tokenizer.json") };
        let engine = Box::new(OnlyGenerates(limits));
        let generation = Some(generation);
        let accelerators = gpu.into_iter().map(|gpu| Arc::new(OnGpu(gpu)) as _).collect();
        Ok(ServedModel { model, engine, generation, accelerators, memory, shadow: None, report })
    }

    /// The same model in f32, on a thread of its own.
    fn shadow(&self, name: &str, source: &Source, loaded: &Loaded, share: f64) -> anyhow::Result<Option<Shadow>> {
        if loaded.precision == Precision::F32 {
            tracing::warn!("{name} is served in f32, so there is nothing for --shadow to compare it with");
            return Ok(None);
        }
        let place = source.place.to_string_lossy();
        let origin = match (&self.shadow_model, &loaded.artefact) {
            (Some(model), _) => model.as_str(),
            (None, Some(artefact)) => &artefact.source.model,
            (None, None) => &place,
        };
        let folder =
            self.options.find(origin).context("--shadow needs the model in f32; name it with --shadow-model")?;
        if let Some(artefact) = &loaded.artefact {
            ensure!(artefact.is_made_of(&folder)?, "{origin} is not the model that {name} was made of");
        }
        let host = Host::new(&HostOptions { threads: Some(1), isa: Some(self.host.isa()) })?;
        let options = LoadOptions { device: Device::Cpu, precision: Some(Precision::F32), ..self.options.clone() };
        let shadow = host.load_folder(&folder, &loaded.model.card.id, &options)?;
        tracing::info!("comparing {share} of the sequences of {name} with {origin} in f32");
        Ok(Some(Shadow { engine: Box::new(shadow.engine), share }))
    }
}

/// One token, read and written where the model does both.
fn first_step(limits: StepLimits) -> Step {
    let reads = limits.source_positions > 0 && limits.pages > 1;
    let source = reads.then(|| StepSource { tokens: 1, pages: vec![1] });
    let encodings = if reads { vec![Encoding { ids: vec![0], pages: vec![1] }] } else { Vec::new() };
    let span = StepSpan { ids: vec![0], pages: vec![0], selected: vec![0], source, ..StepSpan::default() };
    Step { encodings, spans: vec![span], ..Step::default() }
}

/// A GPU as the server's metrics show it.
struct OnGpu(Arc<Gpu>);

impl Accelerator for OnGpu {
    fn number(&self) -> usize {
        self.0.number
    }

    fn name(&self) -> &str {
        &self.0.name
    }

    fn busy(&self) -> Duration {
        self.0.busy()
    }

    fn used_memory(&self) -> u64 {
        self.0.memory()[0]
    }

    fn total_memory(&self) -> u64 {
        self.0.memory()[1]
    }
}

/// What a model that generates answers to all else.
struct OnlyGenerates(Limits);

impl Engine for OnlyGenerates {
    fn run(&mut self, _: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        Err(EngineError::execution("this model generates text and does nothing else; ask for text-generation"))
    }

    fn limits(&self) -> Limits {
        self.0
    }
}

impl Loader for Folders {
    fn scan(&self) -> Result<Vec<Source>, LoadError> {
        self.list().map_err(|error| LoadError(explain(&error)))
    }

    fn load(&self, source: &Source) -> Result<ServedModel, LoadError> {
        self.load_one(source).map_err(|error| LoadError(explain(&error)))
    }
}
