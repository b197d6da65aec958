//! Two parts of the examples: one to search a precision on, one for the verdict.
//!
//! A search that sees the examples of its own verdict flatters itself. The side of an example depends on the seed and
//! on its texts alone, so equal texts never stand on both sides, and adding or reordering examples moves none.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::Example;

/// How examples are split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitOptions {
    /// Another seed is another split.
    pub seed: u64,
    /// The share of distinct texts that the verdict gets, between 0 and 1; met on average, as each is drawn for itself.
    pub verdict: f64,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self { seed: 0, verdict: 0.5 }
    }
}

/// Which examples belong to which part.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Indices of the examples to search on, in order; at least one.
    pub search: Vec<usize>,
    /// Indices of the examples for the verdict, in order; at least one.
    pub verdict: Vec<usize>,
    /// How they were split.
    pub options: SplitOptions,
}

/// Why examples can't be split.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SplitError {
    /// The share is not between 0 and 1.
    #[error("the verdict cannot get a share of {share} of the examples; give a number between 0 and 1")]
    Share {
        /// What was asked for.
        share: f64,
    },
    /// All examples fell on one side.
    #[error(
        "{examples} examples with {distinct} different texts leave no example for {part}; \
         use more examples, or another seed"
    )]
    Empty {
        /// The number of examples.
        examples: usize,
        /// How many of them differ in their texts.
        distinct: usize,
        /// The part that got nothing.
        part: &'static str,
    },
}

impl Split {
    /// Splits examples.
    ///
    /// # Errors
    /// The share is not between 0 and 1, or one part would be empty.
    pub fn new(examples: &[Example], options: SplitOptions) -> Result<Self, SplitError> {
        let share = options.verdict;
        if !(share > 0.0 && share < 1.0) {
            return Err(SplitError::Share { share });
        }
        let drawn: Vec<u64> = examples.iter().map(|example| draw(options.seed, example)).collect();
        // 2^64 · share, exact but for the rounding of `share` itself.
        let limit = (share * 18_446_744_073_709_551_616.0) as u64;
        let (verdict, search): (Vec<usize>, Vec<usize>) = (0..examples.len()).partition(|&index| drawn[index] < limit);
        for (part, indices) in [("the search", &search), ("the verdict", &verdict)] {
            if indices.is_empty() {
                let distinct = drawn.iter().collect::<std::collections::HashSet<_>>().len();
                return Err(SplitError::Empty { examples: examples.len(), distinct, part });
            }
        }
        Ok(Self { search, verdict, options })
    }
}

/// The first 64 bits of the SHA-256 of the seed and of each text after its length.
fn draw(seed: u64, example: &Example) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    for text in example.texts() {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let digest = hash.finalize();
    let first: [u8; 8] = digest[..8].try_into().expect("a digest has 32 bytes");
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(inputs: impl Into<String>) -> Example {
        Example::Plain { inputs: inputs.into(), pair: None }
    }

    fn numbered(count: usize) -> Vec<Example> {
        (0..count).map(|index| plain(format!("text {index}"))).collect()
    }

    #[test]
    fn sides_are_pinned() {
        let split = Split::new(&numbered(12), SplitOptions::default()).expect("twelve texts");
        assert_eq!(split.verdict, PINNED);
    }

    /// Reports say which seed made their split; the same seed must make it again.
    const PINNED: [usize; 5] = [0, 1, 7, 9, 10];

    #[test]
    fn the_share_is_met_on_average() {
        let examples = numbered(10_000);
        for verdict in [0.1, 0.5, 0.9] {
            let split = Split::new(&examples, SplitOptions { seed: 3, verdict }).expect("many texts");
            assert!((split.verdict.len() as f64 / 1e4 - verdict).abs() < 0.02, "{verdict}");
        }
    }

    #[test]
    fn a_part_without_examples_is_an_error() {
        let same = vec![plain("a"); 50];
        let error = Split::new(&same, SplitOptions::default()).expect_err("one text has one side");
        assert!(error.to_string().contains("50 examples with 1 different texts"), "{error}");
        for verdict in [0.0, 1.0, -1.0, 2.0, f64::NAN] {
            assert!(matches!(
                Split::new(&numbered(9), SplitOptions { seed: 0, verdict }),
                Err(SplitError::Share { .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn parts_share_no_text(texts in proptest::collection::vec("[ab]{0,3}", 2..60), seed: u64) {
            let examples: Vec<Example> = texts.iter().map(plain).collect();
            let Ok(split) = Split::new(&examples, SplitOptions { seed, verdict: 0.5 }) else { return Ok(()) };
            let mut all = [split.search.clone(), split.verdict.clone()].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..texts.len()).collect::<Vec<_>>());
            prop_assert!(split.search.iter().all(|&a| split.verdict.iter().all(|&b| texts[a] != texts[b])));
        }

        #[test]
        fn more_examples_move_none(count in 60usize..80, extra in 1usize..40, seed: u64) {
            let options = SplitOptions { seed, verdict: 0.5 };
            let few = Split::new(&numbered(count), options).expect("many texts");
            let many = Split::new(&numbered(count + extra), options).expect("many texts");
            let kept: Vec<usize> = many.verdict.into_iter().filter(|&index| index < count).collect();
            prop_assert_eq!(kept, few.verdict);
        }
    }
}
