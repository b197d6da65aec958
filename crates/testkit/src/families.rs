//! Golden values of the families: tiny checkpoints of every class, and what transformers answers for them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{fixtures, tensor};

/// The golden values of a family.
pub struct FamilyGolden {
    /// Its name.
    pub name: String,
    /// What its cases are asked.
    pub inputs: Vec<FamilyInput>,
    /// The cases.
    pub cases: Vec<FamilyCase>,
    weights: Vec<u8>,
    outputs: Vec<u8>,
}

/// One input.
#[derive(Clone, Debug, Deserialize)]
pub struct FamilyInput {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token types.
    #[serde(default)]
    pub type_ids: Vec<u32>,
    /// Tokens whose predictions are recorded, ascending.
    #[serde(default)]
    pub masked: Vec<usize>,
    /// What a decoder has written of an answer, from its first token on; predictions behind each of them are recorded.
    #[serde(default)]
    pub written: Vec<u32>,
}

/// A model folder, and what it is asked.
#[derive(Clone, Debug, Deserialize)]
pub struct FamilyCase {
    /// Its name.
    pub name: String,
    /// What its output is: `hidden`, `logits`, `token_logits`, `spans` or `predictions`.
    #[serde(default)]
    pub kind: String,
    /// Indices of its inputs.
    pub inputs: Vec<usize>,
    /// Its `config.json`.
    pub config: Value,
    /// Groups of weights that its checkpoint has.
    #[serde(default)]
    weights: Vec<usize>,
    /// What is taken off the beginning of the weights' names.
    #[serde(default)]
    without_prefix: String,
    /// Indices of the inputs that its greedy continuations begin with.
    #[serde(default)]
    pub greedy: Vec<usize>,
    /// Indices of the inputs that its beam searches begin with.
    #[serde(default)]
    pub beams: Vec<usize>,
    /// Indices of the inputs that are answered with forced tokens, an end and a penalty.
    #[serde(default)]
    pub written: Vec<usize>,
    /// The config field that must be refused by name.
    #[serde(default)]
    pub refuse: Option<String>,
}

#[derive(Deserialize)]
struct Cases {
    inputs: Vec<FamilyInput>,
    cases: Vec<FamilyCase>,
}

impl FamilyGolden {
    /// Reads every family.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn all() -> io::Result<Vec<FamilyGolden>> {
        FamilyGolden::of_folder("families")
    }

    fn of_folder(name: &str) -> io::Result<Vec<FamilyGolden>> {
        let folders = fs::read_dir(fixtures().join(name))?.map(|entry| entry.map(|entry| entry.path()));
        let mut folders = folders.collect::<io::Result<Vec<PathBuf>>>()?;
        folders.sort();
        folders.iter().map(|folder| FamilyGolden::read(folder)).collect()
    }

    /// Reads every family of models with an encoder and a decoder.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn seq2seq() -> io::Result<Vec<FamilyGolden>> {
        FamilyGolden::of_folder("seq2seq")
    }

    fn read(folder: &Path) -> io::Result<FamilyGolden> {
        let Cases { inputs, cases } = serde_json::from_slice(&fs::read(folder.join("cases.json"))?)?;
        Ok(FamilyGolden {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            inputs,
            cases,
            weights: fs::read(folder.join("weights.safetensors"))?,
            outputs: fs::read(folder.join("outputs.safetensors"))?,
        })
    }

    /// The inputs of a case as its model takes them: with token types that it has, and [`FamilyInput::masked`] only where
    /// predictions are asked for.
    pub fn inputs_of(&self, case: &FamilyCase) -> Vec<FamilyInput> {
        let types = case.config["type_vocab_size"].as_u64().unwrap_or(2);
        let mut inputs: Vec<FamilyInput> = case.inputs.iter().map(|&index| self.inputs[index].clone()).collect();
        for input in &mut inputs {
            for id in input.type_ids.iter_mut().filter(|id| u64::from(**id) >= types) {
                *id = 0;
            }
            if case.kind != "predictions" {
                input.masked.clear();
            }
        }
        inputs
    }

    /// Row-major values of a case's output, one input after the other, and the length of a row.
    pub fn output(&self, case: &FamilyCase) -> Option<(Vec<f32>, usize)> {
        tensor(&self.outputs, &format!("{}.{}", case.name, case.kind))
    }

    /// The tokens that `generate` of transformers goes on with, for each of [`FamilyCase::greedy`].
    pub fn continuations(&self, case: &FamilyCase) -> Vec<Vec<u32>> {
        self.tokens(case, "greedy")
    }

    /// The two best of four beams that `generate` of transformers finds with a length penalty of 0.5, for each of
    /// [`FamilyCase::beams`].
    pub fn searches(&self, case: &FamilyCase) -> Vec<[Vec<u32>; 2]> {
        let rows = self.tokens(case, "beams");
        rows.as_chunks::<2>().0.to_vec()
    }

    fn tokens(&self, case: &FamilyCase, kind: &str) -> Vec<Vec<u32>> {
        let Some((tokens, length)) = tensor(&self.outputs, &format!("{}.{kind}", case.name)) else { return Vec::new() };
        let rows = tokens.chunks_exact(length.max(1));
        rows.map(|row| row.iter().map(|&token| token as u32).collect()).collect()
    }

    /// The new tokens of each answer that `generate` of transformers gives, `answers` for each input, by the kind of its
    /// parameters: `greedy`, `beams` or `written`.
    pub fn answers(&self, case: &FamilyCase, kind: &str, answers: usize) -> Vec<Vec<Vec<u32>>> {
        let Some((tokens, length)) = tensor(&self.outputs, &format!("{}.{kind}", case.name)) else { return Vec::new() };
        let row = |row: &[f32]| row.iter().filter(|token| **token >= 0.0).map(|&token| token as u32).collect();
        tokens.chunks_exact((length * answers).max(1)).map(|of| of.chunks_exact(length).map(row).collect()).collect()
    }

    /// Writes the case's model folder, with a tokenizer of single characters.
    ///
    /// # Errors
    /// A fixture is damaged, or the folder cannot be written.
    pub fn assemble(&self, case: &FamilyCase, folder: &Path) -> io::Result<()> {
        let stored = SafeTensors::deserialize(&self.weights).map_err(io::Error::other)?;
        let chosen = stored.iter().filter_map(|(name, view)| {
            let (group, name) = name.split_once('/')?;
            let name = name.strip_prefix(&case.without_prefix).unwrap_or(name);
            case.weights.contains(&group.parse().ok()?).then_some((name, view))
        });
        let chosen: Vec<(&str, TensorView)> = chosen.collect();
        let bytes = safetensors::serialize(chosen, None).map_err(io::Error::other)?;
        fs::write(folder.join("model.safetensors"), bytes)?;
        fs::write(folder.join("config.json"), case.config.to_string())?;
        write_tokenizer(&case.config, folder)
    }
}

/// Writes a tokenizer of single characters for a model of this `config.json`.
pub(crate) fn write_tokenizer(config: &Value, folder: &Path) -> io::Result<()> {
    // Without the class, the family's own is taken, and it changes what a tokenizer.json says.
    let settings = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    fs::write(folder.join("tokenizer_config.json"), settings.to_string())?;
    fs::write(folder.join("tokenizer.json"), tokenizer(config).to_string())
}

/// A tokenizer of single characters, with names for the ids that are left.
fn tokenizer(config: &Value) -> Value {
    let words = config.get("vocab_size").and_then(Value::as_u64).unwrap_or(0);
    let word = |id: u64| match u32::try_from(id).ok().and_then(char::from_u32) {
        Some(character) if character.is_ascii_graphic() => character.to_string(),
        _ => format!("<{id}>"),
    };
    let vocabulary: serde_json::Map<String, Value> = (0..words).map(|id| (word(id), id.into())).collect();
    json!({
        "version": "1.0",
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<32>"},
    })
}
