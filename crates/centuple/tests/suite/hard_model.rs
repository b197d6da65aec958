//! A model that is hard to quantise: the real all-MiniLM-L6-v2 with outlier channels in two layers. Plain int8 must be
//! refused, and the search must find what the model can still have.
//!
//! `scripts/hard_model.py` makes such models to look at. The real one is found as in `real_model.rs`; where it cannot be
//! had, the test says so and passes, except in CI (`CI=true`), where that is a failure.

use std::fs;
use std::path::Path;

use centuple::optimize::{OptimizeOptions, Optimized, Silent};
use centuple::receipt::Rung;
use centuple::receipt::metrics::cosine;
use centuple::receipt::report::Verdict;
use centuple::tasks::{Job, Request, Task, run_in_batches};
use centuple::{Host, HostOptions, LoadOptions, Precision};
use centuple_testkit::Random;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use tempfile::TempDir;

use crate::support::folder;

const WEIGHTS: &str = "model.safetensors";
/// Encoder layers that get outliers.
const DAMAGED: [usize; 2] = [1, 4];
/// Outliers of each.
const OUTLIERS: usize = 6;
/// Their activation, whatever the token.
const VALUE: f32 = 1000.0;
/// Most time that the layers may take, relative to f32, by the search's table.
const MAX_COST: f64 = 0.6;

/// A safetensors file whose tensors can be overwritten.
struct Weights {
    bytes: Vec<u8>,
    /// Where the tensors' data begins.
    data: usize,
    metadata: Metadata,
}

impl Weights {
    fn read(path: &Path) -> Weights {
        let bytes = fs::read(path).expect("weights");
        let (header, metadata) = SafeTensors::read_metadata(&bytes).expect("safetensors");
        Weights { data: size_of::<u64>() + header, metadata, bytes }
    }

    fn tensor(&mut self, name: &str) -> &mut [[u8; 4]] {
        let (start, end) = self.metadata.info(name).unwrap_or_else(|| panic!("{name} is missing")).data_offsets;
        let (words, rest) = self.bytes[self.data + start..self.data + end].as_chunks_mut();
        assert!(rest.is_empty(), "{name} is in f32");
        words
    }

    fn get(&mut self, name: &str) -> Vec<f32> {
        self.tensor(name).iter().map(|&word| f32::from_le_bytes(word)).collect()
    }

    fn set(&mut self, name: &str, values: &[f32]) {
        for (word, value) in self.tensor(name).iter_mut().zip(values) {
            *word = value.to_le_bytes();
        }
    }
}

/// Makes outliers of the least important neurons of a layer: constants that random weights spread over all outputs and
/// the bias takes away again, so that in floats only those neurons are missing.
fn damage(weights: &mut Weights, layer: usize, random: &mut Random) {
    let name = |part: &str| format!("encoder.layer.{layer}.{part}");
    let names = ["intermediate.dense.weight", "intermediate.dense.bias", "output.dense.weight", "output.dense.bias"];
    let [mut up, mut up_bias, mut down, mut down_bias] = names.map(|part| weights.get(&name(part)));
    let (hidden, neurons) = (down_bias.len(), up_bias.len());
    let square = |value: &f32| value * value;
    let importance = |neuron: usize| {
        let row: f32 = up[neuron * hidden..][..hidden].iter().map(square).sum();
        let column: f32 = down[neuron..].iter().step_by(neurons).map(square).sum();
        row * column
    };
    let mut order: Vec<usize> = (0..neurons).collect();
    order.sort_by(|&a, &b| importance(a).total_cmp(&importance(b)));
    // Uniform numbers up to √3 have a standard deviation of 1.
    let scale = 3f32.sqrt() * (down.iter().map(square).sum::<f32>() / down.len() as f32).sqrt();
    for &neuron in &order[..OUTLIERS] {
        up[neuron * hidden..][..hidden].fill(0.0);
        up_bias[neuron] = VALUE;
        for (output, bias) in down_bias.iter_mut().enumerate() {
            let weight = scale * random.float();
            down[output * neurons + neuron] = weight;
            *bias -= weight * VALUE;
        }
    }
    for (part, values) in names.iter().zip([up, up_bias, down, down_bias]) {
        weights.set(&name(part), &values);
    }
}

/// A copy of a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry").path();
        let place = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &place);
        } else {
            fs::copy(&entry, place).expect("a copy");
        }
    }
}

/// The model's answer to a text, in f32.
fn embedding(host: &Host, folder: &Path) -> Vec<f32> {
    let options = LoadOptions { precision: Some(Precision::F32), ..LoadOptions::default() };
    let mut loaded = host.load_folder(folder, "model", &options).expect("the model loads");
    let body = br#"{"inputs": "The train to the coast leaves at six."}"#;
    let request = Request::parse(Task::FeatureExtraction, body).expect("a valid request");
    let job = Job::prepare(&loaded.model, request).expect("a text that the model takes");
    run_in_batches(&mut loaded.engine, &job.sequences).expect("runs").remove(0).data
}

#[test]
fn the_search_rescues_a_model_with_outliers() {
    let Some(model) = folder() else { return };
    let place = TempDir::new().expect("a temporary folder");
    let [hard, target] = ["hard", "optimised"].map(|name| place.path().join(name));
    copy(&model, &hard);
    let mut weights = Weights::read(&model.join(WEIGHTS));
    let mut random = Random::new(7);
    DAMAGED.iter().for_each(|&layer| damage(&mut weights, layer, &mut random));
    fs::remove_file(hard.join(WEIGHTS)).expect("weights");
    fs::write(hard.join(WEIGHTS), &weights.bytes).expect("weights");

    let host = Host::new(&HostOptions::default()).expect("threads start");
    let kept = cosine(&embedding(&host, &hard), &embedding(&host, &model));
    assert!(kept > 0.999, "in f32 the model must stay what it was, its answer has a cosine of {kept}");

    let name = hard.to_str().expect("a path in UTF-8");
    let optimize =
        |options: &OptimizeOptions| host.optimize(name, &target, options, &Silent).expect("it can be judged");
    let Optimized { receipt, manifest, refusal } =
        optimize(&OptimizeOptions { evaluations: 1, ..OptimizeOptions::default() });
    println!("plain int8: {refusal:?}");
    assert_eq!((manifest.is_none(), receipt.findings.verdict), (true, Verdict::Over));
    assert!(refusal.is_some());
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 1, "nothing but the model is there");

    let options = OptimizeOptions::default();
    let Optimized { receipt, manifest, refusal } = optimize(&options);
    assert_eq!(refusal, None);
    assert!(manifest.is_some() && target.join("report.json").is_file());
    // Without labels nobody can say that a budget is met, but over it is over.
    assert_eq!(receipt.findings.verdict, Verdict::Unlabelled);
    let change = receipt.findings.accuracy.expect("it was measured").paired.difference;
    assert!(change >= -options.max_drop, "the verdict changes by {change}");

    let chosen = receipt.findings.search.iter().find(|point| point.chosen).expect("something was chosen");
    println!("searched: {change:+.3} points, {chosen:?}, {} tried", receipt.findings.search.len());
    assert!(chosen.cost <= MAX_COST, "{chosen:?}");
    for layer in DAMAGED {
        let name = format!("encoder.layer.{layer}.output.dense");
        let layer = receipt.findings.layers.iter().find(|other| other.name == name).expect("the layer");
        assert!(layer.promoted_from.is_some() && layer.rung > Rung::Int8, "{layer:?}");
    }
}
