//! A second engine computes served sequences again: what it measures, and that nobody notices.

use std::sync::mpsc;

use centuple_serve::{ServedModel, Shadow};
use centuple_tasks::{EngineError, Model, Problem};

use crate::harness::{Gate, Running, config, served, tiny};

/// Token ids of `cat` and `dog`, in no other word of these tests.
const CAT: u32 = 7;
const DOG: u32 = 8;
/// Most sequences that wait for a shadow.
const MOST_WAITING: usize = 16;
/// Tokens at which texts are cut.
const LONGEST_TEXT: usize = 16;

fn calm() -> tiny::Interfere {
    Box::new(|_, _| Ok(()))
}

fn shadowed(model: Model, share: f64, interfere: tiny::Interfere) -> ServedModel {
    let (engine, shadow) = (tiny::Tiny::new(&model), tiny::Tiny::with(&model, interfere));
    ServedModel { shadow: Some(Shadow { engine: Box::new(shadow), share }), ..served(model, engine) }
}

/// A server of one model, all of whose sequences are computed again.
fn shadowing(model: Model, interfere: tiny::Interfere) -> Running {
    Running::with_models(config(), vec![shadowed(model, 1.0, interfere)])
}

fn shadow_metric(server: &Running, name: &str) -> f64 {
    server.metric(&format!("te_shadow_{name}{{model=\"test/tiny\"}}"))
}

/// Waits until so many sequences were compared.
fn await_compared(server: &Running, sequences: usize) {
    server.await_metric("te_shadow_compared{model=\"test/tiny\"}", sequences as f64);
}

/// The metrics after all sequences so far. Histograms are read once only, while the shadow is held
/// at a last sequence: a value that is recorded just while they are read may be lost.
fn settled(model: Model, mut interfere: tiny::Interfere, sequences: &[&str]) -> impl Fn(&str) -> f64 {
    let (gate, mut hold) = Gate::new();
    let interfere: tiny::Interfere = Box::new(move |batch, outputs| match batch[0].len() {
        LONGEST_TEXT => hold(batch, outputs),
        _ => interfere(batch, outputs),
    });
    let server = shadowing(model, interfere);
    sequences.iter().for_each(|text| drop(ask(&server, text)));
    ask(&server, &"cat ".repeat(LONGEST_TEXT));
    gate.batch();
    let text = server.get("/metrics").body;
    move |name| {
        let line = text.lines().find_map(|line| line.strip_prefix("te_shadow_")?.strip_prefix(name));
        line.map_or(0.0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    }
}

/// Name of the number of rows with a drift of at most `bound`.
fn within(bound: &str) -> String {
    format!("drift_bucket{{model=\"test/tiny\",le=\"{bound}\"}}")
}

fn ask(server: &Running, text: &str) -> String {
    let answer = server.post("/", &serde_json::json!({"inputs": text}).to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn an_equal_engine_has_no_drift() {
    let texts = ["cat", "dog", "the cat sat on the mat", "", "a film in the rain"];
    let metric = settled(tiny::embedder(true), calm(), &texts);
    assert_eq!((metric("compared{"), metric(&within("0.000001")), metric("drift_count{")), (5.0, 5.0, 5.0));
    for name in ["drift_sum{", "drift_worst{", "dropped{", "failed{"] {
        assert_eq!(metric(name), 0.0, "{name}");
    }
}

#[test]
fn each_row_of_token_features_counts() {
    let metric = settled(tiny::features(), calm(), &["the cat sat"]);
    assert_eq!((metric("compared{"), metric("drift_count{"), metric(&within("0.000001"))), (1.0, 5.0, 5.0));
}

#[test]
fn drift_is_measured_and_changed_labels_are_counted() {
    let (tell, told) = mpsc::channel();
    let differ: tiny::Interfere = Box::new(move |batch, outputs| {
        assert_eq!(batch.len(), 1);
        let logits = &mut outputs[0].data;
        let before = logits.clone();
        if batch[0].ids.contains(&DOG) {
            logits.reverse();
        } else if batch[0].ids.contains(&CAT) {
            logits[0] += 0.01;
        }
        tell.send(1.0 - cosine(&before, logits)).unwrap();
        Ok(())
    });
    let metric = settled(tiny::classifier(Problem::SingleLabel), differ, &["hello", "dog", "cat"]);
    let drifts: Vec<f64> = told.try_iter().collect();
    assert_eq!(drifts.len(), 3);
    assert!(drifts[0] < 1e-12 && drifts[1] > 0.1 && (1e-6..1e-2).contains(&drifts[2]), "{drifts:?}");
    assert!((metric("drift_sum{") - drifts.iter().sum::<f64>()).abs() < 1e-9);
    assert!((metric("drift_worst{") - drifts[1]).abs() < 1e-9);
    assert_eq!([&within("0.000001"), &within("0.01"), &within("+Inf")].map(|name| metric(name)), [1.0, 2.0, 3.0]);
    assert_eq!((metric("label_equal{"), metric("label_different{")), (2.0, 1.0));
}

#[test]
fn a_shadow_that_fails_is_counted_and_harms_nobody() {
    let fail: tiny::Interfere = Box::new(|batch, outputs| {
        let has = |id: u32| batch[0].ids.contains(&id);
        assert!(!has(DOG), "a bug");
        match has(CAT) {
            true => return Err(EngineError::execution("out of luck")),
            false => outputs[0].columns = if has(50) { 1 } else { outputs[0].columns },
        }
        if has(51) {
            outputs[0].data[0] = f32::NAN;
        }
        if has(52) {
            outputs.clear();
        }
        Ok(())
    });
    let server = shadowing(tiny::embedder(true), fail);
    let plain = Running::new(config(), vec![tiny::embedder(true)]);
    for (failures, input) in ["[7]", "[8]", "[50]", "[51]", "[52]"].into_iter().enumerate() {
        let body = format!(r#"{{"input": {input}}}"#);
        let (answer, expected) = (server.post("/v1/embeddings", &body), plain.post("/v1/embeddings", &body));
        assert_eq!((answer.status, answer.body), (200, expected.body));
        server.await_metric("te_shadow_failed{model=\"test/tiny\"}", failures as f64 + 1.0);
    }
    assert_eq!(ask(&server, "the mat"), ask(&plain, "the mat"));
    await_compared(&server, 1);
    assert_eq!((shadow_metric(&server, "failed"), shadow_metric(&server, "dropped")), (5.0, 0.0));
    assert_eq!(server.metric("te_request_failure"), 0.0);
    server.end().unwrap();
}

#[test]
fn answers_do_not_wait_for_a_shadow_that_is_behind() {
    let (gate, hold) = Gate::new();
    let server = shadowing(tiny::embedder(true), hold);
    ask(&server, "cat");
    assert_eq!(gate.batch().len(), 1);
    // The shadow is at its first sequence from here on; all of these are answered meanwhile.
    let (single, together) = (20, 100);
    (0..single).for_each(|_| drop(ask(&server, "dog")));
    let many = server.post("/", &serde_json::json!({"inputs": vec!["dog"; together]}).to_string());
    assert_eq!(many.json().as_array().unwrap().len(), together);
    let dropped = (single + together - MOST_WAITING) as f64;
    server.await_metric("te_shadow_dropped{model=\"test/tiny\"}", dropped);
    assert_eq!(shadow_metric(&server, "compared"), 0.0);
    drop(gate);
    await_compared(&server, 1 + MOST_WAITING);
    assert_eq!(shadow_metric(&server, "drift_worst"), 0.0);
    // There is room again.
    ask(&server, "cat");
    await_compared(&server, 2 + MOST_WAITING);
    assert_eq!(shadow_metric(&server, "dropped"), dropped);
}

#[test]
fn the_end_does_not_wait_for_the_shadow() {
    let (gate, hold) = Gate::new();
    let server = shadowing(tiny::embedder(true), hold);
    ask(&server, "cat");
    gate.batch();
    (0..5).for_each(|_| drop(ask(&server, "cat")));
    server.end().unwrap();
    // It ends after the sequence that it is at, and leaves those that wait.
    let Gate { batches, leave } = gate;
    drop(leave);
    assert!(batches.recv().is_err());
}

#[test]
fn without_a_share_there_is_no_shadow() {
    for share in [0.0, -1.0, f64::NAN] {
        let (gate, hold) = Gate::new();
        let server = Running::with_models(config(), vec![shadowed(tiny::embedder(true), share, hold)]);
        // The engine is let go of.
        assert!(gate.batches.recv().is_err());
        ask(&server, "cat");
        assert!(!server.get("/metrics").body.contains("te_shadow_compared{"));
    }
}

#[test]
fn models_have_their_own_shadows() {
    let mut classifier = tiny::classifier(Problem::SingleLabel);
    classifier.card.id = "sentiment".into();
    let models = vec![shadowed(tiny::embedder(true), 1.0, calm()), shadowed(classifier, 1.0, calm())];
    let server = Running::with_models(config(), models);
    for name in ["compared", "dropped", "failed", "drift_worst"] {
        for model in ["test/tiny", "sentiment"] {
            let line = format!("te_shadow_{name}{{model=\"{model}\"}} 0\n");
            assert!(server.get("/metrics").body.contains(&line), "{line}");
        }
    }
    assert_eq!(server.post("/models/sentiment", r#"{"inputs": "hello"}"#).status, 200);
    server.await_metric("te_shadow_compared{model=\"sentiment\"}", 1.0);
    assert_eq!(server.metric("te_shadow_label_equal{model=\"sentiment\"}"), 1.0);
    assert_eq!(shadow_metric(&server, "compared"), 0.0);
}

#[test]
fn a_share_of_the_sequences_is_compared() {
    let server = Running::with_models(config(), vec![shadowed(tiny::embedder(true), 0.1, calm())]);
    let picked = || shadow_metric(&server, "compared") + shadow_metric(&server, "dropped");
    let body = serde_json::json!({"inputs": vec!["cat"; 1000]}).to_string();
    assert_eq!(server.post("/", &body).status, 200);
    while picked() < 92.0 {
        std::thread::yield_now();
    }
    assert!(picked() <= 108.0, "{}", picked());
}

#[cfg(target_os = "linux")]
#[test]
fn a_shadow_runs_at_the_lowest_priority() {
    let (tell, told) = mpsc::channel();
    let look: tiny::Interfere = Box::new(move |_, _| {
        tell.send(std::fs::read_to_string("/proc/thread-self/stat").unwrap()).unwrap();
        Ok(())
    });
    let server = shadowing(tiny::embedder(true), look);
    ask(&server, "cat");
    let stat = told.recv().unwrap();
    // The nice value is the 17th field after the thread's name, which ends with a parenthesis.
    let fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
    assert_eq!(fields.clone().nth(16), Some("19"), "{stat}");
}
