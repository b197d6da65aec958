//! The thread that owns a model's engine and feeds it.
//!
//! No timers: an idle engine starts with whatever arrives, a busy one then takes what has queued
//! up. A batch takes one sequence of each waiting request in turn until the token budget is
//! reached, and the next batch begins where this one ended: a request of 10,000 texts shares
//! the engine with one of a single sentence. Sequences are packed and not padded, so nothing is
//! gained by sorting them.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use centuple_tasks::{Engine, EngineError, Output, Sequence};

use crate::{
    metrics::BatchMetrics,
    queue::{Computed, Load, Ticket},
    shadow::Sampler,
};

/// What the thread needs.
pub(crate) struct Batcher {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) tickets: mpsc::Receiver<Ticket>,
    pub(crate) load: Arc<Load>,
    pub(crate) batch_tokens: usize,
    pub(crate) metrics: BatchMetrics,
    /// Where a share of what was computed goes to be computed again.
    pub(crate) sampler: Option<Sampler>,
}

impl Batcher {
    /// Starts the thread; it ends when the queue is dropped and everything in it is done.
    pub(crate) fn spawn(self, model: &str) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(format!("batcher {model}")).spawn(move || self.work())
    }

    fn work(mut self) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match self.tickets.recv() {
                    Ok(ticket) => waiting.push_back(ticket),
                    Err(mpsc::RecvError) => return,
                }
            }
            waiting.extend(self.tickets.try_iter());
            waiting.retain(Ticket::is_wanted);
            let batch = Batch::choose(&waiting, self.batch_tokens);
            if batch.picks.is_empty() {
                waiting.clear();
                continue;
            }
            let outcome = self.run(&batch, &mut waiting);
            // The replies take the outputs with them, so the few that are picked are copied before.
            let samples = match (&mut self.sampler, &outcome) {
                (Some(sampler), Ok(outputs)) => sampler.pick(batch.sequences(&waiting).zip(outputs)),
                (Some(_), Err(_)) | (None, _) => Vec::new(),
            };
            batch.deliver(outcome, &mut waiting);
            if let Some(sampler) = &self.sampler {
                sampler.submit(samples);
            }
        }
    }

    fn run(&mut self, batch: &Batch, waiting: &mut VecDeque<Ticket>) -> Result<Vec<Output>, EngineError> {
        let started = Instant::now();
        for pick in &batch.picks {
            if let Some(ticket) = waiting.get_mut(pick.ticket) {
                ticket.started.get_or_insert(started);
                ticket.place.start(ticket.sequences.get(pick.sequence).map_or(0, Sequence::len));
            }
        }
        let sequences: Vec<_> = batch.sequences(waiting).collect();
        self.metrics.batch(sequences.len(), batch.tokens);
        let outcome = compute(self.engine.as_mut(), &sequences);
        match &outcome {
            Ok(_) => self.measure(batch.tokens, started.elapsed()),
            Err(error) => tracing::error!(%error, sequences = sequences.len(), tokens = batch.tokens, "a batch failed"),
        }
        outcome
    }

    /// Moves the known speed a quarter of the way to that of the last batch.
    fn measure(&self, tokens: usize, time: Duration) {
        let speed = (tokens as f64 / time.as_secs_f64().max(1e-6)) as u64;
        let known = match self.load.speed.load(Relaxed) {
            0 => speed,
            known => known - known / 4 + speed / 4,
        };
        self.load.speed.store(known.max(1), Relaxed);
    }
}

/// One output per sequence; a panic is an error too.
pub(crate) fn compute(engine: &mut dyn Engine, sequences: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
    let outputs = catch_unwind(AssertUnwindSafe(|| engine.run(sequences)))
        .unwrap_or_else(|panic| Err(EngineError::Panicked(panic_message(panic.as_ref()).into())))?;
    match outputs.len() == sequences.len() {
        true => Ok(outputs),
        false => Err(EngineError::Contract(format!("{} outputs for {}", outputs.len(), sequences.len()))),
    }
}

/// The text of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Which sequences run together.
struct Batch {
    picks: Vec<Pick>,
    tokens: usize,
    /// Index of the ticket that was next when the budget was reached.
    next: usize,
}

/// A sequence by the place of its ticket and its own place in there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pick {
    ticket: usize,
    sequence: usize,
}

impl Batch {
    /// One sequence of each ticket in turn, up to the budget; at least one.
    fn choose(waiting: &VecDeque<Ticket>, budget: usize) -> Self {
        let mut batch = Self { picks: Vec::new(), tokens: 0, next: 0 };
        for round in 0.. {
            let before = batch.picks.len();
            for (index, ticket) in waiting.iter().enumerate() {
                let pick = Pick { ticket: index, sequence: ticket.outputs.len() + round };
                let Some(sequence) = ticket.sequences.get(pick.sequence) else { continue };
                if !batch.picks.is_empty() && batch.tokens + sequence.len() > budget {
                    batch.next = index;
                    return batch;
                }
                batch.tokens += sequence.len();
                batch.picks.push(pick);
            }
            if batch.picks.len() == before {
                break;
            }
        }
        batch
    }

    /// Its sequences, in order.
    fn sequences<'a>(&'a self, waiting: &'a VecDeque<Ticket>) -> impl Iterator<Item = &'a Sequence> {
        self.picks.iter().filter_map(|pick| waiting.get(pick.ticket)?.sequences.get(pick.sequence))
    }

    /// Hands the outputs to their tickets, answers those that are complete or failed, and puts
    /// the one that is next in front.
    fn deliver(self, outcome: Result<Vec<Output>, EngineError>, waiting: &mut VecDeque<Ticket>) {
        match outcome {
            Ok(outputs) => {
                for (pick, output) in self.picks.iter().zip(outputs) {
                    if let Some(ticket) = waiting.get_mut(pick.ticket) {
                        ticket.receive(output);
                    }
                }
            }
            Err(error) => {
                for pick in &self.picks {
                    if let Some(ticket) = waiting.get_mut(pick.ticket) {
                        ticket.answer(Err(error.clone()));
                    }
                }
            }
        }
        waiting.rotate_left(self.next);
        waiting.retain(Ticket::is_wanted);
    }
}

impl Ticket {
    /// Whether somebody still waits for an answer.
    fn is_wanted(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    fn receive(&mut self, output: Output) {
        self.outputs.push(output);
        if self.outputs.len() == self.sequences.len() {
            let started = self.started.unwrap_or(self.queued);
            let computed = Computed {
                outputs: std::mem::take(&mut self.outputs),
                queue: started.duration_since(self.queued),
                inference: started.elapsed(),
            };
            self.answer(Ok(computed));
        }
    }

    fn answer(&mut self, answer: Result<Computed, EngineError>) {
        if let Some(reply) = self.reply.take() {
            // A client that has gone needs no answer.
            let _ = reply.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::queue::{Capacity, Queue};

    /// Sequences of the given lengths whose tokens are the request's number.
    fn request(number: usize, lengths: &[usize]) -> Vec<Sequence> {
        lengths.iter().map(|length| Sequence::from_ids(vec![number as u32; *length])).collect()
    }

    fn output(sequence: &Sequence) -> Output {
        Output { rows: 1, columns: 1, data: vec![sequence.ids[0] as f32] }
    }

    proptest! {
        #[test]
        fn every_sequence_runs_once_and_within_the_budget(
            lengths in proptest::collection::vec(proptest::collection::vec(1usize..20, 1..30), 1..12),
            budget in 1usize..60,
        ) {
            let (queue, tickets) = Queue::new(Capacity { requests: 99, tokens: 1 << 20, batch_tokens: budget });
            let submit = |(number, lengths): (usize, &Vec<usize>)| queue.submit(request(number, lengths)).unwrap();
            let mut replies: Vec<_> = lengths.iter().enumerate().map(submit).collect();
            let mut waiting: VecDeque<_> = tickets.try_iter().collect();
            let mut first_seen = vec![None; lengths.len()];
            for round in 0.. {
                let batch = Batch::choose(&waiting, budget);
                if batch.picks.is_empty() {
                    break;
                }
                prop_assert!(batch.tokens <= budget || batch.picks.len() == 1);
                let sequences: Vec<_> =
                    batch.picks.iter().map(|pick| &waiting[pick.ticket].sequences[pick.sequence]).collect();
                for sequence in &sequences {
                    first_seen[sequence.ids[0] as usize].get_or_insert(round);
                }
                let outputs = sequences.into_iter().map(output).collect();
                batch.deliver(Ok(outputs), &mut waiting);
            }
            prop_assert!(waiting.is_empty());
            for (number, reply) in replies.iter_mut().enumerate() {
                let computed = reply.try_recv().unwrap().unwrap();
                prop_assert_eq!(computed.outputs.len(), lengths[number].len());
                prop_assert!(computed.outputs.iter().all(|output| output.data == [number as f32]));
                // Nobody is passed over: at worst each request in front fills a batch of its own.
                prop_assert!(first_seen[number].unwrap() <= number);
            }
        }
    }

    #[test]
    fn the_next_batch_begins_where_the_last_one_ended() {
        let (queue, tickets) = Queue::new(Capacity { requests: 9, tokens: 99, batch_tokens: 2 });
        let _replies: Vec<_> = (0..3).map(|number| queue.submit(request(number, &[1, 1])).unwrap()).collect();
        let mut waiting: VecDeque<_> = tickets.try_iter().collect();
        let mut order = Vec::new();
        while let batch @ Batch { tokens: 1.., .. } = Batch::choose(&waiting, 2) {
            let ran: Vec<_> = batch.picks.iter().map(|pick| waiting[pick.ticket].sequences[0].ids[0]).collect();
            batch.deliver(Ok(ran.iter().map(|id| output(&Sequence::from_ids(vec![*id]))).collect()), &mut waiting);
            order.push(ran);
        }
        assert_eq!(order, [[0, 1], [2, 0], [1, 2]]);
    }

    #[test]
    fn a_failed_batch_fails_its_requests_and_no_other() {
        let (queue, tickets) = Queue::new(Capacity { requests: 9, tokens: 99, batch_tokens: 2 });
        let mut replies: Vec<_> = (0..3).map(|number| queue.submit(request(number, &[1])).unwrap()).collect();
        let mut waiting: VecDeque<_> = tickets.try_iter().collect();
        Batch::choose(&waiting, 2).deliver(Err(EngineError::Stopped), &mut waiting);
        assert!(replies[0].try_recv().unwrap().is_err() && replies[1].try_recv().unwrap().is_err());
        assert!(replies[2].try_recv().is_err());
        assert_eq!(waiting.len(), 1);
    }
}
