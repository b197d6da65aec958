//! gRPC over real sockets: the Open Inference Protocol, health, reflection, and what is refused.

use std::{collections::HashMap, time::Duration};

use centuple_serve::{Config, InferRequest};
use centuple_tasks::{EngineError, Problem};
use prost::bytes::Bytes;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

use crate::harness::grpc::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use crate::harness::{
    Gate, Running, config,
    grpc::{self, Grpc, inference as oip},
    tiny,
};

fn packed(texts: &[&str]) -> Bytes {
    texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()).collect()
}

fn integers(values: &[i64]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor { name: name.into(), datatype: datatype.into(), shape: shape.into(), ..Default::default() }
}

fn request(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> ModelInferRequest {
    ModelInferRequest { model_name: "test/tiny".into(), inputs, raw_input_contents: raw, ..Default::default() }
}

fn texts(texts: &[&str]) -> ModelInferRequest {
    request(vec![input("TEXT", "BYTES", &[texts.len() as i64])], vec![packed(texts)])
}

fn contents(mut tensor: InferInputTensor, contents: InferTensorContents) -> InferInputTensor {
    tensor.contents = Some(contents);
    tensor
}

fn wanted(name: &str, classification: Option<ParameterChoice>) -> InferRequestedOutputTensor {
    let parameters = classification.map(|choice| {
        let parameter = InferParameter { parameter_choice: Some(choice) };
        HashMap::from([("classification".to_owned(), parameter)])
    });
    InferRequestedOutputTensor { name: name.into(), parameters: parameters.unwrap_or_default() }
}

/// The only output: name, type, shape and bytes.
fn only(response: &ModelInferResponse) -> (&str, &str, &[i64], &[u8]) {
    let ([output], [raw]) = (response.outputs.as_slice(), response.raw_output_contents.as_slice()) else {
        panic!("{response:?}")
    };
    (&output.name, &output.datatype, &output.shape, raw)
}

/// The same over HTTP, as bytes.
fn over_http(server: &Running, inputs: Value) -> Vec<u8> {
    let body = json!({"inputs": inputs, "parameters": {"binary_data_output": true}});
    let answer = server.post("/v2/models/test/tiny/infer", &body.to_string());
    let json: usize = answer.header("inference-header-content-length").expect("bytes").parse().unwrap();
    answer.bytes[json..].to_vec()
}

#[test]
fn what_is_told_of_server_and_models() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = grpc.inference();
        assert!(client.server_live(oip::ServerLiveRequest {}).await.unwrap().into_inner().live);
        assert!(client.server_ready(oip::ServerReadyRequest {}).await.unwrap().into_inner().ready);
        let told = client.server_metadata(oip::ServerMetadataRequest {}).await.unwrap().into_inner();
        let by_http = server.get("/v2").json();
        assert_eq!(json!({"name": told.name, "version": told.version, "extensions": told.extensions}), by_http);
        for (name, version, ready) in [
            ("test/tiny", "", true),
            ("test/tiny", "1", true),
            ("test/tiny", "2", false),
            ("other", "", false),
            ("transformer_onnx_model", "", true),
        ] {
            let asked = oip::ModelReadyRequest { name: name.into(), version: version.into() };
            assert_eq!(client.model_ready(asked).await.unwrap().into_inner().ready, ready, "{name} {version}");
        }
        for name in ["test/tiny", "transformer_onnx_model"] {
            let asked = oip::ModelMetadataRequest { name: name.into(), version: "1".into() };
            let told = client.model_metadata(asked).await.unwrap().into_inner();
            let tensor = |tensor: &oip::model_metadata_response::TensorMetadata| {
                json!({"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape})
            };
            let told = json!({
                "name": told.name, "versions": told.versions, "platform": told.platform,
                "inputs": told.inputs.iter().map(tensor).collect::<Vec<_>>(),
                "outputs": told.outputs.iter().map(tensor).collect::<Vec<_>>(),
            });
            assert_eq!(told, server.get(&format!("/v2/models/{name}")).json());
            let asked = oip::ModelConfigRequest { name: name.into(), version: String::new() };
            let config = client.model_config(asked).await.unwrap().into_inner().config.unwrap();
            let by_http = server.get(&format!("/v2/models/{name}/config")).json();
            assert_eq!(json!(config.max_batch_size), by_http["max_batch_size"]);
            assert_eq!(json!(config.backend), by_http["backend"]);
            for (tensor, by_http) in config.input.iter().zip(by_http["input"].as_array().unwrap()) {
                let told = json!({
                    "name": tensor.name, "data_type": tensor.data_type().as_str_name(), "dims": tensor.dims,
                });
                assert_eq!(&told, by_http);
            }
            assert_eq!(config.output[0].data_type(), oip::DataType::TypeFp32);
            assert_eq!(config.instance_group[0].kind(), oip::model_instance_group::Kind::Cpu);
        }
        let index = client.repository_index(oip::RepositoryIndexRequest::default()).await.unwrap().into_inner();
        assert_eq!((index.models[0].name.as_str(), index.models[0].state.as_str()), ("test/tiny", "READY"));
        let unknown = oip::ModelMetadataRequest { name: "other".into(), version: String::new() };
        let status = client.model_metadata(unknown).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(json!({"error": status.message()}), server.get("/v2/models/other").json());
    });
}

#[test]
fn texts_as_bytes_and_as_contents() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let expected = over_http(
        &server,
        json!([{"name": "TEXT", "shape": [2], "datatype": "BYTES", "data": ["the cat sat", "dog"]}]),
    );
    let both = ["the cat sat", "dog"];
    let bytes_contents = both.map(|text| Bytes::from_static(text.as_bytes())).into();
    let given = InferTensorContents { bytes_contents, ..Default::default() };
    let grpc = Grpc::new(&server);
    grpc.run(async {
        for asked in [
            texts(&both),
            request(vec![input("TEXT", "BYTES", &[2, 1])], vec![packed(&both)]),
            request(vec![contents(input("TEXT", "BYTES", &[2]), given)], vec![]),
        ] {
            let asked = ModelInferRequest { id: "7".into(), ..asked };
            let reply = grpc.inference().model_infer(asked).await.unwrap();
            let timing = reply.metadata().get("server-timing").unwrap().to_str().unwrap().to_owned();
            assert!(timing.contains("inference;dur="), "{timing}");
            assert!(reply.metadata().contains_key("x-request-id"));
            let reply = reply.into_inner();
            assert_eq!(only(&reply), ("output", "FP32", &[2, 4][..], &expected[..]));
            assert_eq!((reply.id.as_str(), reply.model_version.as_str()), ("7", "1"));
        }
    });
}

#[test]
fn tokens_of_every_type_and_form() {
    let server = Running::new(config(), vec![tiny::features()]);
    let (ids, mask) = ([2i64, 6, 3, 2, 3, 0], [1i64, 1, 1, 1, 1, 0]);
    let expected = over_http(
        &server,
        json!([
            {"name": "input_ids", "shape": [2, 3], "datatype": "INT64", "data": ids},
            {"name": "attention_mask", "shape": [2, 3], "datatype": "INT64", "data": mask},
        ]),
    );
    let named = |datatype| vec![input("input_ids", datatype, &[2, 3]), input("attention_mask", datatype, &[2, 3])];
    let four = |values: [i64; 6]| values.iter().flat_map(|value| (*value as i32).to_le_bytes()).collect::<Bytes>();
    let filled = |contents: [InferTensorContents; 2], datatype| {
        named(datatype).into_iter().zip(contents).map(|(tensor, given)| self::contents(tensor, given)).collect()
    };
    let long = [ids, mask].map(|values| InferTensorContents { int64_contents: values.into(), ..Default::default() });
    let short = [ids, mask].map(|values| InferTensorContents {
        int_contents: values.map(|value| value as i32).into(),
        ..Default::default()
    });
    let grpc = Grpc::new(&server);
    grpc.run(async {
        for asked in [
            request(named("INT64"), vec![integers(&ids), integers(&mask)]),
            request(named("INT32"), vec![four(ids), four(mask)]),
            request(filled(long, "INT64"), vec![]),
            request(filled(short, "INT32"), vec![]),
        ] {
            let reply = grpc.inference().model_infer(asked).await.unwrap().into_inner();
            assert_eq!(only(&reply), ("last_hidden_state", "FP32", &[2, 3, 4][..], &expected[..]));
        }
    });
}

#[test]
fn classes_of_a_classifier() {
    let server = Running::new(config(), vec![tiny::classifier(Problem::SingleLabel)]);
    let body = json!({
        "inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["the cat"]}],
        "outputs": [{"name": "logits", "parameters": {"classification": 2}}],
    });
    let names = server.post("/v2/models/test/tiny/infer", &body.to_string()).json()["outputs"][0]["data"].clone();
    let names: Vec<String> = serde_json::from_value(names).unwrap();
    let expected = packed(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let grpc = Grpc::new(&server);
    grpc.run(async {
        for choice in [ParameterChoice::Int64Param(2), ParameterChoice::Uint64Param(2)] {
            let mut asked = texts(&["the cat"]);
            asked.outputs = vec![wanted("logits", Some(choice))];
            let reply = grpc.inference().model_infer(asked).await.unwrap().into_inner();
            assert_eq!(only(&reply), ("logits", "BYTES", &[1, 2][..], &expected[..]));
        }
    });
}

/// The message that a request fails with.
async fn refused(grpc: &Grpc, asked: ModelInferRequest, code: Code) -> String {
    let status = grpc.inference().model_infer(asked).await.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    status.message().to_owned()
}

#[test]
fn tensors_that_lie() {
    let server = Running::new(config(), vec![tiny::features()]);
    let text = packed(&["the cat"]);
    let one = |shape: &[i64], datatype: &str, raw: &[u8]| {
        request(vec![input("TEXT", datatype, shape)], vec![Bytes::copy_from_slice(raw)])
    };
    let ids = |shape: &[i64], raw: Bytes| request(vec![input("input_ids", "INT64", shape)], vec![raw]);
    let given = |tensor, contents: InferTensorContents| request(vec![self::contents(tensor, contents)], vec![]);
    let ints = |ints: &[i32]| InferTensorContents { int_contents: ints.into(), ..Default::default() };
    let longs = |longs: &[i64]| InferTensorContents { int64_contents: longs.into(), ..Default::default() };
    let mut both = given(input("TEXT", "BYTES", &[1]), longs(&[1]));
    both.raw_input_contents.push(text.clone());
    let mut shared = one(&[1], "BYTES", b"");
    shared.inputs[0].parameters.insert("shared_memory_region".into(), InferParameter::default());
    let asking = |outputs| ModelInferRequest { outputs, ..texts(&["a"]) };
    let cases = [
        ("no input", request(vec![], vec![])),
        ("nothing in it", request(vec![input("TEXT", "BYTES", &[1])], vec![])),
        ("no raw element", request(vec![input("TEXT", "BYTES", &[1]); 2], vec![text.clone()])),
        ("raw without inputs", request(vec![], vec![text.clone()])),
        ("both forms", both),
        ("truncated", one(&[1], "BYTES", &text[..8])),
        ("length over the tensor", one(&[1], "BYTES", b"\xff\xff\xff\xffthe cat")),
        ("half a length", one(&[1], "BYTES", b"\x01\x00")),
        ("rest", one(&[1], "BYTES", &[&text[..], b"x"].concat())),
        ("too few", one(&[2], "BYTES", &text)),
        ("too many", one(&[1], "BYTES", &[&text[..], &text[..]].concat())),
        ("not utf-8", one(&[1], "BYTES", b"\x02\x00\x00\x00\xff\xfe")),
        ("none of 2^62", one(&[1 << 62], "BYTES", b"")),
        ("a huge shape", one(&[i64::MAX, i64::MAX], "BYTES", b"")),
        ("a negative one", one(&[-1], "BYTES", &text)),
        ("no rank", one(&[], "BYTES", &text)),
        ("a float", one(&[1], "FP32", b"\0\0\0\0")),
        ("integers as text", one(&[1], "INT64", &5i64.to_le_bytes())),
        ("integers that overflow", ids(&[1 << 61], Bytes::new())),
        ("half an integer", ids(&[1, 1], Bytes::from_static(b"\0\0\0\0"))),
        ("lists of no text", ids(&[0, i64::MAX], Bytes::new())),
        ("an unknown token", ids(&[1, 1], integers(&[95]))),
        ("a negative token", ids(&[1, 1], integers(&[-1]))),
        ("too long", ids(&[1, 33], integers(&[5; 33]))),
        ("texts for integers", given(input("input_ids", "INT64", &[1, 1]), ints(&[5]))),
        ("long for short", given(input("input_ids", "INT32", &[1, 1]), longs(&[1 << 31]))),
        ("fewer contents", given(input("input_ids", "INT64", &[1, 2]), longs(&[5]))),
        ("the same twice", request(vec![input("TEXT", "BYTES", &[1]); 2], vec![text.clone(), text.clone()])),
        ("an unknown name", request(vec![input("text", "BYTES", &[1])], vec![text.clone()])),
        ("nine inputs", request(vec![input("TEXT", "BYTES", &[1]); 9], vec![])),
        ("ten thousand outputs", asking(vec![wanted("output", None); 10_000])),
        ("shared memory", shared),
        ("an unknown output", asking(vec![wanted("x", None)])),
        ("an output twice", asking(vec![wanted("output", None); 2])),
        ("classes as text", asking(vec![wanted("output", Some(ParameterChoice::StringParam("2".into())))])),
        ("classes of tokens", asking(vec![wanted("output", Some(ParameterChoice::Int64Param(2)))])),
    ];
    let grpc = Grpc::new(&server);
    let mut told = String::new();
    grpc.run(async {
        for (what, asked) in cases {
            told += &format!("{what}\n  {}\n", refused(&grpc, asked, Code::InvalidArgument).await);
        }
        let other = ModelInferRequest { model_name: "other".into(), ..texts(&["a"]) };
        refused(&grpc, other, Code::NotFound).await;
        let second = ModelInferRequest { model_version: "2".into(), ..texts(&["a"]) };
        refused(&grpc, second, Code::NotFound).await;
        let named = InferInputTensor { name: "é\n".repeat(100_000), ..input("", "BYTES", &[1]) };
        let message = refused(&grpc, request(vec![named], vec![text.clone()]), Code::InvalidArgument).await;
        assert!(message.len() < 5000);
        assert!(grpc.inference().model_infer(texts(&["a"])).await.is_ok());
    });
    insta::assert_snapshot!(told);
}

#[test]
fn limits_hold() {
    let config = Config { max_body_bytes: 10_000, max_reply_values: 100, max_inputs: 20, ..config() };
    let server = Running::new(config, vec![tiny::features()]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let large = "a".repeat(10_000);
        for asked in [texts(&[&large]), texts(&["a"; 21]), texts(&["a b c d"; 10])] {
            let status = grpc.inference().model_infer(asked).await.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
        }
        // A message that is small until it is unpacked.
        let mut client = grpc.raw();
        let bomb = grpc::compressed(&vec![0; 1_000_000]);
        assert!(bomb.len() < 5000);
        let status = client.post("ModelInfer", &[("grpc-encoding", "gzip")], vec![bomb]).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        // One that says it is larger than it may be.
        let status = client.post("ModelInfer", &[], vec![b"\0\xff\xff\xff\xff".to_vec()]).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(grpc.inference().model_infer(texts(&["a"])).await.is_ok());
    });
}

#[test]
fn bytes_that_are_no_message() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = grpc.raw();
        let gzip = ("grpc-encoding", "gzip");
        for (what, headers, chunks, code) in [
            ("nothing", vec![], vec![], Code::InvalidArgument),
            ("half a header", vec![], vec![b"\0\0".to_vec()], Code::InvalidArgument),
            ("half a message", vec![], vec![b"\0\0\0\0\x09abc".to_vec()], Code::InvalidArgument),
            ("two messages", vec![], vec![b"\0\0\0\0\0".to_vec(); 2], Code::InvalidArgument),
            ("no protobuf", vec![], vec![b"\0\0\0\0\x03\xff\xff\xff".to_vec()], Code::InvalidArgument),
            ("an unknown flag", vec![], vec![b"\x02\0\0\0\0".to_vec()], Code::InvalidArgument),
            ("packed by nothing", vec![], vec![b"\x01\0\0\0\0".to_vec()], Code::InvalidArgument),
            ("packed badly", vec![gzip], vec![b"\x01\0\0\0\x02\x1f\x8b".to_vec()], Code::InvalidArgument),
            ("packed strangely", vec![("grpc-encoding", "br")], vec![b"\0\0\0\0\0".to_vec()], Code::Unimplemented),
            ("no time", vec![("grpc-timeout", "soon")], vec![b"\0\0\0\0\0".to_vec()], Code::InvalidArgument),
        ] {
            let status = client.post("ModelInfer", &headers, chunks).await;
            assert_eq!(status.code(), code, "{what}: {status}");
            assert!(!status.message().is_empty());
        }
        assert_eq!(client.post("NoSuchCall", &[], vec![]).await.code(), Code::Unimplemented);
        let json = [("content-type", "application/json")];
        assert_eq!(client.http("/inference.GRPCInferenceService/ModelInfer", &json).await, 415);
        assert_eq!(client.http("/grpc.health.v1.Health/Check", &json).await, 415);
    });
    let by_http1 = server.post("/inference.GRPCInferenceService/ModelInfer", "{}");
    assert_eq!(by_http1.status, 415, "{}", by_http1.body);
}

#[test]
fn a_message_that_stops_half_way_is_given_up() {
    let config = Config { body_timeout: Duration::from_millis(50), ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        for call in ["ModelInfer", "ModelStreamInfer"] {
            for piece in [&b"\0\0"[..], b"\0\0\0\0\x09abc"] {
                let status = grpc.raw().stalling().post(call, &[], vec![piece.to_vec()]).await;
                assert_eq!(status.code(), Code::DeadlineExceeded, "{call}: {status}");
            }
        }
        let status = grpc.raw().stalling().post("ModelInfer", &[], vec![]).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    });
}

#[test]
fn compressed_messages_are_read() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let frame = grpc::compressed(&prost::Message::encode_to_vec(&texts(&["the cat"])));
        let mut client = grpc.raw();
        // Byte by byte, so that no part comes whole.
        let chunks: Vec<_> = frame.chunks(1).map(<[u8]>::to_vec).collect();
        for encoding in ["gzip", "deflate"] {
            let status = client.post("ModelInfer", &[("grpc-encoding", encoding)], chunks.clone()).await;
            assert_eq!(status.code(), Code::Ok, "{status}");
        }
    });
}

#[test]
fn a_key_is_asked_for() {
    let config = Config { api_keys: "secret".parse().unwrap(), ..config() };
    let server = Running::new(config, vec![tiny::embedder(true)]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let with = |key: Option<&str>| {
            let mut request = Request::new(texts(&["a"]));
            if let Some(key) = key {
                request.metadata_mut().insert("authorization", key.parse().unwrap());
            }
            request
        };
        for key in [None, Some("Bearer wrong"), Some("secret")] {
            let status = grpc.inference().model_infer(with(key)).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        }
        assert!(grpc.inference().model_infer(with(Some("Bearer secret"))).await.is_ok());
        assert!(grpc.inference().server_ready(oip::ServerReadyRequest {}).await.is_ok());
        assert_eq!(grpc.health("").await.unwrap(), 1);
        assert_eq!(grpc.raw().post("NoSuchCall", &[], vec![]).await.code(), Code::Unauthenticated);
    });
}

#[test]
fn health_of_server_services_and_models() {
    let mut server = Running::new(config(), vec![tiny::embedder(true)]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        for name in ["", "inference.GRPCInferenceService", "test/tiny"] {
            assert_eq!(grpc.health(name).await.unwrap(), 1, "{name}");
        }
        assert_eq!(grpc.health("other").await.unwrap_err().code(), Code::NotFound);
        let mut watched = grpc.watch("test/tiny").await;
        let mut unknown = grpc.watch("other").await;
        assert_eq!(watched.message().await.unwrap().unwrap().status, 1);
        assert_eq!(unknown.message().await.unwrap().unwrap().status, 3);
        server.stop();
        assert_eq!(watched.message().await.unwrap().unwrap().status, 2);
        assert_eq!(watched.message().await.unwrap_err().code(), Code::Unavailable);
    });
    assert!(server.end().is_ok());
}

#[test]
fn reflection_of_either_version() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        for (services, files) in [grpc.reflect_v1().await, grpc.reflect_v1alpha().await] {
            for name in ["inference.GRPCInferenceService", "tei.v1.Embed", "grpc.health.v1.Health"] {
                assert!(services.iter().any(|service| service == name), "{services:?}");
            }
            assert!(files > 0);
        }
    });
}

#[test]
fn deadlines_and_clients_that_go() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(config(), interfere);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let first = grpc.spawn(texts(&["a"]));
        gate.batch();
        // No client's own clock is to end it.
        let status = grpc.raw().infer(texts(&["the cat"]), "50m").await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        gate.release();
        assert!(first.await.unwrap().is_ok());
    });
    drop(gate);
    drop(grpc);
    assert!(server.end().is_ok());
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(Config { max_queued_requests: 1, ..config() }, interfere);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let first = grpc.spawn(texts(&["a"]));
        gate.batch();
        let second = grpc.spawn(texts(&["a"]));
        let status = loop {
            // Until the second one waits, one more may.
            match grpc.raw().infer(texts(&["a"]), "100m").await {
                status if status.code() == Code::ResourceExhausted => break status,
                _ => {}
            }
        };
        assert!(status.metadata().contains_key("retry-after"));
        assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
        drop(gate);
        assert!(first.await.unwrap().is_ok());
        let _ = second.await.unwrap();
    });
}

#[test]
fn an_engine_that_fails_or_panics_harms_one_batch() {
    let server = Running::interfered(
        config(),
        Box::new(|batch, _| match batch[0].ids.len() {
            3 => Err(EngineError::Contract("broken".into())),
            4 => panic!("the engine panics"),
            _ => Ok(()),
        }),
    );
    let grpc = Grpc::new(&server);
    grpc.run(async {
        refused(&grpc, texts(&["a"]), Code::Internal).await;
        refused(&grpc, texts(&["the cat"]), Code::Internal).await;
        assert!(grpc.inference().model_infer(texts(&["the cat sat"])).await.is_ok());
    });
    assert_eq!(server.metric("te_request_count"), 3.0);
    assert_eq!(server.metric("te_request_success"), 1.0);
    assert_eq!(server.metric("te_request_failure{err=\"engine\"}"), 2.0);
}

#[test]
fn a_stream_keeps_its_order_and_outlives_a_bad_message() {
    let server = Running::new(config(), vec![tiny::embedder(true)]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let messages: Vec<_> = (0..500)
            .map(|number| {
                let asked = match number % 50 {
                    49 => texts(&[]),
                    _ => texts(&[["the cat sat", "dog", "a"][number % 3]]),
                };
                ModelInferRequest { id: number.to_string(), ..asked }
            })
            .collect();
        let mut alone = Vec::new();
        for asked in &messages[..3] {
            alone.push(grpc.inference().model_infer(asked.clone()).await.unwrap().into_inner().raw_output_contents);
        }
        let mut replies = grpc.inference().model_stream_infer(tokio_stream::iter(messages)).await.unwrap().into_inner();
        for number in 0..500 {
            let reply = replies.message().await.unwrap().unwrap();
            let response = reply.infer_response.unwrap();
            assert_eq!(response.id, number.to_string());
            match number % 50 {
                49 => assert!(!reply.error_message.is_empty()),
                _ => assert_eq!(response.raw_output_contents, alone[number % 3]),
            }
        }
        assert!(replies.message().await.unwrap().is_none());
    });
    assert_eq!(server.metric("te_request_count"), 503.0);
    assert_eq!(server.metric("te_request_success"), 493.0);
}

#[test]
fn a_cancelled_stream_leaves_nothing_behind() {
    let (gate, interfere) = Gate::new();
    // Each batch has one message.
    let server = Running::interfered(Config { max_batch_tokens: 3, ..config() }, interfere);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let (messages, receiver) = tokio::sync::mpsc::channel(1000);
        for _ in 0..1000 {
            messages.send(texts(&["a"])).await.unwrap();
        }
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let replies = grpc.inference().model_stream_infer(stream).await.unwrap();
        gate.batch();
        server.await_queue(127);
        drop(replies);
    });
    gate.release();
    let mut batches = 1;
    while server.metric("te_queue_size") > 0.0 {
        if gate.batches.try_recv().is_ok() {
            batches += 1;
            gate.release();
        }
    }
    assert!(batches < 64, "{batches} messages were computed for nobody");
    // Until the server knows that the stream is cancelled, each answer lets one more message in.
    assert!((128.0..=128.0 + f64::from(batches)).contains(&server.metric("te_request_count")));
    drop(gate);
    drop(grpc);
    assert!(server.end().is_ok());
}

#[test]
fn an_open_stream_does_not_hold_up_the_end() {
    let mut server = Running::new(config(), vec![tiny::embedder(true)]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let (messages, receiver) = tokio::sync::mpsc::channel(1);
        messages.send(texts(&["a"])).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut replies = grpc.inference().model_stream_infer(stream).await.unwrap().into_inner();
        assert!(replies.message().await.unwrap().is_some());
        server.stop();
        let status: Status = replies.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    });
    assert!(server.end().is_ok());
}

proptest::proptest! {
    #[test]
    fn no_damage_to_a_message_panics_the_parser(
        changes in proptest::collection::vec((proptest::prelude::any::<usize>(), proptest::prelude::any::<u8>()), 0..6),
        length in 0usize..200,
    ) {
        let tensors = request(
            vec![input("TEXT", "BYTES", &[1, 1]), contents(input("input_ids", "INT64", &[2]), InferTensorContents {
                int64_contents: vec![5, -1], ..Default::default()
            })],
            vec![packed(&["the cat"]), Bytes::new()],
        );
        let mut message = prost::Message::encode_to_vec(&tensors);
        for (place, byte) in changes {
            let place = place % message.len();
            message[place] = byte;
        }
        message.truncate(length);
        let _ = InferRequest::parse_message(&message);
    }
}
