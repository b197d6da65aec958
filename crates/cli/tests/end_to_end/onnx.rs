//! Models that are ONNX files: named as files and as folders, explained, optimised; and damaged ones, which are refused.

use std::fs;
use std::path::{Path, PathBuf};

use centuple_testkit::{OnnxGolden, Random};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Finished, centuple, finish};

/// A model folder of BERT's ONNX fixtures.
struct Onnx {
    folder: TempDir,
}

impl Onnx {
    fn new(case: &str) -> Onnx {
        let folder = TempDir::new().expect("a temporary folder");
        let families = OnnxGolden::all().expect("the fixtures are there");
        let bert = families.iter().find(|family| family.name == "bert").expect("BERT");
        let case = bert.cases.iter().find(|other| other.name == case).expect("the case");
        fs::create_dir(folder.path().join("model")).expect("temporary folders can be written");
        bert.assemble(case, &folder.path().join("model")).expect("the fixtures are there");
        Onnx { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    fn file(&self) -> PathBuf {
        self.path().join("model.onnx")
    }
}

fn inspect(model: &Path) -> Finished {
    finish(centuple("inspect").arg(model), b"")
}

fn classify(model: &Path) -> Value {
    let finished = finish(centuple("run").arg("token-classification").arg(model), b"{\"inputs\": \"abc de\"}\n");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    serde_json::from_str(finished.text()).expect("a reply in JSON")
}

#[test]
fn a_file_is_a_model() {
    let model = Onnx::new("token-torchscript-12");
    let answer = classify(&model.path());
    assert_eq!(answer, classify(&model.file()));
    // As hub repositories have it: the file one folder below the others.
    fs::create_dir(model.path().join("onnx")).expect("folders can be written");
    for name in ["model.onnx", "weights.bin"] {
        fs::rename(model.path().join(name), model.path().join("onnx").join(name)).expect("files can be moved");
    }
    assert_eq!(answer, classify(&model.path()));
    assert_eq!(answer, classify(&model.path().join("onnx/model.onnx")));
    let shown = inspect(&model.path());
    assert!(shown.text().contains("BertForTokenClassification") && shown.text().contains("token-classification"));
}

#[test]
fn what_was_recognised_is_explained() {
    let model = Onnx::new("torchscript-14-sdpa");
    let finished = finish(centuple("inspect").arg(model.path()).arg("--explain"), b"");
    let lines: Vec<&str> = finished.text().lines().collect();
    assert!(lines.iter().any(|line| line.contains("opset 14")), "{}", finished.text());
    let attention = lines.iter().find(|line| line.starts_with("attention "));
    assert!(attention.is_some_and(|line| line.ends_with("changed 2")), "{attention:?}");
    let recognised = "recognised 2 attentions, 5 norms, 2 activations, 12 linear layers; nothing stays padded";
    assert!(lines.contains(&recognised), "{}", finished.text());
    assert!(inspect(&model.path().join("other.onnx")).failure(1).contains("there is no file"));
}

#[test]
fn an_optimised_one_needs_no_file() {
    let model = Onnx::new("token-torchscript-12");
    let artefact = model.folder.path().join("artefact");
    let command = ["--precision", "int8", "--max-drop", "100", "-o"];
    let finished = finish(centuple("optimize").arg(model.file()).args(command).arg(&artefact), b"");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    fs::remove_dir_all(model.path()).expect("folders can be removed");
    assert!(inspect(&artefact).text().contains("int8"));
    classify(&artefact);
}

#[test]
fn damaged_files_are_refused() {
    let model = Onnx::new("torchscript-14-sdpa");
    let sound = fs::read(model.file()).expect("the file is there");
    let refused = |content: &[u8]| {
        fs::write(model.file(), content).expect("files can be written");
        let message = inspect(&model.path()).failure(1).to_owned();
        assert!(message.contains("model.onnx"), "{message}");
    };
    refused(b"");
    refused(b"nonsense");
    refused(&[0xff; 4096]);
    for length in [1, sound.len() / 3, sound.len() - 1] {
        refused(&sound[..length]);
    }
    let mut random = Random::new(7);
    for _ in 0..12 {
        let mut damaged = sound.clone();
        for _ in 0..3 {
            damaged[random.below(sound.len())] = random.below(256) as u8;
        }
        fs::write(model.file(), &damaged).expect("files can be written");
        let finished = inspect(&model.path());
        assert!(matches!(finished.code, Some(0 | 1)) && !finished.stderr.contains("panicked"), "{}", finished.stderr);
    }
    fs::write(model.file(), &sound).expect("files can be written");
    fs::remove_file(model.path().join("weights.bin")).expect("the weights are there");
    assert!(inspect(&model.path()).failure(1).contains("weights.bin"));
}

#[test]
fn a_folder_of_several_asks_which() {
    let model = Onnx::new("torchscript-14-sdpa");
    fs::copy(model.file(), model.path().join("a.onnx")).expect("files can be copied");
    fs::rename(model.file(), model.path().join("b.onnx")).expect("files can be moved");
    assert!(inspect(&model.path()).failure(1).contains("a.onnx, b.onnx"));
    assert_eq!(inspect(&model.path().join("b.onnx")).code, Some(0));
}

#[test]
fn hub_caches_may_hold_onnx_files_only() {
    let model = Onnx::new("token-torchscript-12");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let home = model.folder.path().join("home");
    let repository = home.join("hub/models--some--model");
    for folder in ["snapshots", "refs"] {
        fs::create_dir_all(repository.join(folder)).expect("temporary folders can be written");
    }
    fs::create_dir(model.path().join("onnx")).expect("folders can be written");
    for name in ["model.onnx", "weights.bin"] {
        fs::rename(model.path().join(name), model.path().join("onnx").join(name)).expect("files can be moved");
    }
    fs::rename(model.path(), repository.join("snapshots").join(commit)).expect("in one file system");
    fs::write(repository.join("refs/main"), commit).expect("temporary folders can be written");
    let finished = finish(centuple("inspect").arg("some/model").env("HF_HOME", &home), b"");
    assert!(finished.text().contains("some/model") && finished.text().contains("token-classification"), "{finished:?}");
}
