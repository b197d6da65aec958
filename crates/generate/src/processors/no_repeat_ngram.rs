//! `no_repeat_ngram_size`: no sequence of so many tokens comes twice.

use super::Processor;

pub(super) struct NoRepeatNgram(pub(super) usize);

impl Processor for NoRepeatNgram {
    fn process(&self, ids: &[u32], scores: &mut [f32]) {
        forbid_repeats(self.0, ids, ids, scores);
    }
}

/// Forbids what follows in `text` wherever it has the last `size - 1` tokens of `ids`.
pub(super) fn forbid_repeats(size: usize, ids: &[u32], text: &[u32], scores: &mut [f32]) {
    let Some(start) = (ids.len() + 1).checked_sub(size) else { return };
    let Some(last) = ids.get(start..) else { return };
    for ngram in text.windows(size) {
        if let Some((next, before)) = ngram.split_last().filter(|(_, before)| *before == last) {
            debug_assert_eq!(before.len() + 1, size);
            if let Some(score) = scores.get_mut(*next as usize) {
                *score = f32::NEG_INFINITY;
            }
        }
    }
}
