//! What accelerators do, under Triton's names where it has one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// An accelerator, as a GPU, that a model is on.
pub trait Accelerator: Send + Sync {
    /// Its number on this machine.
    fn number(&self) -> usize;
    /// Its name.
    fn name(&self) -> &str;
    /// Time that it has spent on this model since that was loaded.
    fn busy(&self) -> Duration;
    /// Bytes of its memory that are taken, by whomever.
    fn used_memory(&self) -> u64;
    /// Bytes of its memory.
    fn total_memory(&self) -> u64;
}

/// The metrics of one model on one accelerator.
pub(crate) struct AcceleratorMetrics {
    accelerator: Arc<dyn Accelerator>,
    busy: Counter,
    used: Gauge,
    total: Gauge,
    /// Microseconds that the counter shows of this model; others of the same name have added theirs.
    shown: AtomicU64,
}

impl AcceleratorMetrics {
    pub(super) fn new(model: &str, accelerator: Arc<dyn Accelerator>) -> Self {
        let labels = || [("gpu", accelerator.number().to_string()), ("name", accelerator.name().to_owned())];
        let [number, name] = labels();
        let busy = counter!("te_gpu_busy_duration_us", &[("model", model.to_owned()), number, name]);
        let used = gauge!("nv_gpu_memory_used_bytes", &labels());
        let total = gauge!("nv_gpu_memory_total_bytes", &labels());
        Self { accelerator, busy, used, total, shown: AtomicU64::new(0) }
    }

    /// Brings all of them up to date.
    pub(crate) fn refresh(&self) {
        let busy = self.accelerator.busy().as_micros() as u64;
        let shown = self.shown.fetch_max(busy, Relaxed);
        self.busy.increment(busy.saturating_sub(shown));
        self.used.set(self.accelerator.used_memory() as f64);
        self.total.set(self.accelerator.total_memory() as f64);
    }
}

pub(super) fn describe() {
    describe_counter!("te_gpu_busy_duration_us", "Time that a GPU has spent on a model's batches, copies included");
    describe_gauge!("nv_gpu_memory_used_bytes", "Memory of a GPU that is taken, by whomever");
    describe_gauge!("nv_gpu_memory_total_bytes", "Memory of a GPU");
}
