//! A model folder is untrusted: whatever stands in its files, it is loaded or refused, and what is loaded runs or
//! refuses a batch. Nothing panics.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use centuple::tasks::{Engine, Job, Request, Sequence, Task};
use centuple::{Host, HostOptions, LoadOptions, Loaded, Precision};
use centuple_testkit::json::{count, node};
use centuple_testkit::{FamilyGolden, Golden};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;
use tempfile::TempDir;

/// Cases whose folders have, together, every kind of file that is read, and the JSON files of each.
const CASES: [(&str, &[&str]); 4] = [
    (
        "bert-tiny-bf16-sharded",
        &["config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors.index.json"],
    ),
    ("classify", &["config.json"]),
    ("sentence-dense", &["modules.json", "1_Pooling/config.json", "2_Dense/config.json", "sentence_bert_config.json"]),
    ("sentence-default-prompt", &["config_sentence_transformers.json", "sentence_bert_config.json"]),
];

fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start"))
}

fn assemble(case: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let golden = Golden::open().expect("fixtures");
    golden.case(case).expect("the case").assemble(folder.path()).expect("the fixtures are there");
    folder
}

/// Loads a folder in each precision.
fn exercise(folder: &Path) {
    for precision in [Precision::F32, Precision::F16, Precision::Int8] {
        let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
        if let Ok(mut loaded) = host().load_folder(folder, "untrusted", &options) {
            ask(&mut loaded);
        }
    }
}

/// Asks a model that was loaded, come what may.
fn ask(loaded: &mut Loaded) {
    for tokens in [1, 3, 64] {
        // Fewer positions or tokens than that are a reason to refuse.
        let _ = loaded.engine.run(&[&Sequence::from_ids(vec![1; tokens])]);
    }
    for task in [Task::FeatureExtraction, Task::TextClassification] {
        let request = Request::parse(task, br#"{"inputs": ["", "what a great film"]}"#).expect("a sound request");
        if let Ok(job) = Job::prepare(&loaded.model, request) {
            let _ = job.run(&loaded.model, &mut loaded.engine).map(|reply| reply.to_json());
        }
    }
}

/// Values that a careless reader trips over.
fn hostile_values() -> Vec<Value> {
    let values = r#"[null, true, false, [], {}, "", "\u0000", "../..", "/", 0, 1, 2, 3, -1, 0.5, 1e308, -0.0, 18446744073709551615,
        -9223372036854775808, 1099511627776, 4294967295, 1048576, [null], [[]], {"": {}}]"#;
    serde_json::from_str(values).expect("JSON")
}

fn hostile() -> impl Strategy<Value = Value> {
    select(hostile_values())
}

fn files() -> impl Strategy<Value = (&'static str, &'static str)> {
    let files = CASES.iter().flat_map(|(case, files)| files.iter().map(|file| (*case, *file)));
    select(files.collect::<Vec<_>>())
}

/// Every field that any case of a family sets takes every hostile value.
#[test]
fn hostile_fields_of_every_family_are_survived() {
    let mut loaded = 0;
    for family in FamilyGolden::all().expect("fixtures") {
        let cases = || family.cases.iter().filter(|case| case.refuse.is_none());
        let fields: BTreeSet<&String> =
            cases().flat_map(|case| case.config.as_object().expect("fields").keys()).collect();
        let mut case = cases().next().expect("a case").clone();
        let folder = TempDir::new().expect("a temporary folder");
        family.assemble(&case, folder.path()).expect("the fixtures are there");
        let sound = case.config.clone();
        for field in fields {
            for value in hostile_values() {
                case.config[field] = value;
                fs::write(folder.path().join("config.json"), case.config.to_string()).expect("it can be written");
                let options = LoadOptions::default();
                if let Ok(mut model) = host().load_folder(folder.path(), "untrusted", &options) {
                    loaded += 1;
                    for tokens in [1, 3, 64] {
                        let _ = model.engine.run(&[&Sequence::from_ids(vec![1; tokens])]);
                    }
                }
            }
            case.config = sound.clone();
        }
    }
    assert!(loaded > 100, "only {loaded} were loaded");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn hostile_values_are_survived(
        (case, file) in files(),
        edits in prop::collection::vec((any::<Index>(), hostile()), 1..4),
    ) {
        let folder = assemble(case);
        let path = folder.path().join(file);
        let mut json: Value = serde_json::from_slice(&fs::read(&path).expect("the file is there")).expect("it is JSON");
        for (place, value) in edits {
            let mut index = place.index(count(&json));
            if let Some(node) = node(&mut json, &mut index) {
                *node = value;
            }
        }
        fs::write(&path, json.to_string()).expect("temporary folders can be written");
        exercise(folder.path());
    }

    #[test]
    fn damaged_bytes_are_survived(
        (case, file) in prop_oneof![files(), Just(("classify", "model.safetensors"))],
        edits in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let folder = assemble(case);
        let path = folder.path().join(file);
        let mut bytes = fs::read(&path).expect("the file is there");
        for (place, value) in edits {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&path, bytes).expect("temporary folders can be written");
        exercise(folder.path());
    }
}
