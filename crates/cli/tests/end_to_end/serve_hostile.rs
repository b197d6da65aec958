//! What a server must survive: after each bad request it answers a good one.

use std::thread;

use serde_json::json;

use crate::http::{Response, Server};
use crate::tiny::Tiny;

const GOOD: &str = r#"{"inputs": "good"}"#;

/// A server, and the answer to a good request.
struct Patient {
    server: Server,
    good: String,
}

impl Patient {
    fn new() -> Patient {
        let model = Tiny::new("sentence-mean");
        let server = Server::start(&[model.path()], &[]);
        let good = server.post("/", GOOD);
        assert_eq!(good.status, 200);
        Patient { server, good: good.body }
    }

    /// Posts, checks the status, and checks that the server is as well as before.
    fn post(&self, path: &str, body: impl AsRef<[u8]>, status: u16) -> Response {
        let response = self.server.post(path, body);
        assert_eq!(response.status, status, "{path}: {}", response.body);
        self.is_well();
        response
    }

    fn is_well(&self) {
        let answer = self.server.post("/", GOOD);
        assert_eq!((answer.status, &answer.body), (200, &self.good));
    }

    /// Ends it in order.
    fn end(self) {
        let (code, log) = self.server.stop("TERM");
        assert_eq!(code, Some(0));
        assert!(!log.concat().contains("panicked"), "{log:?}");
    }
}

const HUGGING_FACE: [&str; 3] = ["/", "/models/sentence-mean", "/pipeline/feature-extraction/sentence-mean"];
const OPENAI: &str = "/v1/embeddings";

#[test]
fn a_body_of_100_megabytes() {
    let patient = Patient::new();
    for path in ["/", OPENAI] {
        let mut client = patient.server.connect();
        client.head(path, 100 << 20, "");
        client.send(&vec![b' '; 1 << 20]);
        let response = client.response();
        assert_eq!(response.status, 413, "before the other 99 MB are sent");
        assert!(response.body.contains("limit"), "{}", response.body);
        patient.is_well();
    }
    patient.post("/", vec![b'['; 100 << 20], 413);
    patient.end();
}

#[test]
fn bodies_that_are_no_request() {
    let patient = Patient::new();
    let malformed: [&[u8]; 6] =
        [b"", b"{", b"nonsense", b"\x00\x01\x02", b"{\"inputs\": \"\xff\xfe\"}", b"{\"inputs\": \"a\"} {}"];
    for body in malformed {
        for path in HUGGING_FACE {
            let response = patient.post(path, body, 400);
            assert!(response.body.contains("not valid JSON"), "{}: {}", body.escape_ascii(), response.body);
        }
        let body = body.escape_ascii().to_string().replace("inputs", "input");
        patient.post(OPENAI, body, 400);
    }
    patient.post(OPENAI, b"{\"input\": \"\xff\xfe\"}", 400);
    patient.post("/", "[".repeat(1 << 20), 422);
    patient.post(OPENAI, format!("{{\"input\": {}", "[".repeat(1 << 20)), 400);
    patient.end();
}

#[test]
fn fields_of_the_wrong_type() {
    let patient = Patient::new();
    for body in [
        "null",
        "5",
        "[]",
        "{}",
        r#"{"inputs": 5}"#,
        r#"{"inputs": null}"#,
        r#"{"inputs": {"a": 1}}"#,
        r#"{"inputs": ["a", 5]}"#,
        r#"{"inputs": [["a"]]}"#,
        r#"{"inputs": "a", "parameters": []}"#,
        r#"{"inputs": "a", "parameters": {"normalize": "yes"}}"#,
        r#"{"inputs": "a", "parameters": {"unheard_of": 1}}"#,
        r#"{"inputs": "a", "truncation_direction": "Up"}"#,
    ] {
        let response = patient.post("/", body, 422);
        assert!(response.body.contains("\"error\""), "{}", response.body);
    }
    for body in [
        "null",
        "5",
        "[]",
        "{}",
        r#"{"input": 5}"#,
        r#"{"input": null}"#,
        r#"{"input": {}}"#,
        r#"{"input": ["a", 5]}"#,
        r#"{"input": [[1], "a"]}"#,
        r#"{"input": [-1]}"#,
        r#"{"input": [1.5]}"#,
        r#"{"input": [4294967296]}"#,
        r#"{"input": [999999]}"#,
        r#"{"input": "a", "encoding_format": "hex"}"#,
        r#"{"input": "a", "dimensions": 0}"#,
        r#"{"input": "a", "dimensions": 49}"#,
    ] {
        let response = patient.post(OPENAI, body, 400);
        assert!(response.body.contains("\"message\""), "{}", response.body);
    }
    patient.end();
}

#[test]
fn nothing_to_compute() {
    let patient = Patient::new();
    for path in HUGGING_FACE {
        patient.post(path, r#"{"inputs": []}"#, 400);
        let empty = patient.post(path, r#"{"inputs": ""}"#, 200);
        assert_eq!(
            patient.post(path, r#"{"inputs": ["", "good"]}"#, 200).json(),
            json!([empty.json(), serde_json::from_str::<serde_json::Value>(&patient.good).expect("JSON")])
        );
    }
    for body in [
        r#"{"input": []}"#,
        r#"{"input": ""}"#,
        r#"{"input": ["a", ""]}"#,
        r#"{"input": [[]]}"#,
        r#"{"input": [[1], []]}"#,
    ] {
        patient.post(OPENAI, body, 400);
    }
    patient.end();
}

#[test]
fn texts_of_a_megabyte_and_ten_thousand_inputs() {
    let patient = Patient::new();
    for text in ["weather ".repeat((1 << 20) / 8), "w".repeat(1 << 20), "\u{1F600}".repeat((1 << 20) / 4)] {
        patient.post("/", json!({"inputs": text}).to_string(), 200);
        patient.post(OPENAI, json!({"input": text}).to_string(), 200);
        patient.post(
            "/",
            json!({"inputs": text, "parameters": {"truncate": false}}).to_string(),
            if text.starts_with("weather") { 422 } else { 200 },
        );
    }
    let answer = patient.post("/", json!({"inputs": vec!["good"; 10_000]}).to_string(), 200);
    assert_eq!(answer.body, format!("[{}]", vec![patient.good.as_str(); 10_000].join(",")));
    let answer = patient.post(OPENAI, json!({"input": vec!["good"; 10_000]}).to_string(), 200).json();
    assert_eq!(answer["data"].as_array().map(Vec::len), Some(10_000));
    patient.end();
}

#[test]
fn routes_that_are_unknown() {
    let patient = Patient::new();
    for path in [
        "/nothing",
        "/models/another",
        "/models/",
        "/v1/nothing",
        "/pipeline/feature-extraction",
        "/models/sentence-mean/pipeline/image-classification",
        "/%ff",
        "/models/%ff",
        "/models/../../etc/passwd",
    ] {
        patient.post(path, GOOD, 404);
    }
    for path in ["/health", "/info", "/metrics", "/v1/models"] {
        patient.post(path, GOOD, 405);
    }
    patient.end();
}

#[test]
fn bytes_that_are_no_http() {
    let patient = Patient::new();
    let nonsense: [&[u8]; 7] = [
        b"\r\n\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for bytes in nonsense {
        patient.server.connect().send(bytes);
        patient.is_well();
    }
    let mut client = patient.server.connect();
    client.send(format!("GET / HTTP/1.1\r\nx-long: {}\r\n\r\n", "x".repeat(1 << 20)).as_bytes());
    patient.is_well();
    patient.end();
}

#[test]
fn clients_that_leave_in_the_middle() {
    let patient = Patient::new();
    let body = json!({"inputs": vec!["what a great film"; 500]}).to_string();
    thread::scope(|scope| {
        for client in 0..16 {
            let (mut connection, body) = (patient.server.connect(), &body);
            scope.spawn(move || {
                connection.head("/", body.len(), "");
                connection.send(&body.as_bytes()[..body.len() * (client % 3) / 2]);
            });
        }
    });
    patient.is_well();
    patient.end();
}
