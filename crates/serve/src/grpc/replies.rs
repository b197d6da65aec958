//! The body of a response with many messages: each is worked out in a task of its own, a bounded
//! number at a time, and they are sent in the order in which they were asked for.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::{body::Bytes, http::HeaderMap};
use hyper::body::{Body, Frame};
use tokio::{
    sync::{Semaphore, mpsc},
    task::{JoinError, JoinHandle},
};

use super::{
    exchange::{Asked, Incoming, Reply},
    status,
};
use crate::service::{Failure, Kind};

/// Messages of one stream that are worked on at once; who sends more is not read until one is done. Together they
/// are no larger than one may be.
const AT_ONCE: usize = 128;

/// What became of a message.
pub(super) enum Answered {
    /// A message on the wire.
    Message(Bytes),
    /// Messages on the wire, as they come.
    Many(mpsc::Receiver<Bytes>),
    /// The stream ends here, with these trailers.
    End(HeaderMap),
}

impl From<Reply> for Answered {
    fn from(reply: Reply) -> Self {
        Answered::Message(reply.seal())
    }
}

/// The replies to the messages of a stream.
pub(super) struct Replies {
    tasks: mpsc::Receiver<Task>,
    /// The one whose turn it is.
    current: Option<Task>,
    /// What else it is answered.
    many: Option<mpsc::Receiver<Bytes>>,
    ended: bool,
    /// Reads messages for as long as this is here.
    _reader: Task,
}

/// Work that ends when nobody waits for it any more.
struct Task(JoinHandle<Answered>);

impl Task {
    fn spawn(work: impl Future<Output = Answered> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Replies {
    /// Answers every message of a call.
    pub(super) fn new<F, R>(incoming: Incoming, answer: F) -> Self
    where
        F: Fn(Asked) -> R + Send + 'static,
        R: Future<Output = Answered> + Send + 'static,
    {
        // One is sent, one waits to be put into the channel.
        let (outbox, tasks) = mpsc::channel(AT_ONCE - 2);
        let reader = Task::spawn(async move {
            let end = read(incoming, answer, &outbox).await;
            let _ = outbox.send(Task::spawn(async { Answered::End(end) })).await;
            Answered::Message(Bytes::new())
        });
        Self { tasks, current: None, many: None, ended: false, _reader: reader }
    }

    fn end(&mut self, trailers: HeaderMap) -> Frame<Bytes> {
        self.ended = true;
        self.current = None;
        self.many = None;
        self.tasks.close();
        Frame::trailers(trailers)
    }
}

/// Starts a task for each message; tells how the stream ends.
async fn read<F, R>(mut incoming: Incoming, answer: F, outbox: &mpsc::Sender<Task>) -> HeaderMap
where
    F: Fn(Asked) -> R + Send,
    R: Future<Output = Answered> + Send + 'static,
{
    let mut closing = incoming.service.closing.subscribe();
    let room = Arc::new(Semaphore::new(incoming.service.config.max_body_bytes.min(Semaphore::MAX_PERMITS)));
    loop {
        let call = incoming.call;
        let message = tokio::select! {
            message = call.wait(incoming.frames.next()) => message,
            _ = closing.wait_for(|closing| *closing) => return status::stopping(),
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return status::success(),
            Err(failure) => return status::failure(&failure),
        };
        let bytes = u32::try_from(message.len()).unwrap_or(u32::MAX);
        // It is never closed.
        let place = Arc::clone(&room).acquire_many_owned(bytes).await;
        let mut asked = incoming.asked(message);
        asked.call.received = Instant::now();
        let answer = answer(asked);
        let task = Task::spawn(async move {
            let answered = answer.await;
            drop(place);
            answered
        });
        if outbox.send(task).await.is_err() {
            return HeaderMap::new();
        }
    }
}

/// What a task has come to.
fn answered(outcome: Result<Answered, JoinError>) -> Answered {
    outcome.unwrap_or_else(|_| {
        let failure = Failure::new(Kind::Internal, "the server failed on this request".into());
        Answered::End(status::failure(&failure))
    })
}

impl Body for Replies {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            if let Some(many) = &mut self.many {
                if let Some(message) = ready!(many.poll_recv(context)) {
                    return Poll::Ready(Some(Ok(Frame::data(message))));
                }
                self.many = None;
            }
            if self.current.is_none() {
                self.current = ready!(self.tasks.poll_recv(context));
            }
            let outcome = match &mut self.current {
                Some(task) => ready!(Pin::new(&mut task.0).poll(context)),
                // The reader was stopped, which happens with the server only.
                None => return Poll::Ready(Some(Ok(self.end(status::stopping())))),
            };
            self.current = None;
            return Poll::Ready(Some(Ok(match answered(outcome) {
                Answered::Message(message) => Frame::data(message),
                Answered::Many(messages) => {
                    self.many = Some(messages);
                    continue;
                }
                Answered::End(trailers) => self.end(trailers),
            })));
        }
    }
}
