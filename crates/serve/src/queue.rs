//! The queue of one model: a bounded door in front, the batcher's thread behind.
//!
//! The channel itself is unbounded; what bounds it is the admission in [`Queue::submit`], counted
//! by [`Place`]s that give their share back when they are dropped, on whatever way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use centuple_tasks::{EngineError, Output, Sequence};
use tokio::sync::oneshot;

/// Waiting is refused: the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// When to try again.
    pub(crate) retry_after: Duration,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Most requests.
    pub(crate) requests: usize,
    /// Most tokens; only requests that are larger than a batch are refused for them, so that
    /// a few huge requests can't shut everybody out.
    pub(crate) tokens: usize,
    /// Most tokens of a batch.
    pub(crate) batch_tokens: usize,
}

/// What waits at this moment, and how fast it goes away.
#[derive(Debug, Default)]
pub(crate) struct Load {
    requests: AtomicUsize,
    tokens: AtomicUsize,
    /// Tokens per second of recent batches; 0 before the first.
    pub(crate) speed: AtomicU64,
}

impl Load {
    /// Requests with a sequence that has not been started.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }

    /// Time until everything that waits is done: 1 to 60 whole seconds.
    fn retry_after(&self) -> Duration {
        let tokens = self.tokens.load(Relaxed) as u64;
        let seconds = tokens.checked_div(self.speed.load(Relaxed)).unwrap_or(0);
        Duration::from_secs((seconds + 1).min(60))
    }
}

/// A request's share of the queue, given back bit by bit or when dropped.
pub(crate) struct Place {
    load: Arc<Load>,
    tokens: usize,
    waits: bool,
}

impl Place {
    /// Gives back what a started sequence took.
    pub(crate) fn start(&mut self, tokens: usize) {
        let tokens = tokens.min(self.tokens);
        self.tokens -= tokens;
        self.load.tokens.fetch_sub(tokens, Relaxed);
        if self.tokens == 0 && std::mem::take(&mut self.waits) {
            self.load.requests.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.start(self.tokens);
    }
}

/// One request in the queue.
pub(crate) struct Ticket {
    pub(crate) sequences: Vec<Sequence>,
    /// Outputs of the first so many sequences.
    pub(crate) outputs: Vec<Output>,
    pub(crate) place: Place,
    pub(crate) queued: Instant,
    pub(crate) started: Option<Instant>,
    /// Where the outputs go; `None` once they went. Closed when the client has gone.
    pub(crate) reply: Option<oneshot::Sender<Result<Computed, EngineError>>>,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Computed {
    /// One per sequence, in order.
    pub(crate) outputs: Vec<Output>,
    /// From submission to the start of the first batch.
    pub(crate) queue: Duration,
    /// From there to the end of the last batch.
    pub(crate) inference: Duration,
}

/// The door of a model's queue.
pub(crate) struct Queue {
    door: mpsc::Sender<Ticket>,
    load: Arc<Load>,
    capacity: Capacity,
}

impl Queue {
    /// A queue, and the end at which the batcher takes tickets.
    pub(crate) fn new(capacity: Capacity) -> (Self, mpsc::Receiver<Ticket>) {
        let (door, tickets) = mpsc::channel();
        (Self { door, load: Arc::default(), capacity }, tickets)
    }

    /// What waits in it.
    pub(crate) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// Admits a request, and tells its outputs when they are there. If the returned future's
    /// receiver is dropped, what has not been started of the request is forgotten.
    pub(crate) fn submit(
        &self,
        sequences: Vec<Sequence>,
    ) -> Result<oneshot::Receiver<Result<Computed, EngineError>>, Full> {
        let place = self.admit(sequences.iter().map(Sequence::len).sum())?;
        let (reply, receiver) = oneshot::channel();
        let ticket = Ticket {
            outputs: Vec::with_capacity(sequences.len()),
            sequences,
            place,
            queued: Instant::now(),
            started: None,
            reply: Some(reply),
        };
        // If the batcher has ended, the ticket is dropped and the receiver says so.
        let _ = self.door.send(ticket);
        Ok(receiver)
    }

    fn admit(&self, tokens: usize) -> Result<Place, Full> {
        let Capacity { requests, tokens: most, batch_tokens } = self.capacity;
        let full = || Full { retry_after: self.load.retry_after() };
        self.load
            .requests
            .fetch_update(Relaxed, Relaxed, |waiting| (waiting < requests).then_some(waiting + 1))
            .map_err(|_| full())?;
        let mut place = Place { load: Arc::clone(&self.load), tokens: 0, waits: true };
        self.load
            .tokens
            .fetch_update(Relaxed, Relaxed, |waiting| {
                let fits = waiting == 0 || tokens <= batch_tokens || waiting.saturating_add(tokens) <= most;
                fits.then_some(waiting + tokens)
            })
            .map_err(|_| full())?;
        place.tokens = tokens;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(requests: usize, tokens: usize) -> (Queue, mpsc::Receiver<Ticket>) {
        Queue::new(Capacity { requests, tokens, batch_tokens: 4 })
    }

    fn texts(count: usize) -> Vec<Sequence> {
        vec![Sequence::from_ids(vec![1, 2]); count]
    }

    #[test]
    fn requests_are_counted_until_they_start_or_drop() {
        let (queue, tickets) = queue(2, 100);
        let _first = queue.submit(texts(1)).unwrap();
        let _second = queue.submit(texts(2)).unwrap();
        assert!(queue.submit(texts(1)).is_err());
        let mut first = tickets.recv().unwrap();
        first.place.start(2);
        assert_eq!(queue.load().requests(), 1);
        let _third = queue.submit(texts(1)).unwrap();
        drop(first);
        assert_eq!(queue.load().requests(), 2);
        drop(tickets);
        assert_eq!((queue.load().requests(), queue.load().tokens.load(Relaxed)), (0, 0));
    }

    #[test]
    fn a_huge_request_enters_an_empty_queue_and_does_not_shut_out_small_ones() {
        let (queue, _tickets) = queue(10, 20);
        let _huge = queue.submit(texts(1000)).unwrap();
        assert!(queue.submit(texts(3)).is_err());
        let _small = queue.submit(texts(2)).unwrap();
        assert_eq!(queue.load().requests(), 2);
    }

    #[test]
    fn retry_after_follows_the_speed() {
        let load = Load::default();
        load.tokens.store(1000, Relaxed);
        assert_eq!(load.retry_after(), Duration::from_secs(1));
        load.speed.store(100, Relaxed);
        assert_eq!(load.retry_after(), Duration::from_secs(11));
        load.speed.store(1, Relaxed);
        assert_eq!(load.retry_after(), Duration::from_secs(60));
    }
}
