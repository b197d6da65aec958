//! Looks at a repository from time to time, and tells what has come to rest there.
//!
//! It polls: notifications do not come from network file systems, nor reliably from the volumes of
//! containers. Whoever copies files into a folder takes a while, so a change counts only once two
//! looks in a row have found the same.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::Duration,
};

use super::{
    loader::{LoadError, Loader, Source},
    registry::{Job, Registry},
};

/// What two looks in a row agree on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// What both have found unchanged.
    pub(super) same: Vec<Source>,
    /// Whatever either has found; the rest is gone.
    pub(super) present: Vec<(String, u64)>,
}

/// What the last look has found.
#[derive(Default)]
pub(super) struct Looks(BTreeMap<(String, u64), u64>);

impl Looks {
    /// Compares what is found now with what was found last.
    pub(super) fn settle(&mut self, found: Vec<Source>) -> Settled {
        let name = |source: &Source| (source.name.clone(), source.version);
        let now: BTreeMap<_, _> = found.iter().map(|source| (name(source), source.fingerprint)).collect();
        let last = std::mem::replace(&mut self.0, now);
        let present = self.0.keys().chain(last.keys()).cloned().collect();
        let same = found.into_iter().filter(|source| last.get(&name(source)) == Some(&source.fingerprint)).collect();
        Settled { same, present }
    }
}

/// Ends the watcher's thread when it is dropped; it isn't waited for, as file systems can hang.
pub(super) struct Watcher {
    _stop: mpsc::Sender<()>,
}

impl Watcher {
    /// Starts to look; `first` was found before.
    pub(super) fn start(
        loader: Arc<dyn Loader>,
        registry: Arc<Registry>,
        interval: Duration,
        first: Vec<Source>,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let mut looks = Looks::default();
        looks.settle(first);
        std::thread::Builder::new().name("watcher".into()).spawn(move || {
            let mut silent = false;
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(interval) {
                match loader.scan() {
                    Ok(found) => {
                        silent = false;
                        let found = found.into_iter().filter(|source| source.origin.is_found()).collect();
                        registry.ask(Job::Follow(looks.settle(found)));
                    }
                    // Once is enough while it lasts.
                    Err(LoadError(reason)) if !std::mem::replace(&mut silent, true) => {
                        tracing::warn!("the repository can't be read, models stay as they are: {reason}");
                    }
                    Err(_) => {}
                }
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Origin;

    fn source(name: &str, fingerprint: u64) -> Source {
        let origin = Origin::Found { eager: false };
        Source { name: name.into(), version: 1, place: name.into(), fingerprint, bytes: 0, origin }
    }

    #[test]
    fn a_change_counts_once_it_rests() {
        let mut looks = Looks::default();
        let mut names = |found: &[Source]| {
            let Settled { same, present } = looks.settle(found.to_vec());
            let same: Vec<_> = same.iter().map(|source| format!("{}{}", source.name, source.fingerprint)).collect();
            let present: Vec<_> = present.iter().map(|(name, _)| name.as_str()).collect();
            (same.join(" "), present.join(" "))
        };
        let is = |same: &str, present: &str| (same.to_owned(), present.to_owned());
        assert_eq!(names(&[source("a", 1)]), is("", "a"));
        assert_eq!(names(&[source("a", 1), source("b", 1)]), is("a1", "a b a"));
        // One is being copied over.
        assert_eq!(names(&[source("a", 2), source("b", 1)]), is("b1", "a b a b"));
        assert_eq!(names(&[source("a", 3), source("b", 1)]), is("b1", "a b a b"));
        assert_eq!(names(&[source("a", 3), source("b", 1)]), is("a3 b1", "a b a b"));
        // One is moved away, and another one to its place.
        assert_eq!(names(&[source("b", 1)]), is("b1", "b a b"));
        assert_eq!(names(&[source("a", 4), source("b", 1)]), is("b1", "a b b"));
        assert_eq!(names(&[source("b", 1)]), is("b1", "b a b"));
        assert_eq!(names(&[source("b", 1)]), is("b1", "b b"));
    }
}
