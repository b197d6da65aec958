//! Failures as statuses of gRPC.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER},
    response::Response,
};
use tonic::{Code, Status};

use crate::service::{Failure, Kind};

/// How clients are told when to try again, if at all; see gRPC's proposal A6.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// Longer messages are cut, since they travel as a header and may quote what a client sent.
const LONGEST_MESSAGE: usize = 1024;

/// The response to a call that failed before anything was sent: headers alone.
pub(crate) fn refusal(failure: &Failure) -> Response {
    let mut response = status(failure).into_http::<Body>();
    response.headers_mut().extend(advice(failure.kind));
    response
}

/// What comes after the messages of a call that went well.
pub(super) fn success() -> HeaderMap {
    trailers(Status::ok(""))
}

/// What comes after the messages that a call was answered before it failed.
pub(super) fn failure(failure: &Failure) -> HeaderMap {
    let mut trailers = trailers(status(failure));
    trailers.extend(advice(failure.kind));
    trailers
}

/// What comes after the messages that a call was answered before the server was told to stop.
pub(super) fn stopping() -> HeaderMap {
    trailers(Status::unavailable("the server stops; send what has no answer to another one"))
}

fn trailers(status: Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Messages are percent-encoded, so that any text is a header.
    let _ = status.add_header(&mut trailers);
    trailers
}

fn status(failure: &Failure) -> Status {
    Status::new(code(failure.kind), cut(&failure.message))
}

/// The beginning of a text that is too long for a header.
fn cut(message: &str) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::Malformed | Kind::Invalid | Kind::Empty | Kind::Tokenization => Code::InvalidArgument,
        Kind::TooLarge | Kind::Overloaded(_) => Code::ResourceExhausted,
        Kind::Timeout | Kind::Deadline => Code::DeadlineExceeded,
        Kind::Unauthorized => Code::Unauthenticated,
        Kind::UnknownModel | Kind::NoReport => Code::NotFound,
        Kind::UnknownRoute | Kind::Method | Kind::Encoding | Kind::NotImplemented => Code::Unimplemented,
        Kind::LoadFailed => Code::FailedPrecondition,
        Kind::Engine | Kind::Internal | Kind::NotLoaded(_) => Code::Internal,
    }
}

/// Of what has used up something, whether waiting helps.
fn advice(kind: Kind) -> HeaderMap {
    let mut advice = HeaderMap::new();
    if let Some(time) = kind.retry_after() {
        advice.insert(RETRY_AFTER, HeaderValue::from(time.as_secs()));
        advice.insert(PUSHBACK, HeaderValue::from(time.as_millis() as u64));
    }
    if kind == Kind::TooLarge {
        advice.insert(PUSHBACK, HeaderValue::from(-1));
    }
    advice
}
