//! The real SmolLM2-135M-Instruct against PyTorch: twenty prompts, 64 tokens each.
//!
//! The model (540 MB) is looked for as `smollm2` in the folder that `CENTUPLE_TEST_MODELS` names, or in
//! `.cache/centuple-test-models` of the home folder. Where it isn't, the test says so and passes.

mod support;

use std::fs;
use std::path::PathBuf;

use centuple::{Host, HostOptions, LoadOptions};
use centuple_testkit::fixtures;
use serde::Deserialize;
use support::steps::Steps;

#[derive(Deserialize)]
struct Continuation {
    ids: Vec<u32>,
    continued: Vec<u32>,
}

fn folder() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/centuple-test-models"));
    let models = std::env::var_os("CENTUPLE_TEST_MODELS").map(PathBuf::from).or_else(home)?;
    let folder = models.join("smollm2");
    folder.join("model.safetensors").is_file().then_some(folder)
}

#[test]
fn smollm2_goes_on_as_in_pytorch() {
    let Some(folder) = folder() else {
        eprintln!("skipped, since there is no SmolLM2");
        return;
    };
    let golden = fs::read(fixtures().join("smollm2/continuations.json")).expect("fixture");
    let golden: Vec<Continuation> = serde_json::from_slice(&golden).expect("fixture");
    let host = Host::new(&HostOptions::default()).expect("threads start");
    let compiled = host.compile_folder(&folder, "smollm2", &LoadOptions::default()).expect("the model compiles");
    let mut steps = Steps::new(&compiled, host.threads(), 1024, 256);
    let mut compared = 0;
    for group in golden.chunks(10) {
        let prompts: Vec<&[u32]> = group.iter().map(|one| one.ids.as_slice()).collect();
        let found = steps.greedy(&prompts, group[0].continued.len());
        for (found, expected) in found.iter().zip(group) {
            let tokens: Vec<u32> = found.iter().map(|(token, _)| *token).collect();
            assert_eq!(tokens, expected.continued, "after {:?}", expected.ids);
            compared += 1;
        }
    }
    assert_eq!(compared, 20);
}
