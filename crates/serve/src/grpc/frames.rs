//! Messages on the wire: a byte that says whether it is compressed, its length in 4 bytes, and
//! itself. What a client claims is not reserved; only what it has sent is held.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::HeaderMap,
};
use http_body_util::BodyExt;
use prost::{
    Message,
    bytes::{Buf, BytesMut},
};
use tokio::time::Instant;

use crate::{
    config::Config,
    http::body::{decompressed, too_large},
    service::{Failure, Kind},
};

/// Bytes before a message.
const HEADER: usize = 5;

/// A message that is ready to be sent, up to its length.
pub(super) fn begin(message: &impl Message) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + message.encoded_len());
    frame.resize(HEADER, 0);
    add(&mut frame, message);
    frame
}

/// Adds the fields of a message to the one that was begun.
pub(super) fn add(frame: &mut Vec<u8>, message: &impl Message) {
    // A vector grows, so there is always room.
    let _ = message.encode(frame);
}

/// The message in a frame.
pub(super) fn message(frame: &[u8]) -> &[u8] {
    frame.get(HEADER..).unwrap_or_default()
}

/// Writes the length of a message that is complete.
pub(super) fn seal(mut frame: Vec<u8>) -> Bytes {
    let length = frame.len().saturating_sub(HEADER) as u32;
    if let Some(place) = frame.get_mut(1..HEADER) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    frame.into()
}

/// The messages of a request.
pub(super) struct Frames {
    body: Body,
    held: BytesMut,
    /// Whether messages may be compressed.
    compressed: bool,
    limit: usize,
    time: Duration,
}

impl Frames {
    /// The messages in `body`.
    pub(super) fn new(headers: &HeaderMap, body: Body, config: &Config) -> Result<Self, Failure> {
        let compressed = match headers.get("grpc-encoding").map(|encoding| encoding.as_bytes()) {
            None | Some(b"identity") => false,
            Some(b"gzip" | b"deflate") => true,
            Some(_) => {
                let message = "messages must be compressed by gzip or deflate, or not at all".into();
                return Err(Failure::new(Kind::Encoding, message));
            }
        };
        let (limit, time) = (config.max_body_bytes, config.body_timeout);
        Ok(Self { body, held: BytesMut::new(), compressed, limit, time })
    }

    /// The only message of a call, which must come in time.
    pub(super) async fn only(&mut self) -> Result<Bytes, Failure> {
        let late = Instant::now() + self.time;
        let first = tokio::time::timeout_at(late, self.next()).await.unwrap_or_else(|_| Err(self.late()))?;
        let Some(first) = first else {
            return Err(Failure::new(Kind::Malformed, "the call has no message".into()));
        };
        match tokio::time::timeout_at(late, self.next()).await.unwrap_or_else(|_| Err(self.late()))? {
            None => Ok(first),
            Some(_) => Err(Failure::new(Kind::Malformed, "the call has more than one message".into())),
        }
    }

    /// The next message; none at the end. It may take long to begin, but not to come.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let mut late = None;
        loop {
            if let Some((compressed, message)) = self.take()? {
                return match compressed {
                    true => decompressed(message, self.limit).await.map(Some),
                    false => Ok(Some(message)),
                };
            }
            let frame = match self.held.is_empty() {
                true => self.body.frame().await,
                false => {
                    let late = *late.get_or_insert_with(|| Instant::now() + self.time);
                    match tokio::time::timeout_at(late, self.body.frame()).await {
                        Ok(frame) => frame,
                        Err(_) => return Err(self.late()),
                    }
                }
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.held.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(broken(&format!("the call broke off: {error}"))),
                None if self.held.is_empty() => return Ok(None),
                None => return Err(broken("the call ends within a message")),
            }
        }
    }

    /// The message at the front, if all of it is there, and whether it is compressed.
    fn take(&mut self) -> Result<Option<(bool, Bytes)>, Failure> {
        let Some(&[flag, ref length @ ..]) = self.held.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        let compressed = match flag {
            0 => false,
            1 if self.compressed => true,
            1 => return Err(broken("a message says it is compressed, but `grpc-encoding` doesn't say how")),
            _ => return Err(broken("a message begins with neither 0 nor 1")),
        };
        if length > self.limit {
            return Err(too_large(self.limit));
        }
        if self.held.len() - HEADER < length {
            return Ok(None);
        }
        self.held.advance(HEADER);
        Ok(Some((compressed, self.held.split_to(length).freeze())))
    }

    fn late(&self) -> Failure {
        let message = format!("the message did not arrive within {} s", self.time.as_secs_f32());
        Failure::new(Kind::Timeout, message)
    }
}

fn broken(message: &str) -> Failure {
    Failure::new(Kind::Malformed, message.into())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use proptest::prelude::*;

    use super::*;

    /// What is read of bytes that come in such pieces; a failure ends it.
    fn read(pieces: Vec<Vec<u8>>) -> Vec<Result<Bytes, Kind>> {
        let pieces = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
        let body = Body::new(StreamBody::new(tokio_stream::iter(pieces.collect::<Vec<_>>())));
        let config = Config { max_body_bytes: 100, ..Config::default() };
        let mut frames = Frames::new(&HeaderMap::new(), body, &config).ok().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut read = Vec::new();
            loop {
                match frames.next().await {
                    Ok(Some(message)) => read.push(Ok(message)),
                    Ok(None) => return read,
                    Err(failure) => {
                        read.push(Err(failure.kind));
                        return read;
                    }
                }
            }
        })
    }

    fn pieces(bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
        bytes.chunks(size).map(<[u8]>::to_vec).collect()
    }

    proptest! {
        #[test]
        fn messages_are_whole_in_whatever_pieces_they_come(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..101), 0..5),
            size in 1usize..50,
        ) {
            let wire: Vec<u8> = messages
                .iter()
                .flat_map(|message| seal([&[0; HEADER][..], message].concat()))
                .collect();
            let expected: Vec<_> = messages.into_iter().map(|message| Ok(Bytes::from(message))).collect();
            prop_assert_eq!(read(pieces(&wire, size)), expected);
        }

        #[test]
        fn no_bytes_panic(
            bytes in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..60),
            size in 1usize..20,
        ) {
            for message in read(pieces(&bytes, size)).into_iter().flatten() {
                prop_assert!(message.len() <= 100);
            }
        }
    }
}
