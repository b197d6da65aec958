//! The models of a server: which there are, which of them are loaded, and how requests find them.
//!
//! `catalogue` knows what there is, `registry` guards it, `keeper` is the thread that loads and
//! unloads one model at a time, `watcher` looks what has changed in a repository, `budget` decides
//! who makes room, `served` is a loaded model with its queue. Requests meet [`Models`] only.
//!
//! A request holds its model while it is answered, so that none is ever torn away: what is
//! replaced or unloaded ends when the last request has let go of it.

mod budget;
mod catalogue;
mod control;
mod keeper;
mod loader;
mod metrics;
mod registry;
mod search;
mod served;
mod watcher;

use std::sync::Arc;

use centuple_tasks::{ModelCard, Task};
use tokio::sync::{oneshot, watch};

pub(crate) use catalogue::Key;
pub(crate) use control::{Known, ModelState, check_parameters};
pub use loader::{LoadError, Loader, ModelOptions, Origin, ServedModel, Source};
pub use served::Report;
pub(crate) use served::Served;

use crate::{
    config::Config,
    error::ServeError,
    failure::{Failure, Kind},
    metrics::Metrics,
};
use keeper::{Fixed, Keeper};
use metrics::LoadMetrics;
use registry::{Job, Registry};
use served::Ground;
use watcher::Watcher;

/// The models as requests find them.
#[derive(Clone)]
pub(crate) struct Models {
    registry: Arc<Registry>,
    /// What was loaded for the request that has this: it finds it, whatever has become of it since.
    held: Option<(Key, Arc<Served>)>,
}

impl Models {
    /// Every loaded version of every model, in the order of the configuration.
    pub(crate) fn all(&self) -> Vec<Arc<Served>> {
        let catalogue = self.registry.catalogue();
        catalogue.listed().into_iter().filter_map(|(_, entry, _)| entry.served.clone()).collect()
    }

    /// The model of that id.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Served>, Failure> {
        self.find_version(id, "")
    }

    /// A version of the model of that id; where it is empty, the one that is served by default.
    pub(crate) fn find_version(&self, id: &str, version: &str) -> Result<Arc<Served>, Failure> {
        let key = self.key(id, version)?;
        self.answering(key)
    }

    /// Whether there is such a version of such a model, loaded or not.
    pub(crate) fn check(&self, id: &str, version: &str) -> Result<(), Failure> {
        self.key(id, version).map(drop)
    }

    /// The model of that id, else the first.
    pub(crate) fn find_or_first(&self, id: Option<&str>) -> Result<Arc<Served>, Failure> {
        let first = match id {
            Some(_) => None,
            None => self.registry.catalogue().first().map(str::to_owned),
        };
        self.find(id.or(first.as_deref()).unwrap_or_default())
    }

    /// The only model whatever the name, else the one of that id.
    pub(crate) fn find_or_only(&self, id: Option<&str>) -> Result<Arc<Served>, Failure> {
        let (count, only) = {
            let catalogue = self.registry.catalogue();
            let only = if catalogue.count() == 1 { catalogue.first().map(str::to_owned) } else { None };
            (catalogue.count(), only)
        };
        match (only.as_deref().or(id), count) {
            (Some(id), _) => self.find(id),
            (None, 0) => Err(Failure::new(Kind::UnknownModel, "no model is served here yet".into())),
            (None, _) => Err(Failure::new(
                Kind::UnknownModel,
                "several models are served; name one: POST /models/ID, or `model` in the body".into(),
            )),
        }
    }

    /// The only model whatever the name, else the one of that id; without an id the only one that
    /// does the task and of which `fits` holds. What a model does is known once it was loaded.
    pub(crate) fn find_for(
        &self,
        id: Option<&str>,
        task: Task,
        fits: impl Fn(&ModelCard) -> bool,
    ) -> Result<Arc<Served>, Failure> {
        if id.is_some() || self.registry.catalogue().count() <= 1 {
            return self.find_or_only(id);
        }
        let does = |card: &ModelCard| card.tasks().contains(&task) && fits(card);
        let (found, unknown) = {
            let catalogue = self.registry.catalogue();
            let listed: Vec<_> = catalogue.listed().into_iter().filter(|(_, _, default)| *default).collect();
            let cards = listed.iter().filter_map(|(_, entry, _)| entry.card.as_ref());
            let found: Vec<_> = cards.filter(|card| does(card)).map(|card| card.id.clone()).collect();
            (found, listed.iter().any(|(_, entry, _)| entry.card.is_none()))
        };
        let message = match (found.as_slice(), unknown) {
            ([only], _) => return self.find(only),
            ([first, second, ..], _) => {
                format!("several models do {task}, as `{first}` and `{second}`; name one by `model` in the body")
            }
            ([], false) => format!("no model that is served here does {task} in this way"),
            ([], true) => {
                format!("no model that was loaded here does {task} in this way; name one by `model` in the body")
            }
        };
        Err(Failure::new(Kind::UnknownModel, message))
    }

    fn key(&self, id: &str, version: &str) -> Result<Key, Failure> {
        self.registry.catalogue().key(id, Some(version).filter(|version| !version.is_empty()))
    }

    fn answering(&self, key: Key) -> Result<Arc<Served>, Failure> {
        match &self.held {
            Some((held, served)) if *held == key => Ok(Arc::clone(served)),
            Some(_) | None => self.registry.find(key),
        }
    }
}

/// Keeps the models of a server: loads, unloads, watches. It ends with this.
pub(crate) struct Keeping {
    registry: Arc<Registry>,
    _watcher: Option<Watcher>,
    /// Tells once what is loaded at the start is loaded, or why not.
    started: oneshot::Receiver<Result<(), ServeError>>,
}

impl Keeping {
    /// Keeps models that are loaded already.
    pub(crate) fn fixed(config: &Config, metrics: &Arc<Metrics>, models: Vec<ServedModel>) -> Result<Self, ServeError> {
        if models.is_empty() {
            return Err(ServeError::NoModel);
        }
        let (registry, jobs) = Registry::new(config.models.clone(), config.max_queued_requests);
        let ground = Ground::new(config, metrics, &registry);
        for loaded in models {
            let name = loaded.model.card.id.clone();
            let source = Source {
                name: name.clone(),
                version: 1,
                place: Default::default(),
                fingerprint: 0,
                bytes: loaded.memory,
                origin: Origin::Named,
            };
            let key = registry.catalogue().learn(source).ok_or(ServeError::NameTaken(name))?;
            let tally = registry.catalogue().entry(key).map(|entry| Arc::clone(&entry.tally)).unwrap_or_default();
            let (served, instance) = ground.start(key, 1, loaded, tally).map_err(ServeError::Thread)?;
            registry.publish(key, &served, instance);
        }
        registry.set_ready();
        Self::start(registry, jobs, Arc::new(Fixed), ground, Vec::new())
    }

    /// Keeps what a loader makes of what it has found first.
    pub(crate) fn of(
        config: &Config,
        metrics: &Arc<Metrics>,
        loader: Arc<dyn Loader>,
        found: Vec<Source>,
    ) -> Result<Self, ServeError> {
        let (registry, jobs) = Registry::new(config.models.clone(), config.max_queued_requests);
        let ground = Ground::new(config, metrics, &registry);
        {
            let mut catalogue = registry.catalogue();
            for source in &found {
                catalogue.learn(source.clone());
            }
            for (name, _, latest) in catalogue.outdated() {
                catalogue.set_default(&name, latest);
            }
        }
        Self::start(registry, jobs, loader, ground, found)
    }

    fn start(
        registry: Arc<Registry>,
        jobs: std::sync::mpsc::Receiver<Job>,
        loader: Arc<dyn Loader>,
        ground: Ground,
        found: Vec<Source>,
    ) -> Result<Self, ServeError> {
        let (tell, started) = oneshot::channel();
        let metrics = LoadMetrics::new(Arc::clone(&ground.metrics));
        let watcher = match registry.options.watch {
            Some(interval) => {
                let found = found.into_iter().filter(|source| source.origin.is_found()).collect();
                let watcher = Watcher::start(Arc::clone(&loader), Arc::clone(&registry), interval, found);
                Some(watcher.map_err(ServeError::Thread)?)
            }
            None => None,
        };
        let keeper = Keeper { registry: Arc::clone(&registry), loader, ground, metrics, jobs };
        keeper.spawn(tell).map_err(ServeError::Thread)?;
        Ok(Self { registry, _watcher: watcher, started })
    }

    /// The models as requests find them.
    pub(crate) fn models(&self) -> Models {
        Models { registry: Arc::clone(&self.registry), held: None }
    }

    /// Calls `ready` once what is loaded at the start is loaded, and has everything looked at anew at each of
    /// `reloads`. Resolves only if the start has failed.
    pub(crate) async fn follow(&mut self, ready: impl FnOnce(), reloads: &mut watch::Receiver<()>) -> ServeError {
        match (&mut self.started).await {
            Ok(Ok(())) => ready(),
            Ok(Err(error)) => return error,
            Err(_) => return ServeError::Batcher,
        }
        while reloads.changed().await.is_ok() {
            self.registry.ask(Job::Reload);
        }
        std::future::pending().await
    }

    /// Ends everything and waits for it. Requests must have ended.
    pub(crate) fn end(self) -> Result<(), ServeError> {
        if self.registry.close() { Ok(()) } else { Err(ServeError::Batcher) }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.registry.ask(Job::Stop);
    }
}
