//! Reading a request's body: bounded in size and time.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{
        HeaderMap,
        header::{CONTENT_LENGTH, EXPECT},
    },
};
use http_body_util::BodyExt;

use crate::{
    config::Config,
    service::{Failure, Kind},
};

/// How long what is left of a refused body is thrown away, so that the client sees the answer
/// and not a connection that breaks while it sends.
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// The whole body, if it is small enough and comes in time.
pub(super) async fn read(request: Request, config: &Config) -> Result<Bytes, Failure> {
    let (parts, body) = request.into_parts();
    let limit = config.max_body_bytes;
    if content_length(&parts.headers).is_some_and(|length| length > limit as u64) {
        // Who expects `100 Continue` has not begun to send.
        if !parts.headers.contains_key(EXPECT) {
            discard(body);
        }
        return Err(too_large(limit));
    }
    let time = config.body_timeout;
    tokio::time::timeout(time, collect(body, limit)).await.unwrap_or_else(|_| {
        Err(Failure::new(Kind::Timeout, format!("the body did not arrive within {} s", time.as_secs_f32())))
    })
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::new(Kind::Malformed, format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len().max(rest.len()) + data.len() > limit {
            discard(body);
            return Err(too_large(limit));
        }
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}

/// Throws the rest of a body away in the background, for a while.
fn discard(mut body: Body) {
    tokio::spawn(tokio::time::timeout(DISCARD_TIME, async move { while let Some(Ok(_)) = body.frame().await {} }));
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(limit: usize) -> Failure {
    let message = format!("the body is over the limit of {limit} bytes; send several requests, or raise the limit");
    Failure::new(Kind::TooLarge, message)
}
