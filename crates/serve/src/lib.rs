//! The server: models that are already loaded, to clients over HTTP.
//!
//! `http/` translates, `service` decides, `queue` admits, `batcher` feeds the engine, `shadow`
//! measures its drift. Nothing here knows a checkpoint or a graph: a model is a
//! [`Model`](centuple_tasks::Model) and an [`Engine`](centuple_tasks::Engine).

mod batcher;
mod config;
mod error;
mod failure;
mod http;
mod metrics;
mod queue;
mod server;
mod service;
mod shadow;

pub use config::{ApiKey, Config};
pub use error::ServeError;
pub use http::{open_inference::InferRequest, openai::EmbeddingsRequest};
pub use server::{ServedModel, Server};
pub use service::Report;
pub use shadow::Shadow;
