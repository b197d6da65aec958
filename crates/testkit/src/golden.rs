//! Golden values: model folders assembled from the fixtures, and what PyTorch answers for them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

use crate::fixtures;

/// A recipe for a model folder, and what it is asked.
#[derive(Clone, Debug, Deserialize)]
pub struct GoldenCase {
    /// Name, and first part of its outputs' names.
    pub name: String,
    /// Name of the task.
    pub task: String,
    /// Path in the model folder → fixture.
    copy: BTreeMap<String, String>,
    /// Path in the model folder → JSON.
    write: BTreeMap<String, Value>,
    /// What it is asked.
    #[serde(default)]
    pub inputs: Vec<GoldenInput>,
    /// Bodies that its task is asked, and what it answers.
    #[serde(default)]
    pub asks: Vec<GoldenAsk>,
    /// The config field that must be refused by name.
    #[serde(default)]
    pub refuse: Option<String>,
}

/// A body and its answer.
#[derive(Clone, Debug, Deserialize)]
pub struct GoldenAsk {
    /// The body of the request.
    pub body: Value,
    /// The reply; `None` where the pipeline refuses the body.
    pub reply: Option<Value>,
}

/// One input of a case: a text, or token ids.
#[derive(Clone, Debug, Deserialize)]
pub struct GoldenInput {
    /// The text; absent where the input is given by ids alone.
    pub text: Option<String>,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// Name of the prompt.
    pub prompt: Option<String>,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token types.
    pub type_ids: Vec<u32>,
    /// Tokens before it are left out of pooling.
    #[serde(default)]
    pub pool_from: usize,
}

/// All golden values of the tiny checkpoints.
pub struct Golden {
    /// The cases.
    pub cases: Vec<GoldenCase>,
    outputs: Vec<u8>,
}

impl Golden {
    /// Reads the fixtures.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn open() -> io::Result<Golden> {
        let cases = serde_json::from_slice(&fs::read(fixtures().join("cases.json"))?)?;
        Ok(Golden { cases, outputs: fs::read(fixtures().join("outputs.safetensors"))? })
    }

    /// The case of a name.
    pub fn case(&self, name: &str) -> Option<&GoldenCase> {
        self.cases.iter().find(|case| case.name == name)
    }

    /// Row-major values of an output (`hidden`, `embeddings`, `logits` or `scores`) and the length of a row.
    pub fn output(&self, case: &str, kind: &str) -> Option<(Vec<f32>, usize)> {
        tensor(&self.outputs, &format!("{case}.{kind}"))
    }
}

/// The cases of the tasks: bodies, and what the pipelines of transformers answer.
///
/// # Errors
/// The file is missing or damaged.
pub fn pipeline_cases() -> io::Result<Vec<GoldenCase>> {
    Ok(serde_json::from_slice(&fs::read(fixtures().join("pipelines/cases.json"))?)?)
}

impl GoldenCase {
    /// Writes the model folder.
    ///
    /// # Errors
    /// A fixture is missing, or the folder cannot be written.
    pub fn assemble(&self, folder: &Path) -> io::Result<()> {
        let place = |path: &String| -> io::Result<_> {
            let target = folder.join(path);
            target.parent().map_or(Ok(()), fs::create_dir_all)?;
            Ok(target)
        };
        for (path, fixture) in &self.copy {
            fs::copy(fixtures().join(fixture), place(path)?)?;
        }
        for (path, content) in &self.write {
            fs::write(place(path)?, content.to_string())?;
        }
        Ok(())
    }
}

/// An f32 tensor of a safetensors file in memory: its values and the length of a row.
pub fn tensor(file: &[u8], name: &str) -> Option<(Vec<f32>, usize)> {
    let file = SafeTensors::deserialize(file).ok()?;
    let view = file.tensor(name).ok()?;
    let (words, _) = view.data().as_chunks::<4>();
    Some((words.iter().map(|&word| f32::from_le_bytes(word)).collect(), view.shape().last().copied().unwrap_or(1)))
}
