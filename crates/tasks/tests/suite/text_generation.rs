//! Bodies of text-generation: what becomes of them, what is refused, and the replies.

use std::sync::Arc;

use centuple_generate::{self as generate, Constraint, ParameterError, Sampled, TokenLogprob, Update};
use centuple_tasks::text_generation::{Context, Grammar, Prepared, Request};
use centuple_tasks::{Category, Head, Model, TaskError};
use serde_json::{Value, json};

use crate::tiny;

const SEP: u32 = 3;
const CAT: u32 = 7;
const SAT: u32 = 9;

fn model() -> Arc<Model> {
    Arc::new(tiny::model(Head::CausalLm { vocabulary: tiny::LIMITS.vocabulary }))
}

fn prepare(model: &Arc<Model>, body: &Value) -> Result<Prepared, TaskError> {
    let defaults =
        generate::Parameters { eos_token_id: vec![SEP], temperature: 0.5, ..generate::Parameters::default() };
    let constrain = |_: &Grammar| -> Result<Constraint, ParameterError> {
        Err(ParameterError::Format("there are no grammars here".to_owned()))
    };
    let defaults = defaults.into();
    let context =
        Context { model, defaults: &defaults, seed: 7, full_text: true, client: Some(1), constrain: &constrain };
    Request::parse(body.to_string().as_bytes())?.prepare(&context)
}

fn parameters(body: &Value) -> generate::Parameters {
    prepare(&model(), body).expect("the body is good").requests.remove(0).parameters
}

#[test]
fn parameters_have_the_names_and_defaults_of_transformers() {
    let plain = parameters(&json!({"inputs": "the cat"}));
    let expected =
        generate::Parameters { eos_token_id: vec![SEP], temperature: 0.5, ..generate::Parameters::default() };
    assert_eq!(plain, expected);
    let given = json!({"max_new_tokens": 5, "num_beams": 2, "stop": ["."], "repetition_penalty": 1.5, "seed": null});
    let expected = generate::Parameters {
        max_new_tokens: Some(5),
        num_beams: 2,
        stop_strings: vec![".".to_owned()],
        repetition_penalty: 1.5,
        ..expected
    };
    assert_eq!(parameters(&json!({"inputs": "the cat", "parameters": given})), expected);
    let mut at_root = given;
    at_root["inputs"] = json!("the cat");
    assert_eq!(parameters(&at_root), expected);
}

#[test]
fn what_only_draws_need_asks_for_draws() {
    let draws = |given: Value| parameters(&json!({"inputs": "the cat", "parameters": given})).do_sample;
    assert!(draws(json!({"temperature": 0.7})) && draws(json!({"top_p": 0.9})));
    assert!(!draws(json!({"temperature": 0.7, "do_sample": false})));
    assert!(!draws(json!({"temperature": null})) && !draws(json!({})));
}

#[test]
fn prompts_are_whole_unless_told_otherwise() {
    let model = model();
    let ids = |body: Value| prepare(&model, &body).map(|mut prepared| prepared.requests.remove(0).prompt);
    let whole = ids(json!({"inputs": "the cat sat"})).expect("it is short");
    assert_eq!(whole, [2, 6, CAT, SAT, SEP]);
    assert_eq!(ids(json!({"inputs": "the cat sat", "parameters": {"truncate": 2}})).ok(), Some(vec![SAT, SEP]));
    let long = ids(json!({"inputs": "cat ".repeat(20)})).expect_err("it is too long");
    assert_eq!(long.category(), Category::Tokenization);
}

#[test]
fn what_has_no_meaning_is_refused_with_the_reason() {
    let model = model();
    for (body, reason) in [
        (json!({"inputs": []}), "`inputs` is an empty list"),
        (json!({"inputs": "a", "parameters": {"max_new_token": 5}}), "max_new_token"),
        (json!({"inputs": "a", "parameters": {"best_of": 2}}), "best_of = 2 is not supported"),
        (json!({"inputs": "a", "parameters": {"watermark": true}}), "watermark = true is not supported"),
        (json!({"inputs": "a", "parameters": {"temperature": 0.0}}), "temperature"),
        (json!({"inputs": "a", "parameters": {"stop": ["."], "stop_strings": ["!"]}}), "mean the same"),
        (json!({"inputs": "a", "parameters": {"top_k": 5}, "top_k": 5}), "both at the root and in `parameters`"),
        (json!({"inputs": "a", "parameters": {"grammar": {"type": "regex", "value": "a+"}}}), "no grammars here"),
        (json!({"parameters": {}}), "inputs"),
    ] {
        let error = prepare(&model, &body).err().unwrap_or_else(|| panic!("{body} is taken")).to_string();
        assert!(error.contains(reason), "{body}: {error}");
    }
}

fn update(sequence: u32, token: u32, text: &str, finish: Option<generate::Finish>) -> Update {
    let top = vec![TokenLogprob { token: CAT, logprob: -0.5 }];
    let sampled = Sampled { token, logprob: Some(-0.25), top };
    Update { request: 1, sequence, tokens: vec![sampled], text: text.to_owned(), finish, score: None }
}

fn reply(body: &Value, updates: Vec<(usize, Update)>) -> Result<Value, TaskError> {
    let model = model();
    let Prepared { finish, .. } = prepare(&model, body)?;
    let mut answers = finish.answers();
    for (input, update) in updates {
        answers[input].take(&model, update)?;
    }
    Ok(serde_json::from_slice(&finish.reply(answers)?.to_json()).expect("it is JSON"))
}

#[test]
fn replies_are_those_of_the_hub() {
    let updates =
        || vec![(0, update(0, SAT, " sat", None)), (0, update(0, SEP, "", Some(generate::Finish::EndOfText(SEP))))];
    let plain = reply(&json!({"inputs": "the cat"}), updates()).expect("it ends");
    assert_eq!(plain, json!([{"generated_text": "the cat sat"}]));
    let asked = json!({"details": true, "return_full_text": false, "top_n_tokens": 1, "temperature": 0.7});
    let told = reply(&json!({"inputs": "the cat", "parameters": asked}), updates()).expect("it ends");
    let top = json!([{"id": CAT, "text": "cat", "logprob": -0.5, "special": false}]);
    let expected = json!([{"generated_text": " sat", "details": {
        "finish_reason": "eos_token",
        "generated_tokens": 2,
        "seed": 7,
        "prefill": [],
        "tokens": [
            {"id": SAT, "text": " sat", "logprob": -0.25, "special": false},
            {"id": SEP, "text": "[SEP]", "logprob": -0.25, "special": true},
        ],
        "top_tokens": [top, top],
    }}]);
    assert_eq!(told, expected);
}

#[test]
fn lists_of_texts_have_lists_of_answers() {
    let body = json!({"inputs": ["the cat", "the dog"], "parameters": {
        "num_return_sequences": 2, "do_sample": true, "return_full_text": false,
    }});
    let mut updates = Vec::new();
    for (input, sequence, text) in [(1, 0, "c"), (0, 1, "b"), (0, 0, "a"), (1, 1, "d")] {
        updates.push((input, update(sequence, 45, text, Some(generate::Finish::Length))));
    }
    let answered = reply(&body, updates.clone()).expect("all end");
    let text = |text: &str| json!({"generated_text": text});
    assert_eq!(answered, json!([[text("a"), text("b")], [text("c"), text("d")]]));
    updates.pop();
    assert!(reply(&body, updates).is_err(), "one answer is missing");
}

#[test]
fn what_could_not_be_computed_is_an_error() {
    let failed = update(0, SAT, "", Some(generate::Finish::Failed("the cable is loose".to_owned())));
    let error = reply(&json!({"inputs": "the cat"}), vec![(0, failed)]).expect_err("it failed");
    assert_eq!(error.category(), Category::Engine);
    assert!(error.to_string().contains("the cable is loose"), "{error}");
}
