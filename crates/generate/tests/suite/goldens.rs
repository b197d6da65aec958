//! What is generated equals what transformers generates.

use std::path::Path;

use centuple_generate::{Context, Logits, Parameters, Place, Processors, Request, Sampler, Scheduler, StepLimits};
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::table::{TableEngine, VOCABULARY, logits};

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
    let text = std::fs::read_to_string(&path).expect("the golden is there");
    serde_json::from_str(&text).expect("the golden is JSON")
}

fn cases(name: &str) -> Vec<Value> {
    golden(name).as_array().cloned().expect("a list of cases")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

fn parameters(case: &Value) -> Parameters {
    let map = case["parameters"].as_object().expect("parameters");
    Parameters::default().with(map).unwrap_or_else(|error| panic!("{map:?}: {error}"))
}

/// Numbers, of which some are words.
fn numbers(value: &Value) -> Vec<f32> {
    let number = |value: &Value| match value.as_str() {
        Some(word) => word.parse().expect("nan, inf or -inf"),
        None => value.as_f64().expect("a number") as f32,
    };
    value.as_array().expect("numbers").iter().map(number).collect()
}

#[test]
fn parameters_have_the_names_and_defaults_of_transformers() {
    let golden = golden("defaults.json");
    let ours = serde_json::to_value(Parameters::default()).expect("parameters are JSON");
    for (name, default) in golden.as_object().expect("an object") {
        let own = ours.get(name).unwrap_or_else(|| panic!("there is no {name}"));
        let empty = own.as_array().is_some_and(Vec::is_empty) && default.is_null();
        let equal = own.as_f64().is_some() && own.as_f64() == default.as_f64();
        assert!(own == default || empty || equal, "{name} is {own} and not {default}");
    }
}

#[test]
fn processors_give_the_scores_of_transformers() {
    for case in cases("processors.json") {
        let parameters = parameters(&case);
        let prompt = case["prompt"].as_u64().expect("a number") as usize;
        let ids = ids(&case["ids"]);
        let longest = parameters.max_length.unwrap_or(200);
        let context = Context { prompt, source: &ids[..prompt], longest, vocabulary: VOCABULARY };
        let processors = Processors::new(&parameters, context).expect("the tokens exist");
        let mut scores = numbers(&case["scores"]);
        let found = processors.apply(&ids, &mut scores).dense(VOCABULARY);
        let expected = numbers(&case["expected"]);
        for (token, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let close = found == expected || (found - expected).abs() <= 1e-5 * expected.abs().max(1.0);
            assert!(close, "{}: token {token} has {found} and not {expected}", case["parameters"]);
        }
    }
}

/// The 99.9 % quantile of the chi-square distribution (Wilson and Hilferty).
fn chi_square_limit(freedom: f64) -> f64 {
    let spread = 2.0 / (9.0 * freedom);
    freedom * (1.0 - spread + 3.09 * spread.sqrt()).powi(3)
}

#[test]
fn draws_have_the_distribution_of_transformers() {
    const DRAWS: u64 = 10_000;
    for case in cases("distributions.json") {
        let parameters = parameters(&case);
        let (ids, salt) = (ids(&case["ids"]), case["salt"].as_u64().expect("a number"));
        let prompt = case["prompt"].as_u64().expect("a number") as usize;
        let context = Context { prompt, source: &ids[..prompt], longest: 200, vocabulary: VOCABULARY };
        let processors = Processors::new(&parameters, context).expect("the tokens exist");
        let sampler = Sampler::new(&parameters, 5);
        let mut counts = vec![0_u32; VOCABULARY];
        for position in 0..DRAWS {
            let place = Place { ids: &ids, sequence: 0, position };
            let sampled = sampler.sample(&processors, None, place, &mut logits(&ids, salt), None).expect("a token");
            counts[sampled.token as usize] += 1;
        }
        let expected: Vec<f64> = serde_json::from_value(case["probabilities"].clone()).expect("probabilities");
        let (mut statistic, mut freedom) = (0.0, -1.0);
        let (mut rare, mut rare_count) = (0.0, 0.0);
        for (probability, count) in expected.iter().zip(&counts) {
            let wanted = probability * DRAWS as f64;
            if wanted == 0.0 {
                assert_eq!(*count, 0, "{}: a token came that must not", case["parameters"]);
            } else if wanted < 5.0 {
                (rare, rare_count) = (rare + wanted, rare_count + f64::from(*count));
            } else {
                statistic += (f64::from(*count) - wanted).powi(2) / wanted;
                freedom += 1.0;
            }
        }
        if rare > 0.0 {
            statistic += (rare_count - rare).powi(2) / rare;
            freedom += 1.0;
        }
        assert!(freedom > 0.0 && statistic < chi_square_limit(freedom), "{}: {statistic}", case["parameters"]);
    }
}

/// Answers of one request: tokens and score.
fn generate(parameters: Parameters, prompt: Vec<u32>, salt: u64) -> Vec<(Vec<u32>, Option<f32>)> {
    let limits = StepLimits {
        page_tokens: 16,
        pages: 60,
        positions: 512,
        source_positions: 0,
        tokens_per_step: 64,
        sequences_per_step: 16,
        vocabulary: VOCABULARY,
    };
    let mut engine = TableEngine::new(limits, salt);
    let mut scheduler = Scheduler::new(limits);
    let mut answers = vec![(Vec::new(), None); parameters.num_return_sequences];
    let request = Request { prompt, source: None, parameters, seed: 0, client: None, decoder: None, constraint: None };
    scheduler.submit(request).expect("the request fits");
    while let Some(updates) = scheduler.step(&mut engine, &mut Logits::default()) {
        for update in updates {
            let answer = &mut answers[update.sequence as usize];
            answer.0.extend(update.tokens.iter().map(|sampled| sampled.token));
            answer.1 = update.score;
        }
    }
    assert_eq!(scheduler.statistics().pages_used, 0);
    answers
}

#[test]
fn greedy_and_beam_search_give_the_tokens_of_transformers() {
    let cases = cases("sequences.json");
    assert!(cases.len() > 100);
    for case in cases {
        let salt = case["salt"].as_u64().expect("a number");
        let found = generate(parameters(&case), ids(&case["prompt"]), salt);
        let expected = case["answers"].as_array().expect("answers");
        assert_eq!(found.len(), expected.len());
        for ((tokens, score), expected) in found.iter().zip(expected) {
            assert_eq!(*tokens, ids(&expected["ids"]), "{} at salt {salt}", case["parameters"]);
            if let Some(expected) = expected["score"].as_f64() {
                let score = f64::from(score.expect("beams have a score"));
                assert!((score - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{score} and not {expected}");
            }
        }
    }
}

#[test]
fn wrong_parameters_are_named() {
    let with = |json: &str| {
        let map: Map<String, Value> = serde_json::from_str(json).expect("an object");
        Parameters::default().with(&map).map_err(|error| error.to_string())
    };
    for (json, expected) in [
        (r#"{"temperature": 0}"#, "temperature is 0.0, but must be above 0; to always take"),
        (r#"{"top_p": 1.5}"#, "top_p is 1.5, but must be from 0 to 1"),
        (r#"{"max_new_tokens": 0}"#, "max_new_tokens is 0, but must be above 0"),
        (r#"{"top_k": -1}"#, "top_k: invalid value: integer `-1`"),
        (r#"{"top_k": "many"}"#, "top_k: invalid type: string"),
        (r#"{"early_stopping": "always"}"#, "early_stopping: expected true, false or \"never\""),
        (r#"{"eos_token_id": {}}"#, "eos_token_id: expected one value or a list of them"),
        (r#"{"tempreture": 1}"#, "there is no parameter \"tempreture\""),
        (r#"{"guidance_scale": 2}"#, "guidance_scale = 2 is not supported"),
        (r#"{"num_return_sequences": 2}"#, "num_return_sequences is 2, but without do_sample"),
        (r#"{"num_return_sequences": 3, "num_beams": 2}"#, "there are only 2 beams"),
        (r#"{"bad_words_ids": [[]]}"#, "bad_words_ids is"),
        (r#"{"stop_strings": ""}"#, "stop_strings is"),
    ] {
        let error = with(json).expect_err(json);
        assert!(error.contains(expected), "{json}: {error}");
    }
    for json in [
        r#"{"top_k": null, "temperature": null, "use_cache": true}"#,
        r#"{"guidance_scale": 1, "num_beam_groups": 1, "eos_token_id": [1, 2], "stop_strings": "x"}"#,
        r#"{"logit_bias": {"7": -100}, "early_stopping": "never", "exponential_decay_length_penalty": [3, 1.1], "eos_token_id": 4}"#,
    ] {
        with(json).expect(json);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3..60_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let list = proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from);
        let map = proptest::collection::vec(("[0-9]{1,2}", inner), 0..3);
        prop_oneof![list, map.prop_map(|entries| Value::Object(entries.into_iter().collect()))]
    })
}

proptest! {
    #[test]
    fn whatever_is_said_is_used_or_refused(values in proptest::collection::vec((any::<usize>(), any_json()), 1..4)) {
        let names = serde_json::to_value(Parameters::default()).expect("parameters are JSON");
        let names: Vec<&String> = names.as_object().expect("an object").keys().collect();
        let said = values.into_iter().map(|(index, value)| (names[index % names.len()].clone(), value)).collect();
        if let Ok(parameters) = Parameters::default().with(&said) {
            let context = Context { prompt: 2, source: &[1, 2], longest: 9, vocabulary: VOCABULARY };
            if let Ok(processors) = Processors::new(&parameters, context) {
                let place = Place { ids: &[1, 2], sequence: 0, position: 0 };
                // Whether there is a token depends on what was forbidden.
                let sampled = Sampler::new(&parameters, 1).sample(&processors, None, place, &mut logits(&[1, 2], 3), None);
                prop_assert!(sampled.is_ok_and(|sampled| sampled.token < VOCABULARY as u32) || !processors.is_empty());
            }
        }
    }
}

#[test]
fn the_page_lists_every_parameter_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/generation.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let (_, page) = page.split_once("## Parameters").expect("the section is there");
    let rows: Vec<Vec<&str>> = page.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let listed = |name: &str| rows.iter().find(|row| row.get(1) == Some(&format!("`{name}`").as_str()));
    let defaults = serde_json::to_value(Parameters::default()).expect("parameters are JSON");
    let defaults = defaults.as_object().expect("an object");
    for (name, default) in defaults {
        let row = listed(name).unwrap_or_else(|| panic!("{name} isn't listed"));
        let nothing = default.is_null() || *default == serde_json::json!([]) || *default == serde_json::json!({});
        assert_eq!(row[2], if nothing { "none".to_owned() } else { default.to_string() }, "{name}");
    }
    assert_eq!(rows.iter().filter(|row| row.get(1).is_some_and(|cell| cell.starts_with('`'))).count(), defaults.len());
}

#[test]
fn log_probabilities_are_the_models_own() {
    let parameters = Parameters { top_n_tokens: 3, suppress_tokens: Some(vec![7]), ..Parameters::default() };
    for (token, parameters) in [(7, Parameters { suppress_tokens: None, ..parameters.clone() }), (5, parameters)] {
        let context = Context { prompt: 1, source: &[1], longest: 9, vocabulary: VOCABULARY };
        let processors = Processors::new(&parameters, context).expect("the tokens exist");
        let sampler = Sampler::new(&parameters, 0);
        let mut row = vec![0.0; VOCABULARY];
        (row[7], row[5], row[9]) = (3.0, 2.0, 1.0);
        let sum = 3_f64.exp() + 2_f64.exp() + 1_f64.exp() + (VOCABULARY - 3) as f64;
        let place = Place { ids: &[1], sequence: 0, position: 0 };
        let sampled = sampler.sample(&processors, None, place, &mut row, None).expect("a token");
        assert_eq!(sampled.token, token);
        let logprob = |logit: f64| (logit - sum.ln()) as f32;
        assert!((sampled.logprob.expect("asked for") - logprob(if token == 7 { 3.0 } else { 2.0 })).abs() < 1e-6);
        let top: Vec<u32> = sampled.top.iter().map(|top| top.token).collect();
        assert_eq!(top, [7, 5, 9]);
        assert!(
            sampled.top.iter().zip([3.0, 2.0, 1.0]).all(|(top, logit)| (top.logprob - logprob(logit)).abs() < 1e-6)
        );
    }
}

#[test]
fn configurations_of_models_are_read() {
    let config = r#"{"_from_model_config": true, "bos_token_id": 0, "eos_token_id": [2, 5], "max_length": 20, "temperature": 0.6,
        "top_p": 0.9, "do_sample": true, "some_field_of_a_fine_tune": {"a": 1}, "transformers_version": "4.57.6"}"#;
    let map: Map<String, Value> = serde_json::from_str(config).expect("an object");
    let base = Parameters::from_generation_config(&map).expect("a valid configuration");
    assert_eq!((base.eos_token_id.as_slice(), base.temperature, base.max_length), (&[2, 5][..], 0.6, None));
    assert_eq!(base.longest(7, None), Ok(27));
    let request: Map<String, Value> =
        serde_json::from_str(r#"{"temperature": 1.5, "max_length": 20}"#).expect("an object");
    let request = base.with(&request).expect("valid parameters");
    assert_eq!((request.temperature, request.top_p), (1.5, 0.9));
    assert_eq!(request.longest(7, None), Ok(20));
    assert!(request.longest(20, None).is_err());
}
