//! Golden values of ONNX files: the families' tiny checkpoints by many exporters, and what ONNX Runtime answers for them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::families::write_tokenizer;
use crate::{FamilyInput, fixtures, tensor};

/// The ONNX files of a family.
pub struct OnnxGolden {
    /// The family's name.
    pub name: String,
    /// What its cases are asked.
    pub inputs: Vec<FamilyInput>,
    /// The cases.
    pub cases: Vec<OnnxCase>,
    folder: PathBuf,
    outputs: Vec<u8>,
}

/// One ONNX file, and what it is asked.
#[derive(Clone, Debug, Deserialize)]
pub struct OnnxCase {
    /// Its name.
    pub name: String,
    /// The file within the family's folder.
    pub file: String,
    /// The exporter, and what was done to its file.
    pub made_by: String,
    /// The version of the standard operators.
    pub opset: u64,
    /// The case of the family's golden values that it was made of.
    pub of: String,
    /// What its output is: `hidden`, `logits`, `token_logits`, `spans`, `predictions` or `embeddings`.
    pub kind: String,
    /// Names of the outputs: one, or two of `spans`.
    pub outputs: Vec<String>,
    /// Indices of its inputs.
    pub inputs: Vec<usize>,
    /// Its `config.json`.
    pub config: Value,
    /// How many of each a reader of the file should recognise: `attention`, `layer_norm`, `gelu`, `silu`; absent for none.
    pub counts: BTreeMap<String, usize>,
    /// What activations are computed in: `f32`, `f16`, `dynamic` (int8, by batch) or `static` (int8, by calibration).
    pub activations: String,
    /// How far ONNX Runtime's answer is from PyTorch's in f32, as [`crate::distance`] measures it.
    pub from_pytorch: f32,
    /// The operators of the file, separated by spaces.
    pub operators: String,
}

#[derive(Deserialize)]
struct Cases {
    inputs: Vec<FamilyInput>,
    cases: Vec<OnnxCase>,
}

impl OnnxGolden {
    /// Reads every family.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn all() -> io::Result<Vec<OnnxGolden>> {
        let folders = fs::read_dir(fixtures().join("onnx"))?.map(|entry| entry.map(|entry| entry.path()));
        let mut folders = folders.collect::<io::Result<Vec<PathBuf>>>()?;
        folders.sort();
        folders.into_iter().map(OnnxGolden::read).collect()
    }

    fn read(folder: PathBuf) -> io::Result<OnnxGolden> {
        let Cases { inputs, cases } = serde_json::from_slice(&fs::read(folder.join("cases.json"))?)?;
        Ok(OnnxGolden {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            inputs,
            cases,
            outputs: fs::read(folder.join("outputs.safetensors"))?,
            folder,
        })
    }

    /// The path of a case's file; its large tensors are in `weights.bin` beside it.
    pub fn path(&self, case: &OnnxCase) -> PathBuf {
        self.folder.join(&case.file)
    }

    /// Row-major values of a case's output, one input after the other, and the length of a row.
    pub fn output(&self, case: &OnnxCase) -> Option<(Vec<f32>, usize)> {
        tensor(&self.outputs, &case.name)
    }

    /// Writes the case's model folder: `model.onnx`, its weights, `config.json`, and a tokenizer of single characters.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn assemble(&self, case: &OnnxCase, folder: &Path) -> io::Result<()> {
        fs::copy(self.path(case), folder.join("model.onnx"))?;
        fs::copy(self.folder.join("weights.bin"), folder.join("weights.bin"))?;
        fs::write(folder.join("config.json"), case.config.to_string())?;
        write_tokenizer(&case.config, folder)
    }
}
