//! What can be wrong with an ONNX file.

use std::io;
use std::path::PathBuf;

/// Why a file was not read or imported.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// A file can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no sound ONNX file.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong, where, and what to do.
        problem: String,
    },
    /// A constant is not sound.
    #[error("{file}: the tensor `{tensor}` {problem}")]
    Tensor {
        /// The file.
        file: String,
        /// Name of the constant.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// An operator that is not known.
    #[error("{file}: the operator {op} of node `{node}` (opset {opset}) is not supported")]
    Operator {
        /// The file.
        file: String,
        /// Domain and name of the operator.
        op: String,
        /// Name of the node.
        node: String,
        /// Version of the operator's domain; 0 where the file names none.
        opset: i64,
    },
    /// A node that can't be imported.
    #[error("{file}: node `{node}` ({op}, opset {opset}): {problem}")]
    Node {
        /// The file.
        file: String,
        /// Name of the node.
        node: String,
        /// Domain and name of the operator.
        op: String,
        /// Version of the operator's domain; 0 where the file names none.
        opset: i64,
        /// What is wrong.
        problem: String,
    },
}

/// A name from a file as a message shows it.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 200;
    if name.chars().count() <= LONGEST {
        return name.to_owned();
    }
    name.chars().take(LONGEST).chain(['…']).collect()
}
