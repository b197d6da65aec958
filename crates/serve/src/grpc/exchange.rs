//! Calls: from the messages of a request to those of its response.
//!
//! What answers a message is a function of an [`Asked`]. [`tell`] makes a route of it where it asks
//! no model, [`ask`] where it does, and [`stream`] where each message of a stream asks one.

use std::{sync::Arc, time::Instant};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE},
    response::Response,
    routing::{MethodRouter, post},
};
use http_body_util::{BodyExt, Full};
use prost::Message;

use super::{
    Shared,
    frames::{self, Frames},
    metadata,
    replies::{Answered, Replies},
    status,
};
use crate::{
    call::Call,
    http::tell_costs,
    service::{Answer, Dialect, Failure, Kind},
    trace::Trail,
};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// A message to be answered.
pub(super) struct Asked {
    pub(super) service: Shared,
    pub(super) message: Bytes,
    pub(super) call: Call,
    /// The model that the call's metadata names, for messages that have no place for it.
    pub(super) model: Option<Arc<str>>,
}

impl Asked {
    /// The message as what it must be.
    pub(super) fn read<M: Message + Default>(&self) -> Result<M, Failure> {
        decode(&self.message)
    }

    /// Has the service answer it. `after` adds to the reply how it came about.
    pub(super) async fn answer(
        self,
        dialect: impl Dialect,
        after: impl FnOnce(&Answer, &mut Vec<u8>),
    ) -> Result<Reply, Failure> {
        let mut answer = self.service.answer(dialect, self.message, self.call).await?;
        let mut frame = std::mem::take(&mut answer.written.body);
        after(&answer, &mut frame);
        let mut headers = HeaderMap::new();
        tell_costs(&mut headers, &answer);
        let trail = Some(Trail::of(&answer));
        Ok(Reply { frame, headers, trail })
    }
}

/// Reads a message.
pub(super) fn decode<M: Message + Default>(message: &[u8]) -> Result<M, Failure> {
    M::decode(message)
        .map_err(|error| Failure::new(Kind::Malformed, format!("the message is not what the call takes: {error}")))
}

/// What answers a message.
pub(super) struct Reply {
    frame: Vec<u8>,
    headers: HeaderMap,
    trail: Option<Trail>,
}

impl Reply {
    /// A message.
    pub(super) fn of(message: &impl Message) -> Self {
        Self { frame: frames::begin(message), headers: HeaderMap::new(), trail: None }
    }

    /// The message.
    pub(super) fn read<M: Message + Default>(&self) -> Result<M, Failure> {
        decode(frames::message(&self.frame))
    }

    /// Its bytes on the wire.
    pub(super) fn seal(self) -> Bytes {
        frames::seal(self.frame)
    }
}

/// A call whose messages are still to come.
pub(super) struct Incoming {
    pub(super) service: Shared,
    pub(super) call: Call,
    pub(super) model: Option<Arc<str>>,
    pub(super) frames: Frames,
}

impl Incoming {
    /// A call from what its headers say.
    pub(super) fn new(service: &Shared, request: Request) -> Result<Self, Failure> {
        let (call, model) = (metadata::call(&request)?, metadata::model(request.headers()));
        let (parts, body) = request.into_parts();
        let frames = Frames::new(&parts.headers, body, &service.config)?;
        Ok(Self { service: Arc::clone(service), call, model, frames })
    }

    /// The only message.
    pub(super) async fn only(mut self) -> Result<Asked, Failure> {
        let message = self.frames.only().await?;
        Ok(self.asked(message))
    }

    /// One of the messages.
    pub(super) fn asked(&self, message: Bytes) -> Asked {
        Asked { service: Arc::clone(&self.service), message, call: self.call, model: self.model.clone() }
    }
}

/// A route for a call of one message that asks no model.
pub(super) fn tell<F, R>(answer: F) -> MethodRouter<Shared>
where
    F: Fn(Asked) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Reply, Failure>> + Send,
{
    post(|State(service): State<Shared>, request: Request| async move {
        let answer = async |incoming: Incoming| answer(incoming.only().await?).await;
        exchange(&service, request, answer).await.unwrap_or_else(|failure| status::refusal(&failure))
    })
}

/// A route for a call of one message that asks a model.
pub(super) fn ask<F, R>(answer: F) -> MethodRouter<Shared>
where
    F: Fn(Asked) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Reply, Failure>> + Send,
{
    collect(move |incoming| {
        let answer = answer.clone();
        async move { answer(incoming.only().await?).await }
    })
}

/// A route for a call of several messages that has one reply.
pub(super) fn collect<F, R>(answer: F) -> MethodRouter<Shared>
where
    F: Fn(Incoming) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Reply, Failure>> + Send,
{
    post(|State(service): State<Shared>, request: Request| async move {
        let received = Instant::now();
        service.metrics.request();
        let outcome = exchange(&service, request, answer).await;
        service.metrics.ended(received, &outcome);
        outcome.unwrap_or_else(|failure| status::refusal(&failure))
    })
}

/// A route for a call of many messages, each of which asks a model and has a reply or several, in their order.
///
/// `mend` makes a reply of a failed message; where it can't, the failure ends the call.
pub(super) fn stream<F, R, T>(answer: F, mend: fn(&[u8], &Failure) -> Option<Reply>) -> MethodRouter<Shared>
where
    F: Fn(Asked) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<T, Failure>> + Send,
    T: Into<Answered> + Send,
{
    post(move |State(service): State<Shared>, request: Request| async move {
        let incoming = match Incoming::new(&service, request) {
            Ok(incoming) => incoming,
            Err(failure) => return status::refusal(&failure),
        };
        let replies = Replies::new(incoming, move |asked: Asked| {
            let answer = answer.clone();
            async move {
                let (service, call, message) = (Arc::clone(&asked.service), asked.call, asked.message.clone());
                service.metrics.request();
                let outcome = call.wait(answer(asked)).await;
                service.metrics.ended(call.received, &outcome);
                match outcome {
                    Ok(reply) => reply.into(),
                    Err(failure) => match mend(&message, &failure) {
                        Some(reply) => reply.into(),
                        None => Answered::End(status::failure(&failure)),
                    },
                }
            }
        });
        response(HeaderMap::new(), Body::new(replies))
    })
}

/// No reply mends the stream.
pub(super) fn beyond_repair(_: &[u8], _: &Failure) -> Option<Reply> {
    None
}

/// Has a call answered by one message.
async fn exchange<F, R>(service: &Shared, request: Request, answer: F) -> Result<Response, Failure>
where
    F: FnOnce(Incoming) -> R,
    R: Future<Output = Result<Reply, Failure>>,
{
    let incoming = Incoming::new(service, request)?;
    let call = incoming.call.within(service.config.timeout);
    let Reply { frame, headers, trail } = call.wait(answer(incoming)).await?;
    let body = Full::new(frames::seal(frame)).with_trailers(std::future::ready(Some(Ok(status::success()))));
    let mut response = response(headers, Body::new(body));
    if let Some(trail) = trail {
        response.extensions_mut().insert(trail);
    }
    Ok(response)
}

/// A response that has begun well.
pub(super) fn response(headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,deflate"));
    response
}
