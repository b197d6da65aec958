//! The Open Inference Protocol over real sockets: what clients send, and what they must not.

use std::io::Write;

use centuple_serve::{Config, InferRequest};
use centuple_tasks::{Model, Problem};
use flate2::{Compression, write::ZlibEncoder};
use serde_json::{Value, json};

use crate::harness::{Response, Running, config, tiny};

const INFER: &str = "/v2/models/test/tiny/infer";
const HEADER: &str = "Inference-Header-Content-Length";

fn gets(server: &Running, paths: &[&str]) -> String {
    paths.iter().map(|path| format!("GET {path}\n  {}\n", server.get(path).line())).collect()
}

fn ask(server: &Running, body: &Value) -> Response {
    server.post(INFER, &body.to_string())
}

/// Sends JSON and bytes as tritonclient does: without a content type.
fn ask_binary(server: &Running, body: &Value, tail: &[u8]) -> Response {
    let json = body.to_string();
    let length = json.len().to_string();
    server.connect().request("POST", INFER, &[(HEADER, &length)], &[json.as_bytes(), tail].concat())
}

fn texts(texts: &[&str]) -> Value {
    json!({"inputs": [{"name": "TEXT", "shape": [texts.len()], "datatype": "BYTES", "data": texts}]})
}

fn packed(texts: &[&[u8]]) -> Vec<u8> {
    texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text].concat()).collect()
}

fn integers(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

/// JSON and the bytes behind it.
fn split(answer: &Response) -> (Value, Vec<u8>) {
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let length: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let (json, tail) = answer.bytes.split_at(length);
    (serde_json::from_slice(json).unwrap(), tail.to_vec())
}

fn of_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn mean(ids: &[u32]) -> Vec<f32> {
    let rows: Vec<_> = ids.iter().map(|id| tiny::row(*id)).collect();
    (0..tiny::DIMENSION).map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / rows.len() as f32).collect()
}

#[test]
fn what_is_told_of_server_and_models() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let mut answers = gets(
        &server,
        &[
            "/v2",
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/test/tiny",
            "/v2/models/test%2Ftiny",
            "/v2/models/test/tiny/versions/1",
            "/v2/models/test/tiny/ready",
            "/v2/models/test%2Ftiny/versions/1/ready",
            "/v2/models/test/tiny/config",
            "/v2/models/test/tiny/stats",
            "/v2/models/test/tiny/versions/1/stats",
            "/v2/models/stats",
            "/v2/models/transformer_onnx_model",
            "/v2/models/transformer_tensorrt_model/config",
            "/v2/models/transformer_onnx_inference/ready",
            "/v2/models/other",
            "/v2/models/other/ready",
            "/v2/models/test/tiny/versions/2",
            "/v2/models/test/tiny/versions/2/infer",
            "/v2/models/test/tiny/nothing",
            "/v2/models/test/tiny/infer",
            "/v2/models/%FF",
            "/v2/models/",
            "/v2/nothing",
        ],
    );
    for (path, body) in [
        ("/v2/repository/index", ""),
        ("/v2/repository/index", "{\"ready\": true}"),
        ("/v2/repository/models/test/tiny/load", "{}"),
        ("/v2/repository/models/test/tiny/unload", ""),
        ("/v2/systemsharedmemory/region/a/register", "{}"),
        ("/v2/models/test/tiny/ready", "{}"),
        ("/v2/models/other/infer", "{}"),
    ] {
        answers += &format!("POST {path} {body}\n  {}\n", server.post(path, body).line());
    }
    insta::assert_snapshot!(answers);
}

#[test]
fn every_head_tells_its_tensors() {
    for (number, model) in tiny::all().into_iter().enumerate() {
        let server = Running::new(config(), vec![model]);
        let paths = ["/v2/models/test/tiny", "/v2/models/transformer_onnx_model"];
        let told = paths.map(|path| server.get(path).json());
        let body = json!({
            "inputs": [
                {"name": "input_ids", "shape": [2, 3], "datatype": "INT64", "data": [[2, 6, 3], [2, 3, 0]]},
                {"name": "attention_mask", "shape": [2, 3], "datatype": "INT64", "data": [1, 1, 1, 1, 1, 0]},
            ],
        });
        let answer = ask(&server, &body).json();
        let output = &answer["outputs"][0];
        let claimed = &told[1]["outputs"][0];
        assert_eq!(output["name"], claimed["name"], "{answer}");
        let shape = output["shape"].as_array().unwrap();
        assert_eq!(shape.len(), claimed["shape"].as_array().unwrap().len());
        assert_eq!(shape.last(), claimed["shape"].as_array().unwrap().last());
        let values: u64 = shape.iter().map(|dim| dim.as_u64().unwrap()).product();
        assert_eq!(output["data"].as_array().unwrap().len() as u64, values, "head {number}");
        let takes_texts = told[0]["inputs"][0]["name"] == "TEXT";
        assert_eq!(ask(&server, &texts(&["the cat"])).status, if takes_texts { 200 } else { 400 });
    }
}

#[test]
fn texts_in_json() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let expected: Vec<f32> = server
        .post("/embed", r#"{"inputs": ["the cat sat", "dog"]}"#)
        .json()
        .as_array()
        .unwrap()
        .iter()
        .flat_map(floats)
        .collect();
    for (shape, data) in
        [(json!([2]), json!(["the cat sat", "dog"])), (json!([2, 1]), json!([["the cat sat"], ["dog"]]))]
    {
        let body = json!({
            "id": "7", "inputs": [{"name": "TEXT", "shape": shape, "datatype": "BYTES", "data": data}],
            "parameters": {"sequence_id": 0, "priority": 3},
        });
        let answer = ask(&server, &body).json();
        assert_eq!(
            (&answer["id"], &answer["model_name"], &answer["model_version"]),
            (&json!("7"), &json!("test/tiny"), &json!("1"))
        );
        let output = &answer["outputs"][0];
        assert_eq!(
            (&output["name"], &output["datatype"], &output["shape"]),
            (&json!("output"), &json!("FP32"), &json!([2, 4]))
        );
        assert_eq!(floats(&output["data"]), expected);
    }
}

#[test]
fn the_same_text_gives_the_same_vector_on_every_route() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let text = "the cat sat";
    let post = |path: &str, body: Value| server.post(path, &body.to_string()).json();
    let expected = floats(&post("/", json!({"inputs": text})));
    let ids: Vec<i64> = serde_json::from_value(
        post("/tokenize", json!({"inputs": text}))[0]
            .as_array()
            .unwrap()
            .iter()
            .map(|token| token["id"].clone())
            .collect(),
    )
    .unwrap();
    let tokens = json!({"inputs": [{"name": "input_ids", "shape": [1, ids.len()], "datatype": "INT64", "data": ids}]});
    let answers = [
        post("/embed", json!({"inputs": text}))[0].clone(),
        post("/embed", json!({"inputs": ids}))[0].clone(),
        post("/invocations", json!({"inputs": text})),
        post("/v1/embeddings", json!({"input": text}))["data"][0]["embedding"].clone(),
        post("/openai/v1/embeddings", json!({"input": text}))["data"][0]["embedding"].clone(),
        post("/embeddings", json!({"input": text}))["data"][0]["embedding"].clone(),
        post(INFER, texts(&[text]))["outputs"][0]["data"].clone(),
        post(INFER, tokens)["outputs"][0]["data"].clone(),
        post("/v2/models/transformer_onnx_inference/versions/1/infer", texts(&[text]))["outputs"][0]["data"].clone(),
    ];
    for answer in &answers {
        assert_eq!(floats(answer), expected);
    }
    let mut body = texts(&[text]);
    body["parameters"] = json!({"binary_data_output": true});
    assert_eq!(of_bytes(&split(&ask(&server, &body)).1), expected);
}

#[test]
fn bytes_in_and_out() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let expected = floats(&server.post("/embed", r#"{"inputs": "dög"}"#).json()[0]);
    let tail = packed(&["dög".as_bytes(), b"the cat"]);
    let body = json!({
        "inputs": [
            {"name": "TEXT", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": tail.len()}},
        ],
        "outputs": [
            {"name": "output", "parameters": {"binary_data": true}},
            {"name": "sentence_embedding", "parameters": {"binary_data": false}},
        ],
    });
    let (json, values) = split(&ask_binary(&server, &body, &tail));
    assert_eq!(
        json["outputs"][0],
        json!({
            "name": "output", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32},
        })
    );
    assert_eq!(values.len(), 32);
    assert_eq!(of_bytes(&values)[..4], expected);
    assert_eq!(floats(&json["outputs"][1]["data"]), of_bytes(&values));
    // Compressed, the header counts what comes out; and what is called gzip is zlib.
    let text = body.to_string();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&[text.as_bytes(), &tail].concat()).unwrap();
    let headers = [("inference-HEADER-content-length", text.len().to_string()), ("content-encoding", "gzip".into())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = server.connect().request("POST", INFER, &headers, &zlib.finish().unwrap());
    assert_eq!(split(&answer).1, values);
}

#[test]
fn tokens_in_and_padded_features_out() {
    let server = Running::new(config(), vec![tiny::features()]);
    let tail =
        [integers(&[2, 6, 3, 0, 2, 6, 7, 3]), integers(&[1, 1, 1, 0, 1, 1, 1, 1]), integers(&[0, 0, 1, 0, 0, 0, 0, 1])]
            .concat();
    let tensor =
        |name| json!({"name": name, "shape": [2, 4], "datatype": "INT64", "parameters": {"binary_data_size": 64}});
    let body = json!({
        "inputs": [tensor("input_ids"), tensor("attention_mask"), tensor("token_type_ids")],
        "parameters": {"binary_data_output": true},
    });
    let (json, values) = split(&ask_binary(&server, &body, &tail));
    assert_eq!(json["outputs"][0]["name"], "last_hidden_state");
    assert_eq!(json["outputs"][0]["shape"], json!([2, 4, 4]));
    let rows: Vec<_> = of_bytes(&values).chunks_exact(4).map(<[f32]>::to_vec).collect();
    for (row, id) in rows.iter().zip([Some(2), Some(6), Some(3), None, Some(2), Some(6), Some(7), Some(3)]) {
        assert_eq!(*row, id.map_or([0.0; 4], tiny::row));
    }
    // Texts are padded to the longest.
    let answer = ask(&server, &texts(&["cat", "the cat sat"])).json();
    assert_eq!(answer["outputs"][0]["shape"], json!([2, 5, 4]));
    assert_eq!(floats(&answer["outputs"][0]["data"])[12..20], [0.0; 8]);
}

#[test]
fn classes_by_value() {
    let server = Running::new(config(), vec![tiny::classifier(Problem::SingleLabel)]);
    let logits = mean(&[2, 6, 3]);
    let ids = json!({"name": "input_ids", "shape": [1, 3], "datatype": "INT32", "data": [2, 6, 3]});
    let body = |outputs: Value| json!({"inputs": [ids], "outputs": outputs});
    let answer = ask(&server, &body(json!([{"name": "logits"}]))).json();
    assert_eq!(floats(&answer["outputs"][0]["data"]), logits);
    let labels = ["negative", "neutral", "positive", "mixed"];
    let mut places = [0, 1, 2, 3];
    places.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let named: Vec<_> = places.map(|place| format!("{}:{place}:{}", logits[place], labels[place])).into();
    for (wanted, given) in [(1, 1), (2, 2), (9, 4)] {
        let answer = ask(&server, &body(json!([{"name": "output", "parameters": {"classification": wanted}}]))).json();
        let output = &answer["outputs"][0];
        assert_eq!((&output["datatype"], &output["shape"]), (&json!("BYTES"), &json!([1, given])));
        assert_eq!(output["data"], json!(named[..given]));
    }
    let wanted = json!([{"name": "logits", "parameters": {"classification": 2, "binary_data": true}}]);
    let (_, values) = split(&ask(&server, &body(wanted)));
    assert_eq!(values, packed(&[named[0].as_bytes(), named[1].as_bytes()]));
    let features = Running::new(config(), vec![tiny::features()]);
    let wanted = json!([{"name": "output", "parameters": {"classification": 1}}]);
    assert_eq!(ask(&features, &body(wanted)).status, 400);
}

#[test]
fn statistics_count() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    assert_eq!(ask(&server, &texts(&["a", "the cat", "dog"])).status, 200);
    assert_eq!(server.post("/embed", r#"{"inputs": "the cat"}"#).status, 200);
    let bad = json!({"inputs": [{"name": "input_ids", "shape": [1, 40], "datatype": "INT64", "data": vec![5; 40]}]});
    assert_eq!(ask(&server, &bad).status, 400);
    let stats = server.get("/v2/models/test/tiny/versions/1/stats").json()["model_stats"][0].clone();
    assert_eq!((&stats["name"], &stats["version"]), (&json!("test/tiny"), &json!("1")));
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&json!(4), &json!(2)));
    assert!(stats["last_inference"].as_u64().unwrap() > 1_600_000_000_000);
    for (name, count) in
        [("success", 2), ("fail", 1), ("queue", 2), ("compute_input", 2), ("compute_infer", 2), ("compute_output", 2)]
    {
        assert_eq!(stats["inference_stats"][name]["count"], count, "{name}");
        assert!(stats["inference_stats"][name]["ns"].as_u64().unwrap() > 0, "{name}");
    }
}

#[test]
fn json_that_is_no_request() {
    let server = Running::new(config(), vec![tiny::features()]);
    let input = |name: &str, shape: Value, datatype: &str, data: Value| {
        json!({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}).to_string()
    };
    let ids = |shape: Value, data: Value| input("input_ids", shape, "INT64", data);
    let masked = |mask: Value| {
        json!({"inputs": [
            {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "data": [2, 6, 3]},
            {"name": "attention_mask", "shape": [1, 3], "datatype": "INT64", "data": mask},
        ]})
        .to_string()
    };
    let bodies = [
        String::new(),
        "{".into(),
        "[]".into(),
        "{}".into(),
        r#"{"inputs": []}"#.into(),
        r#"{"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES"}]}"#.into(),
        input("TEXT", json!([2]), "BYTES", json!(["a"])),
        input("TEXT", json!([1]), "BYTES", json!(["a", "b"])),
        input("TEXT", json!([1, 2]), "BYTES", json!(["a", "b"])),
        input("TEXT", json!([]), "BYTES", json!(["a"])),
        input("TEXT", json!([0]), "BYTES", json!([])),
        input("TEXT", json!([-1]), "BYTES", json!(["a"])),
        input("TEXT", json!([i64::MAX, i64::MAX]), "BYTES", json!(["a"])),
        input("TEXT", json!([1]), "BYTES", json!([1])),
        input("TEXT", json!([1]), "FP32", json!([1])),
        input("TEXT", json!([1]), "INT64", json!([1])),
        input("TEXT", json!([1]), "BYTES", json!("a")),
        input("text", json!([1]), "BYTES", json!(["a"])),
        ids(json!([1, 4611686018427387904i64]), json!([1])),
        ids(json!([-1, -1]), json!([1])),
        ids(json!([3]), json!([2, 6, 3])),
        ids(json!([1, 0]), json!([])),
        ids(json!([0, 9223372036854775807i64]), json!([])),
        ids(json!([1, 3]), json!([2, 6, 95])),
        ids(json!([1, 3]), json!([2, 6, -1])),
        ids(json!([1, 3]), json!([2, 6, 4294967298i64])),
        ids(json!([1, 3]), json!([2, 6, 18446744073709551615u64])),
        ids(json!([1, 3]), json!([2, 6, 1.5])),
        ids(json!([1, 3]), json!([2, 6, "a"])),
        ids(json!([1, 3]), json!([2, 6, null])),
        ids(json!([1, 3]), json!([2, 6, true])),
        ids(json!([1, 3]), json!([2, 6, 3])).replace("3]}", "NaN]}"),
        ids(json!([1, 3]), json!([2, 6, 3])).replace("3]}", "1e999]}"),
        input("input_ids", json!([1, 1]), "INT32", json!([2147483648i64])),
        input("input_ids", json!([1, 1]), "BYTES", json!(["a"])),
        ids(json!([1, 33]), json!(vec![5; 33])),
        input("attention_mask", json!([1, 1]), "INT64", json!([1])),
        masked(json!([0, 1, 1])),
        masked(json!([1, 0, 1])),
        masked(json!([0, 0, 0])),
        masked(json!([1, 1, 2])),
        masked(json!([1, 1, 1])).replacen("[1,3]", "[3,1]", 1),
        masked(json!([1, 1, 1])).replace("attention_mask", "token_type_ids").replace("[1,1,1]", "[0,0,2]"),
        masked(json!([1, 1, 1])).replace("attention_mask", "input_ids"),
        masked(json!([1, 1, 1])).replace("attention_mask", "position_ids"),
        json!({"inputs": [
            {"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["a"]},
            {"name": "input_ids", "shape": [1, 1], "datatype": "INT64", "data": [5]},
        ]})
        .to_string(),
        r#"{"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "parameters": {"shared_memory_region": "a"}}]}"#.into(),
        r#"{"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}]}"#.into(),
        r#"{"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["a"]}], "outputs": [{"name": "x"}]}"#.into(),
        r#"{"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["a"]}], "outputs": [{"name": "output"}, {"name": "output"}]}"#.into(),
        r#"{"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["a"]}], "outputs": [{"name": "output", "parameters": {"classification": -1}}]}"#.into(),
    ];
    let mut answers = String::new();
    for body in &bodies {
        let answer = server.post(INFER, body);
        assert_eq!(answer.status, 400, "{body} {}", answer.body);
        answers += &format!("{body}\n  {}\n", answer.line());
    }
    insta::assert_snapshot!(answers);
    let deep = format!(r#"{{"inputs": [{{"name": "TEXT", "data": {}"#, "[".repeat(1_000_000));
    assert_eq!(server.post(INFER, &deep).status, 400);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn bytes_that_are_no_tensor() {
    let server = Running::new(config(), vec![tiny::features()]);
    let header = |shape: Value, datatype: &str, size: Value| {
        json!({"inputs": [
            {"name": "TEXT", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
        ]})
    };
    let text = packed(&[b"the cat"]);
    let mut answers = String::new();
    for (what, body, tail) in [
        ("truncated", header(json!([1]), "BYTES", json!(11)), &text[..8]),
        ("size over the body", header(json!([1]), "BYTES", json!(u64::MAX)), &text[..]),
        ("negative size", header(json!([1]), "BYTES", json!(-1)), &text[..]),
        ("rest", header(json!([1]), "BYTES", json!(11)), &[&text[..], b"x"].concat()),
        ("length over the tensor", header(json!([1]), "BYTES", json!(11)), b"\xff\xff\xff\xffthe cat"),
        ("half a length", header(json!([1]), "BYTES", json!(2)), b"\x01\x00"),
        ("not utf-8", header(json!([1]), "BYTES", json!(6)), b"\x02\x00\x00\x00\xff\xfe"),
        ("too few", header(json!([2]), "BYTES", json!(11)), &text[..]),
        ("too many", header(json!([1]), "BYTES", json!(22)), &[&text[..], &text[..]].concat()),
        ("none of 2^62", header(json!([1i64 << 62]), "BYTES", json!(0)), b""),
        ("integers that overflow", header(json!([1i64 << 61]), "INT64", json!(0)), b""),
        ("half an integer", header(json!([1]), "INT64", json!(11)), &text[..]),
        ("wrong type", header(json!([1]), "INT64", json!(8)), &text[..8]),
    ] {
        let answer = ask_binary(&server, &body, tail);
        assert_eq!(answer.status, 400, "{what} {}", answer.body);
        answers += &format!("{what}\n  {}\n", answer.line());
    }
    for length in ["1000", "-1", "x", "99999999999999999999999", ""] {
        let answer = server.connect().request("POST", INFER, &[(HEADER, length)], b"{}");
        assert_eq!(answer.status, 400, "{length}");
        answers += &format!("{HEADER}: {length}\n  {}\n", answer.line());
    }
    insta::assert_snapshot!(answers);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn padding_counts_as_reply() {
    let config = Config { max_reply_values: 100, max_inputs: 20, ..config() };
    let server = Running::new(config, vec![tiny::features()]);
    let ask = |rows: usize, length: usize| {
        let mask: Vec<_> = (0..rows * length).map(|index| u8::from(index % length == 0)).collect();
        let body = json!({"inputs": [
            {"name": "input_ids", "shape": [rows, length], "datatype": "INT64", "data": vec![5; rows * length]},
            {"name": "attention_mask", "shape": [rows, length], "datatype": "INT64", "data": mask},
        ]});
        ask(&server, &body)
    };
    assert_eq!(ask(2, 10).json()["outputs"][0]["shape"], json!([2, 10, 4]));
    assert_eq!(ask(2, 13).status, 413);
    assert_eq!(ask(21, 1).status, 413);
    // 7 texts of one token and one of 12 have 76 values, but 9 of the longest's length.
    let mut many = vec!["a"; 7];
    many.push("a a a a a a a a a a");
    assert_eq!(server.post(INFER, &texts(&many).to_string()).status, 413);
}

#[test]
fn models_of_such_names_are_told_apart() {
    let named = |id: &str, mut model: Model| {
        model.card.id = id.into();
        model
    };
    let models = vec![
        named("a/ready", tiny::embedder(true)),
        named("a", tiny::features()),
        named("a/versions/1", tiny::classifier(Problem::SingleLabel)),
    ];
    let server = Running::new(config(), models);
    for (path, key, value) in [
        ("/v2/models/a/ready", "name", json!("a/ready")),
        ("/v2/models/a/ready/ready", "ready", json!(true)),
        ("/v2/models/a/config", "name", json!("a")),
        ("/v2/models/a/versions/1", "name", json!("a/versions/1")),
        ("/v2/models/a/versions/1/versions/1", "name", json!("a/versions/1")),
    ] {
        assert_eq!(server.get(path).json()[key], value, "{path}");
    }
    assert_eq!(server.get("/v2/models/transformer_onnx_model").status, 404);
    let all = server.get("/v2/models/stats").json();
    assert_eq!(all["model_stats"].as_array().unwrap().len(), 3);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic_the_parser(
        head in "[\\[\\]{},:\"a0-9nul.eE+-]{0,40}",
        tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
        length in proptest::prelude::any::<usize>(),
    ) {
        let body = [head.as_bytes(), &tail].concat();
        let _ = InferRequest::parse(&body, None);
        let _ = InferRequest::parse(&body, Some(head.len()));
        let _ = InferRequest::parse(&body, Some(length));
    }
}
