//! The shadow of a model: a second engine that computes a share of the sequences again, so that
//! the drift of a faster engine is measured on what its clients really send.
//!
//! Nobody waits for it. The batcher copies the sequences that are picked, with their outputs, and
//! hands them over once the replies are out; a thread of low priority compares one at a time. What
//! it can't keep up with is dropped and counted.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
};

use centuple_tasks::{Engine, EngineError, Head, ModelCard, Output, Problem, Sequence};

use crate::{
    batcher::compute,
    metrics::{Metrics, ShadowMetrics},
};

/// Most sequences that wait for a shadow.
const MOST_WAITING: usize = 16;
/// Most numbers in the outputs that wait; a larger output waits alone.
const MOST_VALUES: usize = 4 << 20;
/// The nice value of a shadow's thread.
#[cfg(target_os = "linux")]
const NICE: i32 = 19;

/// A second engine for a model, normally the same weights in f32, which computes a share of the
/// served sequences again. How far its outputs are from those that were served is exported as
/// metrics; no answer depends on it or waits for it.
///
/// The engine should have a thread pool of its own, of one thread. The runs of a pool take turns,
/// so on a shared pool a run of the shadow would hold up the served engine; and a pool of one
/// thread computes on the shadow's own thread, which has the lowest priority (on Linux).
///
/// | metric, each with the label `model` | what it is |
/// |---|---|
/// | `te_shadow_compared` | sequences that both engines computed |
/// | `te_shadow_dropped` | sequences that were picked while too many waited |
/// | `te_shadow_failed` | sequences on which the shadow failed, or that gave other shapes or no finite numbers |
/// | `te_shadow_drift` | histogram: 1 - cosine of each row of output |
/// | `te_shadow_drift_worst` | the largest drift since the start |
/// | `te_shadow_label_equal` | sequences to whose best label the shadow agrees |
/// | `te_shadow_label_different` | sequences for which the shadow has another best label |
///
/// A row of one number has no direction; its drift is the relative difference. Labels are counted
/// for classifiers that choose among several.
pub struct Shadow {
    /// Computes the sequences again, one at a time. Moves to a thread of its own.
    pub engine: Box<dyn Engine>,
    /// Share of the sequences, 0 to 1, each picked with this probability. At 0, or where it is no
    /// number, the engine is dropped and nothing is measured.
    pub share: f64,
}

impl Shadow {
    /// Starts the thread, if there is anything to do for it. It ends when the sampler is dropped,
    /// after the sequence that it is at.
    pub(crate) fn start(self, card: &ModelCard, metrics: &Metrics) -> std::io::Result<Option<Sampler>> {
        let Self { engine, share } = self;
        if share.is_nan() || share <= 0.0 {
            return Ok(None);
        }
        let (door, samples) = mpsc::channel();
        let labels = has_labels(&card.head);
        let backlog = Arc::new(Backlog::default());
        let metrics = Arc::new(metrics.shadow(&card.id, labels));
        let worker = Worker {
            engine,
            samples,
            backlog: Arc::clone(&backlog),
            metrics: Arc::clone(&metrics),
            labels,
            worst: 0.0,
        };
        std::thread::Builder::new().name(format!("shadow {}", card.id)).spawn(move || worker.work())?;
        Ok(Some(Sampler { picker: Picker::new(share), door, backlog, metrics }))
    }
}

/// Whether the largest of a row of outputs names a label.
fn has_labels(head: &Head) -> bool {
    match head {
        Head::Classification { labels, problem: Problem::SingleLabel | Problem::MultiLabel } => labels.len() > 1,
        Head::Classification { problem: Problem::Regression, .. }
        | Head::TokenFeatures { .. }
        | Head::SentenceEmbedding(_)
        | Head::TokenClassification { .. }
        | Head::QuestionAnswering
        | Head::MaskedLm { .. }
        | Head::CausalLm { .. }
        | Head::Seq2SeqLm { .. }
        | Head::SparseEmbedding { .. }
        | Head::LateInteraction { .. } => false,
    }
}

/// The batcher's end: picks sequences and hands them over.
pub(crate) struct Sampler {
    picker: Picker,
    door: mpsc::Sender<Sample>,
    backlog: Arc<Backlog>,
    metrics: Arc<ShadowMetrics>,
}

/// A sequence that was picked, and what its client gets for it.
pub(crate) struct Sample {
    sequence: Sequence,
    served: Output,
}

impl Sampler {
    /// Copies those that are picked, for [`submit`](Self::submit). Nothing is copied that could
    /// not wait, so never more than the queue holds.
    pub(crate) fn pick<'a>(&mut self, computed: impl Iterator<Item = (&'a Sequence, &'a Output)>) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (sequence, output) in computed {
            if !self.picker.next() {
                continue;
            }
            if self.backlog.enter(output.data.len()) {
                samples.push(Sample { sequence: sequence.clone(), served: output.clone() });
            } else {
                self.metrics.dropped.increment(1);
            }
        }
        samples
    }

    /// Hands samples to the shadow.
    pub(crate) fn submit(&self, samples: Vec<Sample>) {
        for sample in samples {
            if self.door.send(sample).is_err() {
                self.metrics.dropped.increment(1);
            }
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.backlog.closed.store(true, Relaxed);
    }
}

/// Picks a share of what it is asked about.
///
/// Multiples of the golden ratio, without their whole parts, are spread evenly over 0..1: so over
/// any stretch very nearly the share is picked. The first is drawn at random, so each question has
/// the same chance, and no period of the questions makes the answer one-sided.
struct Picker {
    share: f64,
    /// The current multiple's fraction, in units of 2⁻⁶⁴.
    fraction: u64,
}

impl Picker {
    fn new(share: f64) -> Self {
        Self { share, fraction: RandomState::new().hash_one(0) }
    }

    fn next(&mut self) -> bool {
        // 2⁶⁴ divided by the golden ratio, to the next odd number.
        self.fraction = self.fraction.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // 53 bits are exact, and so always below 1.
        ((self.fraction >> 11) as f64) < self.share * (1u64 << 53) as f64
    }
}

/// What waits. Only the batcher lets in, so what it has seen free stays free.
#[derive(Default)]
struct Backlog {
    sequences: AtomicUsize,
    values: AtomicUsize,
    /// The server ends: what waits is forgotten.
    closed: AtomicBool,
}

impl Backlog {
    /// Takes a place for an output of so many values, if there is one.
    fn enter(&self, values: usize) -> bool {
        let waiting = self.values.load(Relaxed);
        let fits = waiting == 0 || waiting.saturating_add(values) <= MOST_VALUES;
        if !fits || self.sequences.load(Relaxed) >= MOST_WAITING {
            return false;
        }
        self.sequences.fetch_add(1, Relaxed);
        self.values.fetch_add(values, Relaxed);
        true
    }

    /// Gives the place back.
    fn leave(&self, values: usize) {
        self.sequences.fetch_sub(1, Relaxed);
        self.values.fetch_sub(values, Relaxed);
    }
}

/// The shadow's end, on its thread.
struct Worker {
    engine: Box<dyn Engine>,
    samples: mpsc::Receiver<Sample>,
    backlog: Arc<Backlog>,
    metrics: Arc<ShadowMetrics>,
    labels: bool,
    worst: f64,
}

impl Worker {
    fn work(mut self) {
        lower_priority();
        while let Ok(sample) = self.samples.recv() {
            if self.backlog.closed.load(Relaxed) {
                return;
            }
            self.backlog.leave(sample.served.data.len());
            if let Err(error) = self.compare(&sample) {
                self.metrics.failed.increment(1);
                tracing::warn!(%error, tokens = sample.sequence.len(), "a sequence could not be compared");
            }
            std::thread::yield_now();
        }
    }

    fn compare(&mut self, sample: &Sample) -> Result<(), EngineError> {
        let Sample { sequence, served } = sample;
        let outputs = compute(self.engine.as_mut(), &[sequence])?;
        let Some(shadow) = outputs.first() else { return Ok(()) };
        let drifts = drifts(served, shadow)?;
        self.worst = drifts.iter().copied().fold(self.worst, f64::max);
        let same_label = self.labels.then(|| largest(&served.data) == largest(&shadow.data));
        self.metrics.compared(&drifts, self.worst, same_label);
        Ok(())
    }
}

/// Lets other threads go first, where the system has a priority per thread.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a shadow keeps the usual priority");
    }
}

/// The drift of each row.
fn drifts(served: &Output, shadow: &Output) -> Result<Vec<f64>, EngineError> {
    let shape = |output: &Output| (output.rows, output.columns);
    if shape(served) != shape(shadow) || !served.is_consistent() || !shadow.is_consistent() {
        let message = format!("{:?} rows and columns were served, its shadow gives {:?}", shape(served), shape(shadow));
        return Err(EngineError::Contract(message));
    }
    let columns = served.columns.max(1);
    let rows = served.data.chunks_exact(columns).zip(shadow.data.chunks_exact(columns));
    rows.map(|(served, shadow)| drift(served, shadow)).collect()
}

/// 1 - cosine, from 0 for the same direction to 2 for the opposite one. A row without direction
/// has the cosine 0 to any but its like. A single number is no direction: its drift is the
/// difference as a share of the larger one, 0 to 2 as well.
fn drift(served: &[f32], shadow: &[f32]) -> Result<f64, EngineError> {
    if !served.iter().chain(shadow).all(|value| value.is_finite()) {
        return Err(EngineError::Contract("an output that is not finite can't be compared".into()));
    }
    if let ([served], [shadow]) = (served, shadow) {
        let (served, shadow) = (f64::from(*served), f64::from(*shadow));
        let scale = served.abs().max(shadow.abs());
        return Ok(if scale == 0.0 { 0.0 } else { (served - shadow).abs() / scale });
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let (served_square, shadow_square) = (dot(served, served), dot(shadow, shadow));
    if served_square == 0.0 || shadow_square == 0.0 {
        return Ok(if served_square == shadow_square { 0.0 } else { 1.0 });
    }
    // One root of the product: it is exact where both rows are the same.
    let cosine = dot(served, shadow) / (served_square * shadow_square).sqrt();
    Ok((1.0 - cosine).clamp(0.0, 2.0))
}

/// Index of the largest value.
fn largest(values: &[f32]) -> Option<usize> {
    values.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn output(rows: usize, columns: usize, data: &[f32]) -> Output {
        Output { rows, columns, data: data.to_vec() }
    }

    proptest! {
        #[test]
        fn the_share_is_picked_whatever_the_start(share in 0f64..=1.0, fraction: u64) {
            let mut picker = Picker { share, fraction };
            let picked = (0..10_000).filter(|_| picker.next()).count() as f64;
            prop_assert!((picked - share * 1e4).abs() <= 8.0, "{picked}");
        }

        #[test]
        fn a_row_has_no_drift_to_itself_and_its_multiples(row in proptest::collection::vec(-1e18f32..1e18, 1..400)) {
            prop_assert_eq!(drift(&row, &row).unwrap(), 0.0);
            let doubled: Vec<_> = row.iter().map(|value| 2.0 * value).collect();
            prop_assert!(row.len() == 1 || drift(&row, &doubled).unwrap() == 0.0);
        }
    }

    #[test]
    fn each_place_of_a_period_is_picked_alike() {
        for period in [2, 10, 64, 89, 1000] {
            let mut picker = Picker { share: 0.05, fraction: 1 };
            let mut picked = vec![0; period];
            (0..period * 2000).filter(|_| picker.next()).for_each(|index| picked[index % period] += 1);
            assert!(picked.iter().all(|times| (90..=110).contains(times)), "{period}: {picked:?}");
        }
    }

    #[test]
    fn all_or_nothing_is_exact() {
        let picked = |share| {
            let mut picker = Picker { share, fraction: u64::MAX / 2 };
            (0..100_000).filter(|_| picker.next()).count()
        };
        assert_eq!((picked(0.0), picked(1.0), picked(7.0)), (0, 100_000, 100_000));
    }

    #[test]
    fn drift_is_one_less_the_cosine() {
        let drift = |served: &[f32], shadow: &[f32]| drift(served, shadow).unwrap();
        assert_eq!(drift(&[1.0, 0.0], &[0.0, 3.0]), 1.0);
        assert_eq!(drift(&[1.0, 2.0], &[-2.0, -4.0]), 2.0);
        let small = drift(&[1.0, 1e-3], &[1.0, 0.0]);
        assert!((small / 5e-7 - 1.0).abs() < 1e-5, "{small}");
        assert_eq!((drift(&[0.0, 0.0], &[0.0, 0.0]), drift(&[0.0, 0.0], &[0.0, 1.0])), (0.0, 1.0));
        assert_eq!((drift(&[], &[]), drift(&[0.0], &[0.0])), (0.0, 0.0));
        assert_eq!((drift(&[3.0], &[4.0]), drift(&[-4.0], &[4.0])), (0.25, 2.0));
    }

    #[test]
    fn what_can_not_be_compared_is_an_error() {
        let error = |served: &Output, shadow: &Output| drifts(served, shadow).unwrap_err().to_string();
        let matrix = output(2, 2, &[1.0; 4]);
        for other in [output(1, 4, &[1.0; 4]), output(2, 3, &[1.0; 6]), output(2, 2, &[1.0; 3])] {
            assert!(error(&matrix, &other).contains("its shadow gives"));
        }
        let broken = output(2, 2, &[1.0, 1.0, f32::NAN, 1.0]);
        assert!(error(&matrix, &broken).contains("not finite") && error(&broken, &matrix).contains("not finite"));
        assert_eq!(drifts(&matrix, &matrix).unwrap(), [0.0, 0.0]);
        assert_eq!(drifts(&output(3, 0, &[]), &output(3, 0, &[])).unwrap(), [0.0; 0]);
    }

    #[test]
    fn the_backlog_is_bounded_in_sequences_and_numbers() {
        let backlog = Backlog::default();
        assert!(backlog.enter(MOST_VALUES + 1));
        assert!(!backlog.enter(1));
        backlog.leave(MOST_VALUES + 1);
        assert!((0..MOST_WAITING).all(|_| backlog.enter(1)));
        assert!(!backlog.enter(1));
        backlog.leave(1);
        assert!(!backlog.enter(MOST_VALUES) && backlog.enter(1));
    }

    #[test]
    fn only_a_choice_of_labels_has_a_label() {
        let head = |labels: usize, problem| Head::Classification { labels: vec!["a".into(); labels], problem };
        assert!(has_labels(&head(2, Problem::SingleLabel)) && has_labels(&head(3, Problem::MultiLabel)));
        assert!(!has_labels(&head(1, Problem::MultiLabel)) && !has_labels(&head(2, Problem::Regression)));
        assert!(!has_labels(&Head::TokenFeatures { dimension: 2 }));
    }
}
