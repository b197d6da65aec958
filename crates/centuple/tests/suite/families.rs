//! Every class of every family: what transformers answers, for tiny random checkpoints, and how precisions and batches
//! change it.

use std::fs;

use centuple::optimize::{OptimizeOptions, Optimized, Silent};
use centuple::receipt::Rung;
use centuple::receipt::report::Verdict;
use centuple::tasks::{Engine, Head, Job, Output, Request, Sequence, Task, run_in_batches};
use centuple::{Host, HostOptions, LoadOptions, Loaded, Precision};
use centuple_testkit::{FamilyCase, FamilyGolden, FamilyInput, Random};
use serde_json::json;
use tempfile::TempDir;

/// Largest accepted difference; values go up to 10.
const TOLERANCE: f32 = 1e-4;
/// Least cosine of a case's outputs to those in f32. The fixtures' weights are f16 already, so f16 rounds none of them.
const LEAST_F16: f32 = 0.999_99;
const LEAST_INT8: f32 = 0.98;
/// A budget that random models keep in int8: a quarter of the points.
const GENEROUS: f64 = 25.0;

fn load(family: &FamilyGolden, case: &FamilyCase, precision: Precision, threads: usize) -> Loaded {
    let folder = TempDir::new().expect("a temporary folder");
    family.assemble(case, folder.path()).expect("the fixtures are there");
    let host = Host::new(&HostOptions { threads: Some(threads), isa: None }).expect("threads start");
    let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
    let loaded = host.load_folder(folder.path(), &case.name, &options);
    loaded.unwrap_or_else(|error| panic!("{} {}: {error}", family.name, case.name))
}

/// The inputs of a case.
fn sequences(family: &FamilyGolden, case: &FamilyCase) -> Vec<Sequence> {
    let of = |FamilyInput { ids, type_ids, masked: selected, .. }| Sequence {
        ids,
        type_ids,
        selected,
        ..Sequence::default()
    };
    family.inputs_of(case).into_iter().map(of).collect()
}

fn values(outputs: Vec<Output>) -> Vec<f32> {
    outputs.into_iter().flat_map(|output| output.data).collect()
}

/// All sequences together, and each by itself.
fn answers(loaded: &mut Loaded, sequences: &[Sequence]) -> [Vec<f32>; 2] {
    let together = run_in_batches(&mut loaded.engine, sequences).expect("all inputs run");
    let alone = sequences.iter().map(|sequence| loaded.engine.run(&[sequence]).expect("runs").remove(0)).collect();
    [values(together), values(alone)]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() }).fold(0.0, f32::max)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()) as f32
}

#[test]
fn outputs_equal_transformers() {
    let mut compared = 0;
    for family in FamilyGolden::all().expect("fixtures") {
        let mut farthest: f32 = 0.0;
        for case in family.cases.iter().filter(|case| case.refuse.is_none()) {
            let mut loaded = load(&family, case, Precision::F32, 2);
            let [together, alone] = answers(&mut loaded, &sequences(&family, case));
            assert_eq!(bits(&together), bits(&alone), "{} {}: company matters", family.name, case.name);
            let (expected, _) = family.output(case).expect("the case's output");
            let difference = largest_difference(&together, &expected);
            assert!(difference <= TOLERANCE, "{} {}: off by {difference:e}", family.name, case.name);
            farthest = farthest.max(difference);
            compared += 1;
        }
        println!("{}: {farthest:e}", family.name);
    }
    assert!(compared > 100, "only {compared} cases were compared");
}

#[test]
fn every_class_runs_in_every_precision() {
    for family in FamilyGolden::all().expect("fixtures") {
        let mut nearest = [1.0_f32; 2];
        for case in family.cases.iter().filter(|case| case.refuse.is_none()) {
            let sequences = sequences(&family, case);
            let [exact, _] = answers(&mut load(&family, case, Precision::F32, 1), &sequences);
            let precisions = [(Precision::F16, LEAST_F16), (Precision::Int8, LEAST_INT8)];
            for ((precision, least), nearest) in precisions.into_iter().zip(&mut nearest) {
                let place = format!("{} {} in {precision:?}", family.name, case.name);
                let [found, alone] = answers(&mut load(&family, case, precision, 1), &sequences);
                assert_eq!(bits(&found), bits(&alone), "{place}: company matters");
                let [threaded, alone] = answers(&mut load(&family, case, precision, 3), &sequences);
                assert_eq!(bits(&found), bits(&threaded), "{place}: threads matter");
                assert_eq!(bits(&found), bits(&alone), "{place}: company matters to threads");
                let cosine = cosine(&found, &exact);
                assert!(cosine >= least, "{place}: a cosine of {cosine}");
                *nearest = nearest.min(cosine);
            }
        }
        println!("{}: cosines of f16 and int8 from {nearest:?} on", family.name);
    }
}

/// Texts of characters that the tokenizer of the fixtures knows.
fn texts(count: usize) -> Vec<String> {
    let mut random = Random::new(11);
    let mut text = || -> String {
        let length = 3 + random.below(24);
        (0..length).filter_map(|_| char::from_u32(33 + random.below(94) as u32)).collect()
    };
    (0..count).map(|_| text()).collect()
}

/// The label that the model gives each text in f32, and for every fifth text another one; as lines of JSON.
fn labelled(family: &FamilyGolden, case: &FamilyCase, texts: &[String]) -> String {
    let mut loaded = load(family, case, Precision::F32, 2);
    let body = json!({ "inputs": texts }).to_string();
    let request = Request::parse(Task::TextClassification, body.as_bytes()).expect("a valid request");
    let job = Job::prepare(&loaded.model, request).expect("texts that the model takes");
    let outputs = run_in_batches(&mut loaded.engine, &job.sequences).expect("all texts run");
    let Head::Classification { labels, .. } = &loaded.model.card.head else { panic!("{} classifies", family.name) };
    let line = |(index, (text, output)): (usize, (&String, Output))| {
        let best = (0..labels.len()).max_by(|&a, &b| output.data[a].total_cmp(&output.data[b])).expect("labels");
        let label = &labels[(best + usize::from(index % 5 == 0)) % labels.len()];
        format!("{}\n", json!({ "inputs": text, "label": label }))
    };
    texts.iter().zip(outputs).enumerate().map(line).collect()
}

#[test]
fn the_accuracy_gate_judges_every_family() {
    let texts = texts(80);
    for family in FamilyGolden::all().expect("fixtures") {
        let classifier = family.cases.iter().find(|case| case.name == "sequence");
        let case = classifier.or(family.cases.iter().find(|case| case.name == "base")).expect("a case");
        let place = TempDir::new().expect("a temporary folder");
        let [model, target, examples] = ["model", "optimised", "examples.jsonl"].map(|name| place.path().join(name));
        fs::create_dir(&model).expect("a new folder");
        family.assemble(case, &model).expect("the fixtures are there");
        if classifier.is_some() {
            fs::write(&examples, labelled(&family, case, &texts)).expect("examples");
        } else {
            let plain: String = texts.iter().map(|text| format!("{}\n", json!({ "inputs": text }))).collect();
            fs::write(&examples, plain).expect("examples");
        }
        let options = OptimizeOptions {
            eval: Some(examples),
            max_drop: GENEROUS,
            evaluations: 4,
            resamples: 100,
            ..OptimizeOptions::default()
        };
        let host = Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start");
        let name = model.to_str().expect("a path in UTF-8");
        let optimized = host.optimize(name, &target, &options, &Silent);
        let Optimized { receipt, manifest, refusal } =
            optimized.unwrap_or_else(|error| panic!("{} {}: {error}", family.name, case.name));
        assert_eq!(refusal, None, "{}", family.name);
        assert!(manifest.is_some(), "{}", family.name);
        let expected = if classifier.is_some() { Verdict::Met } else { Verdict::Unlabelled };
        assert_eq!(receipt.findings.verdict, expected, "{}", family.name);
        let layers = &receipt.findings.layers;
        assert!(layers.iter().any(|layer| layer.rung < Rung::Float), "{}: nothing was quantised", family.name);
        let accuracy = receipt.findings.accuracy.expect("it was measured");
        println!("{}: {} layers, {:+.2} points", family.name, layers.len(), accuracy.paired.difference);

        let mut artefact = host.load_folder(&target, "artefact", &LoadOptions::default()).expect("the artefact opens");
        let [together, alone] = answers(&mut artefact, &sequences(&family, case));
        assert_eq!(bits(&together), bits(&alone), "{}: company matters to the artefact", family.name);
    }
}
