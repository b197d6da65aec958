//! Why a request has no answer, in no transport's words.

use std::time::Duration;

use centuple_tasks::{Category, TaskError};

use crate::{models::Key, queue::Full};

/// A request's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// What is wrong, where, and what would help.
    pub(crate) message: String,
    /// The field of the body that is at fault, where it is known.
    pub(crate) field: Option<String>,
}

/// Kinds of failures; each family of routes maps them to its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The body is not JSON.
    Malformed,
    /// The body asks for what can't be.
    Invalid,
    /// Nothing to compute.
    Empty,
    /// A text can't become tokens.
    Tokenization,
    /// The body, its number of inputs or the reply is over a limit.
    TooLarge,
    /// The body did not come in time.
    Timeout,
    /// The time that the client or the server gives a request is over.
    Deadline,
    /// No or a wrong key.
    Unauthorized,
    /// No such model.
    UnknownModel,
    /// The model is known but not loaded. [`Service::answer`](crate::service::Service::answer) and
    /// [`Service::find`](crate::service::Service::find) load it and ask again; nobody else sees this.
    NotLoaded(Key),
    /// The model can't be loaded.
    LoadFailed,
    /// The model was served without a report.
    NoReport,
    /// No such path.
    UnknownRoute,
    /// The path does not take this method.
    Method,
    /// The body is compressed in a way that is not read.
    Encoding,
    /// A part of a protocol that this server leaves out.
    NotImplemented,
    /// The queue is full; try again after that time.
    Overloaded(Duration),
    /// The engine failed.
    Engine,
    /// The server failed.
    Internal,
}

impl Kind {
    /// After how long it helps to try again, a second at least, where waiting is what helps.
    pub(crate) fn retry_after(self) -> Option<Duration> {
        if let Kind::Overloaded(time) = self { Some(time.max(Duration::from_secs(1))) } else { None }
    }

    /// A word for metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Malformed => "malformed",
            Kind::Invalid => "validation",
            Kind::Empty => "empty",
            Kind::Tokenization => "tokenization",
            Kind::TooLarge => "too_large",
            Kind::Timeout => "timeout",
            Kind::Deadline => "deadline",
            Kind::Unauthorized => "unauthorized",
            Kind::UnknownModel => "unknown_model",
            Kind::NotLoaded(_) => "not_loaded",
            Kind::LoadFailed => "load_failed",
            Kind::NoReport => "no_report",
            Kind::UnknownRoute => "unknown_route",
            Kind::Method => "method",
            Kind::Encoding => "encoding",
            Kind::NotImplemented => "not_implemented",
            Kind::Overloaded(_) => "overloaded",
            Kind::Engine => "engine",
            Kind::Internal => "internal",
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: String) -> Self {
        Self { kind, message, field: None }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let kind = match error.category() {
            Category::Malformed => Kind::Malformed,
            Category::Invalid => Kind::Invalid,
            Category::Empty => Kind::Empty,
            Category::Tokenization => Kind::Tokenization,
            Category::Engine => Kind::Engine,
        };
        Self { kind, field: error.field().map(str::to_owned), message: error.to_string() }
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        let seconds = full.retry_after.as_secs();
        let message = format!("too many requests wait for this model; try again in {seconds} s");
        Self::new(Kind::Overloaded(full.retry_after), message)
    }
}
