//! The server: models to clients over HTTP.
//!
//! `http/` translates, `service` decides, `models` has the models, `queue` admits, `schedule` orders, `batcher`
//! feeds the engine when it is its turn (`turns`), `cache` remembers, `shadow` measures the drift. Nothing here
//! knows a checkpoint or a graph: a model is a [`Model`](centuple_tasks::Model) and an
//! [`Engine`](centuple_tasks::Engine), and a [`Loader`] makes it.

mod batcher;
mod cache;
mod call;
mod config;
mod connections;
mod error;
mod failure;
mod generation;
mod grpc;
mod http;
mod keys;
mod metrics;
mod models;
mod open_inference;
mod queue;
mod schedule;
mod server;
mod service;
mod shadow;
mod text_embeddings;
mod tls;
mod trace;
mod turns;

pub use cache::CachePolicy;
pub use config::Config;
pub use error::ServeError;
pub use generation::Generation;
pub use http::openai::EmbeddingsRequest;
pub use keys::{ApiKey, ApiKeys, KeyError};
pub use metrics::Accelerator;
pub use models::{LoadError, Loader, ModelOptions, Origin, Report, ServedModel, Source};
pub use open_inference::InferRequest;
pub use server::{Reload, Server};
pub use shadow::Shadow;
pub use tls::{TlsError, TlsFiles};
