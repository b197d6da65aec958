//! Micro F1 of sets: what was found of what there is, over all examples together.

use std::collections::BTreeSet;

/// What one example contributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetCounts {
    hits: usize,
    truth: usize,
    predicted: usize,
}

impl SetCounts {
    /// Compares two lists as sets.
    pub(super) fn new<T: Ord>(truth: &[T], predicted: &[T]) -> Self {
        let (truth, predicted): (BTreeSet<&T>, BTreeSet<&T>) = (truth.iter().collect(), predicted.iter().collect());
        Self { hits: truth.intersection(&predicted).count(), truth: truth.len(), predicted: predicted.len() }
    }
}

/// F1 over a draw: 0 where it has neither truth nor prediction, `None` where nothing is drawn.
pub(super) fn micro_f1(examples: &[SetCounts], draws: &[u32]) -> Option<f64> {
    assert_eq!(examples.len(), draws.len(), "a draw counts every example");
    let sum = |count: fn(&SetCounts) -> usize| {
        examples.iter().zip(draws).map(|(example, &draw)| count(example) as u64 * u64::from(draw)).sum::<u64>()
    };
    let (hits, both) = (sum(|example| example.hits), sum(|example| example.truth + example.predicted));
    let f1 = if both == 0 { 0.0 } else { 2.0 * hits as f64 / both as f64 };
    draws.iter().any(|&draw| draw > 0).then_some(f1)
}
