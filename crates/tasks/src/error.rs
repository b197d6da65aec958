//! What can go wrong between a body and its reply.

use centuple_generate::Refusal;
use centuple_text::TextError;

use crate::engine::EngineError;

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The body is not JSON.
    #[error("the body is not valid JSON: {0}")]
    Syntax(String),
    /// The body is JSON of another shape than the task takes.
    #[error("{message}")]
    Shape {
        /// The first field on the way to the fault; empty for the body itself.
        field: String,
        /// What is wrong and where.
        message: String,
    },
    /// A list that must have an element has none.
    #[error("`{0}` is an empty list; give at least one text")]
    Empty(&'static str),
    /// The model does not answer this task.
    #[error("model `{model}` does not do {task}; it does {offers}")]
    Unsupported {
        /// The model.
        model: String,
        /// The task that was asked for.
        task: String,
        /// What the model does answer.
        offers: String,
    },
    /// A parameter whose value makes no sense for this model.
    #[error("parameter `{name}`: {reason}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// An input that can't become tokens.
    #[error("input {input}: {source}")]
    Text {
        /// Index of the input in the request.
        input: usize,
        /// What the tokenizer says.
        source: TextError,
    },
    /// A conversation that can't become the model's prompt.
    #[error(transparent)]
    Chat(TextError),
    /// Token ids that the model can't take.
    #[error("input {input}: {source}")]
    Ids {
        /// Index of the input in the request.
        input: usize,
        /// What the engine's limits say.
        source: EngineError,
    },
    /// A text can't be generated as it is asked for.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model's output is not a number; JSON can't say that.
    #[error(
        "the model's output for input {input} is not finite (NaN or infinity); \
         its weights are damaged or its precision is too low"
    )]
    NotFinite {
        /// Index of the sequence in the request.
        input: usize,
    },
}

/// Kinds of errors, for transports to map once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// The body can't be read at all.
    Malformed,
    /// The body can be read, and asks for something that can't be.
    Invalid,
    /// There is nothing to compute.
    Empty,
    /// A text that can't become tokens: too long where truncation is refused, for one.
    Tokenization,
    /// The fault is on this side.
    Engine,
}

impl TaskError {
    /// The kind of error.
    pub fn category(&self) -> Category {
        match self {
            TaskError::Syntax(_) => Category::Malformed,
            TaskError::Shape { .. }
            | TaskError::Unsupported { .. }
            | TaskError::Parameter { .. }
            | TaskError::Refused(_)
            | TaskError::Chat(_)
            | TaskError::Ids { .. } => Category::Invalid,
            TaskError::Empty(_) => Category::Empty,
            TaskError::Text { .. } => Category::Tokenization,
            TaskError::Engine(_) | TaskError::NotFinite { .. } => Category::Engine,
        }
    }

    /// The field of the body that is at fault, where it is known.
    pub fn field(&self) -> Option<&str> {
        match self {
            TaskError::Shape { field, .. } => Some(field.as_str()).filter(|field| !field.is_empty()),
            TaskError::Empty(name) | TaskError::Parameter { name, .. } => Some(name),
            TaskError::Chat(_) => Some("messages"),
            TaskError::Syntax(_)
            | TaskError::Unsupported { .. }
            | TaskError::Text { .. }
            | TaskError::Ids { .. }
            | TaskError::Refused(_)
            | TaskError::Engine(_)
            | TaskError::NotFinite { .. } => None,
        }
    }

    /// The error of reading a value of the given path in a JSON body.
    pub fn from_json(path: &str, error: &serde_json::Error) -> Self {
        use serde_json::error::Category as Json;
        match error.classify() {
            Json::Io | Json::Syntax | Json::Eof => TaskError::Syntax(error.to_string()),
            Json::Data => {
                let (field, message) = match path {
                    "." => (String::new(), error.to_string()),
                    _ => (path.split(['.', '[']).next().unwrap_or(path).to_owned(), format!("`{path}`: {error}")),
                };
                TaskError::Shape { field, message }
            }
        }
    }
}
