//! Models that read a text and write another, against what the pipelines of transformers answer with them (`scripts/goldens/make.py
//! text-to-text`).

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use centuple::tasks::text_generation::{Request, TextGenerator};
use centuple::{GenerationOptions, Host, HostOptions, LoadOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

type Outcome<T> = Result<T, Box<dyn Error>>;

const MODELS: [&str; 7] = ["t5", "bart", "mbart", "mbart50", "marian", "m2m", "nllb"];

/// The tokenizer's files.
#[derive(Deserialize)]
struct Recipe {
    /// File in the folder → file of the fixtures.
    files: BTreeMap<String, String>,
    /// File in the folder → JSON to write there.
    write: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Ask {
    task: String,
    body: Value,
    reply: Value,
}

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn fixture(model: &str, file: &str) -> PathBuf {
    crates().join("testkit/fixtures/text_to_text").join(model).join(file)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Outcome<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// The folder of a model.
fn assemble(model: &str) -> Outcome<TempDir> {
    let folder = tempfile::tempdir()?;
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(fixture(model, file), folder.path().join(file))?;
    }
    let recipe: Recipe = read(&fixture(model, "tokenizer.recipe.json"))?;
    for (name, file) in &recipe.files {
        fs::copy(crates().join("text/tests/fixtures/classes/files").join(file), folder.path().join(name))?;
    }
    for (name, value) in recipe.write.iter().filter(|(name, _)| *name != "config.json") {
        fs::write(folder.path().join(name), value.to_string())?;
    }
    Ok(folder)
}

fn start(folder: &TempDir) -> Outcome<TextGenerator> {
    let host = Host::new(&HostOptions { threads: Some(2), ..HostOptions::default() })?;
    let options = GenerationOptions { kv_memory: Some(8 << 20), ..GenerationOptions::default() };
    let name = folder.path().to_str().ok_or("a path that is no text")?;
    Ok(host.load_generating(name, &LoadOptions::default(), &options)?.start()?)
}

fn answer(generator: &TextGenerator, task: &str, body: &Value) -> Outcome<Value> {
    let request = Request::parse_for(task.parse()?, body.to_string().as_bytes())?;
    let running = generator.submit(generator.prepare(request, true, None)?)?;
    Ok(serde_json::from_slice(&running.wait()?.to_json())?)
}

#[test]
fn replies_are_those_of_the_pipelines() -> Outcome<()> {
    let mut found = Vec::new();
    for model in MODELS {
        let folder = assemble(model)?;
        let generator = start(&folder).map_err(|error| format!("{model}: {error}"))?;
        let asks: Vec<Ask> = read(&fixture(model, "asks.json"))?;
        for Ask { task, body, reply } in &asks {
            let ours = answer(&generator, task, body).unwrap_or_else(|error| json!(error.to_string()));
            if ours != *reply {
                found.push(format!("{model}, {task}, {body}:\n  ours   {ours}\n  theirs {reply}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

#[test]
fn languages_that_are_missing_or_unknown_are_told() -> Outcome<()> {
    let text = "Who walks?";
    for (model, task, parameters, reason) in [
        ("mbart50", "translation", json!({}), "`src_lang`: the model knows several languages"),
        ("mbart50", "translation", json!({"src_lang": "en_XX"}), "`tgt_lang`: the model knows several languages"),
        ("mbart", "translation", json!({"src_lang": "en_XX", "tgt_lang": "fr"}), "knows no language `fr`"),
        ("m2m", "translation_xx_to_fr", json!({}), "knows no language `xx`"),
        ("marian", "translation", json!({"tgt_lang": "spa"}), "knows no language `spa`"),
        ("t5", "translation_en_to_ro", json!({}), "none for translation_en_to_ro"),
        (
            "t5",
            "text-generation",
            json!({}),
            "does not do text-generation; it does text2text-generation, summarization",
        ),
        ("t5", "summarization", json!({"return_full_text": true}), "`return_full_text`"),
    ] {
        let folder = assemble(model)?;
        let generator = start(&folder)?;
        let error = answer(&generator, task, &json!({"inputs": text, "parameters": parameters}));
        let error = error.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(reason), "{model} {task} {parameters}: {error}");
    }
    Ok(())
}

#[test]
fn languages_are_also_those_of_the_task_and_of_the_folder() -> Outcome<()> {
    let text = |reply: &Value| reply[0]["translation_text"].clone();
    let ask = |generator: &TextGenerator, task: &str, text: &str, parameters: Value| {
        answer(generator, task, &json!({"inputs": text, "parameters": parameters}))
    };
    let m2m = start(&assemble("m2m")?)?;
    let said = ask(&m2m, "translation", "Who walks?", json!({"src_lang": "fr", "tgt_lang": "de"}))?;
    assert_eq!(text(&ask(&m2m, "translation_fr_to_de", "Who walks?", json!({}))?), text(&said));
    // The folder's tokenizer_config.json names both.
    assert_eq!(text(&ask(&m2m, "translation", "Who walks?", json!({}))?), text(&said));
    let marian = start(&assemble("marian")?)?;
    let said = ask(&marian, "translation", ">>fra<< Who walks?", json!({}))?;
    assert_eq!(text(&ask(&marian, "translation", "Who walks?", json!({"tgt_lang": "fra"}))?), text(&said));
    let t5 = start(&assemble("t5")?)?;
    let said = ask(&t5, "translation_en_to_fr", "Who walks?", json!({}))?;
    let asked = json!({"src_lang": "en", "tgt_lang": "fr"});
    assert_eq!(text(&ask(&t5, "translation", "Who walks?", asked)?), text(&said));
    Ok(())
}
