//! Texts that were there before, by their digests, and what became of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

/// Tables among which the digests are divided: one that grows is there twice for a moment.
const TABLES: usize = 64;
/// Similarities are counted in steps of 1 / this.
const STEPS: u64 = 1000;
/// Bits of a verdict that hold the similarity.
const SIMILARITY_BITS: u32 = 10;

/// The first half of the SHA-256 of a text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 16]);

impl Digest {
    pub(crate) fn of(text: &str) -> Digest {
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(text)[..16]);
        Digest(digest)
    }
}

/// The line that represents a text, and the similarity to it, in 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict(u64);

impl Verdict {
    /// Of a line below 2^54 and a similarity from 0 to 1, which is kept to three decimals.
    pub(crate) fn new(representative: u64, similarity: f32) -> Verdict {
        Verdict(representative << SIMILARITY_BITS | (f64::from(similarity) * STEPS as f64).round() as u64)
    }

    pub(crate) fn representative(self) -> u64 {
        self.0 >> SIMILARITY_BITS
    }

    pub(crate) fn similarity(self) -> f32 {
        (self.0 & ((1 << SIMILARITY_BITS) - 1)) as f32 / STEPS as f32
    }
}

/// Every text so far: 24 bytes for each, and what the tables keep free.
pub(crate) struct Seen([Mutex<HashMap<Digest, Option<std::num::NonZeroU64>>>; TABLES]);

impl Default for Seen {
    fn default() -> Seen {
        Seen([(); TABLES].map(|()| Mutex::default()))
    }
}

impl Seen {
    /// Whether a text comes for the first time.
    pub(crate) fn is_new(&self, digest: Digest) -> bool {
        match self.table(digest).entry(digest) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(None);
                true
            }
        }
    }

    /// Lets a text be new again.
    pub(crate) fn forget(&self, digest: Digest) {
        self.table(digest).remove(&digest);
    }

    /// Keeps what became of a text. Lines begin at 1, so no verdict is 0.
    pub(crate) fn settle(&self, digest: Digest, verdict: Verdict) {
        self.table(digest).insert(digest, std::num::NonZeroU64::new(verdict.0));
    }

    /// What became of a text.
    pub(crate) fn verdict(&self, digest: Digest) -> Option<Verdict> {
        self.table(digest).get(&digest).copied().flatten().map(|verdict| Verdict(verdict.get()))
    }

    fn table(&self, digest: Digest) -> MutexGuard<'_, HashMap<Digest, Option<std::num::NonZeroU64>>> {
        self.0[usize::from(digest.0[0]) % TABLES].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_holds_a_line_and_a_similarity() {
        for line in [1, 17, u64::from(u32::MAX) + 5, (1 << 54) - 1] {
            for similarity in [0.0, 0.001, 0.873, 0.999, 1.0] {
                let verdict = Verdict::new(line, similarity);
                assert_eq!((verdict.representative(), verdict.similarity()), (line, similarity));
            }
        }
    }

    #[test]
    fn a_text_is_new_once() {
        let seen = Seen::default();
        let [one, other] = ["one", "other"].map(Digest::of);
        assert!(seen.is_new(one) && !seen.is_new(one) && seen.is_new(other));
        assert_eq!(seen.verdict(one), None);
        seen.settle(one, Verdict::new(3, 0.5));
        assert_eq!(seen.verdict(one), Some(Verdict::new(3, 0.5)));
        seen.forget(one);
        assert!(seen.is_new(one) && !seen.is_new(other));
    }
}
