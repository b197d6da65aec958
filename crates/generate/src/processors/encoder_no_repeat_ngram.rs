//! `encoder_no_repeat_ngram_size`: no sequence of so many tokens of the encoder's input comes again.

use super::Processor;
use super::no_repeat_ngram::forbid_repeats;

pub(super) struct EncoderNoRepeatNgram {
    pub(super) size: usize,
    pub(super) source: Vec<u32>,
}

impl Processor for EncoderNoRepeatNgram {
    fn process(&self, ids: &[u32], scores: &mut [f32]) {
        forbid_repeats(self.size, ids, &self.source, scores);
    }
}
