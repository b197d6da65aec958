//! What clients may know of models and do with them: the index, loading, unloading.

use std::sync::Arc;

use centuple_tasks::ModelCard;
use tokio::sync::oneshot;

use super::{
    Models, Served,
    registry::{Job, Reply},
};
use crate::{
    failure::{Failure, Kind},
    metrics::Tally,
    service::Service,
};

/// What a version of a model is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelState {
    /// It answers.
    Ready,
    /// It is being loaded; requests for it wait.
    Loading,
    /// It finishes what it has.
    Unloading,
    /// It is not loaded.
    Unavailable,
}

impl ModelState {
    /// Its name as the repository's protocol has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ModelState::Ready => "READY",
            ModelState::Loading => "LOADING",
            ModelState::Unloading => "UNLOADING",
            ModelState::Unavailable => "UNAVAILABLE",
        }
    }
}

/// A version of a model, loaded or not.
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) state: ModelState,
    /// Why it is not loaded, or not in its latest form.
    pub(crate) reason: String,
    /// Whether it is the one that is meant where no version is said.
    pub(crate) default: bool,
    /// What it was when it was loaded last.
    pub(crate) card: Option<ModelCard>,
    /// What answers.
    pub(crate) served: Option<Arc<Served>>,
    /// What it has done since the start.
    pub(crate) tally: Arc<Tally>,
}

impl Models {
    /// Whether everything that is loaded at the start is.
    pub(crate) fn is_ready(&self) -> bool {
        self.registry.is_ready()
    }

    /// Every version of every model, loaded or not, in the order of the configuration.
    pub(crate) fn known(&self) -> Vec<Known> {
        let catalogue = self.registry.catalogue();
        let listed = catalogue.listed();
        let known = |(key, entry, default): (_, &super::catalogue::Entry, bool)| {
            let state = match (&entry.served, entry.loading || entry.pending.is_some()) {
                (Some(_), _) => ModelState::Ready,
                (None, true) => ModelState::Loading,
                (None, false) => ModelState::Unavailable,
            };
            let reason = match (&entry.failure, entry.unloaded, &entry.served) {
                (Some((reason, _)), _, _) => reason.clone(),
                (None, true, None) => "unloaded by a client".into(),
                (None, false, None) => "not loaded; a request for it loads it".into(),
                (None, _, Some(_)) => String::new(),
            };
            let (name, version) = (entry.source.name.clone(), entry.source.version.to_string());
            let (card, served, tally) = (entry.card.clone(), entry.served.clone(), Arc::clone(&entry.tally));
            (key, Known { name, version, state, reason, default, card, served, tally })
        };
        let known: Vec<_> = listed.into_iter().map(known).collect();
        drop(catalogue);
        let settle = |(key, mut known): (_, Known)| {
            if known.state == ModelState::Unavailable && self.registry.is_leaving(Some(key)) {
                known.state = ModelState::Unloading;
            }
            known
        };
        known.into_iter().map(settle).collect()
    }

    /// The versions of a model, loaded or not.
    pub(crate) fn versions(&self, name: &str) -> Vec<String> {
        let catalogue = self.registry.catalogue();
        let versions = catalogue.named(name).map(|named| named.versions.keys().map(u64::to_string).collect());
        versions.unwrap_or_default()
    }

    async fn control(&self, job: impl FnOnce(Reply) -> Job) -> Result<(), Failure> {
        if !self.registry.options.control {
            let message = "clients may not load or unload models here; start the server with --model-control".into();
            return Err(Failure::new(Kind::NotImplemented, message));
        }
        let (reply, outcome) = oneshot::channel();
        self.registry.ask(job(reply));
        match tokio::time::timeout(self.registry.options.load_timeout, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Failure::new(Kind::UnknownModel, "the server is ending".into())),
            Err(_) => Err(Failure::new(Kind::Deadline, "it is not done yet; see POST /v2/repository/index".into())),
        }
    }
}

/// Refuses the parameters of a load or an unload that would change how a model is loaded.
pub(crate) fn check_parameters<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<(), Failure> {
    match names.find(|name| *name != "unload_dependents") {
        Some(name) => {
            let message =
                format!("`parameters`: `{name}` is not taken; a model is loaded as it lies in the repository");
            Err(Failure::new(Kind::Invalid, message))
        }
        None => Ok(()),
    }
}

impl Service {
    /// What there is, loaded or not; `ready`: only what answers.
    pub(crate) fn index(&self, ready: bool) -> Vec<Known> {
        let mut known = self.models.known();
        known.retain(|known| !ready || known.state == ModelState::Ready);
        known
    }

    /// Loads the latest version of a model; anew where it is loaded.
    pub(crate) async fn load_model(&self, name: &str) -> Result<(), Failure> {
        self.models.control(|reply| Job::Refresh(name.to_owned(), reply)).await
    }

    /// Unloads a model; its requests in flight are finished.
    pub(crate) async fn unload_model(&self, name: &str) -> Result<(), Failure> {
        self.models.control(|reply| Job::Unload(name.to_owned(), reply)).await
    }
}
