//! A loaded model with its queue, and the thread that computes for it.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError, Weak},
    thread::JoinHandle,
    time::Duration,
};

use centuple_tasks::{
    Engine, EngineError, Limits, Model, Output, Sequence,
    generation::{Logits, Step, StepEngine, StepError, StepLimits},
    text_generation::TextGenerator,
};

use super::{catalogue::Key, loader::ServedModel, registry::Registry};
use crate::{
    batcher::Batcher,
    config::Config,
    failure::{Failure, Kind},
    generation::Generation,
    metrics::{AcceleratorMetrics, GenerationMetrics, Metrics, ModelMetrics, Tally},
    queue::{Capacity, Queue},
    shadow::Shadow,
    turns::Turns,
};

/// A model and its queue. Once nobody holds it any more, its engine ends.
pub(crate) struct Served {
    pub(crate) model: Arc<Model>,
    /// Its version as clients see it.
    pub(crate) version: String,
    pub(crate) queue: Queue,
    /// What generates, where the model does.
    pub(crate) generator: Option<TextGenerator>,
    generation: Option<GenerationMetrics>,
    accelerators: Vec<AcceleratorMetrics>,
    pub(crate) metrics: ModelMetrics,
    pub(crate) report: Option<Arc<Report>>,
}

/// What optimising a model was found to cost in accuracy, as `GET /report` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A page for people: UTF-8, complete in itself. It may have inline styles; browsers are told
    /// to load nothing else for it, and no script.
    pub html: Vec<u8>,
    /// The same for programs.
    pub json: Vec<u8>,
}

impl Served {
    /// Brings gauges up to date.
    pub(crate) fn refresh(&self) {
        self.metrics.refresh();
        self.accelerators.iter().for_each(AcceleratorMetrics::refresh);
        if let (Some(generator), Some(metrics)) = (&self.generator, &self.generation) {
            metrics.show(generator.generator.statistics());
        }
    }

    /// The model's report.
    pub(crate) fn report(&self) -> Result<&Report, Failure> {
        self.report.as_deref().ok_or_else(|| {
            let message = format!(
                "model `{}` has no report; serve the folder that `centuple optimize MODEL -o DIR` writes, it has one",
                self.model.card.id
            );
            Failure::new(Kind::NoReport, message)
        })
    }
}

/// The thread of a loaded model, and what it holds.
pub(super) struct Instance {
    pub(super) key: Key,
    pub(super) bytes: u64,
    /// What it computes for.
    pub(super) served: Weak<Served>,
    /// Held by its engines.
    alive: Weak<Alive>,
    thread: JoinHandle<()>,
}

impl Instance {
    /// Whether requests hold it, besides the catalogue.
    pub(super) fn is_busy(&self) -> bool {
        self.served.strong_count() > 1
    }

    /// Whether its engines are gone.
    pub(super) fn has_ended(&self) -> bool {
        self.alive.strong_count() == 0
    }

    /// Waits for the thread; `Err` if it has crashed.
    pub(super) fn join(self) -> std::thread::Result<()> {
        self.thread.join()
    }
}

/// Rings when the engines of a model are gone.
#[derive(Default)]
pub(super) struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    /// How often it has rung.
    pub(super) fn rings(&self) -> u64 {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has rung more often than that, but no longer than `time`.
    pub(super) fn wait(&self, rings: u64, time: Duration) {
        let now = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it has rung or not is seen by what has become free.
        let _ = self.rung.wait_timeout_while(now, time, |now| *now == rings);
    }

    fn ring(&self) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.rung.notify_all();
    }
}

/// The engines of a model; rings when they are gone.
struct Alive(Arc<Bell>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// What every model's thread shares with the server.
pub(super) struct Ground {
    config: Config,
    pub(super) metrics: Arc<Metrics>,
    bell: Arc<Bell>,
    turns: Turns,
}

impl Ground {
    pub(super) fn new(config: &Config, metrics: &Arc<Metrics>, registry: &Registry) -> Self {
        Self {
            config: config.clone(),
            metrics: Arc::clone(metrics),
            bell: Arc::clone(&registry.bell),
            turns: Turns::default(),
        }
    }

    /// Gives a loaded model its queue and starts its thread.
    pub(super) fn start(
        &self,
        key: Key,
        version: u64,
        loaded: ServedModel,
        tally: Arc<Tally>,
    ) -> std::io::Result<(Arc<Served>, Instance)> {
        let Self { config, metrics, bell, turns } = self;
        let ServedModel { model, engine, generation, accelerators, memory, shadow, report } = loaded;
        let alive = Arc::new(Alive(Arc::clone(bell)));
        let id = model.card.id.as_str();
        let batch_tokens = config.max_batch_tokens.min(engine.limits().max_tokens_per_batch);
        let (requests, tokens) = (config.max_queued_requests, config.max_queued_tokens);
        let (queue, tickets) = Queue::new(Capacity { requests, tokens, batch_tokens });
        let (load, seat) = (Arc::clone(queue.load()), turns.seat());
        let sampler = match shadow {
            Some(Shadow { engine, share }) => {
                Shadow { engine: Watched::boxed(engine, &alive), share }.start(&model.card, metrics)?
            }
            None => None,
        };
        let generator = generation.map(|Generation { defaults, engine, tokenizer }| {
            let engine = Watched { engine, _alive: Arc::clone(&alive) };
            TextGenerator::start(Arc::clone(&model), defaults, Box::new(engine), tokenizer)
        });
        let generator = generator.transpose()?;
        let generation = generator.is_some().then(|| metrics.generation(id));
        let version = version.to_string();
        let accelerators = accelerators.into_iter().map(|one| metrics.accelerator(id, one)).collect();
        let batches = metrics.batches(id, &version, Arc::clone(&tally));
        let (engine, alive) = (Watched::boxed(engine, &alive), Arc::downgrade(&alive));
        let batcher =
            Batcher { engine, tickets, load: Arc::clone(&load), batch_tokens, metrics: batches, sampler, seat };
        let thread = batcher.spawn(id)?;
        let metrics = metrics.model(id, &version, load, tally);
        let served = Arc::new(Served { model, version, queue, generator, generation, accelerators, metrics, report });
        let instance = Instance { key, bytes: memory, served: Arc::downgrade(&served), alive, thread };
        Ok((served, instance))
    }
}

/// An engine that shows whether it is still there. Fields are dropped in their order.
struct Watched<E> {
    engine: E,
    _alive: Arc<Alive>,
}

impl Watched<Box<dyn Engine>> {
    fn boxed(engine: Box<dyn Engine>, alive: &Arc<Alive>) -> Box<dyn Engine> {
        Box::new(Self { engine, _alive: Arc::clone(alive) })
    }
}

impl Engine for Watched<Box<dyn Engine>> {
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        self.engine.run(batch)
    }

    fn limits(&self) -> Limits {
        self.engine.limits()
    }
}

impl StepEngine for Watched<Box<dyn StepEngine>> {
    fn limits(&self) -> StepLimits {
        self.engine.limits()
    }

    fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError> {
        self.engine.run(step, logits)
    }
}
