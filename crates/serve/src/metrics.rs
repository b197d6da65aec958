//! Prometheus metrics, under the names that dashboards of text-embeddings-inference and of Triton read.
//!
//! A server has a recorder of its own, so that several servers in one process do not mix.

mod accelerator;
mod generation;
mod triton;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use accelerator::Accelerator;
pub(crate) use accelerator::AcceleratorMetrics;
pub(crate) use generation::GenerationMetrics;

use crate::{
    queue::Load,
    service::{Answer, Failure, Timing},
};

const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0, 16.0];
const COUNTS: [f64; 16] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0];
/// Of 1 - cosine: 0.999999 down to 0.9, and what is no likeness at all.
const DRIFTS: [f64; 10] = [1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0];

/// The metrics of a server.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    count: Counter,
    success: Counter,
    duration: Histogram,
    cache_bytes: Gauge,
}

impl Metrics {
    /// A server's metrics, all zero.
    pub(crate) fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)?
            .set_buckets_for_metric(Matcher::Prefix("te_batch_next".into()), &COUNTS)?
            .set_buckets_for_metric(Matcher::Full("te_request_input_length".into()), &COUNTS)?
            .set_buckets_for_metric(Matcher::Full("te_shadow_drift".into()), &DRIFTS)?
            .build_recorder();
        let handle = recorder.handle();
        let (count, success, duration, cache_bytes) = metrics::with_local_recorder(&recorder, || {
            describe();
            let (count, success) = (counter!("te_request_count"), counter!("te_request_success"));
            (count, success, histogram!("te_request_duration"), gauge!("te_cache_bytes"))
        });
        Ok(Self { recorder, handle, count, success, duration, cache_bytes })
    }

    /// The metrics of one model.
    pub(crate) fn model(&self, id: &str, version: &str, load: Arc<Load>, tally: Arc<Tally>) -> ModelMetrics {
        metrics::with_local_recorder(&self.recorder, || ModelMetrics::new(id, version, load, tally))
    }

    /// The metrics of a model that generates.
    pub(crate) fn generation(&self, id: &str) -> GenerationMetrics {
        metrics::with_local_recorder(&self.recorder, || GenerationMetrics::new(id))
    }

    /// The metrics of one model on an accelerator.
    pub(crate) fn accelerator(&self, id: &str, accelerator: Arc<dyn Accelerator>) -> AcceleratorMetrics {
        metrics::with_local_recorder(&self.recorder, || AcceleratorMetrics::new(id, accelerator))
    }

    /// The metrics of one model's batches.
    pub(crate) fn batches(&self, id: &str, version: &str, tally: Arc<Tally>) -> BatchMetrics {
        metrics::with_local_recorder(&self.recorder, || {
            let model = id.to_owned();
            BatchMetrics {
                size: histogram!("te_batch_next_size", "model" => model.clone()),
                tokens: histogram!("te_batch_next_tokens", "model" => model),
                triton: triton::ExecutionMetrics::new(id, version),
                tally,
            }
        })
    }

    /// The metrics of one model's shadow; `labels`: whether outputs are compared by label too.
    pub(crate) fn shadow(&self, id: &str, labels: bool) -> ShadowMetrics {
        metrics::with_local_recorder(&self.recorder, || ShadowMetrics::new(id, labels))
    }

    /// Runs something that records metrics by their names.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&self.recorder, work)
    }

    /// Counts a request as it comes in.
    pub(crate) fn request(&self) {
        self.count.increment(1);
    }

    /// Counts a request that was received then by how it has ended.
    pub(crate) fn ended<T>(&self, received: Instant, outcome: &Result<T, Failure>) {
        match outcome {
            Ok(_) => {
                self.success.increment(1);
                self.duration.record(received.elapsed());
            }
            Err(failure) => {
                let kind = failure.kind.name();
                let count = || counter!("te_request_failure", "err" => kind).increment(1);
                metrics::with_local_recorder(&self.recorder, count);
            }
        }
    }

    /// Notes how large the cache is.
    pub(crate) fn cached(&self, bytes: u64) {
        self.cache_bytes.set(bytes as f64);
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recorded values into buckets; without it, or a reader, they would pile up.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// What happens to the requests of one model.
pub(crate) struct ModelMetrics {
    tokenization: Histogram,
    queue: Histogram,
    inference: Histogram,
    input_length: Histogram,
    queue_size: Gauge,
    queue_tokens: Gauge,
    triton: triton::RequestMetrics,
    pub(crate) cache: CacheMetrics,
    load: Arc<Load>,
    /// Requests and tokens that the gauges show for this one. Others of the same name add theirs.
    shown: Mutex<(usize, usize)>,
    tally: Arc<Tally>,
}

impl ModelMetrics {
    fn new(id: &str, version: &str, load: Arc<Load>, tally: Arc<Tally>) -> Self {
        let model = || id.to_owned();
        Self {
            tokenization: histogram!("te_request_tokenization_duration", "model" => model()),
            queue: histogram!("te_request_queue_duration", "model" => model()),
            inference: histogram!("te_request_inference_duration", "model" => model()),
            input_length: histogram!("te_request_input_length", "model" => model()),
            queue_size: gauge!("te_queue_size", "model" => model()),
            queue_tokens: gauge!("te_queue_tokens", "model" => model()),
            triton: triton::RequestMetrics::new(id, version),
            cache: CacheMetrics::new(id, version, Arc::clone(&tally)),
            load,
            shown: Mutex::default(),
            tally,
        }
    }

    /// Notes how a request that was received then has ended.
    pub(crate) fn ended(&self, received: Instant, outcome: &Result<Answer, Failure>) {
        match outcome {
            Ok(answer) => self.answered(answer),
            Err(_) => {
                self.tally.fail.add(received.elapsed());
                self.triton.failed();
            }
        }
    }

    /// Notes where the time of an answer went.
    fn answered(&self, answer: &Answer) {
        let Timing { tokenization, queue, inference, output, total } = answer.timing;
        self.tally.success.add(total);
        self.tally.queue.add(queue);
        self.tally.input.add(tokenization);
        self.tally.infer.add(inference);
        self.tally.output.add(output);
        self.triton.answered(&answer.timing);
        self.tokenization.record(answer.timing.tokenization);
        self.queue.record(answer.timing.queue);
        self.inference.record(answer.timing.inference);
        self.input_length.record(answer.usage.tokens as f64);
    }

    /// Brings the gauges up to date.
    pub(crate) fn refresh(&self) {
        self.show(self.load.requests(), self.load.tokens());
    }

    fn show(&self, requests: usize, tokens: usize) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (old_requests, old_tokens) = std::mem::replace(&mut *shown, (requests, tokens));
        self.queue_size.increment(requests as f64 - old_requests as f64);
        self.queue_tokens.increment(tokens as f64 - old_tokens as f64);
        self.triton.pending(requests as f64 - old_requests as f64);
    }
}

impl Drop for ModelMetrics {
    fn drop(&mut self) {
        self.show(0, 0);
    }
}

/// What the batches of one model look like.
pub(crate) struct BatchMetrics {
    size: Histogram,
    tokens: Histogram,
    triton: triton::ExecutionMetrics,
    tally: Arc<Tally>,
}

impl BatchMetrics {
    /// Notes a batch of so many sequences and tokens.
    pub(crate) fn batch(&self, size: usize, tokens: usize) {
        self.size.record(size as f64);
        self.tokens.record(tokens as f64);
        self.triton.batch(size);
        self.tally.batch(size);
    }
}

/// What one model's requests find in the cache.
pub(crate) struct CacheMetrics {
    hit: Counter,
    miss: Counter,
    triton: triton::LookupMetrics,
    tally: Arc<Tally>,
}

impl CacheMetrics {
    fn new(id: &str, version: &str, tally: Arc<Tally>) -> Self {
        Self {
            hit: counter!("te_cache_hit", "model" => id.to_owned()),
            miss: counter!("te_cache_miss", "model" => id.to_owned()),
            triton: triton::LookupMetrics::new(id, version),
            tally,
        }
    }

    /// Notes a look-up of that many sequences in all, and what it took.
    pub(crate) fn found(&self, hits: usize, misses: usize, time: Duration) {
        let each = time / u32::try_from(hits + misses).unwrap_or(u32::MAX).max(1);
        let all = |count: usize| each * u32::try_from(count).unwrap_or(u32::MAX);
        let (hits, misses, hit_time, miss_time) = (hits as u64, misses as u64, all(hits), all(misses));
        self.hit.increment(hits);
        self.miss.increment(misses);
        self.triton.found(hits, misses, hit_time, miss_time);
        self.tally.cache_hit.add_many(hits, hit_time);
        self.tally.cache_miss.add_many(misses, miss_time);
    }
}

/// What has happened to a model since the start, under the names of the statistics of the Open
/// Inference Protocol.
#[derive(Default)]
pub(crate) struct Tally {
    /// Requests that were answered, on any route.
    pub(crate) success: Total,
    /// Requests that got an error after their model was found.
    pub(crate) fail: Total,
    /// Waiting for the engine.
    pub(crate) queue: Total,
    /// Reading and tokenising.
    pub(crate) input: Total,
    /// Computing.
    pub(crate) infer: Total,
    /// Writing replies.
    pub(crate) output: Total,
    /// Sequences whose output was in the cache.
    pub(crate) cache_hit: Total,
    /// Sequences whose output was looked for there in vain.
    pub(crate) cache_miss: Total,
    sequences: AtomicU64,
    batches: AtomicU64,
    last: AtomicU64,
}

/// How often something happened and how long it took in all.
#[derive(Default)]
pub(crate) struct Total {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Tally {
    /// Notes a batch of so many sequences that is about to be computed.
    fn batch(&self, sequences: usize) {
        self.sequences.fetch_add(sequences as u64, Relaxed);
        self.batches.fetch_add(1, Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last.store(now.as_millis() as u64, Relaxed);
    }

    /// Sequences that were computed.
    pub(crate) fn sequences(&self) -> u64 {
        self.sequences.load(Relaxed)
    }

    /// Batches that were computed.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    /// When the last batch began, in milliseconds since 1970; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Relaxed)
    }
}

impl Total {
    fn add(&self, time: Duration) {
        self.add_many(1, time);
    }

    fn add_many(&self, count: u64, time: Duration) {
        self.count.fetch_add(count, Relaxed);
        self.nanoseconds.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// How often it happened.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// How long it took in all.
    pub(crate) fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Relaxed)
    }
}

/// How far the outputs of one model are from those of its shadow.
pub(crate) struct ShadowMetrics {
    compared: Counter,
    /// Sequences for which the shadow had no time.
    pub(crate) dropped: Counter,
    /// Sequences that could not be compared.
    pub(crate) failed: Counter,
    drift: Histogram,
    worst: Gauge,
    labels: Option<Labels>,
}

/// Sequences by whether both engines gave them the same label.
struct Labels {
    equal: Counter,
    different: Counter,
}

impl ShadowMetrics {
    fn new(id: &str, labels: bool) -> Self {
        let model = || id.to_owned();
        Self {
            compared: counter!("te_shadow_compared", "model" => model()),
            dropped: counter!("te_shadow_dropped", "model" => model()),
            failed: counter!("te_shadow_failed", "model" => model()),
            drift: histogram!("te_shadow_drift", "model" => model()),
            worst: gauge!("te_shadow_drift_worst", "model" => model()),
            labels: labels.then(|| Labels {
                equal: counter!("te_shadow_label_equal", "model" => model()),
                different: counter!("te_shadow_label_different", "model" => model()),
            }),
        }
    }

    /// Notes a sequence: the drift of each of its rows, the worst of all sequences so far, and
    /// whether its label stayed the same.
    pub(crate) fn compared(&self, drifts: &[f64], worst: f64, same_label: Option<bool>) {
        drifts.iter().for_each(|drift| self.drift.record(*drift));
        self.worst.set(worst);
        if let (Some(labels), Some(same)) = (&self.labels, same_label) {
            if same { &labels.equal } else { &labels.different }.increment(1);
        }
        self.compared.increment(1);
    }
}

fn describe() {
    accelerator::describe();
    describe_counter!("te_request_count", "Requests that asked a model");
    describe_counter!("te_request_success", "Requests that were answered");
    describe_counter!("te_request_failure", "Requests that got an error, by kind");
    describe_histogram!("te_request_duration", "Seconds from the header of a request to its answer");
    describe_histogram!("te_request_tokenization_duration", "Seconds to read a request and turn it into tokens");
    describe_histogram!("te_request_queue_duration", "Seconds until the first batch of a request began");
    describe_histogram!("te_request_inference_duration", "Seconds from there to the end of its last batch");
    describe_histogram!("te_request_input_length", "Tokens of a request");
    describe_histogram!("te_batch_next_size", "Sequences of a batch");
    describe_histogram!("te_batch_next_tokens", "Tokens of a batch");
    describe_gauge!("te_queue_size", "Requests that wait");
    describe_gauge!("te_queue_tokens", "Tokens that wait");
    describe_counter!("te_cache_hit", "Sequences whose output was in the cache");
    describe_counter!("te_cache_miss", "Sequences whose output was looked for in the cache in vain");
    describe_gauge!("te_cache_bytes", "Bytes of outputs in the cache");
    triton::describe();
    generation::describe();
    describe_counter!("te_shadow_compared", "Sequences that the shadow engine computed again");
    describe_counter!("te_shadow_dropped", "Sequences that were picked for the shadow engine while too many waited");
    describe_counter!("te_shadow_failed", "Sequences whose outputs could not be compared with the shadow engine's");
    describe_histogram!("te_shadow_drift", "1 - cosine of a row of output to that of the shadow engine");
    describe_gauge!("te_shadow_drift_worst", "The largest drift since the start");
    describe_counter!("te_shadow_label_equal", "Sequences whose best label is that of the shadow engine");
    describe_counter!("te_shadow_label_different", "Sequences whose best label is not that of the shadow engine");
}
