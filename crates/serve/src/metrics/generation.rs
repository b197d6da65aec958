//! How full the key/value cache of a model that generates is, and what its generator does.

use std::sync::{Mutex, PoisonError};

use centuple_tasks::generation::Statistics;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// A number of the statistics.
type Of<T> = fn(&Statistics) -> T;

/// The metrics of one model that generates.
pub(crate) struct GenerationMetrics {
    gauges: [(Gauge, Of<usize>); 5],
    counters: [(Counter, Of<u64>); 4],
    /// What they show for this model. Others of the same name add theirs.
    shown: Mutex<Statistics>,
}

impl GenerationMetrics {
    pub(super) fn new(id: &str) -> Self {
        let gauge = |name: &'static str| gauge!(name, "model" => id.to_owned());
        let counter = |name: &'static str| counter!(name, "model" => id.to_owned());
        Self {
            gauges: [
                (gauge("te_generation_waiting"), |now| now.waiting),
                (gauge("te_generation_running"), |now| now.running),
                (gauge("te_kv_pages"), |now| now.pages),
                (gauge("te_kv_pages_used"), |now| now.pages_used),
                (gauge("te_kv_pages_idle"), |now| now.pages_idle),
            ],
            counters: [
                (counter("te_generation_steps"), |now| now.steps),
                (counter("te_generation_computed_tokens"), |now| now.computed_tokens),
                (counter("te_generation_reused_tokens"), |now| now.reused_tokens),
                (counter("te_generation_preemptions"), |now| now.preemptions),
            ],
            shown: Mutex::default(),
        }
    }

    /// Brings them up to date.
    pub(crate) fn show(&self, now: Statistics) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *shown, now);
        for (gauge, value) in &self.gauges {
            gauge.increment(value(&now) as f64 - value(&before) as f64);
        }
        for (counter, value) in &self.counters {
            counter.increment(value(&now).saturating_sub(value(&before)));
        }
    }
}

impl Drop for GenerationMetrics {
    fn drop(&mut self) {
        let last = *self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        self.show(Statistics { waiting: 0, running: 0, pages: 0, pages_used: 0, pages_idle: 0, ..last });
    }
}

pub(super) fn describe() {
    describe_gauge!("te_generation_waiting", "Requests that wait for room in the key/value cache");
    describe_gauge!("te_generation_running", "Requests that generate");
    describe_gauge!("te_kv_pages", "Pages of the key/value cache");
    describe_gauge!("te_kv_pages_used", "Pages that requests use");
    describe_gauge!("te_kv_pages_idle", "Pages that hold beginnings of prompts which may come again");
    describe_counter!("te_generation_steps", "Steps, each with a token of every request that generates");
    describe_counter!("te_generation_computed_tokens", "Tokens of prompts and answers that were computed");
    describe_counter!("te_generation_reused_tokens", "Tokens that were not, since the cache held them");
    describe_counter!("te_generation_preemptions", "How often a request lost its pages to an older one");
}
