//! `encoder_repetition_penalty`: logits of tokens of the encoder's input win, by a factor.

use super::Processor;
use super::repetition_penalty::penalise;

pub(super) struct EncoderRepetitionPenalty {
    penalty: f32,
    source: Vec<u32>,
}

pub(super) fn new(penalty: f32, source: &[u32]) -> EncoderRepetitionPenalty {
    // The reciprocal is that of a double, as Python takes it.
    let penalty = (1.0 / f64::from(penalty)) as f32;
    EncoderRepetitionPenalty { penalty, source: source.to_vec() }
}

impl Processor for EncoderRepetitionPenalty {
    fn process(&self, _ids: &[u32], scores: &mut [f32]) {
        penalise(&self.source, self.penalty, scores);
    }
}
