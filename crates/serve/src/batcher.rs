//! The thread that owns a model's engine and feeds it.
//!
//! No timers: an idle engine starts with whatever arrives, a busy one then takes what has queued
//! up, in the order of the [schedule](crate::schedule), until the token budget is reached. Sequences
//! are packed and not padded, so nothing is gained by sorting them.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use centuple_tasks::{Engine, EngineError, Output, Sequence};

use crate::{
    metrics::BatchMetrics,
    queue::{Load, Tickets},
    schedule::Pick,
    shadow::Sampler,
    turns::Seat,
};

/// What the thread needs.
pub(crate) struct Batcher {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) tickets: Tickets,
    pub(crate) load: Arc<Load>,
    pub(crate) batch_tokens: usize,
    pub(crate) metrics: BatchMetrics,
    /// Where a share of what was computed goes to be computed again.
    pub(crate) sampler: Option<Sampler>,
    /// The engine's turns among those that share its cores.
    pub(crate) seat: Seat,
}

impl Batcher {
    /// Starts the thread; it ends when the queue is dropped and everything in it is done.
    pub(crate) fn spawn(self, model: &str) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(format!("batcher {model}")).spawn(move || self.work())
    }

    fn work(mut self) {
        while let Some(picks) = self.next() {
            let outcome = self.run(&picks);
            // The replies take the outputs with them, so the few that are picked are copied before.
            let samples = match (&mut self.sampler, &outcome) {
                (Some(sampler), Ok(outputs)) => sampler.pick(picks.iter().map(|pick| &pick.sequence).zip(outputs)),
                (Some(_), Err(_)) | (None, _) => Vec::new(),
            };
            self.tickets.deliver(&picks, outcome);
            if let Some(sampler) = &self.sampler {
                sampler.submit(samples);
            }
        }
    }

    /// Waits for the next batch and the engine's turn; `None` at the end.
    fn next(&mut self) -> Option<Vec<Pick>> {
        loop {
            if self.tickets.is_empty() {
                self.seat.withdraw();
                if !self.tickets.wait() {
                    return None;
                }
            }
            self.seat.take();
            // Only now, so that what came while others had their turn is in it.
            let picks = self.tickets.pick(self.batch_tokens, Instant::now());
            if !picks.is_empty() {
                return Some(picks);
            }
        }
    }

    fn run(&mut self, picks: &[Pick]) -> Result<Vec<Output>, EngineError> {
        let started = Instant::now();
        let sequences: Vec<&Sequence> = picks.iter().map(|pick| &pick.sequence).collect();
        let tokens = sequences.iter().map(|sequence| sequence.len()).sum();
        self.metrics.batch(sequences.len(), tokens);
        let outcome = compute(self.engine.as_mut(), &sequences);
        let time = started.elapsed();
        self.seat.leave(time, !self.tickets.is_empty());
        match &outcome {
            Ok(_) => self.measure(tokens, time),
            Err(error) => tracing::error!(%error, sequences = sequences.len(), tokens, "a batch failed"),
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
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
