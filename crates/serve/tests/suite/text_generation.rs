//! Routes that generate text, over real sockets: replies, streams, refusals, and pages that come back.

use std::sync::mpsc;

use centuple_serve::Config;
use serde_json::{Value, json};

use crate::harness::generating::generating;
use crate::harness::{Client, Response, Running, config, tiny};

fn server() -> Running {
    Running::with_models(config(), vec![generating(None)])
}

/// The prompt ends with [SEP], whose successors are [MASK], `a`, `the`, `cat`.
const BODY: &str = r#"{"inputs": "dog", "parameters": {"max_new_tokens": 4}}"#;

/// Reads the events of a stream to its end.
fn events(client: &mut Client) -> Vec<String> {
    let head = client.head().expect("a response");
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let text = client.chunks();
    let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").expect("data").to_owned());
    events.collect()
}

fn stream(server: &Running, path: &str, body: &str) -> Vec<String> {
    let mut client = server.connect();
    client.begin("POST", path, &[], body.as_bytes());
    events(&mut client)
}

#[test]
fn each_route_answers_in_its_own_form() {
    let server = server();
    for path in ["/", "/models/test/tiny", "/models/test/tiny/pipeline/text-generation"] {
        let response = server.post(path, BODY);
        assert_eq!((response.status, response.json()), (200, json!([{"generated_text": "dog a the cat"}])), "{path}");
    }
    let response = server.post("/generate", BODY);
    assert_eq!((response.status, response.json()), (200, json!({"generated_text": " a the cat"})));
    let asked = json!({"prompt": ["dog", "cat"], "max_tokens": 4, "temperature": 0, "model": "any", "stop": "cat"});
    for path in ["/v1/completions", "/openai/v1/completions"] {
        let mut reply = server.post(path, &asked.to_string()).json();
        assert!(reply["id"].as_str().is_some_and(|id| id.starts_with("cmpl-")) && reply["created"].is_u64());
        (reply["id"], reply["created"]) = (Value::Null, Value::Null);
        let choice = |index| json!({"text": " a the ", "index": index, "logprobs": null, "finish_reason": "stop"});
        let expected = json!({
            "id": null, "object": "text_completion", "created": null, "model": "test/tiny",
            "choices": [choice(0), choice(1)],
            "usage": {"prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14},
        });
        assert_eq!(reply, expected);
    }
}

#[test]
fn streams_are_the_whole_in_parts() {
    let server = server();
    for (path, body) in [
        ("/generate_stream", BODY),
        ("/generate", r#"{"inputs": "dog", "parameters": {"max_new_tokens": 4}, "stream": true}"#),
        ("/", r#"{"inputs": "dog", "parameters": {"max_new_tokens": 4}, "stream": true}"#),
    ] {
        let events = stream(&server, path, body);
        let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
        assert_eq!(events.len(), 4, "{path}");
        let text: String = events[1..].iter().map(|event| event["token"]["text"].as_str().expect("text")).collect();
        assert_eq!((text.as_str(), &events[3]["generated_text"]), (" a the cat", &json!(" a the cat")), "{path}");
        assert_eq!(events[0]["token"]["special"], json!(true));
        assert!(events.iter().all(|event| event["token"]["logprob"].as_f64().is_some_and(|logprob| logprob < 0.0)));
        assert!(events[..3].iter().all(|event| event["generated_text"].is_null() && event["details"].is_null()));
        let details = json!({"finish_reason": "length", "generated_tokens": 4, "seed": null});
        assert_eq!((&events[3]["index"], &events[3]["details"]), (&json!(4), &details), "{path}");
    }
    let asked = json!({
        "prompt": "dog", "max_tokens": 4, "temperature": 0, "stream": true, "stream_options": {"include_usage": true},
    });
    let events = stream(&server, "/v1/completions", &asked.to_string());
    let (done, events) = events.split_last().expect("events");
    let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    let (usage, events) = events.split_last().expect("events");
    let text: String = events.iter().map(|event| event["choices"][0]["text"].as_str().expect("text")).collect();
    assert_eq!((done.as_str(), text.as_str()), ("[DONE]", " a the cat"));
    assert_eq!(events.last().expect("an event")["choices"][0]["finish_reason"], json!("length"));
    assert_eq!(usage["usage"], json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}));
}

#[test]
fn what_can_not_be_is_refused_with_the_reason() {
    let server = server();
    let plain = Running::new(config(), vec![tiny::embedder(true)]);
    let many = json!({"inputs": ["a", "b"], "stream": true});
    let long = json!({"inputs": "dog", "parameters": {"max_new_tokens": 100}});
    let unknown = json!({"inputs": "dog", "parameters": {"max_new_token": 1}});
    for (response, status, reason) in [
        (server.post("/generate", &many.to_string()), 422, "one text"),
        (server.post("/generate", &long.to_string()), 422, "3 tokens of prompt and 100 new ones"),
        (server.post("/generate", &unknown.to_string()), 422, "max_new_token"),
        (server.post("/v1/completions", r#"{"prompt": "dog", "logprobs": 3}"#), 400, "`logprobs` is not supported"),
        (server.post("/v1/completions", r#"{"prompt": "dog", "model": 3}"#), 400, "model"),
        (server.post("/embed", r#"{"inputs": "dog"}"#), 422, "gives no embeddings"),
        (plain.post("/generate", BODY), 422, "does not generate text"),
        (plain.post("/models/test/tiny/pipeline/text-generation", BODY), 422, "does not generate text"),
    ] {
        assert_eq!(response.status, status, "{response:?}");
        assert!(response.body.contains(reason), "{reason}: {response:?}");
    }
}

/// A server whose steps wait for leave.
fn held(config: Config) -> (Running, mpsc::Sender<()>) {
    let (leave, wait) = mpsc::channel();
    (Running::with_models(config, vec![generating(Some(wait))]), leave)
}

#[test]
fn who_goes_away_frees_the_pages() {
    let (server, leave) = held(config());
    let body = r#"{"inputs": "dog", "parameters": {"max_new_tokens": 20}, "stream": true}"#;
    for path in ["/generate_stream", "/", "/generate"] {
        let body = if path == "/generate" { body.replace(", \"stream\": true", "") } else { body.to_owned() };
        let mut client = server.connect();
        client.begin("POST", path, &[], body.as_bytes());
        server.await_metric("te_generation_running", 1.0);
        assert_eq!(server.metric("te_kv_pages_used"), 1.0);
        drop(client);
        server.await_metric("te_kv_pages_used", 0.0);
        // The step that was held up.
        leave.send(()).expect("the engine is there");
    }
    drop(leave);
    assert_eq!(server.post("/generate", BODY).status, 200);
}

#[test]
fn requests_run_beside_each_other_and_too_many_are_refused() {
    let (server, leave) = held(Config { max_queued_requests: 2, ..config() });
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for (before, client) in clients.iter_mut().enumerate() {
        client.begin("POST", "/generate", &[], BODY.as_bytes());
        while server.metric("te_generation_waiting") + server.metric("te_generation_running") < before as f64 + 1.0 {}
    }
    let refused = server.post("/generate", BODY);
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    drop(leave);
    let answers: Vec<Response> = clients.iter_mut().map(|client| client.response().expect("a response")).collect();
    assert!(answers.iter().all(|answer| answer.json() == json!({"generated_text": " a the cat"})));
}

#[test]
fn a_deadline_ends_a_request() {
    let (server, leave) = held(config());
    let response = server.connect().request("POST", "/generate", &[("x-request-timeout", "0.05")], BODY.as_bytes());
    assert_eq!(response.status, 408);
    server.await_metric("te_generation_running", 0.0);
    drop(leave);
}
