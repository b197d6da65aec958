//! gRPC: the table of calls, and what all of them share.
//!
//! As in `http/`, a call names its [`Dialect`](crate::service::Dialect) and translates; messages are
//! those of `proto/`. They are read and written beside the I/O thread where they are large, so what
//! is taken from tonic is its statuses, its health and reflection, but not its servers.

mod exchange;
mod frames;
mod health;
mod messages;
mod metadata;
mod open_inference;
mod replies;
mod status;
mod text_embeddings;

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::Version,
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use tonic_reflection::server::Error;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    http::errors,
    service::{Failure, Kind, Service},
};
use exchange::tell;
pub(crate) use status::refusal;

/// What calls share.
type Shared = Arc<Service>;

/// The services.
const SERVICES: [&str; 9] = [
    "inference.GRPCInferenceService",
    "tei.v1.Info",
    "tei.v1.Embed",
    "tei.v1.Predict",
    "tei.v1.Rerank",
    "tei.v1.Tokenize",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Calls that probes make without a key.
pub(crate) const PUBLIC: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

/// Largest message of a question about the services.
const LARGEST_QUESTION: usize = 64 << 10;

/// Every call of a server.
pub(crate) fn router() -> Router<Shared> {
    let router = Router::new()
        .merge(open_inference::routes())
        .merge(text_embeddings::routes())
        .route("/grpc.health.v1.Health/Check", tell(health::check))
        .route("/grpc.health.v1.Health/Watch", post(health::watch));
    // Descriptors that were compiled with this can be read again.
    let router = match reflection() {
        Ok(reflection) => router.merge(reflection),
        Err(_) => router,
    };
    router.layer(middleware::from_fn(only_grpc)).layer(CatchPanicLayer::custom(panicked))
}

/// The services tell of themselves, to clients of either version.
fn reflection() -> Result<Router<Shared>, Error> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(messages::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = builder().build_v1()?.max_decoding_message_size(LARGEST_QUESTION);
    let v1alpha = builder().build_v1alpha()?.max_decoding_message_size(LARGEST_QUESTION);
    Ok(Router::new()
        .route_service("/grpc.reflection.v1.ServerReflection/{method}", v1)
        .route_service("/grpc.reflection.v1alpha.ServerReflection/{method}", v1alpha))
}

/// Refuses requests that are no calls.
async fn only_grpc(request: Request, next: Next) -> Response {
    let (headers, path) = (request.headers(), request.uri().path());
    if errors::is_grpc(headers) && request.version() == Version::HTTP_2 {
        return next.run(request).await;
    }
    let message = "this path takes calls of gRPC: HTTP/2 and the content type application/grpc".into();
    errors::refusal(headers, path, &Failure::new(Kind::Encoding, message))
}

/// A call has panicked.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    refusal(&Failure::new(Kind::Internal, "the server failed on this request".into()))
}
