//! Which models there are, in which versions, and what each of them is doing.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use centuple_tasks::ModelCard;
use tokio::sync::watch;

use super::{
    loader::{Origin, Source},
    served::Served,
};
use crate::{
    failure::{Failure, Kind},
    metrics::Tally,
};

/// Names that a message lists, at most.
const MOST_NAMES: usize = 20;

/// A version of a model, in one word; never used again once it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) u64);

/// What became of loading.
pub(super) type Outcome = Result<Arc<Served>, Failure>;

/// One version of a model.
pub(super) struct Entry {
    pub(super) source: Source,
    /// What answers.
    pub(super) served: Option<Arc<Served>>,
    /// Whether it is being loaded, perhaps beside what answers.
    pub(super) loading: bool,
    /// Why it could not be loaded last, and when that was.
    pub(super) failure: Option<(String, Instant)>,
    /// Whether a client has unloaded it: only a client loads it again.
    pub(super) unloaded: bool,
    /// Where those listen who wait for it.
    pub(super) pending: Option<watch::Receiver<Option<Outcome>>>,
    /// Bytes that it took when it was loaded last.
    pub(super) memory: Option<u64>,
    /// What it was when it was loaded last.
    pub(super) card: Option<ModelCard>,
    /// When it was last asked for.
    pub(super) used: u64,
    /// What it has done since the start, over all times that it was loaded.
    pub(super) tally: Arc<Tally>,
}

impl Entry {
    fn new(source: Source) -> Self {
        Self {
            source,
            served: None,
            loading: false,
            failure: None,
            unloaded: false,
            pending: None,
            memory: None,
            card: None,
            used: 0,
            tally: Arc::default(),
        }
    }

    /// How much memory it is going to take.
    pub(super) fn estimate(&self) -> u64 {
        self.memory.unwrap_or(self.source.bytes)
    }

    /// That a client has unloaded it.
    pub(super) fn absence(&self) -> Failure {
        let (title, name) = (self.title(), &self.source.name);
        let message = format!("model {title} was unloaded; POST /v2/repository/models/{name}/load loads it again");
        Failure::new(Kind::UnknownModel, message)
    }

    /// What it is called in messages.
    pub(super) fn title(&self) -> String {
        title(&self.source)
    }
}

/// What a source is called in messages.
pub(super) fn title(source: &Source) -> String {
    match source.version {
        1 => format!("`{}`", source.name),
        version => format!("`{}` version {version}", source.name),
    }
}

/// The versions of one name; never none.
pub(super) struct Named {
    /// The one that is meant where none is said.
    pub(super) default: Key,
    pub(super) versions: BTreeMap<u64, Key>,
    /// Its place in lists.
    place: usize,
}

/// Everything that is known.
#[derive(Default)]
pub(super) struct Catalogue {
    names: BTreeMap<String, Named>,
    entries: BTreeMap<Key, Entry>,
    keys: u64,
    places: usize,
    clock: u64,
}

impl Catalogue {
    /// The entry of a key, unless it is gone.
    pub(super) fn entry(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    /// Every entry.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Key, &Entry)> {
        self.entries.iter().map(|(key, entry)| (*key, entry))
    }

    /// Every name, in the order of lists.
    fn names(&self) -> Vec<(&str, &Named)> {
        let mut names: Vec<_> = self.names.iter().map(|(name, named)| (name.as_str(), named)).collect();
        names.sort_by_key(|(_, named)| named.place);
        names
    }

    /// Number of names.
    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    /// The name that comes first in lists.
    pub(super) fn first(&self) -> Option<&str> {
        self.names.iter().min_by_key(|(_, named)| named.place).map(|(name, _)| name.as_str())
    }

    /// Every version of every name, in the order of lists.
    pub(super) fn listed(&self) -> Vec<(Key, &Entry, bool)> {
        let names = self.names();
        let keys = names.into_iter().flat_map(|(_, named)| named.versions.values().map(|key| (*key, named.default)));
        keys.filter_map(|(key, default)| Some((key, self.entries.get(&key)?, key == default))).collect()
    }

    /// Notes that something can be loaded; its key, if it is new or not what it was.
    pub(super) fn learn(&mut self, source: Source) -> Option<Key> {
        if let Some(named) = self.names.get(&source.name)
            && let Some(key) = named.versions.get(&source.version)
        {
            let key = *key;
            let entry = self.entries.get_mut(&key)?;
            let same = entry.source.fingerprint == source.fingerprint && entry.source.place == source.place;
            if same {
                return None;
            }
            entry.memory = entry.memory.filter(|_| entry.source.bytes == source.bytes);
            entry.failure = None;
            entry.source = source;
            return Some(key);
        }
        self.keys += 1;
        let (key, place) = (Key(self.keys), self.places);
        let default = self.names.get(&source.name).and_then(|named| self.entries.get(&named.default));
        // A new version of what a client has unloaded is not loaded by itself either.
        let unloaded = default.is_some_and(|entry| entry.unloaded);
        let named = self.names.entry(source.name.clone()).or_insert_with(|| {
            self.places += 1;
            Named { default: key, versions: BTreeMap::new(), place }
        });
        named.versions.insert(source.version, key);
        self.entries.insert(key, Entry { unloaded, ..Entry::new(source) });
        Some(key)
    }

    /// Removes what `stays` is false of.
    pub(super) fn forget(&mut self, stays: impl Fn(&Source) -> bool) -> Vec<Entry> {
        let gone: Vec<Key> =
            self.entries.iter().filter(|(_, entry)| !stays(&entry.source)).map(|(key, _)| *key).collect();
        let removed: Vec<Entry> = gone.iter().filter_map(|key| self.entries.remove(key)).collect();
        self.names.retain(|_, named| {
            named.versions.retain(|_, key| !gone.contains(key));
            let Some((_, latest)) = named.versions.last_key_value() else { return false };
            if gone.contains(&named.default) {
                named.default = *latest;
            }
            true
        });
        removed
    }

    /// The versions of a name.
    pub(super) fn named(&self, name: &str) -> Option<&Named> {
        self.names.get(name)
    }

    /// Makes a version the one that is meant where none is said.
    pub(super) fn set_default(&mut self, name: &str, key: Key) {
        if let Some(named) = self.names.get_mut(name) {
            named.default = key;
        }
    }

    /// Names whose largest version is not the one that is meant, with the keys of the latter and the former.
    pub(super) fn outdated(&self) -> Vec<(String, Key, Key)> {
        let latest = |(name, named): (&String, &Named)| {
            let (_, latest) = named.versions.last_key_value()?;
            (*latest != named.default).then(|| (name.clone(), named.default, *latest))
        };
        self.names.iter().filter_map(latest).collect()
    }

    /// Notes for every version of a name whether a client wants it to be unloaded; their keys.
    pub(super) fn set_unloaded(&mut self, name: &str, unloaded: bool) -> Vec<Key> {
        let keys: Vec<Key> =
            self.names.get(name).into_iter().flat_map(|named| named.versions.values().copied()).collect();
        for key in &keys {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.unloaded = unloaded;
            }
        }
        keys
    }

    /// The key of a name's version; `None`: of the one that is meant where none is said.
    pub(super) fn key(&self, name: &str, version: Option<&str>) -> Result<Key, Failure> {
        let unknown = |message| Failure::new(Kind::UnknownModel, message);
        let Some(named) = self.names.get(name) else {
            return Err(unknown(format!("model `{name}` is not served here; {}", self.served())));
        };
        let Some(version) = version else { return Ok(named.default) };
        let key = version.parse().ok().and_then(|version: u64| named.versions.get(&version));
        key.copied().ok_or_else(|| {
            let versions: Vec<_> = named.versions.keys().map(u64::to_string).collect();
            let (is, versions) =
                (if versions.len() == 1 { "its only version is" } else { "it has" }, versions.join(", "));
            unknown(format!("model `{name}` has no version `{version}`; {is} {versions}"))
        })
    }

    /// The names for a message.
    fn served(&self) -> String {
        let names: Vec<_> = self.names().into_iter().map(|(name, _)| name).collect();
        match names.len() {
            0 => "no model is".into(),
            more @ 21.. => format!("served: {} and {} others", names[..MOST_NAMES].join(", "), more - MOST_NAMES),
            _ => format!("served: {}", names.join(", ")),
        }
    }

    /// What answers for a key, which counts as a use of it.
    pub(super) fn answering(&mut self, key: Key, pause: Duration) -> Outcome {
        self.clock += 1;
        let clock = self.clock;
        let Some(entry) = self.entries.get_mut(&key) else {
            return Err(Failure::new(Kind::UnknownModel, "the model is not served any more".into()));
        };
        entry.used = clock;
        if let Some(served) = &entry.served {
            return Ok(Arc::clone(served));
        }
        if entry.unloaded && entry.pending.is_none() {
            return Err(entry.absence());
        }
        let title = entry.title();
        match &entry.failure {
            Some((reason, at)) if entry.pending.is_none() && at.elapsed() < pause => Err(failed(&title, reason)),
            Some(_) | None => Err(Failure::new(Kind::NotLoaded(key), format!("model {title} is not loaded"))),
        }
    }
}

/// That a model could not be loaded.
pub(super) fn failed(title: &str, reason: &str) -> Failure {
    Failure::new(Kind::LoadFailed, format!("model {title} could not be loaded: {reason}"))
}

impl Origin {
    /// Whether changes of it are followed.
    pub(super) fn is_found(self) -> bool {
        match self {
            Origin::Named => false,
            Origin::Found { .. } => true,
        }
    }

    /// Whether it is loaded before it is asked for.
    pub(super) fn is_eager(self) -> bool {
        match self {
            Origin::Named => true,
            Origin::Found { eager } => eager,
        }
    }
}
