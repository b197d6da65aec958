//! Where the server listens, whom it lets in, and how much it takes on.

use std::{fmt, time::Duration};

use subtle::ConstantTimeEq;

/// Settings of a server; the defaults suit one machine and untrusted clients.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address or host name to listen on.
    pub host: String,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// Key that clients must send as `Authorization: Bearer ...`; none: everybody may ask.
    pub api_key: Option<ApiKey>,
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
    /// Most requests that wait per model; over it: 429.
    pub max_queued_requests: usize,
    /// Most tokens that wait per model; over it a request that is larger than a batch gets 429.
    pub max_queued_tokens: usize,
    /// Most open connections; further ones wait in the system's backlog.
    pub max_connections: usize,
    /// How long a connection may take to send a request's header; an idle one is closed after it.
    pub header_timeout: Duration,
    /// How long a client may take to send a body.
    pub body_timeout: Duration,
    /// How long requests in flight may take after the signal to stop.
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8080,
            api_key: None,
            max_body_bytes: 10 << 20,
            max_inputs: 1 << 16,
            max_reply_values: 1 << 26,
            auto_truncate: true,
            max_batch_tokens: 2048,
            max_queued_requests: 512,
            max_queued_tokens: 4 << 20,
            max_connections: 4096,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// A secret that is compared in constant time and never printed.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; `None` if it is empty, which would let everybody in.
    pub fn new(key: impl Into<String>) -> Option<Self> {
        let key = key.into();
        (!key.is_empty()).then_some(Self(key))
    }

    /// Whether `candidate` is the key. Takes equally long wherever they first differ.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_matches_only_itself_and_is_not_printed() {
        let key = ApiKey::new("secret").unwrap();
        assert!(key.matches(b"secret"));
        assert!(!key.matches(b"secret2") && !key.matches(b"secre") && !key.matches(b""));
        assert!(!format!("{key:?}").contains("secret"));
        assert!(ApiKey::new("").is_none());
    }
}
