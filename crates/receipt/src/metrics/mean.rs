//! The mean of one number per example: what several metrics are.

/// Mean over a draw; `None` where nothing is drawn.
pub(super) fn mean(values: &[f64], draws: &[u32]) -> Option<f64> {
    assert_eq!(values.len(), draws.len(), "a draw counts every example");
    let drawn = draws.iter().map(|&draw| u64::from(draw)).sum::<u64>();
    let sum: f64 = values.iter().zip(draws).map(|(value, &draw)| value * f64::from(draw)).sum();
    (drawn > 0).then(|| sum / drawn as f64)
}

/// 1 where `right`, else 0.
pub(super) fn hit(right: bool) -> f64 {
    if right { 1.0 } else { 0.0 }
}
