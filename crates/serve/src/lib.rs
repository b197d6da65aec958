//! The server: models that are already loaded, to clients over HTTP.
//!
//! `http/` translates, `service` decides, `queue` admits, `batcher` feeds the engine. Nothing here
//! knows a checkpoint or a graph: a model is a [`Model`](centuple_tasks::Model) and an
//! [`Engine`](centuple_tasks::Engine).

mod batcher;
mod config;
mod error;
mod http;
mod metrics;
mod queue;
mod server;
mod service;

pub use config::{ApiKey, Config};
pub use error::ServeError;
pub use http::openai::EmbeddingsRequest;
pub use server::{ServedModel, Server};
