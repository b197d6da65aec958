//! A loader of tiny models that tests fill, hold up and spoil.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use centuple_serve::{LoadError, Loader, Origin, ServedModel, Source};

use crate::harness::{served, tiny};

/// What there is to load.
#[derive(Default)]
pub(crate) struct Shelf {
    sources: Mutex<BTreeMap<(String, u64), Source>>,
    /// Why models fail to load.
    broken: Mutex<BTreeMap<String, String>>,
    /// Names of what was loaded, in order.
    loads: Mutex<Vec<String>>,
    /// Held by tests that hold loads up.
    door: Mutex<()>,
    /// Loads that have begun.
    begun: AtomicUsize,
    /// Has a clone in each engine.
    alive: Arc<()>,
    /// Held by tests that hold engines up.
    bench: Arc<Mutex<()>>,
}

/// A source of a lazily loaded model, whose answers are all `fingerprint`.
pub(crate) fn source(name: &str, version: u64, fingerprint: u64) -> Source {
    let origin = Origin::Found { eager: false };
    Source { name: name.into(), version, place: PathBuf::from(name), fingerprint, bytes: 10, origin }
}

impl Shelf {
    /// A shelf of these.
    pub(crate) fn of(sources: impl IntoIterator<Item = Source>) -> Arc<Self> {
        let shelf = Arc::new(Self::default());
        sources.into_iter().for_each(|source| shelf.put(source));
        shelf
    }

    /// Puts a model there, in the place of what has its name and version.
    pub(crate) fn put(&self, source: Source) {
        self.sources.lock().unwrap().insert((source.name.clone(), source.version), source);
    }

    /// Takes a model away.
    pub(crate) fn remove(&self, name: &str, version: u64) {
        self.sources.lock().unwrap().remove(&(name.to_owned(), version));
    }

    /// Has a model fail to load, or load again.
    pub(crate) fn spoil(&self, name: &str, reason: Option<&str>) {
        let mut broken = self.broken.lock().unwrap();
        match reason {
            Some(reason) => broken.insert(name.into(), reason.into()),
            None => broken.remove(name),
        };
    }

    /// What was loaded so far, also what failed.
    pub(crate) fn loads(&self) -> Vec<String> {
        self.loads.lock().unwrap().clone()
    }

    /// Holds loads up.
    pub(crate) fn hold_loads(&self) -> MutexGuard<'_, ()> {
        self.door.lock().unwrap()
    }

    /// Holds engines up.
    pub(crate) fn hold_engines(&self) -> MutexGuard<'_, ()> {
        self.bench.lock().unwrap()
    }

    /// Waits until so many loads have begun.
    pub(crate) fn await_loads(&self, loads: usize) {
        while self.begun.load(SeqCst) < loads {
            std::thread::yield_now();
        }
    }

    /// Engines that exist.
    pub(crate) fn engines(&self) -> usize {
        Arc::strong_count(&self.alive) - 1
    }

    /// Waits until so many engines exist.
    pub(crate) fn await_engines(&self, engines: usize) {
        while self.engines() != engines {
            std::thread::yield_now();
        }
    }
}

impl Loader for Shelf {
    fn scan(&self) -> Result<Vec<Source>, LoadError> {
        Ok(self.sources.lock().unwrap().values().cloned().collect())
    }

    /// A model whose outputs are all its fingerprint; it takes as many bytes as its source says.
    fn load(&self, source: &Source) -> Result<ServedModel, LoadError> {
        self.begun.fetch_add(1, SeqCst);
        drop(self.door.lock().unwrap());
        self.loads.lock().unwrap().push(format!("{}:{}", source.name, source.version));
        for name in [source.name.clone(), format!("{}:{}", source.name, source.version)] {
            let reason = self.broken.lock().unwrap().get(&name).cloned();
            if let Some(reason) = reason {
                assert!(reason != "panic", "a bug in the loader");
                return Err(LoadError(reason));
            }
        }
        let mut model = tiny::embedder(false);
        model.card.id.clone_from(&source.name);
        let (answer, alive, bench) = (source.fingerprint as f32, Arc::clone(&self.alive), Arc::clone(&self.bench));
        let engine = tiny::Tiny::with(&model, move |_, outputs| {
            let _alive = &alive;
            drop(bench.lock().unwrap());
            outputs.iter_mut().for_each(|output| output.data.fill(answer));
            Ok(())
        });
        Ok(ServedModel { memory: source.bytes, ..served(model, engine) })
    }
}
