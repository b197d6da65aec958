//! What the pipelines of transformers and sentence-transformers answer to the same bodies, for tiny random checkpoints.

use std::path::PathBuf;

use centuple::optimize::{OptimizeOptions, Silent};
use centuple::tasks::{Job, Request, Task, TaskError};
use centuple::{Host, HostOptions, LoadOptions, Loaded, Precision};
use centuple_testkit::{GoldenAsk, GoldenCase, pipeline_cases};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Scores are probabilities, embeddings and logits are of the order of 1.
const TOLERANCE: f64 = 1e-4;

fn host() -> Host {
    Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start")
}

fn load(case: &GoldenCase) -> (TempDir, Loaded) {
    let folder = TempDir::new().expect("a temporary folder");
    case.assemble(folder.path()).expect("the fixtures are there");
    let loaded = host().load_folder(folder.path(), &case.name, &LoadOptions::default());
    let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    (folder, loaded)
}

fn ask(loaded: &mut Loaded, task: Task, body: &[u8]) -> Result<Value, TaskError> {
    let request = Request::parse(task, body)?;
    let reply = Job::prepare(&loaded.model, request)?.run(&loaded.model, &mut loaded.engine)?;
    Ok(serde_json::from_slice(&reply.to_json()).expect("replies are JSON"))
}

/// Why a reply is not the expected one.
fn difference(found: &Value, expected: &Value, path: &str) -> Option<String> {
    let differ = || Some(format!("{path}: {found} instead of {expected}"));
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            let tolerance = if expected.is_f64() { TOLERANCE * b.abs().max(1.0) } else { 0.0 };
            if (a - b).abs() <= tolerance { None } else { differ() }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.into_iter().find_map(|(index, (a, b))| difference(a, b, &format!("{path}[{index}]")))
        }
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            a.iter().find_map(|(key, a)| difference(a, &b[key], &format!("{path}.{key}")))
        }
        (found, expected) if found == expected => None,
        _ => differ(),
    }
}

/// Asks a case everything and returns how many replies were compared.
fn compare(case: &GoldenCase, failures: &mut Vec<String>) -> usize {
    let (_folder, mut loaded) = load(case);
    let task = match case.task.as_str() {
        "sparse" | "embedding" => Task::FeatureExtraction,
        name => name.parse().expect("a known task"),
    };
    for GoldenAsk { body, reply } in &case.asks {
        let answer = ask(&mut loaded, task, body.to_string().as_bytes());
        let failure = match (&answer, reply) {
            (Ok(found), Some(expected)) => difference(found, expected, ""),
            (Err(_), None) => None,
            (Ok(found), None) => Some(format!("{found} instead of an error")),
            (Err(error), Some(expected)) => Some(format!("error `{error}` instead of {expected}")),
        };
        failures.extend(failure.map(|failure| format!("{}: {body}\n    {failure}", case.name)));
    }
    case.asks.len()
}

#[test]
fn replies_are_those_of_the_pipelines() {
    let cases = pipeline_cases().expect("fixtures");
    let (mut compared, mut failures) = (0, Vec::new());
    for case in &cases {
        compared += compare(case, &mut failures);
    }
    assert!(failures.is_empty(), "{} of {compared} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 500, "only {compared} bodies were asked");
}

/// Metric and value in f32 of a case that is judged by examples of that name, or by the texts that are shipped.
fn judged(name: &str, precision: Precision, examples: impl Fn(&mut Loaded, &str) -> Value) -> (String, f64) {
    const TEXTS: [&str; 3] = ["the quick brown fox jumps", "we love the weather today", "a lazy dog is not a cat"];
    let cases = pipeline_cases().expect("fixtures");
    let case = cases.iter().find(|case| case.name == name).expect("a known case");
    let (folder, mut loaded) = load(case);
    let texts = (0..24).map(|index| [TEXTS[index % 3], TEXTS[index / 3 % 3], TEXTS[index / 9]].join(" "));
    let lines: Vec<Value> = texts.map(|text| examples(&mut loaded, &text)).filter(|line| !line.is_null()).collect();
    let eval = (!lines.is_empty()).then(|| -> PathBuf {
        let path = folder.path().join("examples.jsonl");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).expect("the folder can be written");
        path
    });
    let options = OptimizeOptions {
        precision: Some(precision),
        eval,
        evaluations: 1,
        keep_over_budget: true,
        resamples: 100,
        ..OptimizeOptions::default()
    };
    let target = folder.path().join("artefact");
    let name = folder.path().to_string_lossy();
    let optimized = host().optimize(&name, &target, &options, &Silent).unwrap_or_else(|error| panic!("{error}"));
    let accuracy = optimized.receipt.findings.accuracy.expect("examples were judged");
    (accuracy.metric, accuracy.baseline.value)
}

#[test]
fn entities_and_answers_are_judged() {
    let entities = |loaded: &mut Loaded, text: &str| {
        let body = json!({"inputs": text, "aggregation_strategy": "first", "stride": 12});
        let found = ask(loaded, Task::TokenClassification, body.to_string().as_bytes()).expect("a reply");
        let found = found.as_array().cloned().unwrap_or_default().into_iter();
        let span = |one: Value| json!({"start": one["start"], "end": one["end"], "label": one["entity_group"]});
        json!({"text": text, "entities": found.map(span).collect::<Vec<_>>()})
    };
    assert_eq!(judged("ner", Precision::F32, entities), ("entity F1 x100".to_owned(), 100.0));
    let answers = |loaded: &mut Loaded, text: &str| {
        let inputs = json!({"question": "what is it", "context": text});
        let found = ask(loaded, Task::QuestionAnswering, json!({"inputs": inputs}).to_string().as_bytes());
        json!({"question": "what is it", "context": text, "answers": [found.expect("a reply")["answer"]]})
    };
    let (metric, value) = judged("qa", Precision::F32, answers);
    assert_eq!(metric, "token F1 x100");
    assert!(value > 90.0, "an answer of articles only has no words, and other answers are their own: {value}");
    let shipped = |_: &mut Loaded, _: &str| Value::Null;
    assert_eq!(judged("mlm", Precision::Int8, shipped).0, "equal labels x100");
    assert_eq!(judged("qa", Precision::Int8, shipped).0, "mean cosine x100");
}
