//! `centuple export`: files that answer as their checkpoint does, repositories that name what the server names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::http::Server;
use crate::process::{centuple, finish};
use crate::tiny::Tiny;

fn export(model: &Tiny, target: &Path, flags: &[&str]) -> Command {
    let mut command = centuple("export");
    command.arg(model.path()).arg("-o").arg(target).args(flags);
    command
}

/// Every file below a folder, by its path in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, fs::read(&path).expect("a file"));
        }
    }
    found
}

/// A file of texts beside the model.
fn texts(model: &Tiny) -> String {
    let path = model.beside("texts.jsonl");
    let lines: Vec<String> =
        (0..20).map(|number| json!({"inputs": format!("text number {number} of some")}).to_string()).collect();
    fs::write(&path, lines.join("\n")).expect("temporary folders can be written");
    path.to_string_lossy().into_owned()
}

fn answer(folder: &Path, text: &str) -> Vec<f32> {
    let body = json!({"inputs": text}).to_string();
    let finished = finish(centuple("run").arg("feature-extraction").arg(folder), body.as_bytes());
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let reply: Value = serde_json::from_str(finished.text()).expect("a reply");
    let numbers = reply.as_array().and_then(|rows| rows.first()).and_then(Value::as_array).or(reply.as_array());
    numbers.expect("numbers").iter().map(|value| value.as_f64().expect("a number") as f32).collect()
}

#[test]
fn an_exported_model_answers_as_its_checkpoint() {
    let model = Tiny::new("sentence-all");
    let target = model.beside("exported");
    let texts = texts(&model);
    let finished = finish(&mut export(&model, &target, &["--calibrate", &texts]), b"");
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    for name in ["model.onnx", "model_optimized.onnx", "model_quantized.onnx", "model_qdq.onnx"] {
        assert!(finished.text().contains(name), "{}", finished.text());
        assert!(target.join(name).is_file(), "{name}");
    }
    let copied =
        |name: &str| fs::read(target.join(name)).expect("a file") == fs::read(model.path().join(name)).unwrap();
    assert!(copied("config.json") && copied("modules.json"));
    for known in model.known("embeddings") {
        known.assert_is(&answer(&target, known.text));
        known.assert_is(&answer(&target.join("model_optimized.onnx"), known.text));
        // A tiny model's numbers suffer in 8 bits; its direction stays.
        for name in ["model_quantized.onnx", "model_qdq.onnx"] {
            let found = answer(&target.join(name), known.text);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let cosine =
                dot(&found, &known.expected) / (dot(&found, &found) * dot(&known.expected, &known.expected)).sqrt();
            assert!(cosine > 0.95, "{name} {:?}: {cosine}", known.text);
        }
    }
}

#[test]
fn an_export_is_the_same_each_time_and_replaces_only_exports() {
    let model = Tiny::new("classify");
    let targets = ["one", "two"].map(|name| model.beside(name));
    for target in &targets {
        assert_eq!(finish(&mut export(&model, target, &[]), b"").code, Some(0));
    }
    let [one, two] = targets.each_ref().map(|target| files(target));
    assert!(one == two && !one.contains_key("model_qdq.onnx") && one.contains_key("model.onnx"));

    let again = finish(&mut export(&model, &targets[0], &["--files", "model", "--max-file-bytes", "2kB"]), b"");
    assert_eq!(again.code, Some(0), "{again:?}");
    let parted = files(&targets[0]);
    assert!(parted.contains_key("model.onnx_data") && !parted.contains_key("model_optimized.onnx"));
    assert!(parted["model.onnx"].len() < one["model.onnx"].len());

    let taken = model.beside("taken");
    fs::create_dir(&taken).expect("a folder");
    fs::write(taken.join("diary.txt"), "mine").expect("a file");
    let refused = finish(&mut export(&model, &taken, &[]), b"");
    assert!(refused.failure(1).contains("no export"), "{refused:?}");
    assert_eq!(files(&taken).len(), 1);
}

#[test]
fn what_can_not_be_exported_is_refused() {
    let model = Tiny::new("classify");
    let target = model.beside("exported");
    for (flags, reason) in [
        (&["--files", "qdq"][..], "--calibrate"),
        (&["--format", "triton", "--files", "model,optimized"], "one file"),
        (&["--format", "triton", "--name", "../up"], "--name"),
        (&["--calibrate", "nowhere.txt"], "nowhere.txt"),
    ] {
        let refused = finish(&mut export(&model, &target, flags), b"");
        assert!(refused.failure(1).contains(reason), "{refused:?}");
        assert!(!target.exists());
    }
}

/// Name, type and dimensions of the tensors of a configuration: `field` is `input` or `output`.
fn tensors(config: &str, field: &str) -> Vec<(String, String, Vec<i64>)> {
    let start = config.find(&format!("{field} [")).expect("a list of tensors");
    let list = &config[start..start + config[start..].find("\n]").expect("its end")];
    let quoted = |text: &str| text.split('"').nth(1).unwrap_or_default().to_owned();
    let values = |name: &str| {
        let lines = list.lines().filter_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let dims = |text: &String| {
        let inner = text.trim_matches(|letter: char| "[] ".contains(letter));
        inner.split(", ").map(|dim| dim.parse().expect("a number")).collect()
    };
    let names = values("name");
    let kinds = values("data_type").into_iter().zip(values("dims"));
    names.iter().zip(kinds).map(|(name, (kind, shape))| (quoted(name), kind, dims(&shape))).collect()
}

/// The same of what the server tells.
fn told(model: &Value, field: &str) -> Vec<(String, String, Vec<i64>)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let one = |tensor: &Value| {
        let dims = tensor["shape"].as_array().expect("a shape").iter().skip(1);
        let kind = format!("TYPE_{}", text(&tensor["datatype"]));
        (text(&tensor["name"]), kind, dims.map(|dim| dim.as_i64().expect("a number")).collect())
    };
    model[field].as_array().expect("a list").iter().map(one).collect()
}

#[test]
fn a_triton_repository_names_what_the_server_names() {
    for name in ["sentence-all", "classify", "bert-tiny"] {
        let model = Tiny::new(name);
        let target = model.beside("repository");
        let finished = finish(&mut export(&model, &target, &["--format", "triton", "--name", "encoder"]), b"");
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
        let found = files(&target);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        let expected = [
            "centuple_export.json",
            "encoder/1/model.onnx",
            "encoder/config.pbtxt",
            "encoder_ensemble/1/.keep",
            "encoder_ensemble/config.pbtxt",
        ];
        assert_eq!(names, expected);
        let config = |name: &str| String::from_utf8(found[name].clone()).expect("a text");
        let (own, ensemble) = (config("encoder/config.pbtxt"), config("encoder_ensemble/config.pbtxt"));
        for part in ["dynamic_batching {", "version_policy {", "model_warmup {", "instance_group ["] {
            assert!(own.contains(part), "{own}");
        }
        let server = Server::start(&[model.path()], &[]);
        let tokens = server.get("/v2/models/transformer_onnx_model").json();
        assert_eq!(tensors(&own, "output"), told(&tokens, "outputs"), "{name}");
        let inputs = tensors(&own, "input");
        let required = told(&tokens, "inputs");
        assert!(required.iter().all(|input| inputs.contains(input)), "{name}: {inputs:?}");
        assert_eq!(tensors(&ensemble, "input"), inputs);
        let texts = server.get("/v2/models/transformer_onnx_inference").json();
        assert_eq!(tensors(&ensemble, "output"), told(&texts, "outputs"), "{name}");
    }
}
