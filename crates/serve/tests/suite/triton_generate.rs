//! Triton's ways to have a text generated: `generate` and `generate_stream` over HTTP, `ModelStreamInfer` over gRPC.

use serde_json::{Value, json};

use crate::harness::generating::generating;
use crate::harness::grpc::{
    Grpc,
    inference::{
        InferParameter, InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelInferResponse,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    },
};
use crate::harness::{Running, config, tiny};

const MODEL: &str = "/v2/models/test/tiny";

fn server() -> Running {
    Running::with_models(config(), vec![generating(None)])
}

fn events(server: &Running, path: &str, body: &Value) -> Vec<Value> {
    let mut client = server.connect();
    client.begin("POST", path, &[], body.to_string().as_bytes());
    let head = client.head().expect("a response");
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let read = |event: &str| serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
    client.chunks().split_terminator("\n\n").map(read).collect()
}

fn texts(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["text_output"].as_str().expect("a text")).collect()
}

#[test]
fn generate_has_one_reply() {
    let server = server();
    let reply = |text: &str| json!({"model_name": "test/tiny", "model_version": "1", "text_output": text});
    for body in [
        json!({"text_input": "dog", "parameters": {"max_tokens": 4, "stream": false, "temperature": 0}}),
        json!({"text_input": "dog", "max_tokens": 4, "bad_words_ids": null, "stop_words": ""}),
        json!({"text_input": "dog", "parameters": {"max_new_tokens": 4, "exclude_input_in_output": true}}),
    ] {
        for path in ["/generate", "/versions/1/generate"] {
            let response = server.post(&format!("{MODEL}{path}"), &body.to_string());
            assert_eq!((response.status, response.json()), (200, reply(" a the cat")), "{body}");
        }
    }
    let ask = |body: Value| server.post(&format!("{MODEL}/generate"), &body.to_string());
    let body = json!({"id": "7", "text_input": "dog", "max_tokens": 4, "exclude_input_in_output": false, "stop_words": ["cat"]});
    let mut expected = reply("dog a the ");
    expected["id"] = json!("7");
    assert_eq!(ask(body).json(), expected);
    let two = ask(json!({"text_input": "dog", "max_tokens": 2, "num_beams": 2, "num_return_sequences": 2}));
    assert_eq!(two.json()["text_output"].as_array().map(Vec::len), Some(2), "{}", two.body);
    for (body, reason) in [
        (json!({"text_input": "dog", "parameters": {"stream": true}}), "generate_stream"),
        (json!({"text_input": "dog", "max_tokens": 3, "max_new_tokens": 4}), "mean the same"),
        (json!({"text_input": "dog", "parameters": {"no_such": 1}}), "no_such"),
        (json!({"parameters": {}}), "text_input"),
        (json!({"text_input": "dog", "stream": 1}), "true or false"),
    ] {
        let response = ask(body);
        assert_eq!(response.status, 400, "{}", response.body);
        assert!(response.json()["error"].as_str().is_some_and(|error| error.contains(reason)), "{}", response.body);
    }
    assert_eq!(server.post("/v2/models/other/generate", "{}").status, 404);
    assert_eq!(server.get(&format!("{MODEL}/generate")).status, 405);
    let plain = Running::new(config(), vec![tiny::embedder(true)]);
    assert_eq!(plain.post(&format!("{MODEL}/generate"), r#"{"text_input": "dog"}"#).status, 400);
}

#[test]
fn generate_stream_has_an_event_for_each_part() {
    let server = server();
    let path = format!("{MODEL}/generate_stream");
    let body = |more: Value| {
        let mut body = json!({"text_input": "dog", "parameters": {"max_tokens": 4}});
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        body
    };
    let parts = events(&server, &path, &body(json!({"id": "a"})));
    assert_eq!(texts(&parts), [" a", " the", " cat"]);
    assert!(parts.iter().all(|event| event["id"] == "a" && event["model_name"] == "test/tiny"));
    let whole = events(&server, &path, &body(json!({"stream": false})));
    assert_eq!(texts(&whole), [" a the cat"]);
    let full = events(&server, &path, &body(json!({"exclude_input_in_output": false, "stream": true})));
    assert_eq!(texts(&full).concat(), "dog a the cat");
    let many = body(json!({"num_beams": 2, "num_return_sequences": 2}));
    assert_eq!(server.post(&path, &many.to_string()).status, 400);
}

fn choice(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

/// A message whose inputs are bytes behind it.
fn message(id: &str, text: &str, stream: bool, parameters: &[(&str, ParameterChoice)]) -> ModelInferRequest {
    let input = |name: &str, datatype: &str| InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: vec![1],
        ..InferInputTensor::default()
    };
    let packed = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    ModelInferRequest {
        model_name: "test/tiny".into(),
        id: id.into(),
        inputs: vec![input("text_input", "BYTES"), input("stream", "BOOL"), input("sampling_parameters", "BYTES")],
        raw_input_contents: vec![
            packed(text).into(),
            vec![u8::from(stream)].into(),
            packed(r#"{"max_tokens": 4}"#).into(),
        ],
        parameters: parameters.iter().map(|(name, value)| (name.to_string(), choice(value.clone()))).collect(),
        ..ModelInferRequest::default()
    }
}

fn text_of(response: &ModelInferResponse) -> Option<String> {
    let bytes = response.raw_output_contents.first()?;
    assert_eq!((response.outputs[0].name.as_str(), response.outputs[0].datatype.as_str()), ("text_output", "BYTES"));
    String::from_utf8(bytes[4..].to_vec()).ok()
}

fn is_final(response: &ModelInferResponse) -> bool {
    let flag = response.parameters["triton_final_response"].parameter_choice.clone();
    flag == Some(ParameterChoice::BoolParam(true))
}

#[test]
fn messages_of_grpc_are_answered_part_by_part() {
    let server = server();
    let grpc = Grpc::new(&server);
    let empty = [("triton_enable_empty_final_response", ParameterChoice::BoolParam(true))];
    let bare = ModelInferRequest {
        model_name: "test/tiny".into(),
        id: "bare".into(),
        inputs: vec![InferInputTensor {
            name: "text_input".into(),
            datatype: "BYTES".into(),
            shape: vec![1, 1],
            contents: Some(InferTensorContents {
                bytes_contents: vec![b"dog".to_vec().into()],
                ..InferTensorContents::default()
            }),
            ..InferInputTensor::default()
        }],
        parameters: [("max_tokens".to_owned(), choice(ParameterChoice::Int64Param(3)))].into(),
        ..ModelInferRequest::default()
    };
    let wrong = ModelInferRequest { id: "wrong".into(), inputs: Vec::new(), ..bare.clone() };
    let asked = [message("parts", "dog", true, &[]), message("whole", "dog", false, &empty), wrong, bare];
    let (responses, decoupled, names) = grpc.run(async {
        let mut client = grpc.inference();
        let mut stream = client.model_stream_infer(tokio_stream::iter(asked)).await.expect("a stream").into_inner();
        let mut responses = Vec::new();
        while let Some(response) = stream.message().await.expect("a message") {
            responses.push((response.error_message, response.infer_response.expect("a response")));
        }
        let config = client.model_config(ModelConfigRequest { name: "test/tiny".into(), version: String::new() });
        let config = config.await.expect("a configuration").into_inner().config.expect("one");
        let names: Vec<String> = config.input.iter().map(|input| input.name.clone()).collect();
        (responses, config.model_transaction_policy.expect("a policy").decoupled, names)
    });
    assert!(decoupled && names[0] == "text_input", "{names:?}");
    let of = |id: &str| responses.iter().filter(|(_, response)| response.id == id).collect::<Vec<_>>();
    let parts = of("parts");
    let told: Vec<_> = parts.iter().filter_map(|(_, response)| text_of(response)).collect();
    assert_eq!(told, [" a", " the", " cat"]);
    let finals: Vec<bool> = parts.iter().map(|(_, response)| is_final(response)).collect();
    assert_eq!(finals, [false, false, true]);
    let whole: Vec<_> = of("whole").iter().map(|(_, response)| (text_of(response), is_final(response))).collect();
    assert_eq!(whole, [(Some(" a the cat".to_owned()), false), (None, true)]);
    assert!(of("wrong")[0].0.contains("`text_input`"), "{responses:?}");
    assert_eq!(of("bare").iter().filter_map(|(_, response)| text_of(response)).collect::<String>(), " a the");
}

#[test]
fn who_ends_the_call_frees_the_pages() {
    let (leave, wait) = std::sync::mpsc::channel();
    let server = Running::with_models(config(), vec![generating(Some(wait))]);
    let grpc = Grpc::new(&server);
    grpc.run(async {
        let mut client = grpc.inference();
        let (sender, messages) = tokio::sync::mpsc::channel(1);
        sender.send(message("long", "dog", true, &[])).await.expect("room");
        let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
        let stream = client.model_stream_infer(messages).await.expect("a stream").into_inner();
        server.await_metric("te_generation_running", 1.0);
        drop((stream, sender));
    });
    server.await_metric("te_kv_pages_used", 0.0);
    drop(leave);
}
