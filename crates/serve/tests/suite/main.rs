//! The server over real sockets.

mod chat;
mod closing;
mod flow;
mod grpc;
mod grpc_text_embeddings;
mod harness;
mod hostile;
mod http2;
mod load;
mod metrics;
mod models;
mod open_inference;
mod openapi;
mod protocols;
mod report;
mod shadow;
mod shapes;
mod text_generation;
mod tls;
mod trace;
mod triton_generate;
