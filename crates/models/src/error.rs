//! What can be wrong with a model.

use std::path::PathBuf;

use centuple_graph::GraphError;
use centuple_tensor::TensorError;

use crate::checkpoint::CheckpointError;

/// Why a folder did not become a graph.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of the folder is missing, damaged or foreign.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A configuration field is missing, malformed or asks for something unsupported.
    #[error("`{}`: {reason}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The field, its value, and what is supported instead.
        reason: String,
    },
    /// The weights and the configuration do not fit together.
    #[error("the model's layers do not fit together: {0}")]
    Graph(#[from] GraphError),
    /// A constant that a family computes has a wrong size or type.
    #[error("a table of the model could not be made: {0}")]
    Tensor(#[from] TensorError),
}
