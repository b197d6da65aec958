//! What every route answers, over real sockets.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use centuple_serve::{Config, Server};
use centuple_tasks::{Model, Problem};

use crate::harness::{Running, config, tiny};

fn named(id: &str, mut model: Model) -> Model {
    model.card.id = id.into();
    model
}

fn posts(server: &Running, requests: &[(&str, &str)]) -> String {
    let line = |(path, body): &(&str, &str)| format!("POST {path} {body}\n  {}\n", server.post(path, body).line());
    requests.iter().map(line).collect()
}

fn gets(server: &Running, paths: &[&str]) -> String {
    paths.iter().map(|path| format!("GET {path}\n  {}\n", server.get(path).line())).collect()
}

#[test]
fn task_routes_of_an_embedding_model() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let similarity = r#"{"inputs": {"source_sentence": "the cat", "sentences": ["a dog", "the cat"]}}"#;
    let requests = [
        ("/", r#"{"inputs": "the cat sat"}"#),
        ("/", r#"{"inputs": ["the cat sat", ""]}"#),
        ("/", similarity),
        ("/models/test/tiny", r#"{"inputs": "the cat sat"}"#),
        ("/models/test%2Ftiny", similarity),
        ("/models/test/tiny/pipeline/feature-extraction", r#"{"inputs": ["the cat sat"], "normalize": true}"#),
        ("/models/test/tiny/pipeline/sentence-similarity", similarity),
        ("/pipeline/feature-extraction/test/tiny", r#"{"inputs": "the cat sat", "encoding_format": "base64"}"#),
        ("/pipeline/sentence-similarity/test%2Ftiny", similarity),
        ("/models/test/tiny/pipeline/text-classification", r#"{"inputs": "the cat"}"#),
        ("/models/test/tiny/pipeline/summarization", r#"{"inputs": "the cat"}"#),
        ("/models/test/tiny/pipeline/embed", r#"{"inputs": "the cat"}"#),
        ("/models/other/model", r#"{"inputs": "the cat"}"#),
        ("/models/..%2F..%2Fetc%2Fpasswd", r#"{"inputs": "the cat"}"#),
        ("/models/%FF", r#"{"inputs": "the cat"}"#),
        ("/pipeline/feature-extraction", r#"{"inputs": "the cat"}"#),
    ];
    insta::assert_snapshot!(posts(&server, &requests));
}

#[test]
fn task_routes_of_a_classifier() {
    let server = Running::new(config(), vec![tiny::classifier(Problem::SingleLabel)]);
    let requests = [
        ("/", r#"{"inputs": "i love this film"}"#),
        ("/models/test/tiny", r#"{"inputs": ["hello", "world"], "parameters": {"top_k": 1}}"#),
        (
            "/models/test/tiny/pipeline/text-classification",
            r#"{"inputs": {"text": "a", "text_pair": "b"}, "top_k": 2}"#,
        ),
        ("/v1/embeddings", r#"{"input": "hello", "model": "x"}"#),
    ];
    insta::assert_snapshot!(posts(&server, &requests));
}

#[test]
fn task_routes_of_a_model_of_token_features() {
    let server = Running::new(config(), vec![tiny::features()]);
    let requests = [("/", r#"{"inputs": "cat"}"#), ("/v1/embeddings", r#"{"input": "hello"}"#)];
    insta::assert_snapshot!(posts(&server, &requests));
}

#[test]
fn openai_routes() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let requests = [
        ("/v1/embeddings", r#"{"input": "the cat sat", "model": "any name", "user": "me", "unknown": [1]}"#),
        ("/v1/embeddings", r#"{"input": ["the cat sat", "dog"], "model": "x", "encoding_format": "float"}"#),
        ("/v1/embeddings", r#"{"input": [2, 6, 7, 9, 3], "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": [[2, 6, 7, 9, 3], [2, 8, 3]], "model": "x", "dimensions": 2}"#),
        ("/openai/v1/embeddings", r#"{"input": "the cat sat", "model": "x", "encoding_format": "base64"}"#),
        ("/v1/embeddings", r#"{"input": "", "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": ["a", ""], "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": [], "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": [[]], "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": [1, 95], "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": [1, -1], "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": [4294967296], "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": [1.5], "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": ["a", 1], "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": {"a": 1}, "model": "x"}"#),
        ("/v1/embeddings", r#"{"input": null}"#),
        ("/v1/embeddings", r#"{"model": "x"}"#),
        ("/v1/embeddings", r#"{"input": "a", "model": 5}"#),
        ("/v1/embeddings", r#"{"input": "a", "dimensions": 9}"#),
        ("/v1/embeddings", r#"{"input": "a", "encoding_format": "int8"}"#),
        ("/v1/embeddings", "{"),
        ("/v1/nothing", "{}"),
        ("/v1/models", "{}"),
    ];
    let too_long = format!(r#"{{"input": [{}5]}}"#, "5, ".repeat(32));
    let answers = [
        posts(&server, &requests),
        posts(&server, &[("/v1/embeddings", &too_long)]),
        gets(
            &server,
            &["/v1/models", "/v1/models/test/tiny", "/openai/v1/models/test%2Ftiny", "/v1/models/x", "/v1/embeddings"],
        ),
    ];
    insta::assert_snapshot!(answers.concat());
}

#[test]
fn base64_holds_the_bytes_of_the_floats() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let embedding = |format: &str| {
        let body = format!(r#"{{"input": "the cat sat", "encoding_format": "{format}"}}"#);
        server.post("/v1/embeddings", &body).json()["data"][0]["embedding"].clone()
    };
    let floats: Vec<f32> = serde_json::from_value(embedding("float")).unwrap();
    let bytes = STANDARD.decode(embedding("base64").as_str().unwrap()).unwrap();
    let decoded: Vec<_> = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(floats, decoded);
}

#[test]
fn several_models_are_told_apart_by_name() {
    let models = vec![tiny::embedder(true), named("sentiment", tiny::classifier(Problem::SingleLabel))];
    let server = Running::new(config(), models);
    let requests = [
        ("/models/sentiment", r#"{"inputs": "hello", "parameters": {"top_k": 1}}"#),
        ("/models/test/tiny", r#"{"inputs": "hello"}"#),
        ("/", r#"{"inputs": "hello"}"#),
        ("/v1/embeddings", r#"{"input": "hello", "model": "test/tiny"}"#),
        ("/v1/embeddings", r#"{"input": "hello", "model": "sentiment"}"#),
        ("/v1/embeddings", r#"{"input": "hello", "model": "text-embedding-3-small"}"#),
        ("/v1/embeddings", r#"{"input": "hello"}"#),
    ];
    insta::assert_snapshot!([posts(&server, &requests), gets(&server, &["/v1/models", "/info"])].concat());
}

#[test]
fn operations() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    insta::assert_snapshot!(gets(&server, &["/health", "/ping", "/info", "/", "/nothing", "/nothing/at?all=1"]));
    server.post("/", r#"{"inputs": ["the cat sat", "dog"]}"#);
    server.post("/", "{");
    assert_eq!(server.metric("te_request_count"), 2.0);
    assert_eq!(server.metric("te_request_success"), 1.0);
    assert_eq!(server.metric("te_request_failure{err=\"malformed\"}"), 1.0);
    assert_eq!(server.metric("te_request_duration_count"), 1.0);
    assert_eq!(server.metric("te_batch_next_size_sum{model=\"test/tiny\"}"), 2.0);
    assert_eq!(server.metric("te_batch_next_tokens_sum{model=\"test/tiny\"}"), 8.0);
    assert_eq!(server.metric("te_request_input_length_sum{model=\"test/tiny\"}"), 8.0);
    for name in ["tokenization", "queue", "inference"] {
        assert_eq!(server.metric(&format!("te_request_{name}_duration_count{{model=\"test/tiny\"}}")), 1.0);
    }
    assert_eq!(server.metric("te_queue_size{model=\"test/tiny\"}"), 0.0);
    let metrics = server.get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[test]
fn answers_tell_what_they_took() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let answer = server.post("/", r#"{"inputs": ["the cat sat", "dög"]}"#);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-compute-characters"), Some("14"));
    assert_eq!(answer.header("x-compute-tokens"), Some("8"));
    assert_eq!(answer.header("x-compute-type"), Some("cpu"));
    for name in ["x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"] {
        answer.header(name).unwrap().parse::<u64>().unwrap();
    }
    let timing = answer.header("server-timing").unwrap();
    let parts: Vec<_> = timing.split(", ").map(|part| part.split_once(";dur=").unwrap()).collect();
    assert_eq!(parts.iter().map(|part| part.0).collect::<Vec<_>>(), ["tokenization", "queue", "inference", "total"]);
    assert!(parts.iter().all(|part| part.1.parse::<f64>().unwrap() > 0.0), "{timing}");
}

#[test]
fn a_request_keeps_its_id_or_gets_one() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let mut client = server.connect();
    let mut id = |headers: &[(&str, &str)]| {
        let answer = client.request("POST", "/", headers, br#"{"inputs": "a"}"#);
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id(&[("x-request-id", "my-7")]), "my-7");
    let (first, second) = (id(&[]), id(&[]));
    assert_eq!(first.len(), 16);
    assert_ne!(first, second);
    assert_eq!(id(&[("x-request-id", &"x".repeat(500))]).len(), 16);
    let unknown = server.connect().request("GET", "/nothing", &[("x-request-id", "e")], b"");
    assert_eq!((unknown.status, unknown.header("x-request-id")), (404, Some("e")));
}

#[test]
fn clients_need_no_content_type_and_may_send_old_headers() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let headers =
        [("content-type", "application/x-www-form-urlencoded"), ("x-wait-for-model", "true"), ("x-use-cache", "false")];
    let body = br#"{"inputs": "a", "options": {"wait_for_model": true}}"#;
    assert_eq!(server.connect().request("POST", "/", &headers, body).status, 200);
}

#[test]
fn a_key_is_asked_for() {
    let config = Config { api_keys: "s3cret".parse().unwrap(), ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    let ask = |path: &str, key: Option<&str>| {
        let headers: Vec<_> = key.map(|key| ("authorization", key)).into_iter().collect();
        server.connect().request("POST", path, &headers, br#"{"inputs": "a", "input": "a"}"#)
    };
    let mut answers = String::new();
    for key in [None, Some("s3cret"), Some("Bearer s3cre"), Some("Basic s3cret"), Some("")] {
        answers += &format!("{key:?} {}\n", ask("/v1/embeddings", key).status);
    }
    answers += &format!("{}\n{}\n", ask("/", None).line(), ask("/v1/embeddings", None).line());
    for path in ["/health", "/ping", "/metrics", "/info", "/v1/models", "/nothing"] {
        answers += &format!("GET {path} {}\n", server.get(path).status);
    }
    insta::assert_snapshot!(answers);
    assert_eq!(ask("/", None).header("www-authenticate"), Some("Bearer"));
    assert_eq!(ask("/nothing", Some("bearer s3cret")).status, 404);
}

#[test]
fn a_port_in_use_says_so() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bind = |config: Config| runtime.block_on(Server::bind(config)).err().unwrap().to_string();
    let error = bind(Config { port: server.address.port(), ..config() });
    assert!(error.starts_with(&format!("cannot listen on 127.0.0.1:{}: ", server.address.port())), "{error}");
    assert!(
        error.ends_with("stop the program that uses the port, or choose another port (0 takes a free one)"),
        "{error}"
    );
    let error = bind(Config { host: "203.0.113.7".into(), ..config() });
    assert!(error.contains("this machine has no such address"), "{error}");
}
