//! Reading a request's body: bounded in size and time, also where it is compressed.

use std::{io::Read, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{
        HeaderMap,
        header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT},
    },
};
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http_body_util::BodyExt;

use crate::{
    config::Config,
    service::{Failure, Kind, offload},
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
    let compressed = match is_compressed(&parts.headers) {
        Ok(compressed) => compressed,
        Err(failure) => {
            discard(body);
            return Err(failure);
        }
    };
    let time = config.body_timeout;
    let body = tokio::time::timeout(time, collect(body, limit)).await.unwrap_or_else(|_| {
        Err(Failure::new(Kind::Timeout, format!("the body did not arrive within {} s", time.as_secs_f32())))
    })?;
    if compressed { decompressed(body, limit).await } else { Ok(body) }
}

/// What compressed bytes hold, of at most `limit` bytes.
pub(crate) async fn decompressed(body: Bytes, limit: usize) -> Result<Bytes, Failure> {
    offload(true, move || decompress(&body, limit)).await
}

fn is_compressed(headers: &HeaderMap) -> Result<bool, Failure> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Ok(false) };
    let encoding = encoding.to_str().unwrap_or_default().trim().to_ascii_lowercase();
    match encoding.as_str() {
        "identity" => Ok(false),
        "gzip" | "x-gzip" | "deflate" => Ok(true),
        _ => {
            let message = "the header `content-encoding` must be gzip, deflate or identity, or be left out".into();
            Err(Failure::new(Kind::Encoding, message))
        }
    }
}

/// What a compressed body holds, of at most `limit` bytes. The format is told by its first bytes: there are clients
/// that call zlib gzip.
fn decompress(body: &[u8], limit: usize) -> Result<Bytes, Failure> {
    let mut decoded = Vec::new();
    // One byte over the limit shows that it is too large.
    let most = (limit as u64).saturating_add(1);
    let read = match body {
        [0x1f, 0x8b, ..] => MultiGzDecoder::new(body).take(most).read_to_end(&mut decoded),
        [a, b, ..] if a & 15 == 8 && u16::from_be_bytes([*a, *b]) % 31 == 0 => {
            ZlibDecoder::new(body).take(most).read_to_end(&mut decoded)
        }
        _ => DeflateDecoder::new(body).take(most).read_to_end(&mut decoded),
    };
    if decoded.len() > limit {
        return Err(too_large(limit));
    }
    match read {
        Ok(_) => Ok(decoded.into()),
        Err(error) => {
            Err(Failure::new(Kind::Malformed, format!("the body is not compressed as its encoding says: {error}")))
        }
    }
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

/// A body of more than `limit` bytes.
pub(crate) fn too_large(limit: usize) -> Failure {
    let message = format!("the body is over the limit of {limit} bytes; send several requests, or raise the limit");
    Failure::new(Kind::TooLarge, message)
}
