//! The same under the names and in the units of Triton's metrics, which its dashboards and autoscalers read.

use std::time::Duration;

use metrics::{Counter, Gauge, Label, counter, describe_counter, describe_gauge, gauge};

use crate::service::Timing;

/// What happens to the requests of one model.
pub(crate) struct RequestMetrics {
    success: Counter,
    failure: Counter,
    pending: Gauge,
    request: Counter,
    queue: Counter,
    input: Counter,
    infer: Counter,
    output: Counter,
}

/// What is computed.
pub(crate) struct ExecutionMetrics {
    count: Counter,
    executions: Counter,
}

/// What is found in the cache.
pub(crate) struct LookupMetrics {
    hits: Counter,
    misses: Counter,
    hit_time: Counter,
    miss_time: Counter,
}

fn labels(model: &str, version: &str) -> Vec<Label> {
    vec![Label::new("model", model.to_owned()), Label::new("version", version.to_owned())]
}

/// Whole microseconds, rounded.
fn microseconds(time: Duration) -> u64 {
    ((time.as_nanos() + 500) / 1000) as u64
}

impl RequestMetrics {
    pub(super) fn new(model: &str, version: &str) -> Self {
        let labels = || labels(model, version);
        Self {
            success: counter!("nv_inference_request_success", labels()),
            failure: counter!("nv_inference_request_failure", labels()),
            pending: gauge!("nv_inference_pending_request_count", labels()),
            request: counter!("nv_inference_request_duration_us", labels()),
            queue: counter!("nv_inference_queue_duration_us", labels()),
            input: counter!("nv_inference_compute_input_duration_us", labels()),
            infer: counter!("nv_inference_compute_infer_duration_us", labels()),
            output: counter!("nv_inference_compute_output_duration_us", labels()),
        }
    }

    pub(super) fn answered(&self, timing: &Timing) {
        let Timing { tokenization, queue, inference, output, total } = *timing;
        self.success.increment(1);
        self.request.increment(microseconds(total));
        self.queue.increment(microseconds(queue));
        self.input.increment(microseconds(tokenization));
        self.infer.increment(microseconds(inference));
        self.output.increment(microseconds(output));
    }

    pub(super) fn failed(&self) {
        self.failure.increment(1);
    }

    /// So many requests more wait.
    pub(super) fn pending(&self, requests: f64) {
        self.pending.increment(requests);
    }
}

impl ExecutionMetrics {
    pub(super) fn new(model: &str, version: &str) -> Self {
        Self {
            count: counter!("nv_inference_count", labels(model, version)),
            executions: counter!("nv_inference_exec_count", labels(model, version)),
        }
    }

    pub(super) fn batch(&self, sequences: usize) {
        self.count.increment(sequences as u64);
        self.executions.increment(1);
    }
}

impl LookupMetrics {
    pub(super) fn new(model: &str, version: &str) -> Self {
        Self {
            hits: counter!("nv_cache_num_hits_per_model", labels(model, version)),
            misses: counter!("nv_cache_num_misses_per_model", labels(model, version)),
            hit_time: counter!("nv_cache_hit_duration_per_model", labels(model, version)),
            miss_time: counter!("nv_cache_miss_duration_per_model", labels(model, version)),
        }
    }

    pub(super) fn found(&self, hits: u64, misses: u64, hit_time: Duration, miss_time: Duration) {
        self.hits.increment(hits);
        self.misses.increment(misses);
        self.hit_time.increment(microseconds(hit_time));
        self.miss_time.increment(microseconds(miss_time));
    }
}

pub(super) fn describe() {
    describe_counter!("nv_inference_request_success", "Requests that were answered");
    describe_counter!("nv_inference_request_failure", "Requests that got an error after their model was found");
    describe_counter!("nv_inference_count", "Sequences that were computed");
    describe_counter!("nv_inference_exec_count", "Batches that were computed");
    describe_gauge!("nv_inference_pending_request_count", "Requests that wait");
    describe_counter!("nv_inference_request_duration_us", "Microseconds from the header of requests to their answers");
    describe_counter!("nv_inference_queue_duration_us", "Microseconds until the first batch of requests began");
    describe_counter!(
        "nv_inference_compute_input_duration_us",
        "Microseconds to read requests and turn them into tokens"
    );
    describe_counter!("nv_inference_compute_infer_duration_us", "Microseconds from first to last batch of requests");
    describe_counter!("nv_inference_compute_output_duration_us", "Microseconds to write replies");
    describe_counter!("nv_cache_num_hits_per_model", "Sequences whose output was in the cache");
    describe_counter!("nv_cache_num_misses_per_model", "Sequences whose output was looked for in vain");
    describe_counter!("nv_cache_hit_duration_per_model", "Microseconds of look-ups that found something");
    describe_counter!("nv_cache_miss_duration_per_model", "Microseconds of look-ups in vain");
}
