//! How long batches take.

use std::time::{Duration, Instant};

use centuple_tasks::{Engine, EngineError, Sequence};

/// Runs that are timed at least.
const LEAST: usize = 10;

/// What the runs of one batch took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// The median.
    pub median_ms: f64,
    /// The shortest.
    pub min_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// Number of runs.
    pub repeat: usize,
}

/// Runs a batch until `warm_up` is over, then `repeat` times; by default as often as fits `budget`, at least 10 times.
///
/// # Errors
/// The engine fails.
pub fn time(
    engine: &mut dyn Engine,
    batch: &[&Sequence],
    warm_up: Duration,
    budget: Duration,
    repeat: Option<usize>,
) -> Result<Timing, EngineError> {
    let begin = Instant::now();
    let mut once = Duration::MAX;
    while begin.elapsed() < warm_up || once == Duration::MAX {
        let start = Instant::now();
        engine.run(batch)?;
        once = once.min(start.elapsed());
    }
    let fitting = (budget.as_nanos() / once.as_nanos().max(1)) as usize;
    let repeat = repeat.unwrap_or(fitting.max(LEAST)).max(1);
    let mut times = Vec::with_capacity(repeat);
    for _ in 0..repeat {
        let start = Instant::now();
        engine.run(batch)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((repeat - 1) as f64 * share).round() as usize];
    Ok(Timing { median_ms: at(0.5), min_ms: at(0.0), p99_ms: at(0.99), repeat })
}

/// Sequences of random tokens, the same on every machine (Steele & Vigna's SplitMix64).
pub fn random_sequences(count: usize, tokens: usize, vocabulary: usize) -> Vec<Sequence> {
    let mut state = 0u64;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % vocabulary.max(1) as u64) as u32
    };
    (0..count).map(|_| Sequence::from_ids((0..tokens).map(|_| next()).collect())).collect()
}
