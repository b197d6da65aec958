//! The Open Inference Protocol, version 2, with the calls of Triton that clients rely on.

mod describe;
mod generate;
mod infer;
mod repository;

use axum::Router;

use super::{
    Shared,
    exchange::{Asked, Reply, ask, stream, tell},
    messages::inference as messages,
};
use crate::open_inference::find;

/// The calls.
pub(super) fn routes() -> Router<Shared> {
    let path = |call: &str| format!("/inference.GRPCInferenceService/{call}");
    Router::new()
        .route(&path("ServerLive"), tell(describe::live))
        .route(&path("ServerReady"), tell(describe::ready))
        .route(&path("ServerMetadata"), tell(describe::server))
        .route(&path("ModelReady"), tell(describe::model_ready))
        .route(&path("ModelMetadata"), tell(describe::metadata))
        .route(&path("ModelConfig"), tell(describe::configuration))
        .route(&path("ModelStatistics"), tell(describe::statistics))
        .route(&path("ModelInfer"), ask(infer::infer))
        .route(&path("ModelStreamInfer"), stream(infer::stream_infer, infer::mend))
        .route(&path("RepositoryIndex"), tell(repository::index))
        .route(&path("RepositoryModelLoad"), tell(repository::load))
        .route(&path("RepositoryModelUnload"), tell(repository::unload))
}
