//! A model repository of Triton: a model for its ONNX Runtime backend, and an ensemble over it.
//!
//! Names and shapes of tensors are those that `centuple serve` gives the model over the Open Inference Protocol, where it is
//! asked with tokens. The ensemble calls the output `output`, as the server does where it is asked with texts.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use centuple_onnx::export::Output;
use centuple_tensor::Dim;

use super::{Export, ExportError, ExportFile, ExportedFile, failed, outputs, write};

/// Most sequences of a batch.
const MAX_BATCH: usize = 64;
/// Batches that are worth starting at once.
const PREFERRED: [usize; 4] = [8, 16, 32, 64];
/// How long a request may wait for others.
const QUEUE_MICROSECONDS: usize = 1000;
/// Tokens of the sequences that a model is warmed up with, and how many of these there are.
const WARM_UP: [(usize, usize); 2] = [(1, 16), (8, 64)];

/// A tensor of a model: its name and the dimensions behind the batch.
struct Tensor {
    name: String,
    kind: &'static str,
    dims: Vec<i64>,
}

impl Export<'_> {
    pub(super) fn triton(&self, files: &[ExportFile]) -> Result<Vec<ExportedFile>, ExportError> {
        let id = &self.source.model.card.id;
        let name = match &self.options.name {
            Some(name) => name.clone(),
            None => id.rsplit('/').next().unwrap_or(id).to_owned(),
        };
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(allowed) {
            return Err(ExportError::Name(name));
        }
        let outputs = self.served();
        let mut written = Vec::new();
        for &file in files {
            let folder = Path::new(&name).join("1");
            fs::create_dir_all(self.out.join(&folder)).map_err(failed(&folder))?;
            self.progress.begin("writing the ONNX file", 0);
            written.push(self.write(file, &folder.join("model.onnx"), &outputs)?);
        }
        let (inputs, outputs) = (self.inputs(), self.tensors(&outputs));
        write(
            &self.out.join(&name).join("config.pbtxt"),
            model(&name, &inputs, &outputs, self.source.description.max_tokens).as_bytes(),
        )?;
        let ensemble_name = format!("{name}_ensemble");
        let folder = self.out.join(&ensemble_name).join("1");
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        // Folders without files get lost on the way to most stores.
        write(&folder.join(".keep"), b"")?;
        let text = ensemble(&ensemble_name, &name, &inputs, &outputs);
        write(&self.out.join(&ensemble_name).join("config.pbtxt"), text.as_bytes())?;
        Ok(written)
    }

    /// The one output that the server gives.
    fn served(&self) -> Vec<Output> {
        let mut outputs = outputs(&self.source.plain, self.head(), false);
        outputs.drain(..outputs.len().saturating_sub(1));
        outputs
    }

    fn inputs(&self) -> Vec<Tensor> {
        let names = centuple_onnx::export::inputs(&self.source.plain);
        names.into_iter().map(|name| Tensor { name: name.to_owned(), kind: "TYPE_INT64", dims: vec![-1] }).collect()
    }

    fn tensors(&self, outputs: &[Output]) -> Vec<Tensor> {
        let dims = |output: &Output| {
            let shape = &self.source.plain.node(output.value).fact.shape;
            let columns = shape.last().and_then(Dim::constant).map_or(-1, |columns| columns as i64);
            let by_token = shape.first() != Some(&centuple_tensor::Symbol::Sequences.into());
            if by_token { vec![-1, columns] } else { vec![columns] }
        };
        outputs
            .iter()
            .map(|output| Tensor { name: output.name.clone(), kind: "TYPE_FP32", dims: dims(output) })
            .collect()
    }
}

/// The configuration of the model.
fn model(name: &str, inputs: &[Tensor], outputs: &[Tensor], max_tokens: usize) -> String {
    let mut text = format!("name: \"{name}\"\nplatform: \"onnxruntime_onnx\"\nmax_batch_size: {MAX_BATCH}\n");
    text.push_str(&tensors("input", inputs));
    text.push_str(&tensors("output", outputs));
    let preferred = PREFERRED.map(|size| size.to_string()).join(", ");
    let _ = write!(
        text,
        "dynamic_batching {{\n  preferred_batch_size: [ {preferred} ]\n  max_queue_delay_microseconds: {QUEUE_MICROSECONDS}\n}}\n\
         instance_group [\n  {{\n    count: 1\n    kind: KIND_AUTO\n  }}\n]\n\
         version_policy {{\n  latest {{\n    num_versions: 1\n  }}\n}}\n"
    );
    for (sequences, tokens) in WARM_UP.map(|(sequences, tokens)| (sequences, tokens.min(max_tokens))) {
        let _ =
            write!(text, "model_warmup {{\n  name: \"{sequences} of {tokens} tokens\"\n  batch_size: {sequences}\n");
        for Tensor { name, kind, .. } in inputs {
            let _ = write!(
                text,
                "  inputs {{\n    key: \"{name}\"\n    value {{\n      data_type: {kind}\n      dims: [ {tokens} ]\n      \
                 zero_data: true\n    }}\n  }}\n"
            );
        }
        text.push_str("}\n");
    }
    text
}

/// The configuration of an ensemble that hands its inputs to the model.
fn ensemble(name: &str, model: &str, inputs: &[Tensor], outputs: &[Tensor]) -> String {
    let mut text = format!("name: \"{name}\"\nplatform: \"ensemble\"\nmax_batch_size: {MAX_BATCH}\n");
    text.push_str(&tensors("input", inputs));
    let renamed: Vec<Tensor> = outputs
        .iter()
        .map(|Tensor { kind, dims, .. }| Tensor { name: "output".to_owned(), kind, dims: dims.clone() })
        .collect();
    text.push_str(&tensors("output", &renamed));
    let _ = write!(
        text,
        "ensemble_scheduling {{\n  step [\n    {{\n      model_name: \"{model}\"\n      model_version: -1\n"
    );
    let mut map = |field: &str, key: &str, value: &str| {
        let _ = write!(text, "      {field} {{\n        key: \"{key}\"\n        value: \"{value}\"\n      }}\n");
    };
    inputs.iter().for_each(|input| map("input_map", &input.name, &input.name));
    outputs.iter().for_each(|output| map("output_map", &output.name, "output"));
    text.push_str("    }\n  ]\n}\n");
    text
}

fn tensors(field: &str, tensors: &[Tensor]) -> String {
    let mut parts = Vec::with_capacity(tensors.len());
    for Tensor { name, kind, dims } in tensors {
        let dims: Vec<String> = dims.iter().map(i64::to_string).collect();
        let dims = dims.join(", ");
        parts.push(format!("  {{\n    name: \"{name}\"\n    data_type: {kind}\n    dims: [ {dims} ]\n  }}"));
    }
    format!("{field} [\n{}\n]\n", parts.join(",\n"))
}
