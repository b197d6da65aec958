//! What `/metrics` shows: the names that dashboards and autoscalers read, in Prometheus' text format.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use centuple_serve::{Accelerator, Config, ServedModel};

use crate::harness::tiny::Tiny;
use crate::harness::{Gate, Running, config, served, tiny};

/// A line of a value: its name, its labels, the value.
fn sample(line: &str) -> (&str, Vec<(&str, &str)>, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("open labels: {line}"))),
        None => (series, ""),
    };
    assert!(name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_'), "{line}");
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("no label: {line}"));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        (name, value.unwrap_or_else(|| panic!("no quotes: {line}")))
    });
    (name, labels.collect(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

#[test]
fn every_metric_has_a_type_and_the_names_stay() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    assert_eq!(server.post("/", r#"{"inputs": ["cat", "dog"]}"#).status, 200);
    assert_eq!(server.post("/", r#"{"inputs": 1}"#).status, 422);
    let text = server.get("/metrics").body;
    let (mut types, mut kind) = (BTreeSet::new(), ("", ""));
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# HELP ")) {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            kind = declared.split_once(' ').expect("a name and a type");
            continue;
        }
        let (name, labels, _) = sample(line);
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(name == kind.0 || of_histogram == Some(kind.0), "{name} has no type");
        let labels: Vec<_> = labels.into_iter().filter(|(name, _)| *name != "le").map(|(name, _)| name).collect();
        types.insert(format!("{} {} [{}]", kind.0, kind.1, labels.join(" ")));
    }
    insta::assert_snapshot!(types.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_triton_counts_is_counted() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(Config { max_queued_requests: 2, ..config() }, interfere);
    let mut clients: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for (waiting, client) in clients.iter_mut().enumerate() {
        client.begin("POST", "/", &[], br#"{"inputs": ["cat", "dog"]}"#);
        if waiting == 0 {
            gate.batch();
        }
    }
    server.await_queue(1);
    let value = |name: &str| server.metric(&format!("{name}{{model=\"test/tiny\",version=\"1\"}}"));
    assert_eq!(value("nv_inference_pending_request_count"), 1.0);
    assert_eq!(server.metric("te_queue_tokens{model=\"test/tiny\"}"), 6.0);
    assert_eq!(server.post("/", r#"{"inputs": "cat"}"#).status, 429);
    drop(gate);
    for client in &mut clients {
        assert_eq!(client.response().unwrap().status, 200);
    }
    let counts = ["request_success", "request_failure", "count", "exec_count", "pending_request_count"];
    assert_eq!(counts.map(|name| value(&format!("nv_inference_{name}"))), [2.0, 1.0, 4.0, 2.0, 0.0]);
    let durations = ["request", "queue", "compute_infer"];
    assert!(durations.iter().all(|name| value(&format!("nv_inference_{name}_duration_us")) > 0.0));
}

/// A GPU with figures that stand still but for the time that it is busy.
struct Still(AtomicU64);

impl Accelerator for Still {
    fn number(&self) -> usize {
        3
    }

    fn name(&self) -> &str {
        "A GPU"
    }

    fn busy(&self) -> Duration {
        Duration::from_micros(self.0.load(Relaxed))
    }

    fn used_memory(&self) -> u64 {
        1 << 20
    }

    fn total_memory(&self) -> u64 {
        1 << 30
    }
}

#[test]
fn gpus_are_shown() {
    let gpu = Arc::new(Still(AtomicU64::new(250)));
    let model = tiny::embedder(true);
    let engine = Tiny::new(&model);
    let model = ServedModel { accelerators: vec![Arc::clone(&gpu) as _], ..served(model, engine) };
    let server = Running::with_models(config(), vec![model]);
    let busy = r#"te_gpu_busy_duration_us{model="test/tiny",gpu="3",name="A GPU"}"#;
    assert_eq!(server.metric(busy), 250.0);
    gpu.0.store(1000, Relaxed);
    assert_eq!([server.metric(busy), server.metric(busy)], [1000.0; 2], "reading counts nothing twice");
    let memory = |what: &str| server.metric(&format!(r#"nv_gpu_memory_{what}_bytes{{gpu="3",name="A GPU"}}"#));
    assert_eq!([memory("used"), memory("total")], [(1 << 20) as f64, (1 << 30) as f64]);
}
