//! The thread that loads and unloads, one model at a time.
//!
//! A model is loaded beside the one that it replaces, which answers until then and finishes what it
//! has. Where that fails, it goes on as if nothing had been.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    catalogue::{Entry, Key, Outcome, failed, title},
    loader::{LoadError, Loader, Origin, ServedModel, Source},
    metrics::LoadMetrics,
    registry::{Job, Registry},
    served::{Ground, Instance, Served},
    watcher::Settled,
};
use crate::{
    batcher::panic_message,
    error::ServeError,
    failure::{Failure, Kind},
};

/// How often threads that have ended are looked for, while some are about to.
const REAP: Duration = Duration::from_millis(200);

/// What the thread needs.
pub(super) struct Keeper {
    pub(super) registry: Arc<Registry>,
    pub(super) loader: Arc<dyn Loader>,
    pub(super) ground: Ground,
    pub(super) metrics: LoadMetrics,
    pub(super) jobs: mpsc::Receiver<Job>,
}

impl Keeper {
    /// Starts the thread, which first loads what is to be loaded at the start and tells how that went.
    pub(super) fn spawn(self, started: oneshot::Sender<Result<(), ServeError>>) -> std::io::Result<()> {
        let work = move || {
            let start = self.start();
            let failed = start.is_err();
            // Who doesn't listen any more has ended the server.
            let _ = started.send(start);
            if !failed {
                self.work();
            }
        };
        std::thread::Builder::new().name("models".into()).spawn(work).map(drop)
    }

    fn work(self) {
        loop {
            let job = match self.registry.is_leaving(None) {
                true => self.jobs.recv_timeout(REAP),
                false => self.jobs.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            };
            match job {
                Ok(Job::Load(key, outcome)) => drop(outcome.send(Some(self.load_wanted(key)))),
                Ok(Job::Refresh(name, reply)) => drop(reply.send(self.refresh(&name))),
                Ok(Job::Unload(name, reply)) => drop(reply.send(self.unload(&name))),
                Ok(Job::Follow(settled)) => self.follow(settled),
                Ok(Job::Reload) => self.reload(),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(Job::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            self.registry.reap();
            self.metrics.refresh(&self.registry);
        }
    }

    /// Loads what doesn't wait to be asked for.
    fn start(&self) -> Result<(), ServeError> {
        let eager: Vec<(Key, Source)> = {
            let catalogue = self.registry.catalogue();
            let eager = |(key, entry, default): (Key, &Entry, bool)| {
                (default && entry.served.is_none() && entry.source.origin.is_eager())
                    .then(|| (key, entry.source.clone()))
            };
            catalogue.listed().into_iter().filter_map(eager).collect()
        };
        for (key, source) in eager {
            if !self.fits(source.bytes) {
                tracing::info!("{} is loaded when it is asked for, for want of room now", title(&source));
                continue;
            }
            match source.origin {
                Origin::Named => {
                    if let Err(failure) = self.load_silently(key) {
                        // As other commands tell it, whose error names the place.
                        let reason = self.registry.reason(key).unwrap_or(failure.message);
                        return Err(ServeError::Load { name: source.name, reason });
                    }
                }
                // It has been logged, and holds up nobody.
                Origin::Found { .. } => drop(self.load(key)),
            }
        }
        // Who finds the server ready finds the gauges.
        self.metrics.refresh(&self.registry);
        self.registry.set_ready();
        Ok(())
    }

    /// Whether there is room without anybody having to go.
    fn fits(&self, bytes: u64) -> bool {
        let maximum = self.registry.options.max_memory;
        maximum.is_none_or(|maximum| self.registry.occupied().saturating_add(bytes) <= maximum)
    }

    /// Loads what a request has asked for, unless that has happened meanwhile.
    fn load_wanted(&self, key: Key) -> Outcome {
        let known = {
            let mut catalogue = self.registry.catalogue();
            let known = |entry: &mut Entry| match (&entry.served, entry.unloaded) {
                (Some(served), _) => Some(Ok(Arc::clone(served))),
                (None, true) => Some(Err(entry.absence())),
                (None, false) => None,
            };
            catalogue.entry(key).and_then(|entry| {
                let known = known(entry)?;
                entry.pending = None;
                Some(known)
            })
        };
        known.unwrap_or_else(|| self.load(key))
    }

    /// Loads a model, beside what answers under its key.
    fn load(&self, key: Key) -> Outcome {
        let outcome = self.load_silently(key);
        if let Err(failure) = &outcome {
            tracing::error!("{}", failure.message);
        }
        outcome
    }

    /// The same without a word if it fails.
    fn load_silently(&self, key: Key) -> Outcome {
        let Some(source) = self.registry.begin(key) else {
            return Err(Failure::new(Kind::UnknownModel, "the model is not served any more".into()));
        };
        let (title, started) = (title(&source), Instant::now());
        match self.make(key, &source) {
            Ok((served, instance)) => {
                self.registry.publish(key, &served, instance);
                self.metrics.loaded(&source.name, started.elapsed());
                tracing::info!(time = ?started.elapsed(), "{title} answers");
                Ok(served)
            }
            Err(Unmade { reason, memory }) => {
                self.registry.fail(key, &reason, memory);
                self.metrics.failed(&source.name);
                Err(failed(&title, &reason))
            }
        }
    }

    fn make(&self, key: Key, source: &Source) -> Result<(Arc<Served>, Instance), Unmade> {
        let (estimate, tally) = {
            let mut catalogue = self.registry.catalogue();
            let entry = catalogue.entry(key);
            entry.map_or_else(Default::default, |entry| (entry.estimate(), Arc::clone(&entry.tally)))
        };
        self.make_room(key, estimate).map_err(Unmade::from)?;
        let loaded = catch_unwind(AssertUnwindSafe(|| self.loader.load(source)));
        let loaded: ServedModel = match loaded {
            Ok(loaded) => loaded.map_err(|LoadError(reason)| Unmade::from(reason))?,
            Err(panic) => return Err(Unmade::from(crashed(panic.as_ref()))),
        };
        // Now it is known what it takes.
        let memory = loaded.memory;
        self.make_room(key, memory).map_err(|reason| Unmade { reason, memory: Some(memory) })?;
        let started = self.ground.start(key, source.version, loaded, tally);
        started.map_err(|error| Unmade::from(ServeError::Thread(error).to_string()))
    }

    /// Unloads those that were not used for longest until there are `needed` bytes.
    fn make_room(&self, key: Key, needed: u64) -> Result<(), String> {
        for leaving in self.registry.room(key, needed)? {
            self.retire(leaving, "to make room");
        }
        match self.registry.await_room(needed) {
            true => Ok(()),
            false => Err("the memory of models that were unloaded is not free yet, as their requests take long".into()),
        }
    }

    fn retire(&self, key: Key, why: &str) {
        let name = self.registry.catalogue().entry(key).map(|entry| (entry.source.name.clone(), entry.title()));
        if let (true, Some((name, title))) = (self.registry.retire(key), name) {
            self.metrics.unloaded(&name);
            tracing::info!("{title} is unloaded {why}");
        }
    }

    /// What a client asks for who has a model loaded: as it is now, and anew if it is loaded.
    fn refresh(&self, name: &str) -> Result<(), Failure> {
        let sources = self.loader.scan();
        let mut catalogue = self.registry.catalogue();
        if let Ok(sources) = sources {
            for source in sources.into_iter().filter(|source| source.name == name) {
                catalogue.learn(source);
            }
        }
        catalogue.key(name, None)?;
        catalogue.set_unloaded(name, false);
        let latest = catalogue.named(name).and_then(|named| named.versions.values().next_back().copied());
        let Some(latest) = latest else { return Ok(()) };
        let served = catalogue.entry(latest).is_some_and(|entry| entry.served.is_some());
        drop(catalogue);
        tracing::info!("a client asks for `{name}` to be {}", if served { "loaded anew" } else { "loaded" });
        self.load(latest)?;
        self.promote(name, latest);
        Ok(())
    }

    /// Unloads every version of a name, until a client asks for it again.
    fn unload(&self, name: &str) -> Result<(), Failure> {
        let keys = {
            let mut catalogue = self.registry.catalogue();
            catalogue.key(name, None)?;
            catalogue.set_unloaded(name, true)
        };
        keys.into_iter().for_each(|key| self.retire(key, "as a client asks for it"));
        Ok(())
    }

    /// Takes over what has come to rest in a repository.
    fn follow(&self, Settled { same, present }: Settled) {
        let stays = |source: &Source| {
            !source.origin.is_found()
                || present.iter().any(|(name, version)| *name == source.name && *version == source.version)
        };
        self.take_over(same, stays);
    }

    /// Takes over everything as it is now.
    fn reload(&self) {
        match self.loader.scan() {
            Ok(sources) => {
                let found: Vec<_> = sources.iter().map(|source| (source.name.clone(), source.version)).collect();
                let stays = |source: &Source| {
                    !source.origin.is_found() || found.contains(&(source.name.clone(), source.version))
                };
                self.take_over(sources, stays);
            }
            Err(LoadError(reason)) => tracing::error!("models stay as they are: {reason}"),
        }
    }

    fn take_over(&self, sources: Vec<Source>, stays: impl Fn(&Source) -> bool) {
        let (removed, changed) = {
            let mut catalogue = self.registry.catalogue();
            let removed = catalogue.forget(stays);
            let learn = |source: Source| Some((catalogue.learn(source.clone())?, source));
            let changed: Vec<_> = sources.into_iter().filter_map(learn).collect();
            (removed, changed)
        };
        for entry in removed {
            tracing::info!("{} is no longer there", entry.title());
            if entry.served.is_some() {
                self.metrics.unloaded(&entry.source.name);
            }
        }
        for (key, source) in changed {
            self.take_up(key, &source);
        }
        let outdated = self.registry.catalogue().outdated();
        for (name, before, latest) in outdated {
            self.succeed(&name, before, latest);
        }
    }

    /// Loads what is new or has changed, where it should be loaded.
    fn take_up(&self, key: Key, source: &Source) {
        let (served, is_default, unloaded) = {
            let mut catalogue = self.registry.catalogue();
            let default = catalogue.named(&source.name).map(|named| named.default);
            let Some(entry) = catalogue.entry(key) else { return };
            (entry.served.is_some(), default == Some(key), entry.unloaded)
        };
        if served {
            tracing::info!("{} has changed and is loaded anew", title(source));
        } else {
            tracing::info!("{} can be served", title(source));
        }
        if served || (is_default && source.origin.is_eager() && !unloaded) {
            // A failure has been logged, and is told to those who ask.
            let _ = self.load(key);
        }
    }

    /// Has a new version take the place of the one that is meant where none is said. Where that one
    /// answers, the new one must be able to.
    fn succeed(&self, name: &str, before: Key, latest: Key) {
        let (answers, tried) = {
            let mut catalogue = self.registry.catalogue();
            let answers = catalogue.entry(before).is_some_and(|entry| entry.served.is_some());
            (answers, catalogue.entry(latest).is_some_and(|entry| entry.failure.is_some()))
        };
        match (answers, tried) {
            (false, _) => self.registry.catalogue().set_default(name, latest),
            // Until its files change.
            (true, true) => {}
            (true, false) => {
                if self.load(latest).is_ok() {
                    self.promote(name, latest);
                }
            }
        }
    }

    /// Makes a version that answers the one that is meant, and unloads the one that was.
    fn promote(&self, name: &str, latest: Key) {
        let mut catalogue = self.registry.catalogue();
        let Some(before) = catalogue.named(name).map(|named| named.default).filter(|before| *before != latest) else {
            return;
        };
        catalogue.set_default(name, latest);
        drop(catalogue);
        self.retire(before, "as a later version answers");
    }
}

/// Why there is no model.
struct Unmade {
    reason: String,
    /// What it takes, where that was found out.
    memory: Option<u64>,
}

impl From<String> for Unmade {
    fn from(reason: String) -> Self {
        Self { reason, memory: None }
    }
}

fn crashed(panic: &(dyn Any + Send)) -> String {
    format!("loading it crashed, please report this: {}", panic_message(panic))
}

/// The loader of a server whose models were all handed to it.
pub(super) struct Fixed;

impl Loader for Fixed {
    fn scan(&self) -> Result<Vec<Source>, LoadError> {
        Err(LoadError("this server has the models that it was started with".into()))
    }

    fn load(&self, _: &Source) -> Result<ServedModel, LoadError> {
        Err(LoadError("this server can't load models; start it anew".into()))
    }
}
