//! `/v1/chat/completions` over real sockets: replies, streams, refusals.

use serde_json::{Value, json};

use crate::harness::generating::{generating, talking};
use crate::harness::{Running, config};

/// Writes texts as they are, before [SEP], whose successors are [MASK], `a`, `the`, `cat`.
const TEMPLATE: &str = "{% for message in messages %}{% if message.role == 'cook' %}{{ raise_exception('cooks are mute') }}\
                        {% endif %}{{ message.content }} {% endfor %}{{ extra }}{{ sep_token if add_generation_prompt }}";

const PATH: &str = "/v1/chat/completions";

fn server() -> Running {
    Running::with_models(config(), vec![talking(TEMPLATE)])
}

/// A body that asks for the likeliest tokens.
fn body(more: Value) -> Value {
    let mut body =
        json!({"model": "any", "messages": [{"role": "user", "content": "dog"}], "temperature": 0, "max_tokens": 4});
    body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    body
}

fn ask(server: &Running, more: Value) -> Value {
    let response = server.post(PATH, &body(more).to_string());
    assert_eq!(response.status, 200, "{}", response.body);
    response.json()
}

fn events(server: &Running, more: Value) -> Vec<Value> {
    let mut client = server.connect();
    let mut body = body(more);
    body["stream"] = json!(true);
    client.begin("POST", PATH, &[], body.to_string().as_bytes());
    let head = client.head().expect("a response");
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let text = client.chunks();
    let text = text.strip_suffix("data: [DONE]\n\n").expect("an end");
    let read = |event: &str| serde_json::from_str(event.strip_prefix("data: ").expect("data")).expect("JSON");
    text.split_terminator("\n\n").map(read).collect()
}

#[test]
fn a_conversation_is_answered() {
    let server = server();
    for path in [PATH, "/openai/v1/chat/completions"] {
        let mut reply = server.post(path, &body(json!({})).to_string()).json();
        assert!(reply["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")) && reply["created"].is_u64());
        (reply["id"], reply["created"]) = (Value::Null, Value::Null);
        let message = json!({"role": "assistant", "content": " a the cat"});
        let expected = json!({
            "id": null, "object": "chat.completion", "created": null, "model": "test/tiny",
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": "length"}],
            // No special tokens beside those of the template.
            "usage": {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6},
        });
        assert_eq!(reply, expected);
    }
}

#[test]
fn what_a_body_says_counts() {
    let server = server();
    let messages = json!([
        {"role": "developer", "content": "the"},
        {"role": "user", "content": [{"type": "text", "text": "cat"}, {"type": "text", "text": "sat"}]},
    ]);
    let reply = ask(&server, json!({"messages": messages, "chat_template_kwargs": {"extra": "mat "}}));
    assert_eq!(reply["usage"]["prompt_tokens"], json!(5));
    let reply =
        ask(&server, json!({"stop": ["cat"], "user": "me", "tools": [], "tool_choice": "auto", "metadata": {}}));
    let choice = &reply["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(" a the "), &json!("stop")));
    let reply = ask(&server, json!({"max_tokens": null, "max_completion_tokens": null}));
    assert_eq!(reply["usage"], json!({"prompt_tokens": 2, "completion_tokens": 30, "total_tokens": 32}));
    let draws = json!({"temperature": null, "n": 3, "seed": -5, "max_completion_tokens": 6, "logit_bias": {"4": -100}});
    let reply = ask(&server, draws.clone());
    assert_eq!((reply["choices"].as_array().map(Vec::len), &reply["choices"][2]["index"]), (Some(3), &json!(2)));
    assert_eq!(ask(&server, draws)["choices"], reply["choices"]);
}

#[test]
fn probabilities_are_those_of_the_text() {
    let reply = ask(&server(), json!({"logprobs": true, "top_logprobs": 2}));
    let tokens = reply["choices"][0]["logprobs"]["content"].as_array().expect("a list").clone();
    let texts: Vec<&str> = tokens.iter().filter_map(|token| token["token"].as_str()).collect();
    // [MASK] is no part of it.
    assert_eq!(texts, [" a", " the", " cat"]);
    // One logit of 5 among 94 of 0.
    let expected = 5.0 - (5f64.exp() + 94.0).ln();
    for token in &tokens {
        assert!((token["logprob"].as_f64().expect("a number") - expected).abs() < 1e-5, "{token}");
        assert_eq!(token["top_logprobs"].as_array().map(Vec::len), Some(2));
        assert_eq!(token["bytes"], json!(token["token"].as_str().expect("a text").as_bytes()));
    }
    assert!(ask(&server(), json!({}))["choices"][0]["logprobs"].is_null());
}

#[test]
fn streams_are_the_whole_in_parts() {
    let server = server();
    let more = json!({"stream_options": {"include_usage": true}, "logprobs": true});
    let events = events(&server, more);
    let (usage, events) = events.split_last().expect("events");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"], json!({"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}));
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk" && event["id"] == usage["id"]));
    let choices: Vec<&Value> = events.iter().map(|event| &event["choices"][0]).collect();
    assert_eq!(choices[0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: String = choices.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
    let told = choices.iter().filter_map(|choice| choice["logprobs"]["content"].as_array()).flatten();
    let told: String = told.filter_map(|token| token["token"].as_str()).collect();
    assert_eq!((text.as_str(), told.as_str()), (" a the cat", " a the cat"));
    let (last, before) = choices.split_last().expect("choices");
    assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &json!("length")));
    assert!(before.iter().all(|choice| choice["finish_reason"].is_null()));
}

#[test]
fn each_answer_of_a_stream_has_its_index() {
    let more = json!({"n": 2, "temperature": 1, "seed": 3, "max_tokens": 5});
    let whole = ask(&server(), more.clone());
    let events = events(&server(), more);
    for index in 0..2 {
        let own = events.iter().map(|event| &event["choices"][0]).filter(|choice| choice["index"] == json!(index));
        let text: String = own.clone().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(whole["choices"][index]["message"]["content"], json!(text));
        assert_eq!(own.filter(|choice| choice["delta"]["role"] == "assistant").count(), 1);
    }
}

#[test]
fn what_can_not_be_is_refused_in_the_words_of_openai() {
    let server = server();
    let image = json!([{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}]);
    let tool = json!({"type": "function", "function": {"name": "look"}});
    for (more, param, reason) in [
        (json!({"messages": []}), Some("messages"), "empty list"),
        (
            json!({"messages": [{"role": "user", "content": image}]}),
            Some("messages"),
            "type `image_url` are not supported",
        ),
        (json!({"messages": [{"role": "cook", "content": "hi"}]}), Some("messages"), "cooks are mute"),
        (json!({"messages": [{"role": "tool", "content": "hi"}]}), Some("messages"), "role `tool` is not supported"),
        (json!({"tools": [tool]}), Some("tools"), "`tools` is not supported"),
        (json!({"tool_choice": "required"}), Some("tool_choice"), "`tool_choice` is not supported"),
        (json!({"modalities": ["text", "audio"]}), Some("modalities"), "`modalities` is not supported"),
        (json!({"logprobs": true, "top_logprobs": 21}), Some("top_logprobs"), "at most 20"),
        (json!({"chat_template": "rag"}), Some("messages"), "no chat template `rag`; it has default"),
        (json!({"max_tokens": 40}), None, "40 new ones"),
        (json!({"temprature": 1}), None, "temprature"),
        (json!({"response_format": {"type": "xml"}}), Some("response_format"), "xml"),
    ] {
        let response = server.post(PATH, &body(more).to_string());
        assert_eq!(response.status, 400, "{reason}: {}", response.body);
        let error = &response.json()["error"];
        assert_eq!((&error["type"], error["param"].as_str()), (&json!("invalid_request_error"), param), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(reason)), "{reason}: {error}");
    }
    let mute = Running::with_models(config(), vec![generating(None)]);
    let response = mute.post(PATH, &body(json!({})).to_string());
    assert_eq!(response.status, 400);
    assert!(response.body.contains("has no chat template"), "{}", response.body);
}
