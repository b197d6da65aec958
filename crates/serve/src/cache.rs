//! Outputs that were computed before, for those who ask for them.
//!
//! What is kept is the model's output of a sequence, not a reply: so another task, another route or another
//! selection of texts finds it too, and a reply has the bits that computing would give. The key is the sequence itself,
//! compared in whole, together with the instance of the model, so that a reloaded model never answers with what the
//! one before it computed, and with the client, so that nobody learns from an answer's speed what the holder of
//! another key has asked.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::Instant,
};

use centuple_tasks::{Output, Sequence};

use crate::{call::Client, metrics::CacheMetrics, queue::Instance};

/// Which requests may be answered by what was computed before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachePolicy {
    /// None.
    Off,
    /// Those that ask for it by `options.use_cache` in a body of the Hugging Face tasks or by the header `x-use-cache`.
    #[default]
    Asked,
    /// All but those that refuse it there.
    Always,
}

/// Bytes that an entry takes besides its numbers, about.
const ENTRY_BYTES: usize = 256;

/// The outputs that are kept, up to so many bytes for all models together.
pub(crate) struct Cache {
    policy: CachePolicy,
    outputs: moka::sync::Cache<Key, Arc<Output>>,
}

#[derive(PartialEq, Eq)]
struct Key {
    model: Instance,
    client: Client,
    sequence: Sequence,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { model, client, sequence } = self;
        let Sequence { ids, type_ids: _, pool_from: _, selected: _ } = sequence;
        (model, client, ids).hash(state);
    }
}

/// Bytes of an entry.
fn weight(key: &Key, output: &Arc<Output>) -> u32 {
    let Sequence { ids, type_ids, pool_from: _, selected } = &key.sequence;
    let bytes = ENTRY_BYTES + 4 * (ids.len() + type_ids.len() + output.data.len()) + size_of_val(selected.as_slice());
    bytes.try_into().unwrap_or(u32::MAX)
}

impl Cache {
    /// An empty cache of at most `bytes`.
    pub(crate) fn new(policy: CachePolicy, bytes: usize) -> Self {
        let policy = if bytes == 0 { CachePolicy::Off } else { policy };
        Self { policy, outputs: moka::sync::Cache::builder().max_capacity(bytes as u64).weigher(weight).build() }
    }

    /// Whether a request that says this about it may be answered from here.
    pub(crate) fn is_for(&self, asked: Option<bool>) -> bool {
        match self.policy {
            CachePolicy::Off => false,
            CachePolicy::Asked => asked == Some(true),
            CachePolicy::Always => asked != Some(false),
        }
    }

    /// Bytes that are taken, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.outputs.run_pending_tasks();
        self.outputs.weighted_size()
    }

    /// Looks sequences up; yields what is missing, and what must be told later to have all of them.
    pub(crate) fn find(
        &self,
        model: Instance,
        client: Client,
        sequences: Vec<Sequence>,
        metrics: &CacheMetrics,
    ) -> (Vec<Sequence>, Found) {
        let started = Instant::now();
        let mut missing = Vec::new();
        let slot = |sequence| {
            let key = Key { model, client, sequence };
            match self.outputs.get(&key) {
                Some(output) => Slot::Hit(output),
                None => {
                    missing.push(key.sequence.clone());
                    Slot::Miss(key)
                }
            }
        };
        let slots: Vec<Slot> = sequences.into_iter().map(slot).collect();
        metrics.found(slots.len() - missing.len(), missing.len(), started.elapsed());
        (missing, Found(slots))
    }

    /// Puts what was missing, in order, to what was found, and keeps it; `None` if there is not one for each.
    pub(crate) fn complete(&self, found: Found, missing: Vec<Output>) -> Option<Vec<Output>> {
        let mut missing = missing.into_iter();
        let output = |slot| match slot {
            Slot::Hit(output) => Some(Output::clone(&output)),
            Slot::Miss(key) => {
                let output = missing.next()?;
                self.outputs.insert(key, Arc::new(output.clone()));
                Some(output)
            }
        };
        found.0.into_iter().map(output).collect()
    }
}

/// What was found of a request.
pub(crate) struct Found(Vec<Slot>);

enum Slot {
    Hit(Arc<Output>),
    Miss(Key),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::Metrics,
        queue::{Capacity, Queue},
    };

    fn instance() -> Instance {
        Queue::new(Capacity { requests: 1, tokens: 1, batch_tokens: 1 }).0.instance()
    }

    fn output(value: f32) -> Output {
        Output { rows: 1, columns: 1, data: vec![value] }
    }

    /// Sequences of the same hash that differ in one field each.
    fn alike() -> Vec<Sequence> {
        let plain = Sequence::from_ids(vec![1, 2, 3]);
        vec![
            Sequence { type_ids: vec![0, 0, 1], ..plain.clone() },
            Sequence { pool_from: 1, ..plain.clone() },
            Sequence { selected: vec![1], ..plain.clone() },
            plain,
        ]
    }

    #[test]
    fn only_the_very_same_is_found() {
        let metrics = Metrics::new().unwrap().model("m", "1", Arc::default(), Arc::default());
        let cache = Cache::new(CachePolicy::Always, 1 << 20);
        let (one, other) = (instance(), instance());
        let find = |model, client, sequences| cache.find(model, Client(client), sequences, &metrics.cache);
        for (index, sequence) in alike().into_iter().enumerate() {
            let (missing, found) = find(one, 0, vec![sequence.clone()]);
            assert_eq!(missing, [sequence]);
            assert_eq!(cache.complete(found, vec![output(index as f32)]), Some(vec![output(index as f32)]));
        }
        let (missing, found) = find(one, 0, [alike(), vec![Sequence::from_ids(vec![9])], alike()].concat());
        assert_eq!(missing, [Sequence::from_ids(vec![9])]);
        let values = cache.complete(found, vec![output(9.0)]).unwrap();
        assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 9.0, 0.0, 1.0, 2.0, 3.0].map(output));
        for (model, client) in [(other, 0), (one, 1)] {
            let (missing, found) = find(model, client, alike());
            assert_eq!(missing, alike());
            assert_eq!(cache.complete(found, vec![output(1.0)]), None);
        }
    }

    #[test]
    fn who_may_use_it_is_a_matter_of_policy_and_request() {
        let answers = |policy| [None, Some(true), Some(false)].map(|asked| Cache::new(policy, 1000).is_for(asked));
        assert_eq!(answers(CachePolicy::Off), [false, false, false]);
        assert_eq!(answers(CachePolicy::Asked), [false, true, false]);
        assert_eq!(answers(CachePolicy::Always), [true, true, false]);
        assert!(!Cache::new(CachePolicy::Always, 0).is_for(Some(true)));
    }
}
