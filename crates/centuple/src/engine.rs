//! The engine behind the tasks: packs sequences, runs the plan, hands out each sequence's rows.
//!
//! A batch is run in one of two ways, whichever ends sooner. All threads together on all of it: so few sequences are
//! answered soonest. Or each thread on sequences of its own: if there are enough of them to keep all threads equally
//! busy, none waits for another and each finds in its cache what it wrote. Results are the same.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use centuple_kernels::ThreadPool;
use centuple_runtime::{Batch, InputData, Memory, RuntimeError, Session};
use centuple_tasks::{Engine, EngineError, Limits, Output, Sequence};
use centuple_tensor::{Bindings, Layout, Span};

use crate::apart::{LANE_TOKENS, groups};
use crate::host::Host;

/// Runs packed batches through a compiled plan.
pub struct PlanEngine {
    pool: Arc<ThreadPool>,
    together: Lane,
    /// One for each thread, or none.
    apart: Vec<Mutex<Lane>>,
    limits: Limits,
}

/// A session and what goes in and out of it.
struct Lane {
    session: Session,
    per_token: bool,
    ids: Vec<i64>,
    type_ids: Vec<i64>,
}

impl PlanEngine {
    /// An engine over the plan of a packed encoder; `per_token` says whether its output has a row for each token.
    ///
    /// # Errors
    /// The memory for batches of the largest size is beyond the address space.
    pub(crate) fn new(
        host: &Host,
        plan: &Arc<centuple_runtime::Plan>,
        limits: Limits,
        per_token: bool,
    ) -> Result<PlanEngine, RuntimeError> {
        let lane = |pool: Arc<ThreadPool>, tokens: usize| {
            let capacity = Bindings { tokens, sequences: tokens, ..Bindings::default() };
            let session = Session::new(Arc::clone(plan), pool, capacity)?;
            Ok::<Lane, RuntimeError>(Lane { session, per_token, ids: Vec::new(), type_ids: Vec::new() })
        };
        let together = lane(Arc::clone(&host.pool), limits.max_tokens_per_batch)?;
        let alone = || {
            let longest = limits.max_tokens_per_sequence.min(LANE_TOKENS);
            lane(Arc::new(ThreadPool::new(1)?), LANE_TOKENS + longest).map(Mutex::new)
        };
        let lanes = if host.threads() > 1 { host.threads() } else { 0 };
        let apart = (0..lanes).map(|_| alone()).collect::<Result<_, _>>()?;
        Ok(PlanEngine { pool: Arc::clone(&host.pool), together, apart, limits })
    }

    /// Bytes that the engine takes.
    pub fn memory(&self) -> Memory {
        let mut memory = self.together.session.memory();
        for lane in &self.apart {
            let lane = lane.lock().unwrap_or_else(PoisonError::into_inner).session.memory();
            memory.arena += lane.arena;
            memory.workers += lane.workers;
        }
        memory
    }

    /// Number of threads that run a batch.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Multiply-accumulates of a batch: those of the weight matrices and of attention.
    pub fn macs(&self, batch: &[&Sequence]) -> u64 {
        let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.len()).collect();
        Layout::of_lengths(&lengths).map_or(0, |layout| self.together.session.plan().macs(&layout))
    }

    fn check(&self, batch: &[&Sequence]) -> Result<(), EngineError> {
        batch.iter().try_for_each(|sequence| self.limits.check(sequence))?;
        let (tokens, maximum) = (batch.iter().map(|sequence| sequence.len()).sum(), self.limits.max_tokens_per_batch);
        if tokens > maximum {
            return Err(EngineError::BatchTooLarge { tokens, maximum });
        }
        Ok(())
    }

    /// Each thread takes groups of sequences until none is left.
    fn run_apart(&self, batch: &[&Sequence], groups: &[Vec<usize>]) -> Result<Vec<Output>, EngineError> {
        let next = AtomicUsize::new(0);
        let done: Vec<OnceLock<Result<Vec<Output>, EngineError>>> = groups.iter().map(|_| OnceLock::new()).collect();
        let work = |lane: &mut Lane| {
            while let Some((group, done)) = groups.iter().zip(&done).nth(next.fetch_add(1, Ordering::Relaxed)) {
                let sequences: Vec<&Sequence> = group.iter().map(|&index| batch[index]).collect();
                let _ = done.set(lane.run(&sequences));
            }
        };
        self.pool
            .run_available(&|worker| {
                work(&mut self.apart[worker.index()].lock().unwrap_or_else(PoisonError::into_inner))
            })
            .map_err(failed)?;
        let mut outputs = vec![Output::default(); batch.len()];
        for (group, done) in groups.iter().zip(done) {
            let of_group = done
                .into_inner()
                .ok_or_else(|| EngineError::Contract("a group of sequences was not run".to_owned()))?;
            for (&index, output) in group.iter().zip(of_group?) {
                outputs[index] = output;
            }
        }
        Ok(outputs)
    }
}

impl Engine for PlanEngine {
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        self.check(batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.len()).collect();
        match groups(&lengths, self.apart.len()) {
            Some(groups) => self.run_apart(batch, &groups),
            None => self.together.run(batch),
        }
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

impl Lane {
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        self.ids.clear();
        self.type_ids.clear();
        for sequence in batch {
            self.ids.extend(sequence.ids.iter().map(|&id| i64::from(id)));
            self.type_ids.extend(sequence.type_ids.iter().map(|&id| i64::from(id)));
        }
        let span =
            |sequence: &&Sequence| Span { tokens: sequence.len(), pool_from: sequence.pool_from, ..Span::default() };
        let layout = Layout::new(batch.iter().map(span).collect()).map_err(failed)?;
        let inputs = [("input_ids", InputData::I64(&self.ids)), ("token_type_ids", InputData::I64(&self.type_ids))];
        let bindings = layout.bindings();
        let batch = Batch { inputs: &inputs, layout: &layout, bindings, cache: None };
        self.session.run(&batch).map_err(failed)?;
        let rows = self.session.output(0).ok_or_else(|| EngineError::Contract("the plan has no output".to_owned()))?;
        let of = |index: usize, span: &Span| {
            let range = if self.per_token { span.start..span.start + span.tokens } else { index..index + 1 };
            let mut data = Vec::with_capacity(range.len() * rows.columns());
            range.clone().for_each(|row| data.extend_from_slice(rows.row(row)));
            Output { rows: range.len(), columns: rows.columns(), data }
        };
        Ok(layout.spans().iter().enumerate().map(|(index, span)| of(index, span)).collect())
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Execution(Arc::new(error))
}
