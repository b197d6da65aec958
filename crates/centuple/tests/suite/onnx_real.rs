//! Real ONNX files against ONNX Runtime on 200 texts each: all-MiniLM-L6-v2 with weights of 8 bits, and a token classifier
//! with weights of 4 bits and embeddings of 8.
//!
//! The files (23 and 15 MB) are fetched as Python packages; where they cannot be had, the tests say so and pass, except in CI
//! (`CI=true`), where that is a failure.

use std::fs;
use std::path::Path;

use centuple::hub::Packaged;
use centuple::tasks::{Job, Output, Request, Sequence, Task, run_in_batches};
use centuple::{Host, HostOptions, LoadOptions, Loaded, Precision, Purpose};
use centuple_testkit::{distance, fixtures, tensor};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{folder, folder_of};

/// Largest accepted distance to ONNX Runtime, which computes in f32 with the weights that the codes stand for.
const TOLERANCE: f32 = 1e-4;
/// The same of an entity's score.
const SCORE_TOLERANCE: f64 = 1e-3;

#[derive(Deserialize)]
struct Input {
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Personal {
    text: String,
    ids: Vec<u32>,
    labels: Vec<usize>,
    /// Label, first and last place, score.
    entities: Vec<(String, usize, usize, f64)>,
}

fn load(folder: &Path, purpose: Purpose) -> Loaded {
    let host = Host::new(&HostOptions::default()).expect("threads start");
    let options = LoadOptions { purpose, precision: Some(Precision::F32), ..LoadOptions::default() };
    host.load_folder(folder, "onnx", &options).unwrap_or_else(|error| panic!("{error}"))
}

fn run(loaded: &mut Loaded, ids: impl Iterator<Item = Vec<u32>>) -> Vec<Output> {
    let sequences: Vec<Sequence> = ids.map(Sequence::from_ids).collect();
    run_in_batches(&mut loaded.engine, &sequences).expect("all inputs run")
}

/// How far the rows, projected on the directions of the golden values, are from what is recorded.
fn of_projections(file: &[u8], outputs: &[Output]) -> f32 {
    let (directions, width) = tensor(file, "directions").expect("fixture");
    let (expected, _) = tensor(file, "projected").expect("fixture");
    let dot = |row: &[f32], direction: &[f32]| -> f32 {
        row.iter().zip(direction).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
    };
    let rows = outputs.iter().flat_map(|output| output.data.chunks_exact(output.columns));
    let found: Vec<f32> = rows.flat_map(|row| directions.chunks_exact(width).map(|along| dot(row, along))).collect();
    distance(&found, &expected)
}

fn golden(folder: &str, file: &str) -> Vec<u8> {
    fs::read(fixtures().join(folder).join(file)).expect("fixture")
}

#[test]
fn minilm_of_8_bits_equals_onnx_runtime() {
    let (Some(package), Some(model)) = (folder_of(Packaged::MinilmInt8), folder()) else { return };
    // The package has no tokenizer and no configuration: those of the model that it was made of.
    let whole = TempDir::new().expect("a temporary folder");
    fs::copy(package.join("model.onnx"), whole.path().join("model.onnx")).expect("the file can be copied");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(model.join(name), whole.path().join(name)).expect("the file can be copied");
    }
    let mut loaded = load(whole.path(), Purpose::TokenFeatures);
    let inputs = golden("all-minilm-l6-v2", "inputs.json");
    let inputs: Vec<Input> = serde_json::from_slice(&inputs).expect("fixture");
    let outputs = run(&mut loaded, inputs.iter().map(|input| input.ids.clone()));

    let file = golden("onnx-real/all-minilm-l6-v2-int8", "outputs.safetensors");
    let (expected, width) = tensor(&file, "first").expect("fixture");
    let first: Vec<f32> = outputs.iter().step_by(10).flat_map(|output| output.data[..width].to_vec()).collect();
    let (of_rows, of_projections) = (distance(&first, &expected), of_projections(&file, &outputs));
    println!("{} inputs: {of_rows:e} on whole rows, {of_projections:e} on projections of all rows", inputs.len());
    assert!(
        inputs.len() >= 200 && of_rows <= TOLERANCE && of_projections <= TOLERANCE,
        "{of_rows:e}, {of_projections:e}"
    );
}

fn personal() -> Vec<Personal> {
    serde_json::from_slice(&golden("onnx-real/rampart", "inputs.json")).expect("fixture")
}

#[test]
fn labels_of_4_bits_equal_onnx_runtime() {
    let Some(folder) = folder_of(Packaged::Rampart) else { return };
    let mut loaded = load(&folder, Purpose::Own);
    let inputs = personal();
    let outputs = run(&mut loaded, inputs.iter().map(|input| input.ids.clone()));
    let mut tokens = 0;
    for (input, output) in inputs.iter().zip(&outputs) {
        let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("labels");
        let labels: Vec<usize> = output.data.chunks_exact(output.columns).map(best).collect();
        assert_eq!(labels, input.labels, "{:?}", input.text);
        tokens += labels.len();
    }
    let apart = of_projections(&golden("onnx-real/rampart", "outputs.safetensors"), &outputs);
    println!("{} texts, {tokens} tokens: the same labels, {apart:e} on projections of the logits", inputs.len());
    assert!(inputs.len() >= 200 && apart <= TOLERANCE, "{apart:e}");
}

#[test]
fn entities_are_those_of_the_pipeline() {
    let Some(folder) = folder_of(Packaged::Rampart) else { return };
    let mut loaded = load(&folder, Purpose::Own);
    let mut found = 0;
    for input in personal() {
        let body = json!({"inputs": input.text, "parameters": {"aggregation_strategy": "simple"}}).to_string();
        let request = Request::parse(Task::TokenClassification, body.as_bytes()).expect("a valid request");
        let job = Job::prepare(&loaded.model, request).expect("a text that the model takes");
        let reply = job.run(&loaded.model, &mut loaded.engine).expect("runs");
        let reply: Vec<Value> = serde_json::from_slice(&reply.to_json()).expect("a list");
        assert_eq!(reply.len(), input.entities.len(), "{:?}", input.text);
        for (entity, (label, start, end, score)) in reply.iter().zip(&input.entities) {
            let said = [&entity["entity_group"], &entity["start"], &entity["end"]];
            assert_eq!(said, [&json!(label), &json!(start), &json!(end)], "{:?}", input.text);
            let away = (entity["score"].as_f64().unwrap_or(f64::NAN) - score).abs();
            assert!(away <= SCORE_TOLERANCE, "{:?}: {entity} instead of {score}", input.text);
            found += 1;
        }
    }
    println!("{found} entities");
    assert!(found > 1000, "only {found} entities");
}
