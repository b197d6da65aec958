//! Who goes first, who is let in, who is given up, and what is remembered: over real sockets.

use std::time::Duration;

use centuple_serve::{CachePolicy, Config};
use centuple_tasks::Model;
use serde_json::{Value, json};

use crate::harness::{Client, Gate, Response, Running, config, tiny};

/// Token ids of `cat` and `dog`, in no other word of these tests.
const CAT: u32 = 7;
const DOG: u32 = 8;
/// As many texts of one word, which are 3 tokens, as a batch of 64 tokens takes.
const PER_BATCH: usize = 21;

fn keys() -> Config {
    Config { api_keys: "alice: one\nbob: two".parse().unwrap(), ..config() }
}

/// Sends so many texts of a word.
fn begin(server: &Running, key: &str, word: &str, count: usize) -> Client {
    let mut client = server.connect();
    let body = json!({"inputs": vec![word; count]}).to_string();
    client.begin("POST", "/", &[("authorization", &format!("Bearer {key}"))], body.as_bytes());
    client
}

fn post(server: &Running, headers: &[(&str, &str)], body: &str) -> Response {
    server.connect().request("POST", "/", headers, body.as_bytes())
}

fn named(id: &str) -> Model {
    let mut model = tiny::embedder(true);
    model.card.id = id.into();
    model
}

fn count(batch: &[Vec<u32>], word: u32) -> usize {
    batch.iter().filter(|ids| ids.contains(&word)).count()
}

#[test]
fn holders_of_keys_share_each_batch() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(keys(), interfere);
    let mut clients = vec![begin(&server, "one", "cat", 10 * PER_BATCH)];
    gate.batch();
    clients.extend((0..5).map(|_| begin(&server, "one", "cat", 1)));
    clients.push(begin(&server, "two", "dog", 5 * PER_BATCH));
    server.await_queue(7);
    for _ in 0..5 {
        gate.release();
        let batch = gate.batch();
        assert!(count(&batch, CAT).abs_diff(count(&batch, DOG)) <= 1, "{batch:?}");
    }
    drop(gate);
    for mut client in clients {
        assert_eq!(client.response().unwrap().status, 200);
    }
}

#[test]
fn a_key_that_fills_the_queue_leaves_the_other_its_half() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(Config { max_queued_requests: 4, ..keys() }, interfere);
    let mut clients = vec![begin(&server, "one", "cat", 1)];
    gate.batch();
    clients.extend((0..3).map(|_| begin(&server, "one", "cat", 1)));
    server.await_queue(3);
    assert_eq!(begin(&server, "one", "cat", 1).response().unwrap().status, 429);
    clients.extend((0..2).map(|_| begin(&server, "two", "dog", 1)));
    server.await_queue(5);
    assert_eq!(begin(&server, "two", "dog", 1).response().unwrap().status, 429);
    drop(gate);
    for mut client in clients {
        assert_eq!(client.response().unwrap().status, 200);
    }
}

#[test]
fn any_of_the_keys_opens_and_public_paths_need_none() {
    let server = Running::new(keys(), vec![tiny::embedder(true)]);
    for (key, status) in [("one", 200), ("two", 200), ("three", 401), ("", 401), ("alice: one", 401)] {
        assert_eq!(begin(&server, key, "cat", 1).response().unwrap().status, status, "{key}");
    }
    for path in ["/health", "/metrics", "/ping", "/v2/health/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.get("/info").status, 401);
}

#[test]
fn a_client_that_leaves_frees_its_place_while_a_batch_runs() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(Config { max_queued_requests: 3, ..config() }, interfere);
    let first = begin(&server, "", "cat", 2 * PER_BATCH);
    gate.batch();
    let others = [begin(&server, "", "cat", 1), begin(&server, "", "cat", 50)];
    server.await_queue(3);
    assert_eq!(post(&server, &[], r#"{"inputs": "dog"}"#).status, 429);
    drop(others);
    // No batch ends meanwhile.
    server.await_queue(1);
    server.await_metric("te_queue_tokens", 3.0 * PER_BATCH as f64);
    drop(first);
    server.await_queue(0);
    server.await_metric("te_queue_tokens", 0.0);
    let next = begin(&server, "", "dog", 1);
    server.await_queue(1);
    gate.release();
    let batch = gate.batch();
    assert_eq!((batch.len(), count(&batch, DOG)), (1, 1), "nobody computes for those who left");
    drop((gate, next));
}

#[test]
fn a_request_past_its_deadline_is_dropped_and_told_so() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(config(), interfere);
    let running = begin(&server, "", "cat", 1);
    gate.batch();
    let body = r#"{"inputs": "dog"}"#;
    let headers = [("x-request-timeout", "0.02"), ("x-envoy-expected-rq-timeout-ms", "20")];
    for header in headers {
        let late = post(&server, &[header], body);
        assert_eq!(late.status, 408, "{}", late.body);
        assert!(late.body.contains("deadline") && late.json()["error_type"] == "Timeout", "{}", late.body);
    }
    server.await_queue(0);
    assert_eq!(server.metric("te_request_failure{err=\"deadline\"}"), 2.0);
    drop(gate);
    assert_eq!({ running }.response().unwrap().status, 200);
    for (name, value) in [("x-request-timeout", "1e18"), ("x-request-timeout", "3600"), headers[0]] {
        assert!([200, 408].contains(&post(&server, &[(name, value)], body).status));
    }
    for (name, value) in [("x-request-timeout", "soon"), ("x-request-timeout", "-1"), ("x-use-cache", "maybe")] {
        let refused = post(&server, &[(name, value)], body);
        assert_eq!(refused.status, 422);
        assert!(refused.body.contains(name), "{}", refused.body);
    }
}

#[test]
fn the_server_limits_the_time_of_requests() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(Config { timeout: Some(Duration::from_millis(20)), ..config() }, interfere);
    let mut running = begin(&server, "", "cat", 1);
    gate.batch();
    assert_eq!(running.response().unwrap().status, 408);
    let own = r#"{"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["dog"]}], "parameters": {"timeout": WAIT}}"#;
    let triton = |microseconds: &str| server.post("/v2/models/test/tiny/infer", &own.replace("WAIT", microseconds));
    assert_eq!(triton("1000").status, 408);
    assert_eq!(triton("\"soon\"").status, 400);
    let openai = server.post("/v1/embeddings", r#"{"input": "dog"}"#);
    assert_eq!(openai.status, 408);
    assert_eq!(server.post("/v2/models/test/tiny/infer", "{").status, 400);
}

#[test]
fn a_busy_model_lets_another_take_its_turn() {
    let (gate, interfere) = Gate::new();
    let (busy, idle) = (named("busy"), named("idle"));
    let engines = vec![tiny::Tiny::with(&busy, interfere), tiny::Tiny::new(&idle)];
    let server = Running::with_engines(config(), [busy, idle].into_iter().zip(engines).collect());
    let batches = 200;
    let texts = json!({"inputs": vec!["cat"; batches * PER_BATCH]}).to_string();
    let mut huge = server.connect();
    huge.begin("POST", "/models/busy", &[], texts.as_bytes());
    gate.batch();
    let mut small = server.connect();
    small.begin("POST", "/models/idle", &[], br#"{"inputs": "dog"}"#);
    server.await_metric("te_queue_size{model=\"idle\"}", 1.0);
    let mut run = 1;
    while server.metric("te_queue_size{model=\"idle\"}") > 0.0 {
        gate.release();
        gate.batch();
        run += 1;
    }
    assert!(run < batches, "all {run} batches ran first");
    assert_eq!(small.response().unwrap().status, 200);
    drop(gate);
    assert_eq!(huge.response().unwrap().status, 200);
}

/// Sequences that a server has computed.
fn computed(server: &Running) -> u64 {
    let stats = server.get("/v2/models/test/tiny/stats").json();
    stats["model_stats"][0]["inference_count"].as_u64().unwrap()
}

fn cached(policy: CachePolicy) -> Running {
    Running::new(Config { cache: policy, ..keys() }, vec![tiny::embedder(true)])
}

/// What a holder of a key asks.
fn ask(server: &Running, key: &str, header: Option<&str>, body: &Value) -> Response {
    let authorization = format!("Bearer {key}");
    let mut headers = vec![("authorization", authorization.as_str())];
    headers.extend(header.map(|value| ("x-use-cache", value)));
    let answer = post(server, &headers, &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// As [`computed`], where a key is needed.
fn computed_behind_a_key(server: &Running) -> u64 {
    let headers = [("authorization", "Bearer one")];
    let stats = server.connect().request("GET", "/v2/models/test/tiny/stats", &headers, b"").json();
    let stats = &stats["model_stats"][0];
    assert_eq!(
        (
            stats["inference_stats"]["cache_hit"]["count"].as_f64(),
            stats["inference_stats"]["cache_miss"]["count"].as_f64()
        ),
        (Some(server.metric("te_cache_hit")), Some(server.metric("te_cache_miss")))
    );
    stats["inference_count"].as_u64().unwrap()
}

#[test]
fn outputs_are_kept_for_those_who_ask() {
    let server = cached(CachePolicy::Asked);
    let plain = json!({"inputs": ["cat", "dog"]});
    let asking = json!({"inputs": ["cat", "dog"], "options": {"use_cache": true}});
    let first = ask(&server, "one", None, &plain).body;
    assert_eq!(computed_behind_a_key(&server), 2);
    let steps = [
        (None, &asking, 4),
        (None, &asking, 4),
        (Some("true"), &plain, 4),
        (None, &plain, 6),
        (Some("false"), &asking, 6),
    ];
    for (header, body, expected) in steps {
        assert_eq!(ask(&server, "one", header, body).body, first);
        assert_eq!(computed_behind_a_key(&server), expected, "{header:?} {body}");
    }
    // A part of a request is found, in whatever order and by whatever task.
    let mixed = json!({"inputs": ["the mat", "dog", "cat"]});
    let expected = ask(&server, "one", None, &mixed).body;
    assert_eq!(ask(&server, "one", Some("1"), &mixed).body, expected);
    assert_eq!(computed_behind_a_key(&server), 6 + 3 + 1);
    assert!(server.metric("te_cache_bytes") > 0.0);
}

#[test]
fn nobody_learns_what_the_holder_of_another_key_asked() {
    let server = cached(CachePolicy::Always);
    let body = json!({"inputs": "cat"});
    for (key, expected) in [("one", 1), ("one", 1), ("two", 2), ("two", 2), ("one", 2)] {
        ask(&server, key, None, &body);
        assert_eq!(computed_behind_a_key(&server), expected);
    }
    ask(&server, "one", Some("false"), &body);
    assert_eq!(computed_behind_a_key(&server), 3);
}

#[test]
fn nothing_is_kept_where_it_is_off() {
    for config in [Config { cache: CachePolicy::Off, ..config() }, Config { cache_bytes: 0, ..config() }] {
        let server = Running::new(config, vec![tiny::embedder(true)]);
        for round in 1..4 {
            post(&server, &[("x-use-cache", "true")], r#"{"inputs": "cat", "options": {"use_cache": true}}"#);
            assert_eq!(computed(&server), round);
        }
        assert_eq!(server.metric("te_cache_bytes"), 0.0);
    }
}

#[test]
fn the_cache_is_bounded() {
    let config = Config { cache: CachePolicy::Always, cache_bytes: 4000, ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    for id in 10..90 {
        assert_eq!(server.post("/v1/embeddings", &json!({"input": [id]}).to_string()).status, 200);
        let bytes = server.metric("te_cache_bytes");
        assert!(bytes <= 4000.0, "{bytes}");
    }
    assert!(server.metric("te_cache_bytes") > 0.0);
}
