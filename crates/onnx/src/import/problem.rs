//! Why an operator could not be imported; whoever called it says which one it was.

use centuple_graph::GraphError;
use centuple_tensor::TensorError;

use crate::OnnxError;

/// What is wrong.
#[derive(Debug)]
pub(super) struct Problem(pub(super) String);

pub(super) type Result<T> = std::result::Result<T, Problem>;

/// A problem in constant words.
pub(super) fn problem(text: &str) -> Problem {
    Problem(text.to_owned())
}

impl From<GraphError> for Problem {
    fn from(error: GraphError) -> Problem {
        Problem(error.to_string())
    }
}

impl From<TensorError> for Problem {
    fn from(error: TensorError) -> Problem {
        Problem(error.to_string())
    }
}

impl From<OnnxError> for Problem {
    fn from(error: OnnxError) -> Problem {
        Problem(error.to_string())
    }
}
