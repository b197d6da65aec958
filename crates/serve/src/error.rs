//! Why a server can't start.

use std::io::{self, ErrorKind};

use crate::models::LoadError;
use crate::tls::TlsError;

/// Why a server can't start or did not end well. What goes wrong with a request is answered to
/// its client.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port can't be had.
    #[error("cannot listen on {address}: {source}; {remedy}", remedy = remedy(source.kind()))]
    Bind {
        /// Host and port.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The socket is not what it should be.
    #[error("cannot read the listener's address: {0}")]
    Socket(#[source] io::Error),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Traces can't be sent.
    #[error("cannot send traces to {endpoint}: {reason}; name the gRPC port of a collector, as http://127.0.0.1:4317")]
    Traces {
        /// Where they were to go.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// Nothing to serve.
    #[error("no model to serve; name at least one")]
    NoModel,
    /// Two models have the same name.
    #[error("two models are called `{0}`, so clients could not tell them apart; rename one of them")]
    NameTaken(String),
    /// What there is to serve can't be found out.
    #[error(transparent)]
    Scan(#[from] LoadError),
    /// A model that was named at the start can't be loaded.
    #[error("{reason}")]
    Load {
        /// Its name.
        name: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// The metrics can't be set up.
    #[error("cannot set up metrics: {0}")]
    Metrics(String),
    /// The system gives no thread.
    #[error("cannot start a model's thread: {0}; the limit of processes may be too low")]
    Thread(#[source] io::Error),
    /// A model's thread ended by a fault of this program.
    #[error("a model's thread crashed; please report this")]
    Batcher,
}

fn remedy(kind: ErrorKind) -> &'static str {
    // The standard library's kinds are open-ended.
    #[allow(clippy::wildcard_enum_match_arm)]
    match kind {
        ErrorKind::AddrInUse => "stop the program that uses the port, or choose another port (0 takes a free one)",
        ErrorKind::PermissionDenied => "choose a port from 1024 on, or run with the right to use this one",
        ErrorKind::AddrNotAvailable => "this machine has no such address; 127.0.0.1 is for itself, 0.0.0.0 for all",
        _ => "check the host name and the port",
    }
}
