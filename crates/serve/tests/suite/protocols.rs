//! The routes of text-embeddings-inference, Cohere, Infinity and SageMaker, over real sockets.

use std::io::Write;

use centuple_serve::Config;
use centuple_tasks::{EngineError, Head, Model, Problem};
use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use serde_json::{Value, json};

use crate::harness::{Running, config, tiny};

fn named(id: &str, mut model: Model) -> Model {
    model.card.id = id.into();
    model
}

fn ranker() -> Model {
    tiny::model(Head::Classification { labels: vec!["LABEL_0".into()], problem: Problem::MultiLabel })
}

/// Requests and their answers, less what differs from time to time.
fn posts(server: &Running, requests: &[(&str, &str)]) -> String {
    let line = |(path, body): &(&str, &str)| {
        let answer = server.post(path, body);
        let text = match serde_json::from_str::<Value>(&answer.body) {
            Ok(mut value) => {
                for (name, kind) in [("id", "an id"), ("created", "a time")] {
                    if value.get(name).is_some() {
                        value[name] = kind.into();
                    }
                }
                value.to_string()
            }
            Err(_) => answer.body.clone(),
        };
        format!("POST {path} {body}\n  {} {text}\n", answer.status)
    };
    requests.iter().map(line).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

#[test]
fn embed() {
    let server = Running::new(config(), vec![tiny::embedder(false)]);
    let requests = [
        ("/embed", r#"{"inputs": "the cat sat"}"#),
        ("/embed", r#"{"inputs": ["the cat sat", "dog"], "normalize": false}"#),
        ("/embed", r#"{"inputs": ["the cat sat"], "dimensions": 2}"#),
        ("/embed", r#"{"inputs": [2, 6, 7, 9, 3], "normalize": false}"#),
        ("/embed", r#"{"inputs": [[2, 6, 7, 9, 3], [2, 8, 3]], "unknown": 1}"#),
        ("/embed", r#"{"inputs": "the cat", "prompt_name": "query", "truncation_direction": "Left"}"#),
        ("/embed", r#"{"inputs": "a a a a a a a a a a a a a a a a a a", "truncate": false}"#),
        ("/embed", r#"{"inputs": ""}"#),
        ("/embed", r#"{"inputs": ["a", ""]}"#),
        ("/embed", r#"{"inputs": []}"#),
        ("/embed", r#"{"inputs": [95]}"#),
        ("/embed", r#"{"inputs": "a", "prompt_name": "none"}"#),
        ("/embed", r#"{"inputs": "a", "dimensions": 5}"#),
        ("/embed", r#"{"inputs": 5}"#),
        ("/embed", "{"),
        ("/embed_all", r#"{"inputs": "cat"}"#),
        ("/embed_sparse", r#"{"inputs": "cat"}"#),
        ("/predict", r#"{"inputs": "cat"}"#),
        ("/rerank", r#"{"query": "cat", "texts": ["dog"]}"#),
        ("/similarity", r#"{"inputs": {"source_sentence": "the cat", "sentences": ["a dog", "the cat"]}}"#),
        (
            "/similarity",
            r#"{"inputs": {"source_sentence": "cat", "sentences": ["dog"]}, "parameters": {"truncate": true}}"#,
        ),
        ("/similarity", r#"{"inputs": {"source_sentence": "cat", "sentences": []}}"#),
        ("/invocations", r#"{"inputs": ["the cat sat"], "parameters": {"normalize": true}}"#),
        ("/invocations", r#"{"instances": []}"#),
    ];
    insta::assert_snapshot!(posts(&server, &requests));
    assert_eq!(server.get("/embed").status, 405);
    assert_eq!(server.get("/ping").status, 200);
}

#[test]
fn embed_normalises_unless_told_not_to() {
    let server = Running::new(config(), vec![tiny::embedder(false)]);
    let embed = |body: Value| floats(&server.post("/embed", &body.to_string()).json()[0]);
    let rows = [2, 6, 7, 9, 3].map(tiny::row);
    let mean: Vec<f32> = (0..tiny::DIMENSION).map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / 5.0).collect();
    let plain = embed(json!({"inputs": [2, 6, 7, 9, 3], "normalize": false}));
    assert_eq!(plain, mean);
    let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
    for (a, b) in embed(json!({"inputs": [2, 6, 7, 9, 3]})).iter().zip(&mean) {
        assert!((a - b / length).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn embed_all_and_embed_sparse() {
    for (model, path, other) in
        [(tiny::features(), "/embed_all", "/embed_sparse"), (tiny::late(), "/embed_all", "/embed")]
    {
        let server = Running::new(config(), vec![model]);
        let one = server.post(path, r#"{"inputs": "the cat"}"#).json();
        assert_eq!(one.as_array().unwrap().len(), 1);
        assert_eq!(one[0].as_array().unwrap().len(), 4);
        assert_eq!(server.post(other, r#"{"inputs": "the cat"}"#).status, 422);
    }
    let server = Running::new(config(), vec![tiny::features()]);
    let matrix = server.post("/embed_all", r#"{"inputs": [2, 6, 3]}"#).json();
    for (row, id) in matrix[0].as_array().unwrap().iter().zip([2, 6, 3]) {
        assert_eq!(floats(row), tiny::row(id));
    }
    let server = Running::new(config(), vec![tiny::sparse()]);
    let requests = [("/embed_sparse", r#"{"inputs": ["cat", "the cat"]}"#), ("/embed_sparse", r#"{"inputs": "cat"}"#)];
    insta::assert_snapshot!(posts(&server, &requests));
}

#[test]
fn predict_and_classify() {
    let server = Running::new(config(), vec![tiny::classifier(Problem::SingleLabel)]);
    let requests = [
        ("/predict", r#"{"inputs": "i love this film"}"#),
        ("/predict", r#"{"inputs": ["i love this film"]}"#),
        ("/predict", r#"{"inputs": ["a", "b"]}"#),
        ("/predict", r#"{"inputs": [["a"], ["a", "b"]], "raw_scores": true}"#),
        ("/predict", r#"{"inputs": [["a"]]}"#),
        ("/predict", r#"{"inputs": ["a", "b", "c"]}"#),
        ("/predict", r#"{"inputs": [["a", "b", "c"]]}"#),
        ("/predict", r#"{"inputs": [["a"], "b"]}"#),
        ("/predict", r#"{"inputs": [[]]}"#),
        ("/predict", r#"{"inputs": []}"#),
        ("/predict", r#"{"inputs": ""}"#),
        ("/predict", r#"{"inputs": {"text": "a"}}"#),
        ("/", r#"{"inputs": "i love this film"}"#),
        ("/classify", r#"{"input": ["i love this film"], "model": "any"}"#),
        ("/classify", r#"{"input": ["a"], "raw_scores": true}"#),
        ("/classify", r#"{"input": []}"#),
        ("/classify", r#"{"inputs": "a"}"#),
        ("/embeddings", r#"{"input": "a"}"#),
        ("/rerank", r#"{"query": "a", "texts": ["b"]}"#),
    ];
    insta::assert_snapshot!(posts(&server, &requests));
}

#[test]
fn rerank() {
    let server = Running::new(config(), vec![ranker()]);
    let requests = [
        ("/rerank", r#"{"query": "the cat", "texts": ["a dog", "the cat sat", "film"]}"#),
        ("/rerank", r#"{"query": "the cat", "texts": ["a dog", "film"], "raw_scores": true, "return_text": true}"#),
        ("/rerank", r#"{"query": "the cat", "documents": ["a dog", "film"], "top_n": 1, "return_documents": true}"#),
        ("/rerank", r#"{"query": "the cat", "documents": ["a dog", "film"], "model": "any"}"#),
        ("/rerank", r#"{"query": "the cat", "texts": ["a"], "documents": ["a"]}"#),
        ("/rerank", r#"{"query": "the cat"}"#),
        ("/rerank", r#"{"query": "the cat", "texts": []}"#),
        ("/rerank", r#"{"query": "a a a a a a a a a a a a a a a a a a", "texts": ["a"], "truncate": false}"#),
        ("/v1/rerank", r#"{"query": "the cat", "documents": ["a dog", {"text": "the cat sat"}], "model": "rerank"}"#),
        ("/v2/rerank", r#"{"query": "the cat", "documents": ["a dog", "film"], "top_n": 1, "model": "rerank"}"#),
        ("/openai/v1/rerank", r#"{"query": "a", "documents": ["a dog"], "return_documents": false}"#),
        ("/v2/rerank", r#"{"query": "the cat", "documents": []}"#),
        ("/v2/rerank", r#"{"query": "the cat", "documents": ["a"], "top_n": 0}"#),
        ("/v2/rerank", r#"{"documents": ["a"]}"#),
        ("/v1/rerank", "{"),
    ];
    insta::assert_snapshot!(posts(&server, &requests));
    let [raw, score] = ["true", "false"].map(|raw| {
        let body = format!(r#"{{"query": "the cat", "texts": ["a dog"], "raw_scores": {raw}}}"#);
        server.post("/rerank", &body).json()[0]["score"].as_f64().unwrap()
    });
    assert!((1.0 / (1.0 + (-raw).exp()) - score).abs() < 1e-6);
}

#[test]
fn tokenize_and_decode() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let requests = [
        ("/tokenize", r#"{"inputs": "the cats"}"#),
        ("/tokenize", r#"{"inputs": ["the", ""], "add_special_tokens": false}"#),
        ("/tokenize", r#"{"inputs": []}"#),
        ("/tokenize", r#"{"inputs": ["a"], "prompt_name": "query"}"#),
        ("/tokenize", r#"{"inputs": [1]}"#),
        ("/tokenize", r#"{"inputs": "a", "model": "other"}"#),
        ("/decode", r#"{"ids": [2, 6, 7, 9, 3]}"#),
        ("/decode", r#"{"ids": [[2, 6, 7], [9]], "skip_special_tokens": false}"#),
        ("/decode", r#"{"ids": [4294967295]}"#),
        ("/decode", r#"{"ids": [-1]}"#),
        ("/decode", r#"{"ids": "a"}"#),
    ];
    insta::assert_snapshot!(posts(&server, &requests));
}

#[test]
fn a_text_is_tokenised_whole() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let text = "the cat sat ".repeat(20);
    let tokens = |special: bool| {
        let body = json!({"inputs": text, "add_special_tokens": special}).to_string();
        server.post("/tokenize", &body).json()[0].as_array().unwrap().clone()
    };
    let plain = tokens(false);
    assert_eq!(plain.len(), 60);
    for (index, token) in plain.iter().enumerate() {
        assert_eq!(token["text"], ["the", "cat", "sat"][index % 3]);
        let at = index / 3 * 12 + [0, 4, 8][index % 3];
        assert_eq!((token["start"].as_u64(), token["stop"].as_u64()), (Some(at as u64), Some(at as u64 + 3)));
    }
    let all = tokens(true);
    assert_eq!(all[1..61], plain);
    assert_eq!(all.len(), 62);
    assert!(all[0]["special"] == true && all[61]["special"] == true && all[0]["start"].is_null());
    let body = json!({"inputs": "a".repeat((2 << 20) + 1)}).to_string();
    assert_eq!(server.post("/tokenize", &body).status, 413);
}

#[test]
fn a_large_client_batch_is_split() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let body = json!({"inputs": vec!["the cat sat on the mat"; 5000]}).to_string();
    let vectors = server.post("/embed", &body).json();
    assert_eq!(vectors.as_array().unwrap().len(), 5000);
    assert!(vectors.as_array().unwrap().iter().all(|vector| *vector == vectors[0]));
}

#[test]
fn auto_truncate_is_for_requests_that_do_not_say() {
    let long = "a ".repeat(30);
    let ask = |server: &Running, truncate: Value| {
        server.post("/embed", &json!({"inputs": long, "truncate": truncate}).to_string()).status
    };
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    assert_eq!([Value::Null, true.into(), false.into()].map(|truncate| ask(&server, truncate)), [200, 200, 422]);
    assert_eq!(server.get("/info").json()["auto_truncate"], true);
    let server = Running::new(Config { auto_truncate: false, ..config() }, vec![tiny::embedder(true)]);
    assert_eq!([Value::Null, true.into(), false.into()].map(|truncate| ask(&server, truncate)), [422, 200, 422]);
    assert_eq!(server.get("/info").json()["auto_truncate"], false);
    assert_eq!(server.post("/", &json!({"inputs": long}).to_string()).status, 200);
}

#[test]
fn a_route_finds_the_model_that_can_answer_it() {
    let models = vec![
        named("embedder", tiny::embedder(true)),
        named("sparse", tiny::sparse()),
        named("classifier", tiny::classifier(Problem::SingleLabel)),
        named("ranker", ranker()),
    ];
    let server = Running::new(config(), models);
    let requests = [
        ("/embed", r#"{"inputs": "the cat", "dimensions": 1}"#),
        ("/embed_sparse", r#"{"inputs": "cat"}"#),
        ("/embed_all", r#"{"inputs": "cat"}"#),
        ("/rerank", r#"{"query": "a", "texts": ["b"]}"#),
        ("/predict", r#"{"inputs": "a"}"#),
        ("/predict", r#"{"inputs": "a", "model": "ranker"}"#),
        ("/classify", r#"{"input": ["a"]}"#),
        ("/decode", r#"{"ids": [6], "model": "sparse"}"#),
        ("/tokenize", r#"{"inputs": "a", "model": "nothing"}"#),
        ("/v2/rerank", r#"{"query": "a", "documents": ["b"], "model": "classifier"}"#),
        ("/v2/rerank", r#"{"query": "a", "documents": ["b"], "model": "nothing"}"#),
    ];
    insta::assert_snapshot!(posts(&server, &requests));
}

#[test]
fn each_family_has_its_errors() {
    let config = Config { api_keys: "s3cret".parse().unwrap(), max_body_bytes: 100, ..config() };
    let fails = |_: &[&centuple_tasks::Sequence], _: &mut Vec<centuple_tasks::Output>| Err(EngineError::Stopped);
    let model = ranker();
    let engine = tiny::Tiny::with(&model, fails);
    let server = Running::with_engines(config, vec![(model, engine)]);
    let key = [("authorization", "Bearer s3cret")];
    let mut answers = String::new();
    for path in ["/rerank", "/v1/rerank", "/v2/rerank", "/predict", "/classify", "/", "/v2/models/test/tiny/infer"] {
        let body = br#"{"query": "a", "texts": ["b"]}"#;
        let unauthorised = server.connect().request("POST", path, &[], body);
        let too_large = server.connect().request("POST", path, &key, &[b' '; 101]);
        let encoding = server.connect().request("POST", path, &[key[0], ("content-encoding", "br")], body);
        for answer in [unauthorised, too_large, encoding] {
            answers += &format!("{path} {}\n", answer.line());
        }
    }
    let bodies = [
        ("/rerank", r#"{"query": "a", "texts": ["b"]}"#),
        ("/v1/rerank", r#"{"query": "a", "documents": ["b"]}"#),
        ("/predict", r#"{"inputs": "a"}"#),
        ("/classify", r#"{"input": ["a"]}"#),
        ("/v2/models/test/tiny/infer", r#"{"inputs":[{"name":"TEXT","shape":[1],"datatype":"BYTES","data":["a"]}]}"#),
    ];
    for (path, body) in bodies {
        answers += &format!("{path} {}\n", server.connect().request("POST", path, &key, body.as_bytes()).line());
    }
    insta::assert_snapshot!(answers);
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(server.get(path).status, 200);
    }
    assert_eq!(server.get("/v2").status, 401);
}

#[test]
fn bodies_may_be_compressed() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let body = br#"{"inputs": "the cat sat"}"#;
    let expected = server.post("/embed", std::str::from_utf8(body).unwrap()).json();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(body).unwrap();
    zlib.write_all(body).unwrap();
    raw.write_all(body).unwrap();
    let (gzip, zlib, raw) = (gzip.finish().unwrap(), zlib.finish().unwrap(), raw.finish().unwrap());
    for (name, bytes) in [("gzip", &gzip), ("gzip", &zlib), ("deflate", &zlib), ("Deflate", &raw)] {
        let answer = server.connect().request("POST", "/embed", &[("content-encoding", name)], bytes);
        assert_eq!((answer.status, answer.json()), (200, expected.clone()), "{name}");
    }
    let identity = server.connect().request("POST", "/embed", &[("content-encoding", "identity")], body);
    assert_eq!(identity.json(), expected);
    for broken in [&gzip[..20], b"\x1f\x8b", b"no gzip at all", b""] {
        let answer = server.connect().request("POST", "/embed", &[("content-encoding", "gzip")], broken);
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
}

#[test]
fn a_compressed_body_is_limited_by_what_it_holds() {
    let server = Running::new(Config { max_body_bytes: 1 << 20, ..config() }, vec![tiny::embedder(true)]);
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..512 {
        bomb.write_all(&zeros).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    for path in ["/embed", "/v2/models/test/tiny/infer"] {
        let answer = server.connect().request("POST", path, &[("content-encoding", "gzip")], &bomb);
        assert_eq!(answer.status, 413, "{}", answer.body);
    }
    assert_eq!(server.get("/health").status, 200);
}
