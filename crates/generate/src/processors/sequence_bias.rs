//! `sequence_bias`: a number added to the logit of a sequence's last token, where its other tokens came last.

use std::collections::BTreeMap;

use super::Processor;

pub(super) struct SequenceBias {
    /// Of each sequence its tokens before the last, the last, and the bias.
    biases: Vec<(Vec<u32>, u32, f32)>,
}

impl SequenceBias {
    /// Of equal sequences the last counts.
    pub(super) fn new(biases: &[(Vec<u32>, f32)]) -> Self {
        let unique: BTreeMap<&[u32], f32> =
            biases.iter().map(|(sequence, bias)| (sequence.as_slice(), *bias)).collect();
        let split = |(sequence, bias): (&[u32], f32)| {
            sequence.split_last().map(|(last, before)| (before.to_vec(), *last, bias))
        };
        Self { biases: unique.into_iter().filter_map(split).collect() }
    }
}

impl Processor for SequenceBias {
    fn process(&self, ids: &[u32], scores: &mut [f32]) {
        for (before, last, bias) in &self.biases {
            // As in transformers, a sequence counts only once there are as many tokens as it has, and not one fewer.
            let matches = before.is_empty() || before.len() < ids.len() && ids.ends_with(before);
            if let Some(score) = scores.get_mut(*last as usize).filter(|_| matches) {
                *score += bias;
            }
        }
    }
}
