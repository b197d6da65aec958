//! Artefacts: what was saved answers as before, and nothing else ever answers in its name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use centuple::tasks::{Engine, Job, Output, Request, Sequence, Task};
use centuple::{Compiled, Error, Host, HostOptions, LoadOptions, Loaded, Precision, Purpose};
use centuple_testkit::json::{count, node};
use centuple_testkit::{Golden, Random};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Int8];

fn host() -> Host {
    Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start")
}

/// A case's folder, compiled, and the artefact of it.
fn saved(host: &Host, case: &str, precision: Precision) -> (TempDir, PathBuf, Compiled) {
    let place = TempDir::new().expect("a temporary folder");
    let source = place.path().join("source");
    fs::create_dir(&source).expect("a folder");
    Golden::open().expect("fixtures").case(case).expect("the case").assemble(&source).expect("the fixtures are there");
    let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
    let compiled = host.compile_folder(&source, case, &options).expect("the case compiles");
    let artefact = place.path().join("artefact");
    compiled.save(&source, &artefact).expect("the artefact is written");
    (place, artefact, compiled)
}

fn load(host: &Host, folder: &Path) -> Result<Loaded, Error> {
    host.load_folder(folder, "artefact", &LoadOptions::default())
}

/// Outputs for ids, and the reply to a text.
fn answers(loaded: &mut Loaded) -> Result<(Vec<Output>, Vec<u8>), String> {
    let mut random = Random::new(3);
    let mut outputs = Vec::new();
    for tokens in [1, 7, 30] {
        let vocabulary = loaded.engine.limits().vocabulary;
        let ids = (0..tokens).map(|_| random.below(vocabulary) as u32).collect();
        outputs.extend(loaded.engine.run(&[&Sequence::from_ids(ids)]).map_err(|error| error.to_string())?);
    }
    let task = loaded.model.card.tasks()[0];
    let body: &[u8] = match task {
        Task::SentenceSimilarity => br#"{"inputs": {"source_sentence": "a good day", "sentences": ["a bad night"]}}"#,
        Task::ZeroShotClassification => br#"{"inputs": "what a great film", "candidate_labels": "film, weather"}"#,
        Task::QuestionAnswering => br#"{"inputs": {"question": "what", "context": "what a great film"}}"#,
        Task::TextRanking => br#"{"inputs": {"query": "what", "texts": ["what a great film"]}}"#,
        Task::FillMask => br#"{"inputs": "what a [MASK]"}"#,
        Task::FeatureExtraction | Task::TextClassification | Task::TokenClassification => {
            br#"{"inputs": "what a great film"}"#
        }
    };
    let request = Request::parse(task, body).map_err(|error| error.to_string())?;
    let job = Job::prepare(&loaded.model, request).map_err(|error| error.to_string())?;
    let reply = job.run(&loaded.model, &mut loaded.engine).map_err(|error| error.to_string())?;
    Ok((outputs, reply.to_json()))
}

#[test]
fn an_artefact_answers_as_its_source_bit_for_bit() {
    let host = host();
    for case in
        ["bert-tiny", "bert-tiny-bf16-sharded", "sentence-all", "sentence-dense", "sentence-default-prompt", "classify"]
    {
        for precision in PRECISIONS {
            let (_place, artefact, compiled) = saved(&host, case, precision);
            let mut source = host.start(&compiled).expect("starts");
            let mut loaded = load(&host, &artefact).unwrap_or_else(|error| panic!("{case} in {precision}: {error}"));
            assert_eq!(loaded.precision, precision);
            assert_eq!(answers(&mut loaded), answers(&mut source), "{case} in {precision}");
            assert_eq!(loaded.model.card.head, source.model.card.head);
            assert_eq!(loaded.model.card.prompts, source.model.card.prompts);
        }
    }
}

#[test]
fn saving_twice_gives_the_same_bytes() {
    let host = host();
    let (place, artefact, compiled) = saved(&host, "sentence-all", Precision::Int8);
    let again = place.path().join("again");
    compiled.save(&place.path().join("source"), &again).expect("written");
    assert_eq!(contents(&artefact), contents(&again));
    // And over an artefact that is there.
    compiled.save(&place.path().join("source"), &artefact).expect("written");
    assert_eq!(contents(&artefact), contents(&again));
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn nothing_but_an_artefact_is_replaced() {
    let host = host();
    let (place, _, compiled) = saved(&host, "classify", Precision::F32);
    let source = place.path().join("source");
    let before = contents(&source);
    let error = compiled.save(&source, &source).expect_err("the source is no artefact").to_string();
    assert!(error.contains("is no artefact"), "{error}");
    assert_eq!(contents(&source), before);
}

#[test]
fn other_precisions_and_purposes_are_refused() {
    let host = host();
    let (_place, artefact, _) = saved(&host, "classify", Precision::Int8);
    let with = |options| host.load_folder(&artefact, "artefact", &options).map(drop);
    with(LoadOptions { precision: Some(Precision::Int8), ..LoadOptions::default() }).expect("its own precision");
    let error =
        with(LoadOptions { precision: Some(Precision::F32), ..LoadOptions::default() }).unwrap_err().to_string();
    assert!(error.contains("optimised to int8, not f32"), "{error}");
    let error =
        with(LoadOptions { purpose: Purpose::TokenFeatures, ..LoadOptions::default() }).unwrap_err().to_string();
    assert!(error.contains("with its own head"), "{error}");
}

#[test]
fn an_old_or_foreign_manifest_is_named() {
    let host = host();
    let (_place, artefact, _) = saved(&host, "classify", Precision::F32);
    let manifest = artefact.join("centuple.json");
    for (text, expected) in [
        (r#"{"format": 1}"#, "format 1, this Centuple reads format 2"),
        ("{}", "another format"),
        ("", "EOF"),
        ("[1, 2", "EOF"),
        (r#"{"format": 2}"#, "hash"),
    ] {
        fs::write(&manifest, text).unwrap();
        let error = load(&host, &artefact).map(drop).expect_err(text).to_string();
        assert!(error.contains(expected) && error.contains("centuple.json"), "{text}: {error}");
        assert!(error.contains("optimise the model again"), "{text}: {error}");
    }
}

/// A thousand times something happens to an artefact. It is noticed, or it makes no difference.
#[test]
fn damage_is_noticed_or_makes_no_difference() {
    let host = host();
    let (place, artefact, _) = saved(&host, "sentence-all", Precision::Int8);
    let expected = answers(&mut load(&host, &artefact).expect("loads"));
    let sound = contents(&artefact);
    let names: Vec<&String> = sound.keys().collect();
    let damaged = place.path().join("damaged");
    let mut random = Random::new(11);
    let (mut noticed, mut harmless) = (0, 0);
    for round in 0..1000 {
        let mut files = sound.clone();
        // Half of it happens to the weights and the manifest.
        let name = match random.below(4) {
            0 => "model.safetensors",
            1 => "centuple.json",
            _ => names[random.below(names.len())].as_str(),
        };
        let Some(bytes) = files.get_mut(name) else { panic!("{name} is not there") };
        let length = bytes.len().max(1);
        match random.below(6) {
            0 | 1 if !bytes.is_empty() => bytes[random.below(length)] ^= 1 << random.below(8),
            2 => bytes.truncate(random.below(length)),
            3 => bytes.extend((0..=random.below(64)).map(|byte| byte as u8)),
            4 => {
                // Two pieces change places, as tensors do.
                let piece = 1 + random.below(length / 4 + 1);
                let (a, b) = (random.below(length), random.below(length));
                if a + piece <= b && b + piece <= length {
                    let (left, right) = bytes.split_at_mut(b);
                    left[a..a + piece].swap_with_slice(&mut right[..piece]);
                }
            }
            _ => {
                let other = names[random.below(names.len())];
                let contents = sound[other].clone();
                files.insert(name.to_owned(), contents);
            }
        }
        write(&damaged, &files);
        match load(&host, &damaged) {
            Err(error) => {
                noticed += 1;
                assert!(!error.to_string().is_empty());
            }
            Ok(mut loaded) => {
                harmless += 1;
                assert_eq!(answers(&mut loaded), expected, "round {round} changed {name}");
            }
        }
        fs::remove_dir_all(&damaged).unwrap();
    }
    println!("{noticed} noticed, {harmless} harmless");
    assert!(noticed > 500 && harmless > 0);
}

/// A manifest that was forged, hash and all, is refused or runs; nothing panics.
#[test]
fn forged_manifests_do_no_harm() {
    let host = host();
    let (_place, artefact, _) = saved(&host, "classify", Precision::Int8);
    let manifest = artefact.join("centuple.json");
    let sound: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let hostile: Vec<Value> = serde_json::from_str(
        r#"[null, true, [], {}, "", "..", "/dev/zero", "Tokens*Tokens", 0, 1, -1, 0.5, 1e308, 18446744073709551615, 4611686018427387904,
            "input", {"linear": {"bias": true, "activation": null, "residual": true}}, [0, 0], [1, 2, 3], 17, 384, "f16", "i64"]"#,
    )
    .unwrap();
    let mut random = Random::new(5);
    let mut loaded = 0;
    for _ in 0..3000 {
        let mut forged = sound.clone();
        let mut index = random.below(count(&forged["graph"]));
        let place = if random.below(8) == 0 {
            index = random.below(count(&forged));
            node(&mut forged, &mut index)
        } else {
            node(&mut forged["graph"], &mut index)
        };
        if let Some(place) = place {
            *place = hostile[random.below(hostile.len())].clone();
        }
        if let Some(fields) = forged.as_object_mut() {
            fields.shift_remove("sha256");
            let hash = Sha256::digest(serde_json::to_vec(&fields).unwrap());
            fields.insert("sha256".into(), hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into());
        }
        fs::write(&manifest, serde_json::to_vec(&forged).unwrap()).unwrap();
        if let Ok(mut model) = load(&host, &artefact) {
            loaded += 1;
            let _ = answers(&mut model);
        }
    }
    assert!(loaded > 0, "every forgery was refused, so nothing was tried");
}

type Files = BTreeMap<String, Vec<u8>>;

fn contents(folder: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files.extend(contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

fn write(folder: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
