//! The table of what characters become, as sentencepiece stores it: a double-array trie over UTF-8, then the
//! replacements, each ended by a zero byte.

/// What texts' characters become.
#[derive(Debug)]
pub(super) struct Charsmap {
    /// The trie: each unit has a label, whether a key ends there, and how far its children are.
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl Charsmap {
    /// Reads a table; `None` if it is none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let (trie, replacements) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        let units = trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        Some(Self { units, replacements: replacements.to_vec() })
    }

    /// What the longest known beginning of `text` becomes, and its length in bytes.
    pub(super) fn longest(&self, text: &[u8]) -> Option<(&str, usize)> {
        let mut place = children(*self.units.first()?);
        let mut longest = None;
        for (length, byte) in (1..).zip(text) {
            place ^= usize::from(*byte);
            let Some(unit) = self.units.get(place).filter(|unit| *unit & LABEL == u32::from(*byte)) else { break };
            place ^= children(*unit);
            if unit & HAS_VALUE != 0 {
                let value = self.units.get(place).map(|leaf| (leaf & VALUE) as usize);
                longest = value.and_then(|value| Some((self.replacement(value)?, length))).or(longest);
            }
        }
        longest
    }

    fn replacement(&self, start: usize) -> Option<&str> {
        let bytes = self.replacements.get(start..)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(bytes.get(..end)?).ok()
    }
}

/// A unit's label; the highest bit says that it is a value.
const LABEL: u32 = 1 << 31 | 0xFF;
/// Whether a key ends at a unit.
const HAS_VALUE: u32 = 1 << 8;
/// The value of a unit that is one.
const VALUE: u32 = !(1 << 31);

/// What a unit's place is combined with to get its children's.
fn children(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
            if let Some(charsmap) = Charsmap::read(&bytes) {
                charsmap.longest(text.as_bytes());
            }
        }
    }
}
