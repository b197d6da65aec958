//! Reading a file: bounded before it is decoded, its constants on demand.

mod bounds;
mod element;
mod external;
mod tensor;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use centuple_tensor::Buffer;
use prost::Message;

use crate::OnnxError;
use crate::error::shown;
use crate::proto::{GraphProto, ModelProto, TensorProto};
use external::External;

pub(crate) use element::{Constant, Element, filled};

/// Largest file; protobuf messages end there, and larger models keep their weights beside it.
const LONGEST: u64 = 2 << 30;

/// An ONNX file that was read.
pub struct File {
    name: String,
    length: usize,
    model: ModelProto,
    external: External,
}

impl File {
    /// Reads a file. External data is looked for in its folder and nowhere else.
    ///
    /// # Errors
    /// The file can't be read, is longer than 2 GiB, or is no sound ONNX file.
    pub fn open(path: &Path) -> Result<File, OnnxError> {
        let failed = |source| OnnxError::Read { path: path.to_owned(), source };
        let name = path.display().to_string();
        let mut file = fs::File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() > LONGEST {
            let problem =
                "this is no file of at most 2 GiB; larger models keep their weights in external data".to_owned();
            return Err(OnnxError::File { file: name, problem });
        }
        let mut buffer = Buffer::zeroed(metadata.len() as usize);
        file.read_exact(buffer.as_bytes_mut()).map_err(failed)?;
        File::decode(name, Bytes::from_owner(buffer), External::new(Some(path)))
    }

    /// Reads the bytes of a file that has no external data.
    ///
    /// # Errors
    /// The bytes are no sound ONNX file.
    pub fn from_bytes(name: &str, bytes: impl Into<Bytes>) -> Result<File, OnnxError> {
        File::decode(name.to_owned(), bytes.into(), External::new(None))
    }

    fn decode(name: String, bytes: Bytes, external: External) -> Result<File, OnnxError> {
        let length = bytes.len();
        bounds::check(&bytes).map_err(|problem| OnnxError::File { file: name.clone(), problem })?;
        let model = ModelProto::decode(bytes).map_err(|error| OnnxError::File {
            file: name.clone(),
            problem: format!("this is no sound ONNX file: {error}"),
        })?;
        Ok(File { name, length, model, external })
    }

    /// The message of the file.
    pub fn model(&self) -> &ModelProto {
        &self.model
    }

    /// The path or name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that were read so far: the file, and its external data.
    pub(crate) fn length(&self) -> usize {
        self.length.saturating_add(self.external.length())
    }

    /// The graph.
    pub(crate) fn graph(&self) -> Result<&GraphProto, OnnxError> {
        self.model.graph.as_ref().ok_or_else(|| self.problem("it has no graph".to_owned()))
    }

    /// The version of each domain.
    pub(crate) fn opsets(&self) -> HashMap<&str, i64> {
        self.model.opset_import.iter().map(|set| (domain(&set.domain), set.version)).collect()
    }

    /// Reads a constant.
    pub(crate) fn constant(&self, tensor: &TensorProto) -> Result<Constant, OnnxError> {
        tensor::read(tensor, &self.external).map_err(|problem| OnnxError::Tensor {
            file: self.name.clone(),
            tensor: shown(&tensor.name),
            problem,
        })
    }

    pub(crate) fn problem(&self, problem: String) -> OnnxError {
        OnnxError::File { file: self.name.clone(), problem }
    }
}

/// A domain under one name: ONNX itself has two.
pub(crate) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}
