//! What happens around every request: its id, the key, a line in the log.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};

use tracing::Instrument;

use super::{Shared, errors::refusal, observe::Observed};
use crate::{
    call::{Call, Client},
    grpc,
    keys::ApiKeys,
    service::{Failure, Kind},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const USE_CACHE: HeaderName = HeaderName::from_static("x-use-cache");
/// Seconds, which may be a fraction.
const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");
/// Milliseconds, as Envoy and what is built on it tell those behind them.
const ENVOY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const LONGEST_REQUEST_ID: usize = 128;
/// Paths that are read without a key: by probes and scrapers, and by browsers, which have none before they show a page.
const PUBLIC: [&str; 8] =
    ["/", "/docs", "/openapi.json", "/health", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready"];

/// Whether a request needs no key.
pub(super) fn is_public(method: &str, path: &str) -> bool {
    ["GET", "HEAD"].iter().any(|reads| method.eq_ignore_ascii_case(reads)) && PUBLIC.contains(&path)
}

/// Lets a request pass if it has the key, and gives the response the request's id.
pub(super) async fn guard(State(service): State<Shared>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let path = request.uri().path().to_owned();
    let observed = Observed::begin(&service, &request, &id, started);
    let keys = &service.config.api_keys;
    let client = match client(&request, keys) {
        None if is_public(request.method().as_str(), &path) || grpc::PUBLIC.contains(&path.as_str()) => {
            Some(Client::default())
        }
        client => client,
    };
    let mut response = match client {
        Some(client) => {
            request.extensions_mut().insert(client);
            next.run(request).instrument(observed.span.clone()).await
        }
        None => {
            let message = "a valid key is needed: send the header `Authorization: Bearer KEY`".into();
            refusal(request.headers(), &path, &Failure::new(Kind::Unauthorized, message))
        }
    };
    observed.end(&service, client.and_then(|client| keys.name(client)), &mut response);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// What the service needs to know of a request that [`guard`] let pass.
pub(crate) fn call(request: &Request) -> Result<Call, Failure> {
    let client = request.extensions().get::<Client>().copied().unwrap_or_default();
    let use_cache = header(request, &USE_CACHE, |value| match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    })?;
    let call = Call { use_cache, ..Call::now(client) };
    let seconds = |value: &str| Duration::try_from_secs_f64(value.parse().ok()?).ok();
    let own = header(request, &TIMEOUT, seconds)?;
    let envoy = header(request, &ENVOY_TIMEOUT, |value| value.parse().ok().map(Duration::from_millis))?;
    Ok(call.within(own).within(envoy))
}

/// The value of a header, if it is there.
fn header<T>(request: &Request, name: &HeaderName, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Failure> {
    let Some(value) = request.headers().get(name) else { return Ok(None) };
    match value.to_str().ok().and_then(|value| read(value.trim())) {
        Some(value) => Ok(Some(value)),
        None => {
            let wanted = match *name == USE_CACHE {
                true => "true or false",
                false if *name == TIMEOUT => "a number of seconds",
                false => "a whole number of milliseconds",
            };
            Err(Failure::new(Kind::Invalid, format!("the header `{name}` must be {wanted}")))
        }
    }
}

/// Who asks; nobody without a key where keys are asked for.
fn client(request: &Request, keys: &ApiKeys) -> Option<Client> {
    if keys.is_empty() {
        return Some(Client::default());
    }
    let value = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes)?;
    let (scheme, key) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| keys.find(key)).flatten()
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
