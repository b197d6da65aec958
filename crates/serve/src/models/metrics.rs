//! What is loaded and how much memory it takes, as metrics.

use std::{sync::Arc, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::registry::Registry;
use crate::metrics::Metrics;

/// The metrics of loading and unloading.
///
/// | metric | what it is |
/// |---|---|
/// | `te_model_known` | versions of models that can be loaded |
/// | `te_model_ready` | those that are loaded and answer |
/// | `te_model_memory_bytes` | what all engines take, also those that are ending |
/// | `te_model_loads`, with the label `model` | times that it was loaded |
/// | `te_model_load_failures`, with the label `model` | times that loading it has failed |
/// | `te_model_unloads`, with the label `model` | times that it was unloaded |
/// | `te_model_load_duration` | histogram: seconds that a load took |
pub(super) struct LoadMetrics(Arc<Metrics>);

impl LoadMetrics {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.within(|| {
            describe_gauge!("te_model_known", "Versions of models that can be loaded");
            describe_gauge!("te_model_ready", "Versions of models that are loaded and answer");
            describe_gauge!("te_model_memory_bytes", "Bytes that the engines of all models take");
            describe_counter!("te_model_loads", "Times that a model was loaded");
            describe_counter!("te_model_load_failures", "Times that loading a model has failed");
            describe_counter!("te_model_unloads", "Times that a model was unloaded");
            describe_histogram!("te_model_load_duration", "Seconds that loading a model took");
        });
        Self(metrics)
    }

    pub(super) fn loaded(&self, name: &str, time: Duration) {
        self.0.within(|| {
            counter!("te_model_loads", "model" => name.to_owned()).increment(1);
            histogram!("te_model_load_duration").record(time);
        });
    }

    pub(super) fn failed(&self, name: &str) {
        self.0.within(|| counter!("te_model_load_failures", "model" => name.to_owned()).increment(1));
    }

    pub(super) fn unloaded(&self, name: &str) {
        self.0.within(|| counter!("te_model_unloads", "model" => name.to_owned()).increment(1));
    }

    /// Brings the gauges up to date.
    pub(super) fn refresh(&self, registry: &Registry) {
        let (known, ready) = {
            let catalogue = registry.catalogue();
            (catalogue.entries().count(), catalogue.entries().filter(|(_, entry)| entry.served.is_some()).count())
        };
        self.0.within(|| {
            gauge!("te_model_known").set(known as f64);
            gauge!("te_model_ready").set(ready as f64);
            gauge!("te_model_memory_bytes").set(registry.occupied() as f64);
        });
    }
}
