//! The catalogue and what runs, behind their locks. Requests look up and ask for loads here; the
//! [`Keeper`](super::keeper::Keeper)'s thread alone changes what there is.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, oneshot, watch};

use super::{
    budget::{Occupant, TooLarge, human, make_room},
    catalogue::{Catalogue, Key, Outcome},
    loader::{ModelOptions, Source},
    served::{Bell, Instance, Served},
    watcher::Settled,
};
use crate::failure::{Failure, Kind};

/// What the keeper is asked to do.
pub(super) enum Job {
    /// Load what a request waits for.
    Load(Key, watch::Sender<Option<Outcome>>),
    /// Look at what there is under a name, and load it, anew where it is loaded.
    Refresh(String, Reply),
    /// Unload every version of a name.
    Unload(String, Reply),
    /// Take over what a scan of the watcher has found.
    Follow(Settled),
    /// Look at everything, and load anew what has changed.
    Reload,
    Stop,
}

/// Where the keeper tells what became of a job.
pub(super) type Reply = oneshot::Sender<Result<(), Failure>>;

/// See the module.
pub(crate) struct Registry {
    catalogue: Mutex<Catalogue>,
    instances: Mutex<Vec<Instance>>,
    jobs: mpsc::Sender<Job>,
    /// Rings when memory has become free.
    pub(super) bell: Arc<Bell>,
    pub(super) options: ModelOptions,
    /// Places for requests that wait for a load; each of them holds its body.
    waiting: Semaphore,
    /// Whether everything that is loaded at the start is.
    ready: AtomicBool,
    closed: AtomicBool,
    /// Whether a model's thread has crashed.
    crashed: AtomicBool,
}

impl Registry {
    /// An empty registry, and where its keeper takes jobs.
    pub(super) fn new(options: ModelOptions, most_waiting: usize) -> (Arc<Self>, mpsc::Receiver<Job>) {
        let (jobs, taken) = mpsc::channel();
        let registry = Self {
            catalogue: Mutex::default(),
            instances: Mutex::default(),
            jobs,
            bell: Arc::default(),
            options,
            waiting: Semaphore::new(most_waiting.min(Semaphore::MAX_PERMITS)),
            ready: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
        };
        (Arc::new(registry), taken)
    }

    /// The catalogue; held for moments only.
    pub(super) fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instances(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the keeper something to do.
    pub(super) fn ask(&self, job: Job) {
        // Without a keeper the server is at its end, and nobody waits for long.
        let _ = self.jobs.send(job);
    }

    /// What answers for a name and a version, or for the name's usual one.
    pub(super) fn find(&self, key: Key) -> Outcome {
        self.catalogue().answering(key, self.options.retry_pause)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, Relaxed);
    }

    /// Waits until a model is loaded, which is begun if nobody has.
    pub(super) async fn load(&self, key: Key) -> Outcome {
        let _place = self.waiting.try_acquire().map_err(|_| {
            let message = "too many requests wait for models to be loaded; try again in 1 s".into();
            Failure::new(Kind::Overloaded(Duration::from_secs(1)), message)
        })?;
        let mut pending = {
            let mut catalogue = self.catalogue();
            match catalogue.answering(key, self.options.retry_pause) {
                Err(Failure { kind: Kind::NotLoaded(_), .. }) => {}
                known => return known,
            }
            let Some(entry) = catalogue.entry(key) else { return Err(stopping()) };
            match &entry.pending {
                Some(pending) => pending.clone(),
                None => {
                    let (outcome, pending) = watch::channel(None);
                    entry.pending = Some(pending.clone());
                    self.ask(Job::Load(key, outcome));
                    pending
                }
            }
        };
        let outcome = tokio::time::timeout(self.options.load_timeout, pending.wait_for(Option::is_some)).await;
        match outcome {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(stopping())),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => {
                Err(Failure::new(Kind::Deadline, "the model is still being loaded; try again in a few seconds".into()))
            }
        }
    }

    /// Notes that a model is about to be loaded; what it is.
    pub(super) fn begin(&self, key: Key) -> Option<Source> {
        let mut catalogue = self.catalogue();
        let entry = catalogue.entry(key)?;
        entry.loading = true;
        Some(entry.source.clone())
    }

    /// Has a model that was loaded answer from now on; what answered before, ends once it has no request left.
    pub(super) fn publish(&self, key: Key, served: &Arc<Served>, instance: Instance) {
        let bytes = instance.bytes;
        self.instances().push(instance);
        let mut catalogue = self.catalogue();
        // The server has ended meanwhile: nobody would take it out again.
        if self.closed.load(Relaxed) {
            return;
        }
        let Some(entry) = catalogue.entry(key) else { return };
        let before = entry.served.replace(Arc::clone(served));
        (entry.loading, entry.failure) = (false, None);
        entry.memory = Some(bytes).filter(|bytes| *bytes > 0);
        entry.card = Some(served.model.card.clone());
        entry.pending = None;
        drop(catalogue);
        drop(before);
    }

    /// Why a model could not be loaded last.
    pub(super) fn reason(&self, key: Key) -> Option<String> {
        self.catalogue().entry(key).and_then(|entry| entry.failure.as_ref().map(|(reason, _)| reason.clone()))
    }

    /// Notes that a model could not be loaded. What answers goes on.
    pub(super) fn fail(&self, key: Key, reason: &str, memory: Option<u64>) {
        let mut catalogue = self.catalogue();
        let Some(entry) = catalogue.entry(key) else { return };
        entry.failure = Some((reason.to_owned(), Instant::now()));
        entry.memory = memory.or(entry.memory);
        entry.loading = false;
        entry.pending = None;
    }

    /// Takes out what answers for a key. Its requests are finished; new ones do not find it.
    pub(super) fn retire(&self, key: Key) -> bool {
        let served = self.catalogue().entry(key).and_then(|entry| entry.served.take());
        served.is_some()
    }

    /// Which models must go so that `needed` bytes more fit; what answers for `key` stays.
    pub(super) fn room(&self, key: Key, needed: u64) -> Result<Vec<Key>, String> {
        let Some(maximum) = self.options.max_memory else { return Ok(Vec::new()) };
        let instances = self.instances();
        let mut catalogue = self.catalogue();
        let (mut kept, mut occupants) = (0, Vec::new());
        for instance in instances.iter() {
            let Some(entry) = catalogue.entry(instance.key) else { continue };
            let answers = entry.served.as_ref().is_some_and(|served| Arc::as_ptr(served) == instance.served.as_ptr());
            match (answers, instance.key == key) {
                (true, true) => kept += instance.bytes,
                (true, false) => {
                    let (bytes, busy) = (instance.bytes, instance.is_busy());
                    occupants.push(Occupant { key: instance.key, bytes, used: entry.used, busy });
                }
                // On its way out: it is waited for.
                (false, _) => {}
            }
        }
        make_room(maximum, kept, needed, occupants).map_err(|TooLarge { needed, kept, maximum }| match kept {
            0 => format!("it takes {}, and all models together may take {}", human(needed), human(maximum)),
            kept => format!(
                "it takes {} beside the {} of the one that it is to replace, and all models together may take {}",
                human(needed),
                human(kept),
                human(maximum)
            ),
        })
    }

    /// Bytes that everything takes which is in memory, also what is on its way out.
    pub(super) fn occupied(&self) -> u64 {
        self.instances().iter().map(|instance| instance.bytes).sum()
    }

    /// Waits until there is room for `needed` bytes; whether there is.
    pub(super) fn await_room(&self, needed: u64) -> bool {
        let Some(maximum) = self.options.max_memory else { return true };
        let deadline = Instant::now() + self.options.load_timeout;
        loop {
            let rings = self.bell.rings();
            self.reap();
            if self.occupied().saturating_add(needed) <= maximum {
                return true;
            }
            let time = deadline.saturating_duration_since(Instant::now());
            if time.is_zero() || self.closed.load(Relaxed) {
                return false;
            }
            self.bell.wait(rings, time);
        }
    }

    /// Whether something is on its way out.
    pub(super) fn is_leaving(&self, key: Option<Key>) -> bool {
        let instances = self.instances();
        let mut catalogue = self.catalogue();
        instances.iter().filter(|instance| key.is_none_or(|key| key == instance.key)).any(|instance| {
            let served = catalogue.entry(instance.key).and_then(|entry| entry.served.as_ref());
            served.is_none_or(|served| Arc::as_ptr(served) != instance.served.as_ptr())
        })
    }

    /// Joins the threads that have ended.
    pub(super) fn reap(&self) {
        let ended: Vec<Instance> = self.instances().extract_if(.., |instance| instance.has_ended()).collect();
        for instance in ended {
            if instance.join().is_err() {
                tracing::error!("a model's thread crashed; please report this");
                self.crashed.store(true, Relaxed);
            }
        }
    }

    /// Ends everything, and waits for the threads of models; `false` if one has crashed. Requests must have ended.
    pub(crate) fn close(&self) -> bool {
        self.closed.store(true, Relaxed);
        self.ask(Job::Stop);
        let removed = self.catalogue().forget(|_| false);
        drop(removed);
        let instances = std::mem::take(&mut *self.instances());
        // All of them, also if one has crashed.
        let crashed = instances.into_iter().map(Instance::join).filter(Result::is_err).count();
        crashed == 0 && !self.crashed.load(Relaxed)
    }
}

/// A request has come while everything ends.
fn stopping() -> Failure {
    Failure::new(Kind::UnknownModel, "the model is not served any more".into())
}
