//! The real all-MiniLM-L6-v2 against PyTorch: 200 inputs of 1 to 512 tokens.
//!
//! The model (87 MB) is found in the caches or fetched as `centuple pull` does. Where it cannot be had, the tests say so
//! and pass, except in CI (`CI=true`), where that is a failure.

use std::fs;

use centuple::hub::DEFAULT_MODEL;
use centuple::tasks::{Job, Request, Sequence, Task, run_in_batches};
use centuple::{Host, HostOptions, LoadOptions, Loaded, Precision, Purpose};
use centuple_testkit::{fixtures, tensor};
use serde::Deserialize;
use serde_json::json;

use crate::support::folder;

/// Largest difference to PyTorch on the last hidden state; its own f32 is 4e-6 from f64.
const HIDDEN_TOLERANCE: f32 = 2e-5;
/// Largest difference to PyTorch on the normalised embedding.
const EMBEDDING_TOLERANCE: f32 = 2e-6;

#[derive(Deserialize)]
struct Input {
    text: Option<String>,
    ids: Vec<u32>,
    embedded_tokens: Option<usize>,
}

struct Golden {
    inputs: Vec<Input>,
    file: Vec<u8>,
}

impl Golden {
    fn open() -> Golden {
        let folder = fixtures().join("all-minilm-l6-v2");
        let inputs = fs::read(folder.join("inputs.json")).expect("fixture");
        let file = fs::read(folder.join("outputs.safetensors")).expect("fixture");
        Golden { inputs: serde_json::from_slice(&inputs).expect("fixture"), file }
    }

    fn tensor(&self, name: &str) -> (Vec<f32>, usize) {
        tensor(&self.file, name).unwrap_or_else(|| panic!("{name} is missing"))
    }

    /// The places of the sampled rows among the tokens of all inputs.
    fn row_indices(&self) -> Vec<usize> {
        let file = safetensors::SafeTensors::deserialize(&self.file).expect("fixture");
        let view = file.tensor("row_indices").expect("fixture");
        let (words, _) = view.data().as_chunks::<8>();
        words.iter().map(|&word| i64::from_le_bytes(word) as usize).collect()
    }
}

fn load(purpose: Purpose, precision: Precision) -> Option<Loaded> {
    let host = Host::new(&HostOptions::default()).expect("threads start");
    let options = LoadOptions { purpose, precision: Some(precision), ..LoadOptions::default() };
    Some(host.load_folder(&folder()?, DEFAULT_MODEL, &options).expect("the model loads"))
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn hidden_states_equal_pytorch() {
    let Some(mut loaded) = load(Purpose::TokenFeatures, Precision::F32) else { return };
    let golden = Golden::open();
    let sequences: Vec<Sequence> = golden.inputs.iter().map(|input| Sequence::from_ids(input.ids.clone())).collect();
    let outputs = run_in_batches(&mut loaded.engine, &sequences).expect("all inputs run");
    let rows: Vec<&[f32]> = outputs.iter().flat_map(|output| output.data.chunks_exact(output.columns)).collect();

    let (expected, width) = golden.tensor("rows");
    let sampled: Vec<f32> = golden.row_indices().into_iter().flat_map(|row| rows[row].to_vec()).collect();
    let of_rows = largest_difference(&sampled, &expected);

    let (directions, _) = golden.tensor("directions");
    let dot = |row: &[f32], direction: &[f32]| -> f32 {
        row.iter().zip(direction).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
    };
    let projected: Vec<f32> =
        rows.iter().flat_map(|row| directions.chunks_exact(width).map(|direction| dot(row, direction))).collect();
    let of_projections = largest_difference(&projected, &golden.tensor("projected").0);

    println!("largest difference: {of_rows:e} on whole rows, {of_projections:e} on projections of all rows");
    assert!(of_rows <= HIDDEN_TOLERANCE && of_projections <= HIDDEN_TOLERANCE, "{of_rows:e}, {of_projections:e}");
}

#[test]
fn embeddings_of_texts_equal_sentence_transformers() {
    let Some(mut loaded) = load(Purpose::Own, Precision::F32) else { return };
    let golden = Golden::open();
    let (expected, width) = golden.tensor("embeddings");
    let mut worst = 0.0f32;
    let texts = golden.inputs.iter().filter(|input| input.text.is_some());
    for (input, expected) in texts.zip(expected.chunks_exact(width)) {
        let body = json!({"inputs": input.text}).to_string();
        let request = Request::parse(Task::FeatureExtraction, body.as_bytes()).expect("a valid request");
        let job = Job::prepare(&loaded.model, request).expect("a text that the model takes");
        let tokens = job.sequences[0].len();
        assert_eq!(Some(tokens), input.embedded_tokens, "{:?}", input.text);
        if tokens == input.ids.len() {
            assert_eq!(job.sequences[0].ids, input.ids, "{:?}", input.text);
        }
        let outputs = run_in_batches(&mut loaded.engine, &job.sequences).expect("runs");
        worst = worst.max(largest_difference(&outputs[0].data, expected));
    }
    println!("largest difference: {worst:e}");
    assert!(worst <= EMBEDDING_TOLERANCE, "{worst:e}");
}

/// What int8 costs: the cosine of each text's embedding to PyTorch's.
#[test]
fn int8_embeddings_stay_close() {
    let Some(mut loaded) = load(Purpose::Own, Precision::Int8) else { return };
    let golden = Golden::open();
    let (expected, width) = golden.tensor("embeddings");
    let mut cosines = Vec::new();
    let texts = golden.inputs.iter().filter(|input| input.text.is_some());
    for (input, expected) in texts.zip(expected.chunks_exact(width)) {
        let body = json!({"inputs": input.text}).to_string();
        let request = Request::parse(Task::FeatureExtraction, body.as_bytes()).expect("a valid request");
        let job = Job::prepare(&loaded.model, request).expect("a text that the model takes");
        let outputs = run_in_batches(&mut loaded.engine, &job.sequences).expect("runs");
        cosines.push(outputs[0].data.iter().zip(expected).map(|(a, b)| a * b).sum::<f32>());
    }
    let worst = cosines.iter().copied().fold(f32::INFINITY, f32::min);
    let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
    println!("cosine to f32: mean {mean}, worst {worst}");
    // A part of the inputs is in languages or lengths that the model was not made for.
    assert!(mean >= 0.997 && worst >= 0.99, "mean {mean}, worst {worst}");
}
