//! The accuracy gate of models that generate: perplexity decides which layers stay in a higher precision.

use std::collections::BTreeMap;
use std::path::PathBuf;

use centuple::evaluate::EvaluateOptions;
use centuple::optimize::{OptimizeOptions, Optimized, Silent};
use centuple::receipt::metrics::Metric;
use centuple::receipt::{Bootstrap, Rung};
use centuple::{Host, HostOptions, LoadOptions, Precision, Quantization};
use centuple_testkit::{FamilyGolden, Random};
use serde_json::json;
use tempfile::TempDir;

fn host() -> Host {
    Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start")
}

/// A tiny llama and texts of characters that its tokenizer knows.
fn tiny() -> (TempDir, PathBuf) {
    let families = FamilyGolden::all().expect("fixtures");
    let family = families.iter().find(|one| one.name == "llama").expect("the family");
    let case = family.cases.iter().find(|case| case.name == "causal").expect("the case");
    let folder = TempDir::new().expect("a temporary folder");
    family.assemble(case, folder.path()).expect("the fixtures are there");
    let mut random = Random::new(5);
    let mut line = |_| {
        let length = 5 + random.below(30);
        let text: String = (0..length).filter_map(|_| char::from_u32(33 + random.below(94) as u32)).collect();
        format!("{}\n", json!({ "inputs": text }))
    };
    let texts = folder.path().join("texts.jsonl");
    std::fs::write(&texts, (0..200).map(&mut line).collect::<String>()).expect("the folder can be written");
    (folder, texts)
}

fn optimized(max_drop: f64, precision: Option<Precision>) -> (TempDir, Optimized) {
    let (folder, texts) = tiny();
    let options = OptimizeOptions {
        precision,
        max_drop,
        eval: Some(texts),
        resamples: 100,
        load: LoadOptions {
            quantization: Quantization { groups: precision.and(Some(64)), ..Quantization::default() },
            ..LoadOptions::default()
        },
        ..OptimizeOptions::default()
    };
    let name = folder.path().to_string_lossy().into_owned();
    let target = folder.path().join("artefact");
    let optimized = host().optimize(&name, &target, &options, &Silent).unwrap_or_else(|error| panic!("{error}"));
    (folder, optimized)
}

fn rungs(optimized: &Optimized) -> BTreeMap<Rung, usize> {
    let mut counts = BTreeMap::new();
    optimized.receipt.findings.layers.iter().for_each(|layer| *counts.entry(layer.rung).or_default() += 1);
    counts
}

#[test]
fn perplexity_decides_which_layers_have_four_bits() {
    let (folder, generous) = optimized(1000.0, Some(Precision::Int4));
    let all = generous.receipt.findings.layers.len();
    assert!(all >= 9, "{all} layers");
    // The head keeps 8 bits, and so does what is behind an activation function.
    let behind = generous.receipt.findings.layers.iter().filter(|layer| layer.name.ends_with("down_proj")).count();
    let expected = [(Rung::Int4, all - behind - 1), (Rung::Int8, 1), (Rung::W8A12, behind)];
    assert_eq!(rungs(&generous), BTreeMap::from(expected));
    let accuracy = generous.receipt.findings.accuracy.as_ref().expect("texts were judged");
    assert_eq!(accuracy.metric, "log-perplexity x100");
    let lost = accuracy.paired.difference;
    assert!(lost > 0.0, "4 bits lose something: {lost}");
    assert!(generous.refusal.is_none());

    // The artefact generates, and is worth what its receipt says.
    let (_texts, texts) = tiny();
    let artefact = folder.path().join("artefact").to_string_lossy().into_owned();
    let own = host().evaluate(&artefact, &EvaluateOptions::of(texts), &Silent).expect("the artefact runs");
    assert_eq!((own.metric, own.precisions[0].precision), (Metric::Perplexity, Precision::Int4));

    // What the search saw it lose on its own half of the texts.
    let searched = generous.receipt.findings.search.first().expect("a point").drop;
    assert!(searched > 0.0, "4 bits lose something on either half: {searched}");
    let (_folder, strict) = optimized(searched / 4.0, Some(Precision::Int4));
    let counts = rungs(&strict);
    assert!(counts.get(&Rung::Int4).is_none_or(|count| *count < all - behind - 1), "{counts:?}");
    let promoted = strict.receipt.findings.layers.iter().filter(|layer| layer.promoted_from.is_some());
    assert!(promoted.count() > 0);
    let chosen =
        strict.receipt.findings.search.iter().find(|point| point.chosen).expect("something is within the budget");
    assert!(chosen.drop <= searched / 4.0);
}

#[test]
fn every_precision_is_evaluated_beside_f32() {
    let (folder, texts) = tiny();
    let name = folder.path().to_string_lossy().into_owned();
    let options = EvaluateOptions {
        first: Some(20),
        bootstrap: Bootstrap { resamples: 100, seed: 0 },
        ..EvaluateOptions::of(texts)
    };
    let evaluated = host().evaluate(&name, &options, &Silent).expect("the model runs");
    assert_eq!((evaluated.metric, evaluated.examples), (Metric::Perplexity, 20));
    let precisions: Vec<Precision> = evaluated.precisions.iter().map(|one| one.precision).collect();
    assert_eq!(precisions, [Precision::F32, Precision::F16, Precision::Int8, Precision::Int4]);
    assert!(evaluated.precisions[0].difference.is_none());
    for one in &evaluated.precisions[1..] {
        let difference = one.difference.expect("beside f32").difference;
        let share = difference / evaluated.precisions[0].value.value;
        assert!(share.abs() < 0.2 && one.value.low <= one.value.value, "{one:?}");
    }
    assert_eq!(evaluated.precisions[3].group, Some(128));
}
