//! The queue of one model: a bounded door in front, the batcher's thread behind.
//!
//! What waits is kept here and not in a channel, so that a request whose client leaves is
//! forgotten at once, whatever the engine is at.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use centuple_tasks::{EngineError, Output, Sequence};
use tokio::sync::oneshot;

use crate::{
    call::Client,
    schedule::{Id, Pick, Schedule},
};

/// Waiting is refused: the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// When to try again.
    pub(crate) retry_after: Duration,
}

/// How much is taken on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// Most requests that wait or are computed. Where it is reached, a client that has fewer than
    /// its even share of it is let in all the same.
    pub(crate) requests: usize,
    /// Most tokens that wait; only requests that are larger than a batch are refused for them, and only to
    /// clients of whom something waits, so that a few huge requests can't shut everybody out.
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

    /// Tokens of sequences that have not been started.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens.load(Relaxed)
    }

    /// Time until everything that waits is done: 1 to 60 whole seconds.
    fn retry_after(&self) -> Duration {
        let tokens = self.tokens.load(Relaxed) as u64;
        let seconds = tokens.checked_div(self.speed.load(Relaxed)).unwrap_or(0);
        Duration::from_secs((seconds + 1).min(60))
    }
}

/// What became of a request.
#[derive(Debug, Default)]
pub(crate) struct Computed {
    /// One per sequence, in order.
    pub(crate) outputs: Vec<Output>,
    /// From submission to the start of the first batch.
    pub(crate) queue: Duration,
    /// From there to the end of the last batch.
    pub(crate) inference: Duration,
}

type Answer = Result<Computed, EngineError>;

/// Tells the models of a process apart, also those that are loaded one after the other under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Instance(u64);

/// The door of a model's queue. When it is dropped, what waits is still computed.
pub(crate) struct Queue {
    shared: Arc<Shared>,
    load: Arc<Load>,
    capacity: Capacity,
    instance: Instance,
}

/// The batcher's end of a queue. When it is dropped, nobody who waits gets an answer.
pub(crate) struct Tickets(Arc<Shared>);

/// What both ends see.
struct Shared {
    state: Mutex<State>,
    /// Something waits, or the door is closed.
    change: Condvar,
    load: Arc<Load>,
}

#[derive(Default)]
struct State {
    schedule: Schedule,
    /// Requests that wait or are computed.
    tickets: HashMap<Id, Ticket>,
    /// How many of them each client has.
    clients: HashMap<Client, usize>,
    closed: bool,
    ended: bool,
}

/// A request that waits or is computed.
struct Ticket {
    client: Client,
    sequences: usize,
    /// Outputs of the first so many sequences.
    outputs: Vec<Output>,
    queued: Instant,
    started: Option<Instant>,
    reply: oneshot::Sender<Answer>,
}

impl Queue {
    /// A queue, and the end at which the batcher takes from it.
    pub(crate) fn new(capacity: Capacity) -> (Self, Tickets) {
        static INSTANCES: AtomicU64 = AtomicU64::new(0);
        let instance = Instance(INSTANCES.fetch_add(1, Relaxed));
        let load = Arc::<Load>::default();
        let shared = Arc::new(Shared { state: Mutex::default(), change: Condvar::new(), load: Arc::clone(&load) });
        (Self { shared: Arc::clone(&shared), load, capacity, instance }, Tickets(shared))
    }

    /// What waits in it.
    pub(crate) fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// The model that it belongs to.
    pub(crate) fn instance(&self) -> Instance {
        self.instance
    }

    /// Whether a client's request could be let in now, whatever it holds.
    pub(crate) fn check(&self, client: Client) -> Result<(), Full> {
        self.admit(&self.shared.lock(), client, 0)
    }

    /// Lets in a client's sequences, one or more, and tells their outputs when they are there. If
    /// what it returns is dropped, the request is forgotten and its place is free.
    pub(crate) fn submit(&self, client: Client, sequences: Vec<Sequence>) -> Result<Waiting, Full> {
        let mut state = self.shared.lock();
        self.admit(&state, client, sequences.iter().map(Sequence::len).sum())?;
        let (reply, answer) = oneshot::channel();
        if state.ended {
            return Ok(Waiting { answer, place: None });
        }
        let ticket = Ticket {
            client,
            sequences: sequences.len(),
            outputs: Vec::with_capacity(sequences.len()),
            queued: Instant::now(),
            started: None,
            reply,
        };
        let id = state.schedule.insert(client, sequences);
        state.tickets.insert(id, ticket);
        *state.clients.entry(client).or_default() += 1;
        self.shared.note(&state);
        drop(state);
        self.shared.change.notify_one();
        Ok(Waiting { answer, place: Some((Arc::clone(&self.shared), id)) })
    }

    fn admit(&self, state: &State, client: Client, tokens: usize) -> Result<(), Full> {
        let Capacity { requests, tokens: most, batch_tokens } = self.capacity;
        let own = state.clients.get(&client).copied().unwrap_or(0);
        let sharers = state.clients.len() + usize::from(own == 0);
        let has_place = state.tickets.len() < requests || own < requests / sharers;
        let waiting = state.schedule.tokens();
        let has_room =
            tokens <= batch_tokens || waiting.saturating_add(tokens) <= most || state.schedule.tokens_of(client) == 0;
        match has_place && has_room {
            true => Ok(()),
            false => Err(Full { retry_after: self.load.retry_after() }),
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.change.notify_one();
    }
}

impl Tickets {
    /// Waits until something waits; `false` once the door is closed and nothing does.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.0.lock();
        while state.schedule.requests() == 0 {
            if state.closed {
                return false;
            }
            state = self.0.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().schedule.requests() == 0
    }

    /// Takes the sequences that are next, up to `budget` tokens but at least one, if there is one.
    pub(crate) fn pick(&self, budget: usize, now: Instant) -> Vec<Pick> {
        let mut state = self.0.lock();
        let picks = state.schedule.pick(budget);
        for pick in &picks {
            if let Some(ticket) = state.tickets.get_mut(&pick.id) {
                ticket.started.get_or_insert(now);
            }
        }
        self.0.note(&state);
        picks
    }

    /// Hands the outputs of what was picked to their requests, and answers those that are complete or failed.
    pub(crate) fn deliver(&self, picks: &[Pick], outcome: Result<Vec<Output>, EngineError>) {
        let mut answers = Vec::new();
        let mut state = self.0.lock();
        match outcome {
            Ok(outputs) => {
                for (pick, output) in picks.iter().zip(outputs) {
                    answers.extend(state.receive(pick.id, output));
                }
            }
            Err(error) => {
                for pick in picks {
                    let ticket = state.take(pick.id);
                    answers.extend(ticket.map(|ticket| (ticket.reply, Err(error.clone()))));
                }
            }
        }
        self.0.note(&state);
        drop(state);
        for (reply, answer) in answers {
            // A client that has gone needs no answer.
            let _ = reply.send(answer);
        }
    }
}

impl Drop for Tickets {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        *state = State { closed: true, ended: true, ..State::default() };
        self.0.note(&state);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the load up to date.
    fn note(&self, state: &State) {
        self.load.requests.store(state.schedule.requests(), Relaxed);
        self.load.tokens.store(state.schedule.tokens(), Relaxed);
    }
}

impl State {
    /// Gives a request the output of its next sequence; it leaves with its answer once it has all of them.
    fn receive(&mut self, id: Id, output: Output) -> Option<(oneshot::Sender<Answer>, Answer)> {
        let ticket = self.tickets.get_mut(&id)?;
        ticket.outputs.push(output);
        if ticket.outputs.len() < ticket.sequences {
            return None;
        }
        let Ticket { outputs, queued, started, reply, .. } = self.take(id)?;
        let started = started.unwrap_or(queued);
        let computed = Computed { outputs, queue: started.duration_since(queued), inference: started.elapsed() };
        Some((reply, Ok(computed)))
    }

    /// Takes a request out, and what of it waits.
    fn take(&mut self, id: Id) -> Option<Ticket> {
        let ticket = self.tickets.remove(&id)?;
        self.schedule.remove(id);
        match self.clients.get_mut(&ticket.client) {
            Some(requests) if *requests > 1 => *requests -= 1,
            Some(_) | None => drop(self.clients.remove(&ticket.client)),
        }
        Some(ticket)
    }
}

/// A request that has been let in: a future of its answer. `Err` if the batcher has ended.
pub(crate) struct Waiting {
    answer: oneshot::Receiver<Answer>,
    /// Until the answer is there.
    place: Option<(Arc<Shared>, Id)>,
}

impl Future for Waiting {
    type Output = Result<Answer, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(context);
        if answer.is_ready() {
            self.place = None;
        }
        answer
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((shared, id)) = self.place.take() {
            let mut state = shared.lock();
            let ticket = state.take(id);
            shared.note(&state);
            drop(state);
            drop(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Client = Client(0);
    const OTHER: Client = Client(1);

    fn queue(requests: usize, tokens: usize) -> (Queue, Tickets) {
        Queue::new(Capacity { requests, tokens, batch_tokens: 4 })
    }

    /// So many sequences of two tokens.
    fn texts(count: usize) -> Vec<Sequence> {
        vec![Sequence::from_ids(vec![1, 2]); count]
    }

    fn outputs(picks: &[Pick]) -> Vec<Output> {
        picks.iter().map(|pick| Output { rows: 1, columns: 1, data: vec![pick.sequence.ids[0] as f32] }).collect()
    }

    #[test]
    fn requests_are_counted_until_they_are_answered_or_leave() {
        let (queue, tickets) = queue(2, 100);
        let mut first = queue.submit(ONE, texts(1)).unwrap();
        let second = queue.submit(ONE, texts(2)).unwrap();
        assert!(queue.submit(ONE, texts(1)).is_err() && queue.check(ONE).is_err());
        let picks = tickets.pick(2, Instant::now());
        assert_eq!((queue.load().requests(), queue.load().tokens()), (1, 4));
        assert!(queue.check(ONE).is_err(), "one is computed, one waits");
        tickets.deliver(&picks, Ok(outputs(&picks)));
        assert_eq!(first.answer.try_recv().unwrap().unwrap().outputs.len(), 1);
        let third = queue.submit(ONE, texts(1)).unwrap();
        drop(second);
        assert_eq!((queue.load().requests(), queue.load().tokens()), (1, 2));
        queue.check(ONE).unwrap();
        drop(tickets);
        assert_eq!((queue.load().requests(), queue.load().tokens()), (0, 0));
        drop(third);
        assert!(queue.submit(ONE, texts(1)).unwrap().answer.try_recv().is_err());
    }

    #[test]
    fn who_leaves_while_it_is_computed_is_forgotten() {
        let (queue, tickets) = queue(1, 100);
        let leaver = queue.submit(ONE, texts(3)).unwrap();
        let picks = tickets.pick(4, Instant::now());
        assert_eq!(picks.len(), 2);
        drop(leaver);
        assert_eq!(queue.load().tokens(), 0);
        let mut next = queue.submit(ONE, texts(1)).unwrap();
        tickets.deliver(&picks, Ok(outputs(&picks)));
        let picks = tickets.pick(4, Instant::now());
        tickets.deliver(&picks, Ok(outputs(&picks)));
        assert_eq!(next.answer.try_recv().unwrap().unwrap().outputs.len(), 1);
        assert!(tickets.is_empty());
    }

    #[test]
    fn a_failed_batch_fails_its_requests_and_no_other() {
        let (queue, tickets) = queue(9, 100);
        let mut waiting: Vec<_> = [1, 2, 1].map(|count| queue.submit(ONE, texts(count)).unwrap()).into();
        let picks = tickets.pick(4, Instant::now());
        tickets.deliver(&picks, Err(EngineError::Stopped));
        let answers: Vec<_> = waiting.iter_mut().map(|waiting| waiting.answer.try_recv()).collect();
        assert!(matches!(answers.as_slice(), [Ok(Err(_)), Err(oneshot::error::TryRecvError::Empty), Ok(Err(_))]));
        assert_eq!(tickets.pick(4, Instant::now()).len(), 2);
    }

    #[test]
    fn a_huge_request_enters_an_empty_queue_and_does_not_shut_out_others() {
        let (queue, _tickets) = queue(10, 20);
        let _huge = queue.submit(ONE, texts(1000)).unwrap();
        assert!(queue.submit(ONE, texts(3)).is_err());
        let _small = queue.submit(ONE, texts(2)).unwrap();
        let _other = queue.submit(OTHER, texts(1000)).unwrap();
        assert!(queue.submit(OTHER, texts(3)).is_err());
        assert_eq!(queue.load().requests(), 3);
    }

    #[test]
    fn a_client_that_fills_the_queue_leaves_others_their_share() {
        let (queue, _tickets) = queue(12, 100);
        let fill = |client| {
            let mut waiting = Vec::new();
            while let Ok(one) = queue.submit(client, texts(1)) {
                waiting.push(one);
            }
            waiting
        };
        let first = fill(ONE);
        let second = fill(OTHER);
        let third = fill(Client(2));
        assert_eq!([first.len(), second.len(), third.len()], [12, 6, 4]);
        drop(first);
        assert_eq!(fill(ONE).len(), 4);
    }

    #[test]
    fn the_door_closes_after_what_waits() {
        let (queue, tickets) = queue(10, 20);
        let _waiting = queue.submit(ONE, texts(1)).unwrap();
        drop(queue);
        assert!(tickets.wait());
        tickets.pick(9, Instant::now());
        assert!(!tickets.wait());
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
