//! `bad_words_ids`: sequences that must not come, unless they are the end itself.

use super::sequence_bias::SequenceBias;

pub(super) fn new(words: &[Vec<u32>], eos: &[u32]) -> SequenceBias {
    let is_end = |word: &[u32]| matches!(word, [token] if eos.contains(token));
    let biases: Vec<(Vec<u32>, f32)> =
        words.iter().filter(|word| !is_end(word)).map(|word| (word.clone(), f32::NEG_INFINITY)).collect();
    SequenceBias::new(&biases)
}
