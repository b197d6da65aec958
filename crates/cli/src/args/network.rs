//! Flags of `serve` about ports, certificates and bounds.

use std::path::PathBuf;
use std::time::Duration;

use centuple_serve::{Config, TlsFiles};
use clap::Args;

use super::number;

/// How often is looked whether the files of the certificate have changed.
const TLS_CHECK: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct Network {
    /// A further port for the same routes, as KServe wants one for gRPC. Each port speaks HTTP/1.1, HTTP/2 and gRPC.
    #[arg(long, value_name = "PORT")]
    pub(crate) grpc_port: Option<u16>,
    /// Speak TLS, with the certificate chain in this PEM file. It is read again when the file changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, a PEM file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Let in only clients with a certificate that one in this PEM file has signed.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Most open connections; further ones wait in the system's backlog.
    #[arg(long, default_value_t = Config::default().max_connections, value_name = "N", value_parser = number(1..=1 << 20))]
    pub(crate) max_connections: usize,
    /// Most requests at once on one connection of HTTP/2; further ones wait at the client.
    #[arg(long, default_value_t = Config::default().max_streams, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_streams: u32,
    /// Largest header of a request in bytes; above it the answer is 431.
    #[arg(long, default_value_t = Config::default().max_header_bytes, value_name = "BYTES", value_parser = number(1024..=1 << 24))]
    pub(crate) max_header_bytes: usize,
    /// How long a connection may take to begin, to shake hands and to send a header; idle ones are closed.
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) header_timeout: Duration,
    /// How long a client may take to send a body; after it the answer is 408.
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) body_timeout: Duration,
    /// Most inputs of one request; above it the answer is 413.
    #[arg(long, default_value_t = Config::default().max_inputs, value_name = "N", value_parser = number(1..=1 << 32))]
    pub(crate) max_inputs: usize,
    /// Most numbers in one reply; above it the answer is 413.
    #[arg(long, default_value_t = Config::default().max_reply_values, value_name = "N", value_parser = number(1..=1 << 40))]
    pub(crate) max_reply_values: usize,
    /// Most tokens that wait per model; above it a request that is larger than a batch gets 429.
    #[arg(long, default_value_t = Config::default().max_queued_tokens, value_name = "N", value_parser = number(1..=1 << 40))]
    pub(crate) max_queued_tokens: usize,
    /// Log a line for each request, without what it says; otherwise only at the level debug.
    #[arg(long)]
    pub(crate) log_requests: bool,
    /// Send a trace of each request to the gRPC port of an OpenTelemetry collector, as http://127.0.0.1:4317.
    #[arg(long, value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
}

impl Network {
    /// A server's configuration as far as these flags go.
    pub(crate) fn config(&self) -> Config {
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = files.map(|(certificate, key)| TlsFiles {
            certificate,
            key,
            client_ca: self.tls_client_ca.clone(),
            check_every: TLS_CHECK,
        });
        Config {
            grpc_port: self.grpc_port,
            tls,
            max_connections: self.max_connections,
            max_streams: self.max_streams,
            max_header_bytes: self.max_header_bytes,
            header_timeout: self.header_timeout,
            body_timeout: self.body_timeout,
            max_inputs: self.max_inputs,
            max_reply_values: self.max_reply_values,
            max_queued_tokens: self.max_queued_tokens,
            log_requests: self.log_requests,
            otlp_endpoint: self.otlp_endpoint.clone(),
            ..Config::default()
        }
    }
}

/// Reads a time above 0.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error: std::num::ParseFloatError| error.to_string())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if (0.001..1e9).contains(&seconds) => Ok(time),
        Ok(_) | Err(_) => Err("a time is from 0.001 to 1e9 seconds".to_owned()),
    }
}
