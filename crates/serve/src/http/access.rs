//! What happens around every request: its id, the key, a line in the log.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};

use super::{Shared, errors::Family};
use crate::{
    config::ApiKey,
    service::{Failure, Kind},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_REQUEST_ID: usize = 128;
/// Paths that probes and scrapers read without a key.
const PUBLIC: [&str; 5] = ["/health", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready"];

/// Lets a request pass if it has the key, and gives the response the request's id.
pub(super) async fn guard(State(service): State<Shared>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match &service.config.api_key {
        Some(key) if !PUBLIC.contains(&path.as_str()) && !is_authorised(&request, key) => {
            let message = "a valid key is needed: send the header `Authorization: Bearer KEY`".into();
            Family::of(&path).failure(&Failure::new(Kind::Unauthorized, message))
        }
        Some(_) | None => next.run(request).await,
    };
    tracing::debug!(id = ?id, %method, path, status = response.status().as_u16(), time = ?started.elapsed(), "answered");
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn is_authorised(request: &Request, key: &ApiKey) -> bool {
    let Some(value) = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes) else {
        return false;
    };
    match value.split_at_checked("bearer ".len()) {
        Some((scheme, token)) => scheme.eq_ignore_ascii_case(b"bearer ") && key.matches(token),
        None => false,
    }
}

/// The client's id of the request, or a new one.
fn request_id(request: &Request) -> HeaderValue {
    let own = request.headers().get(REQUEST_ID);
    match own.filter(|id| (1..=LONGEST_REQUEST_ID).contains(&id.len()) && id.to_str().is_ok()) {
        Some(id) => id.clone(),
        None => new_request_id(),
    }
}

/// An id for a request that has none.
fn new_request_id() -> HeaderValue {
    HeaderValue::try_from(new_id()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// 16 hexadecimal digits that no other reply of this process has.
pub(super) fn new_id() -> String {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // An odd factor keeps different counts different.
    let count = COUNT.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:016x}", SEED.wrapping_add(count))
}
