//! A connection's bytes: which protocol they begin, and whether the other side takes what it is sent.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose first bytes were looked at.
pub(super) struct Socket<S> {
    stream: TokioIo<S>,
    first: [u8; PREFACE.len()],
    /// Of the first bytes: how many there are, and how many were read again.
    filled: usize,
    read: usize,
    traffic: Arc<Traffic>,
}

impl<S: AsyncRead + Unpin> Socket<S> {
    /// Reads as much as tells the protocols apart; `None` if the stream ends before.
    pub(super) async fn begin(mut stream: S) -> io::Result<Option<Self>> {
        let (mut first, mut filled) = ([0; PREFACE.len()], 0);
        while filled < first.len() && PREFACE.starts_with(&first[..filled]) {
            match stream.read(&mut first[filled..]).await? {
                0 if filled == 0 => return Ok(None),
                0 => break,
                bytes => filled += bytes,
            }
        }
        Ok(Some(Self { stream: TokioIo::new(stream), first, filled, read: 0, traffic: Arc::default() }))
    }

    /// Whether it begins as HTTP/2 does.
    pub(super) fn is_http2(&self) -> bool {
        self.first == *PREFACE
    }

    /// What is known of the bytes that go out.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }
}

/// The bytes that go out.
#[derive(Default)]
pub(super) struct Traffic {
    written: AtomicU64,
    is_blocked: AtomicBool,
}

impl Traffic {
    /// How many the system has taken.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Whether some wait because the other side takes none.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.load(Relaxed)
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        self.is_blocked.store(written.is_pending(), Relaxed);
        if let Poll::Ready(Ok(bytes)) = written {
            self.written.fetch_add(*bytes as u64, Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> Read for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.first[self.read..self.filled];
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let bytes = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..bytes]);
        self.read += bytes;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Write for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.traffic.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.traffic.is_blocked.store(flushed.is_pending(), Relaxed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.traffic.note(&written);
        written
    }
}
