//! What a transport knows of a request besides its body.

use std::time::{Duration, Instant};

use crate::failure::{Failure, Kind};

/// How a request came in, and what its client asks for in headers or metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// When its header was received.
    pub(crate) received: Instant,
    /// When its client stops waiting, where that is known.
    pub(crate) deadline: Option<Instant>,
    /// Who asks.
    pub(crate) client: Client,
    /// Whether outputs of earlier requests will do, where the client says so.
    pub(crate) use_cache: Option<bool>,
}

/// Who asks: the holder of the key at this place of the configured keys; the first one where no key is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Client(pub(crate) usize);

impl Call {
    /// A call that has just been received and asks for nothing.
    pub(crate) fn now(client: Client) -> Self {
        Self { received: Instant::now(), deadline: None, client, use_cache: None }
    }

    /// The call with a deadline that is no later than `timeout` after its reception. What lies
    /// beyond the clock is no deadline.
    pub(crate) fn within(mut self, timeout: Option<Duration>) -> Self {
        let latest = timeout.and_then(|timeout| self.received.checked_add(timeout));
        self.deadline = self.deadline.into_iter().chain(latest).min();
        self
    }

    /// Waits for a result, but not past the deadline: what is not there by then is dropped.
    pub(crate) async fn wait<T>(&self, result: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match self.deadline {
            None => result.await,
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), result).await.unwrap_or_else(|_| Err(self.late()))
            }
        }
    }

    fn late(&self) -> Failure {
        let seconds = self.received.elapsed().as_secs_f32();
        let message = format!(
            "the request's deadline has passed after {seconds:.3} s, so it was dropped; allow more time or send less"
        );
        Failure::new(Kind::Deadline, message)
    }
}
