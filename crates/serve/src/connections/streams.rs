//! The streams of an HTTP/2 connection for which the server has something to do.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{Request, Response},
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    service::{Service, service_fn},
};
use hyper_util::service::TowerToHyperService;

/// Counts of requests.
#[derive(Default)]
pub(super) struct Streams {
    requests: AtomicU64,
    open: AtomicUsize,
}

impl Streams {
    /// How many requests there were.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// How many of them the server still owes something.
    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// The service, its requests counted.
    pub(super) fn counted(
        self: Arc<Self>,
        service: TowerToHyperService<Router>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<Counted>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<Counted>, Infallible>> + Send + 'static,
    > + use<> {
        service_fn(move |request| {
            let (mut debt, reply) = (Debt::new(&self), service.call(request));
            async move {
                let reply = reply.await?;
                debt.set(false);
                Ok(reply.map(|body| Counted { body, debt }))
            }
        })
    }
}

/// What a stream is owed: an answer, or the next part of it. What is ready only has to be taken by the client.
struct Debt {
    streams: Arc<Streams>,
    is_open: bool,
}

impl Debt {
    /// Of a new request.
    fn new(streams: &Arc<Streams>) -> Self {
        streams.requests.fetch_add(1, Relaxed);
        let mut debt = Self { streams: Arc::clone(streams), is_open: false };
        debt.set(true);
        debt
    }

    fn set(&mut self, is_open: bool) {
        match (std::mem::replace(&mut self.is_open, is_open), is_open) {
            (false, true) => drop(self.streams.open.fetch_add(1, Relaxed)),
            (true, false) => drop(self.streams.open.fetch_sub(1, Relaxed)),
            (false, false) | (true, true) => {}
        }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// A response's body.
pub(super) struct Counted {
    body: Body,
    debt: Debt,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.debt.set(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
