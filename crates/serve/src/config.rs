//! Where the server listens, whom it lets in, and how much it takes on.

use std::time::Duration;

use crate::{cache::CachePolicy, keys::ApiKeys};

use crate::models::ModelOptions;
use crate::tls::TlsFiles;

/// Settings of a server; the defaults suit one machine and untrusted clients.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address or host name to listen on.
    pub host: String,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// A further port at which the same is served; 0 takes a free one.
    pub grpc_port: Option<u16>,
    /// Certificate of the ports; none: they speak without TLS.
    pub tls: Option<TlsFiles>,
    /// Keys of which clients must send one as `Authorization: Bearer ...`; none: everybody may ask.
    pub api_keys: ApiKeys,
    /// Largest body of a request in bytes; over it: 413.
    pub max_body_bytes: usize,
    /// Most inputs of one request. Many are split into batches here, so this only bounds memory.
    pub max_inputs: usize,
    /// Most numbers in one reply, which bounds memory where a model gives features per token.
    pub max_reply_values: usize,
    /// Whether the routes of text-embeddings-inference cut a text that is too long where the request
    /// does not say; otherwise such a text is an error. The other routes always cut.
    pub auto_truncate: bool,
    /// Most tokens computed at once per model, below the engine's own limit. What arrives meanwhile
    /// waits so long.
    pub max_batch_tokens: usize,
    /// Most requests that wait or are computed per model; over it: 429.
    pub max_queued_requests: usize,
    /// Most tokens that wait per model; over it a request that is larger than a batch gets 429.
    pub max_queued_tokens: usize,
    /// Most open connections; further ones wait in the system's backlog.
    pub max_connections: usize,
    /// Most requests at once on one connection of HTTP/2; further ones wait at the client.
    pub max_streams: u32,
    /// Largest header of a request in bytes; over it: 431.
    pub max_header_bytes: usize,
    /// How long a connection may take to send a request's header; an idle one is closed after it, one of HTTP/2 after
    /// at most three times as long.
    pub header_timeout: Duration,
    /// How long a client may take to send a body.
    pub body_timeout: Duration,
    /// Whether each request that was answered is a line of the log at the level `info`, not only at `debug`.
    pub log_requests: bool,
    /// The gRPC port of an OpenTelemetry collector that gets traces, as `http://127.0.0.1:4317`.
    pub otlp_endpoint: Option<String>,
    /// How long a request may take from its header to its answer; what is not done by then is dropped.
    /// A client may ask for less.
    pub timeout: Option<Duration>,
    /// Which requests may be answered by outputs of earlier ones.
    pub cache: CachePolicy,
    /// Most bytes of outputs that are kept for that; 0 keeps none.
    pub cache_bytes: usize,
    /// How long after the signal to stop connections are still taken, while probes are told that the server isn't ready:
    /// as long as balancers need to notice.
    pub drain_delay: Duration,
    /// How long requests in flight may take after that.
    pub drain_timeout: Duration,
    /// How models are kept.
    pub models: ModelOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8080,
            grpc_port: None,
            tls: None,
            api_keys: ApiKeys::default(),
            max_body_bytes: 10 << 20,
            max_inputs: 1 << 16,
            max_reply_values: 1 << 26,
            auto_truncate: true,
            max_batch_tokens: 2048,
            max_queued_requests: 512,
            max_queued_tokens: 4 << 20,
            max_connections: 4096,
            max_streams: 256,
            max_header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            log_requests: false,
            otlp_endpoint: None,
            drain_delay: Duration::ZERO,
            timeout: None,
            cache: CachePolicy::default(),
            cache_bytes: 64 << 20,
            drain_timeout: Duration::from_secs(30),
            models: ModelOptions::default(),
        }
    }
}
