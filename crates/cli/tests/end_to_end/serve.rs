//! `centuple serve`: answers, several models, and how it ends.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::Server;
use crate::process::{PATIENCE, centuple, finish};
use crate::tiny::Tiny;

#[test]
fn concurrent_clients_get_the_bits_of_run() {
    let model = Tiny::new("sentence-mean");
    let texts = (0..60).map(|index| format!("{index} {}", "what a great film ".repeat(index % 7)));
    let bodies: Vec<String> = texts.map(|text| json!({"inputs": text}).to_string()).collect();
    for precision in ["f32", "int8"] {
        let flags = ["--precision", precision];
        let mut run = centuple("run");
        run.args(flags).arg("feature-extraction").arg(model.path());
        let alone = finish(&mut run, bodies.join("\n").as_bytes());
        let expected: Vec<&str> = alone.text().lines().collect();
        assert_eq!(expected.len(), bodies.len());
        let server = Server::start(&[model.path()], &flags);
        thread::scope(|scope| {
            for client in 0..8 {
                let (mut connection, bodies, expected) = (server.connect(), &bodies, &expected);
                scope.spawn(move || {
                    for step in 0..bodies.len() {
                        let index = (step * 7 + client * 11) % bodies.len();
                        let answer = connection.post("/", &bodies[index]);
                        assert_eq!((answer.status, answer.body.as_str()), (200, expected[index]));
                    }
                });
            }
        });
    }
}

#[test]
fn several_models_are_told_apart() {
    let (embedder, classifier) = (Tiny::new("sentence-mean"), Tiny::new("classify"));
    let server = Server::start(&[embedder.path(), classifier.path()], &[]);
    let known = &embedder.known("embeddings")[1];
    let body = known.body().to_string();
    for path in [
        "/models/sentence-mean",
        "/models/sentence-mean/pipeline/feature-extraction",
        "/pipeline/feature-extraction/sentence-mean",
    ] {
        let found: Vec<f32> = serde_json::from_value(server.post(path, &body).json()).expect("an embedding");
        known.assert_is(&found);
    }
    let scores = server.post("/models/classify", &body).json();
    assert_eq!(scores[0].as_array().map(Vec::len), Some(3), "{scores}");
    let embedding = json!({"model": "sentence-mean", "input": known.text});
    let reply = server.post("/v1/embeddings", embedding.to_string()).json();
    let found: Vec<f32> = serde_json::from_value(reply["data"][0]["embedding"].clone()).expect("an embedding");
    known.assert_is(&found);
    assert_eq!(server.post("/", &body).status, 404);
    assert_eq!(server.post("/models/another", &body).status, 404);
    assert_eq!(server.post("/models/classify/pipeline/sentence-similarity", &body).status, 422);
}

#[test]
fn models_of_one_name_are_refused() {
    let (one, two) = (Tiny::new("sentence-mean"), Tiny::new("sentence-mean"));
    let finished = finish(centuple("serve").args(["--port", "0"]).arg(one.path()).arg(two.path()), b"");
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("`sentence-mean`"), "{}", finished.stderr);
}

#[test]
fn a_port_in_use_is_named() {
    let model = Tiny::new("sentence-mean");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let port = address.port().to_string();
    let finished = finish(centuple("serve").arg(model.path()).args(["--port", &port]), b"");
    let message = finished.failure(1);
    assert!(message.contains(&address.to_string()) && message.contains("another port"), "{message}");
    let finished = finish(centuple("serve").arg(model.path()).args(["--host", "no.such.host.invalid"]), b"");
    assert!(finished.failure(1).contains("no.such.host.invalid"));
}

#[test]
fn signals_let_requests_in_flight_finish() {
    let model = Tiny::new("sentence-mean");
    let known = &model.known("embeddings")[2];
    let body = known.body().to_string();
    let (first, second) = body.split_at(body.len() / 2);
    for signal in ["TERM", "INT"] {
        let server = Server::start(&[model.path()], &[]);
        let mut idle = server.connect();
        assert_eq!(idle.post("/", &body).status, 200);
        let mut client = server.connect();
        client.head("/", body.len(), "expect: 100-continue\r\n");
        assert_eq!(client.response().status, 100, "the server has begun with the request");
        client.send(first.as_bytes());
        server.process.signal(signal);
        await_refusal(&server.address);
        client.send(second.as_bytes());
        let found: Vec<f32> = serde_json::from_value(client.response().json()).expect("an embedding");
        known.assert_is(&found);
        let (code, log) = server.stop("0");
        assert_eq!(code, Some(0), "{log:?}");
    }
}

/// Waits until nobody listens any more: the signal has arrived.
fn await_refusal(address: &str) {
    let start = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(start.elapsed() < PATIENCE, "the server goes on listening");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_client_that_never_finishes_is_cut_off() {
    let model = Tiny::new("sentence-mean");
    let server = Server::start(&[model.path()], &["--drain-timeout", "0"]);
    let mut client = server.connect();
    client.head("/", 100, "expect: 100-continue\r\n");
    assert_eq!(client.response().status, 100);
    let (code, log) = server.stop("TERM");
    assert_eq!(code, Some(0), "{log:?}");
}

#[test]
fn keys_come_from_the_environment() {
    let model = Tiny::new("sentence-mean");
    let body = r#"{"inputs": "secret"}"#;
    let server = Server::start_with(centuple("serve").env("CENTUPLE_API_KEY", "open sesame"), &[model.path()]);
    assert_eq!(server.post("/", body).status, 401);
    let mut client = server.connect();
    client.head("/", body.len(), "authorization: Bearer open sesame\r\n");
    client.send(body.as_bytes());
    assert_eq!(client.response().status, 200);
    let (code, log) = server.stop("TERM");
    assert_eq!(code, Some(0));
    assert!(!log.concat().contains("sesame"), "the key is not logged");
}

#[test]
fn keys_come_from_flags_and_a_file_too() {
    let model = Tiny::new("sentence-mean");
    let file = model.path().join("keys");
    fs::write(&file, "# holders\nalice: open sesame\n\nlet me in\n").expect("temporary folders can be written");
    let flags = ["--api-key", "hush-one", "--api-key", "hush-two", "--api-key-file"].map(str::to_owned);
    let mut command = centuple("serve");
    command.args(flags).arg(&file).args(["--timeout", "600", "--cache", "always"]).env("RUST_LOG", "debug");
    let server = Server::start_with(&mut command, &[model.path()]);
    let body = r#"{"inputs": "text"}"#;
    for (key, status) in
        [("hush-one", 200), ("hush-two", 200), ("open sesame", 200), ("let me in", 200), ("alice", 401)]
    {
        let mut client = server.connect();
        client.head("/", body.len(), &format!("authorization: Bearer {key}\r\n"));
        client.send(body.as_bytes());
        assert_eq!(client.response().status, status, "{key}");
    }
    let log = server.stop("TERM").1.concat();
    assert!(log.contains("alice") && log.contains("key-2"), "{log}");
    assert!(["hush-one", "hush-two", "sesame", "let me in"].iter().all(|key| !log.contains(key)), "{log}");
    fs::write(&file, "alice: one\nbob: one\n").expect("temporary folders can be written");
    let finished = finish(centuple("serve").arg("--api-key-file").arg(&file).arg(model.path()), b"");
    let message = finished.failure(1);
    assert!(
        message.contains("line 2") && message.contains("`alice` and `bob`") && !message.contains("one"),
        "{message}"
    );
}

#[test]
fn logs_are_json_where_asked() {
    let model = Tiny::new("sentence-mean");
    let server = Server::start(&[model.path()], &["--log", "json"]);
    let (_, log) = server.stop("TERM");
    assert!(!log.is_empty());
    for line in log {
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
    }
}

#[test]
fn a_model_folder_may_change_while_it_is_served() {
    let model = Tiny::new("sentence-mean");
    let server = Server::start(&[model.path()], &[]);
    let known = &model.known("embeddings")[1];
    let body = known.body().to_string();
    let before = server.post("/", &body).json();
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        fs::write(model.path().join(file), "").expect("temporary folders can be written");
    }
    assert_eq!(server.post("/", body.replace("Hello", "Hello ")).status, 200);
    assert_eq!(server.post("/", &body).json(), before);
}
