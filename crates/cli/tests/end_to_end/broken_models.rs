//! Folders that are no sound model: each gets one line that says what is wrong and where, and exit code 1.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::process::{centuple, finish};
use crate::tiny::Tiny;

const WEIGHTS: &str = "model.safetensors";

/// The message about a model that cannot be loaded.
fn message(model: &Path) -> String {
    let finished = finish(centuple("inspect").arg(model), b"");
    finished.failure(1).to_owned()
}

/// Checks that a model broken by `damage` is refused with all of these words.
fn refused(case: &str, damage: impl FnOnce(&Tiny), words: &[&str]) {
    let model = Tiny::new(case);
    damage(&model);
    let message = message(&model.path());
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

/// Checks that `bert-tiny` is refused once `field` of its configuration is `value`.
fn refused_config(field: &str, value: Value, words: &[&str]) {
    let damage = |model: &Tiny| model.edit("config.json", |config| config[field] = value);
    refused("bert-tiny", damage, &[&["config.json"], words].concat());
}

/// Checks that `bert-tiny` with these weights is refused.
fn refused_weights(weights: impl AsRef<[u8]>, words: &[&str]) {
    refused("bert-tiny", |model| model.write(WEIGHTS, weights), &[&[WEIGHTS], words].concat());
}

fn weights() -> Vec<u8> {
    fs::read(Tiny::new("bert-tiny").path().join(WEIGHTS)).expect("the weights are there")
}

/// The weights with an edited header.
fn with_header(edit: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
    let weights = weights();
    let (length, rest) = weights.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Map<String, Value> = serde_json::from_slice(header).expect("a header");
    edit(&mut header);
    let header = serde_json::to_vec(&header).expect("JSON can be written");
    [&(header.len() as u64).to_le_bytes(), &header[..], data].concat()
}

fn remove(file: &'static str) -> impl FnOnce(&Tiny) {
    move |model| fs::remove_file(model.path().join(file)).expect("the file was there")
}

#[test]
fn places_without_a_model() {
    let model = Tiny::new("bert-tiny");
    assert!(message(&model.beside("missing")).contains("missing"));
    let file = message(&model.path().join("config.json"));
    assert!(file.contains("config.json") && file.contains("is a file"), "{file}");
    let empty = model.beside("empty");
    fs::create_dir(&empty).expect("temporary folders can be written");
    assert!(message(&empty).contains("config.json"));
}

#[test]
fn configurations_that_are_none() {
    refused("bert-tiny", remove("config.json"), &["config.json"]);
    for (content, word) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("nonsense", "line 1"),
        ("[]", "model_type"),
        (r#"{"model_type": 1}"#, "model_type"),
    ] {
        refused("bert-tiny", |model| model.write("config.json", content), &["config.json", word]);
    }
    // The family follows from the tensors' names, and its defaults are not this model's.
    refused("bert-tiny", |model| model.write("config.json", "{}"), &["word_embeddings", "the configuration asks for"]);
    refused("bert-tiny", |model| model.write("config.json", b"{\"model_type\": \"\xff\"}"), &["config.json"]);
    refused("bert-tiny", |model| model.write("config.json", "[".repeat(1 << 20)), &["config.json", "recursion"]);
}

#[test]
fn architectures_that_are_unknown() {
    refused_config("model_type", json!(7), &["model_type"]);
    refused_config("model_type", json!("mamba"), &["model_type", "mamba", "bert"]);
    refused_config("architectures", json!(["BertForMultipleChoice"]), &["BertForMultipleChoice", "BertModel"]);
    refused_config("architectures", json!(["Unheard"]), &["Unheard"]);
    refused_config("auto_map", json!({"AutoModel": "code.Model"}), &["auto_map"]);
    refused_config("quantization_config", json!({"bits": 4}), &["quantization_config"]);
}

#[test]
fn numbers_that_no_model_has() {
    let huge = 1u64 << 40;
    refused(
        "bert-tiny",
        |model| model.edit("config.json", |config| config["hidden_size"] = json!(huge)),
        &["1099511627776"],
    );
    for field in ["vocab_size", "intermediate_size", "max_position_embeddings", "type_vocab_size"] {
        for value in [json!(huge), json!(u64::MAX), json!(0)] {
            refused(
                "bert-tiny",
                |model| model.edit("config.json", |config| config[field] = value.clone()),
                &["bert-tiny"],
            );
        }
        refused_config(field, json!(-1), &[field]);
        refused_config(field, json!(1.5), &[field]);
        refused_config(field, json!("48"), &[field]);
    }
    refused(
        "bert-tiny",
        |model| model.edit("config.json", |config| config["num_hidden_layers"] = json!(1_000_000_000)),
        &["encoder.layer.2."],
    );
    refused_config("num_attention_heads", json!(0), &["num_attention_heads"]);
    refused_config("num_attention_heads", json!(7), &["num_attention_heads"]);
    refused_config("num_attention_heads", json!(u64::MAX), &["num_attention_heads"]);
    refused_config("hidden_size", json!(0), &["hidden_size"]);
    refused_config("layer_norm_eps", json!(-1.0), &["layer_norm_eps"]);
    refused_config("layer_norm_eps", json!(1e300), &["layer_norm_eps"]);
    refused_config("hidden_act", json!("gelu_of_my_own"), &["hidden_act", "gelu_of_my_own"]);
}

#[test]
fn weight_files_that_are_damaged() {
    let whole = weights();
    refused_weights([], &["sound"]);
    refused_weights([0; 7], &["sound"]);
    refused_weights(&whole[..100], &["sound"]);
    refused_weights(&whole[..whole.len() - 1], &["sound", "bytes"]);
    refused_weights([&whole[..], &[0]].concat(), &["sound", "bytes"]);
    refused_weights([&(1u64 << 60).to_le_bytes(), &whole[8..]].concat(), &["sound", "1152921504606846976"]);
    refused_weights([&u64::MAX.to_le_bytes(), &whole[8..]].concat(), &["sound"]);
    refused_weights([&16u64.to_le_bytes()[..], b"no JSON in here!"].concat(), &["sound", "header"]);
    refused_weights([&2u64.to_le_bytes()[..], b"{}"].concat(), &["embeddings.word_embeddings.weight", "missing"]);
    refused("bert-tiny", remove(WEIGHTS), &[WEIGHTS]);
    let folder = |model: &Tiny| {
        remove(WEIGHTS)(model);
        fs::create_dir(model.path().join(WEIGHTS)).expect("temporary folders can be written");
    };
    refused("bert-tiny", folder, &[WEIGHTS]);
    let pickle = |model: &Tiny| {
        remove(WEIGHTS)(model);
        model.write("pytorch_model.bin", "a pickle");
    };
    refused("bert-tiny", pickle, &["pytorch_model.bin", "pickle"]);
}

#[test]
fn tensors_that_do_not_fit() {
    let name = "encoder.layer.1.output.dense.weight";
    refused_weights(with_header(|header| header[name]["shape"] = json!([96, 48])), &[name, "[96, 48]", "[48, 96]"]);
    refused_weights(with_header(|header| header[name]["shape"] = json!([4608])), &[name, "[4608]"]);
    refused_weights(with_header(|header| header[name]["dtype"] = json!("I32")), &[name, "I32"]);
    refused_weights(with_header(|header| header[name]["dtype"] = json!("F64")), &["header"]);
    refused_weights(with_header(|header| header[name]["dtype"] = json!("X9")), &["header"]);
    refused_weights(with_header(|header| header[name]["shape"] = json!([u64::MAX, u64::MAX])), &["header"]);
    refused_weights(with_header(|header| header[name]["data_offsets"] = json!([0, u64::MAX])), &["header"]);
    refused_weights(with_header(|header| header[name]["data_offsets"] = json!([9, 3])), &["header"]);
    let renamed = |header: &mut Map<String, Value>| {
        let tensor = header.remove(name).expect("the tensor is there");
        header.insert("another.name".to_owned(), tensor);
    };
    refused_weights(with_header(renamed), &[name, "missing"]);
}

#[test]
fn shards_that_are_missing_or_elsewhere() {
    const INDEX: &str = "model.safetensors.index.json";
    const SHARD: &str = "model-00002-of-00002.safetensors";
    let case = "bert-tiny-bf16-sharded";
    let tensor = "bert.encoder.layer.1.output.dense.weight";
    let points_to = |shard: Value| move |model: &Tiny| model.edit(INDEX, |index| index["weight_map"][tensor] = shard);
    for outside in ["../elsewhere.safetensors", "/etc/passwd", "a/../../b"] {
        refused(case, points_to(json!(outside)), &[INDEX, outside, "outside"]);
    }
    refused(case, points_to(json!(5)), &[INDEX]);
    refused(case, points_to(json!("absent.safetensors")), &["absent.safetensors"]);
    refused(case, points_to(json!("config.json")), &["config.json", "sound"]);
    refused(case, points_to(json!("model-00001-of-00002.safetensors")), &[INDEX, tensor]);
    refused(case, remove(SHARD), &[SHARD]);
    refused(case, |model| model.write(INDEX, "{"), &[INDEX]);
    refused(case, |model| model.write(INDEX, "{}"), &[INDEX, "weight_map"]);
}

#[test]
fn tokenizers_that_are_broken_or_missing() {
    const TOKENIZER: &str = "tokenizer.json";
    let none = |model: &Tiny| {
        remove(TOKENIZER)(model);
        remove("vocab.txt")(model);
    };
    refused("bert-tiny", none, &[TOKENIZER, "vocab.txt"]);
    for content in ["", "{", "{}", "[]", "null", "\u{0}", r#"{"version": "1.0", "model": {"type": "Unheard"}}"#] {
        refused("bert-tiny", |model| model.write(TOKENIZER, content), &[TOKENIZER]);
    }
    refused("bert-tiny", |model| model.write(TOKENIZER, [0xff; 99]), &[TOKENIZER]);
    refused("bert-tiny", |model| model.write("tokenizer_config.json", "{"), &["tokenizer_config.json"]);
    refused("bert-tiny", |model| model.write("tokenizer_config.json", "[]"), &["tokenizer_config.json"]);
    let no_room = |model: &Tiny| model.edit("tokenizer_config.json", |config| config["model_max_length"] = json!(2));
    refused("bert-tiny", no_room, &["2 tokens"]);
}

#[test]
fn sentence_transformers_modules_that_do_not_fit() {
    let pooling = "1_Pooling/config.json";
    refused("sentence-mean", |model| model.write("modules.json", "{"), &["modules.json"]);
    refused("sentence-mean", |model| model.write("modules.json", "[]"), &["modules.json"]);
    let escape = |model: &Tiny| model.edit("modules.json", |modules| modules[1]["path"] = json!("../../elsewhere"));
    refused("sentence-mean", escape, &["modules.json", "elsewhere"]);
    let unknown = |model: &Tiny| model.edit("modules.json", |modules| modules[1]["type"] = json!("my.own.Module"));
    refused("sentence-mean", unknown, &["modules.json", "my.own.Module"]);
    refused("sentence-mean", remove(pooling), &["1_Pooling"]);
    let width = |model: &Tiny| model.edit(pooling, |pooling| pooling["word_embedding_dimension"] = json!(7));
    refused("sentence-mean", width, &["48", "7"]);
    refused("sentence-dense", remove("2_Dense/model.safetensors"), &["2_Dense"]);
    let features = |model: &Tiny| model.edit("2_Dense/config.json", |dense| dense["out_features"] = json!(1u64 << 40));
    refused("sentence-dense", features, &["2_Dense"]);
}

#[test]
fn classifiers_whose_labels_do_not_fit() {
    let labels = |labels: Value| move |model: &Tiny| model.edit("config.json", |config| config["id2label"] = labels);
    refused("classify", labels(json!({})), &["id2label"]);
    refused("classify", labels(json!({"0": "a", "2": "b"})), &["id2label"]);
    refused("classify", labels(json!({"0": "a", "1": "b"})), &["id2label", "2 labels", "3 rows"]);
    refused("classify", labels(json!(["a"])), &["config.json", "id2label"]);
    refused(
        "classify",
        |model| model.edit("config.json", |config| config["problem_type"] = json!("guess")),
        &["problem_type", "guess"],
    );
    refused(
        "classify",
        |model| model.edit("config.json", |config| config["problem_type"] = json!(5)),
        &["config.json", "problem_type"],
    );
}

#[test]
fn every_command_refuses_alike() {
    let model = Tiny::new("bert-tiny");
    model.write(WEIGHTS, "short");
    let expected = message(&model.path());
    for mut command in [centuple("run"), centuple("bench")] {
        if command.get_args().next().is_some_and(|name| name == "run") {
            command.arg("feature-extraction");
        }
        assert_eq!(finish(command.arg(model.path()), b"").failure(1), expected);
    }
    let served = finish(centuple("serve").arg(model.path()).args(["--port", "0"]), b"");
    assert_eq!(served.failure(1), expected);
}
