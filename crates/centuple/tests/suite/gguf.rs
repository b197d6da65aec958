//! GGUF files: cases of the families, whose outputs are known; a file of every type against what transformers makes of it; and
//! the real SmolLM2-135M in 4 bits, where it is at hand.

use std::fs;
use std::path::PathBuf;

use centuple::{Compiled, Host, HostOptions, LoadOptions, Precision, is_model};
use centuple_testkit::{FamilyGolden, fixtures, tensor};
use serde::Deserialize;

use crate::support::steps::{Part, Steps};

/// Largest accepted difference of logits, which go up to 12.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Case {
    file: String,
    family: String,
    case: String,
}

fn folder() -> PathBuf {
    fixtures().join("gguf")
}

fn compile(file: &str, precision: Precision) -> Compiled {
    let host = Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start");
    let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
    let path = folder().join(file).display().to_string();
    host.compile(&path, &options).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The logits of some tokens of a text.
fn logits(steps: &mut Steps, ids: &[u32], selected: impl Iterator<Item = usize>) -> Vec<f32> {
    let selected = selected.map(|token| token as u32).collect();
    steps.run(&[Part { ids, selected, ..Part::default() }]).concat()
}

fn farthest(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn files_of_every_architecture_are_the_models_they_were_made_of() {
    let cases: Vec<Case> =
        serde_json::from_slice(&fs::read(folder().join("cases.json")).expect("fixture")).expect("JSON");
    let families = FamilyGolden::all().expect("fixtures");
    for Case { file, family, case } in &cases {
        let compiled = compile(file, Precision::F32);
        assert_eq!(compiled.model.card.id, file.trim_end_matches(".gguf"));
        let family = families.iter().find(|one| one.name == *family).expect("the family");
        let case = family.cases.iter().find(|one| one.name == *case).expect("the case");
        let mut steps = Steps::new(&compiled, 2, 150, 32);
        let mut found = Vec::new();
        for &index in &case.inputs {
            let input = &family.inputs[index];
            found.extend(logits(&mut steps, &input.ids, input.masked.iter().copied()));
        }
        let (expected, _) = family.output(case).expect("the case's output");
        let farthest = farthest(&found, &expected);
        assert!(farthest <= TOLERANCE, "{file}: off by {farthest:e}");
        let prompts: Vec<&[u32]> = case.greedy.iter().map(|&index| family.inputs[index].ids.as_slice()).collect();
        let expected = family.continuations(case);
        let found = steps.greedy(&prompts, expected[0].len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.iter().map(|(token, _)| token).eq(expected), "{file}: greedy search");
        }
    }
    assert!(cases.len() >= 14);
}

#[test]
fn a_file_of_every_type_answers_as_in_transformers() {
    let golden = fs::read(folder().join("mixed.safetensors")).expect("fixture");
    let tokens =
        |name: String| tensor(&golden, &name).expect("golden").0.iter().map(|id| *id as u32).collect::<Vec<_>>();
    let mut steps = Steps::new(&compile("mixed.gguf", Precision::F32), 2, 160, 32);
    for prompt in 0..3 {
        let ids = tokens(format!("{prompt}.ids"));
        let found = logits(&mut steps, &ids, 0..ids.len());
        let (expected, _) = tensor(&golden, &format!("{prompt}.logits")).expect("golden");
        let farthest = farthest(&found, &expected);
        assert!(farthest <= TOLERANCE, "prompt {prompt}: off by {farthest:e}");
        let expected = tokens(format!("{prompt}.greedy"));
        let found = steps.greedy(&[&ids], expected.len()).remove(0);
        assert!(found.iter().map(|(token, _)| token).eq(&expected), "prompt {prompt}: greedy search");
    }
    for precision in [Precision::F16, Precision::Int8] {
        let mut steps = Steps::new(&compile("mixed.gguf", precision), 2, 160, 32);
        assert_eq!(logits(&mut steps, &[7, 90, 33], 2..3).len(), 128);
    }
}

#[test]
fn a_folder_with_one_file_is_a_model() {
    let place = tempfile::tempdir().expect("a temporary folder");
    assert!(!is_model(place.path()));
    let copy = |name: &str| fs::copy(folder().join("llama-tied.gguf"), place.path().join(name)).expect("a copy");
    copy("a.gguf");
    assert!(is_model(place.path()));
    let host = Host::new(&HostOptions { threads: Some(1), isa: None }).expect("threads start");
    let compiled = host.compile_folder(place.path(), "model", &LoadOptions::default()).expect("it compiles");
    assert_eq!(compiled.description.architecture, "LlamaForCausalLM");
    let target = place.path().join("artefact");
    let error = compiled.save(&place.path().join("a.gguf"), &target).map(drop).map_err(|error| error.to_string());
    assert!(error.is_err_and(|error| error.contains("can't become an artefact")));
    copy("b.gguf");
    let several = host.compile_folder(place.path(), "model", &LoadOptions::default()).map(drop);
    assert!(several.is_err_and(|error| error.to_string().contains("name one of")));
}

#[derive(Deserialize)]
struct Continuation {
    text: String,
    ids: Vec<u32>,
    continued: Vec<u32>,
}

/// `SmolLM2-135M-Instruct.Q4_1.gguf` in the folder of the other real models; see `real_generation.rs`.
fn smollm2() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/centuple-test-models"));
    let models = std::env::var_os("CENTUPLE_TEST_MODELS").map(PathBuf::from).or_else(home)?;
    Some(models.join("SmolLM2-135M-Instruct.Q4_1.gguf")).filter(|path| path.is_file())
}

#[test]
fn smollm2_goes_on_as_in_pytorch() {
    let Some(path) = smollm2() else {
        eprintln!("skipped, since there is no SmolLM2 as a GGUF file");
        return;
    };
    let golden = fs::read(fixtures().join("smollm2/continuations.json")).expect("fixture");
    let golden: Vec<Continuation> = serde_json::from_slice(&golden).expect("fixture");
    let host = Host::new(&HostOptions::default()).expect("threads start");
    let compiled = host.compile_folder(&path, "smollm2", &LoadOptions::default()).expect("the model compiles");
    let mut steps = Steps::new(&compiled, host.threads(), 1024, 256);
    for group in golden.chunks(10) {
        let encode = |one: &Continuation| {
            let text = centuple_text::Text::Single(&one.text);
            compiled.model.tokenizer.encode(text, centuple_text::Truncation::Refuse).expect("it is encoded").ids.clone()
        };
        for one in group {
            assert_eq!(encode(one), one.ids, "{:?}", one.text);
        }
        let prompts: Vec<&[u32]> = group.iter().map(|one| one.ids.as_slice()).collect();
        let found = steps.greedy(&prompts, group[0].continued.len());
        for (found, one) in found.iter().zip(group) {
            let tokens: Vec<u32> = found.iter().map(|(token, _)| *token).collect();
            assert_eq!(tokens, one.continued, "after {:?}", one.text);
        }
    }
}
