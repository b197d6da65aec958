//! Bodies that are too large, too many, too slow, too deep, or no text at all.

use std::time::Duration;

use centuple_serve::{Config, EmbeddingsRequest};

use crate::harness::{Running, config, tiny};

fn server() -> Running {
    Running::new(config(), vec![tiny::embedder(true)])
}

#[test]
fn ten_thousand_inputs_in_one_request() {
    let server = server();
    let body = serde_json::json!({"inputs": vec!["the cat sat on the mat"; 10_000]}).to_string();
    let vectors: Vec<[f32; tiny::DIMENSION]> = serde_json::from_value(server.post("/", &body).json()).unwrap();
    assert_eq!(vectors.len(), 10_000);
    let body = body.replace("inputs", "input");
    assert_eq!(server.post("/v1/embeddings", &body).json()["data"][9_999]["index"], 9_999);
}

#[test]
fn a_text_of_a_megabyte_is_cut() {
    let server = server();
    let body = serde_json::json!({"inputs": "cat ".repeat(250_000)}).to_string();
    let answer = server.post("/", &body);
    assert_eq!((answer.status, answer.header("x-compute-tokens")), (200, Some("16")));
    let body = serde_json::json!({"inputs": "c".repeat(1 << 20), "truncate": false}).to_string();
    assert_eq!(server.post("/", &body).status, 200);
}

#[test]
fn a_body_of_100_megabytes_is_refused() {
    let server = server();
    let body = vec![b' '; 100 << 20];
    for path in ["/", "/v1/embeddings"] {
        let answer = server.connect().request("POST", path, &[], &body);
        assert_eq!(answer.status, 413);
        assert!(answer.body.contains("over the limit of 10485760 bytes"), "{}", answer.body);
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_huge_body_is_refused_before_it_is_sent() {
    let server = server();
    let mut client = server.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.response().unwrap().status, 413);
}

#[test]
fn chunks_without_end_are_refused() {
    let server = Running::new(Config { max_body_bytes: 1000, ..config() }, vec![tiny::embedder(true)]);
    let mut client = server.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        client.send(&[b"64\r\n", &[b' '; 100][..], b"\r\n"].concat());
    }
    insta::assert_snapshot!(client.response().unwrap().line());
}

#[test]
fn a_chunked_body_is_put_together() {
    let server = server();
    let mut client = server.connect();
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    for part in [r#"{"inp"#, r#"uts": ["#, r#""cat"]}"#] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes());
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.response().unwrap().status, 200);
}

#[test]
fn limits_on_inputs_and_replies() {
    let config = Config { max_inputs: 3, max_reply_values: 8, ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    let answers = [
        server.post("/", r#"{"inputs": ["a", "b"]}"#),
        server.post("/", r#"{"inputs": ["a", "b", "c", "d"]}"#),
        server.post("/v1/embeddings", r#"{"input": ["a", "b", "c"]}"#),
    ];
    insta::assert_snapshot!(answers.map(|answer| answer.line()).join("\n"));
}

#[test]
fn bodies_that_are_no_request() {
    let server = server();
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"{\"inputs\": \"\xff\xfe\"}",
        b"\x00\x01\x02",
        b"null",
        b"[]",
        b"{\"inputs\": []}",
        b"{\"inputs\": 1e999}",
        b"{\"inputs\": \"a\", \"dimension\": 3}",
    ];
    let mut answers = String::new();
    for body in bodies {
        let answer = server.connect().request("POST", "/", &[], body);
        answers += &format!("{} {}\n", body.escape_ascii(), answer.line());
    }
    insta::assert_snapshot!(answers);
}

#[test]
fn deep_json_is_refused() {
    let server = server();
    let nest = "[".repeat(1_000_000);
    for body in
        [nest.clone(), format!("{{\"inputs\": {nest}"), format!("{{\"options\": {nest}"), "{\"a\":".repeat(100_000)]
    {
        for path in ["/", "/v1/embeddings"] {
            let status = server.post(path, &body).status;
            assert!(status == 400 || status == 422, "{status}");
        }
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_slow_header_and_an_idle_connection_are_closed() {
    let config = Config { header_timeout: Duration::from_millis(50), ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    let mut slow = server.connect();
    slow.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-le");
    let mut silent = server.connect();
    let mut idle = server.connect();
    assert_eq!(idle.request("GET", "/health", &[], b"").status, 200);
    for client in [&mut slow, &mut silent, &mut idle] {
        assert!(client.response().is_none_or(|response| response.status == 408));
    }
}

#[test]
fn a_slow_body_is_given_up() {
    let config = Config { body_timeout: Duration::from_millis(50), ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    let mut client = server.connect();
    client.send(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{");
    insta::assert_snapshot!(client.response().unwrap().line());
}

#[test]
fn a_client_that_breaks_off_harms_nobody() {
    let server = server();
    for _ in 0..20 {
        server.connect().send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"inp");
        server.connect().send(b"not http at all\r\n\r\n");
        server.connect().begin("POST", "/", &[], br#"{"inputs": "a"}"#);
    }
    let huge_header = "x".repeat(1 << 20);
    let mut client = server.connect();
    client.begin("GET", "/health", &[("x-long", &huge_header)], b"");
    assert!(client.response().is_none_or(|response| response.status == 431));
    assert_eq!(server.post("/", r#"{"inputs": "a"}"#).status, 200);
    server.end().unwrap();
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic_the_embeddings_parser(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        input in "[\\[\\]{},:\"a0-9nul.eE+-]{0,40}",
    ) {
        let _ = EmbeddingsRequest::parse(&bytes);
        let _ = EmbeddingsRequest::parse(format!("{{\"input\": {input}}}").as_bytes());
    }
}
