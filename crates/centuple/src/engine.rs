//! The engine behind the tasks: packs sequences, runs the plan, hands out each sequence's rows.
//!
//! A batch is run in one of two ways, whichever ends sooner. All threads together on all of it: so few sequences are
//! answered soonest. Or each thread on sequences of its own: if there are enough of them to keep all threads equally
//! busy, none waits for another and each finds in its cache what it wrote. Results are the same.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use centuple_kernels::ThreadPool;
use centuple_runtime::{Batch, InputData, Memory, Plan, RuntimeError, Session};
use centuple_tasks::{Engine, EngineError, Limits, Output, Sequence};
use centuple_tensor::{Bindings, Layout, Span, Symbol};

use crate::apart::{LANE_TOKENS, groups};
use crate::host::Host;
use crate::runs::{self, ARENA_BYTES, LANE_ARENA_BYTES};

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
    /// Most that is run at once.
    capacity: Bindings,
    rows: RowsPer,
    ids: Vec<i64>,
    type_ids: Vec<i64>,
}

/// What the plan's output has a row for.
#[derive(Clone, Copy)]
enum RowsPer {
    Token,
    Selected,
    Sequence,
}

impl RowsPer {
    fn of(plan: &Plan) -> RowsPer {
        let rows = plan.output_shape(0).and_then(<[_]>::first);
        if rows == Some(&Symbol::Tokens.into()) {
            RowsPer::Token
        } else if rows == Some(&Symbol::Selected.into()) {
            RowsPer::Selected
        } else {
            RowsPer::Sequence
        }
    }
}

impl PlanEngine {
    /// An engine over the plan of a packed encoder.
    ///
    /// # Errors
    /// The memory for batches of the largest size is beyond the address space.
    pub(crate) fn new(host: &Host, plan: &Arc<Plan>, limits: Limits) -> Result<PlanEngine, RuntimeError> {
        let rows = RowsPer::of(plan);
        let lane = |pool: Arc<ThreadPool>, capacity: Bindings| {
            let session = Session::new(Arc::clone(plan), pool, capacity)?;
            Ok::<Lane, RuntimeError>(Lane { session, capacity, rows, ids: Vec::new(), type_ids: Vec::new() })
        };
        let longest = limits.max_tokens_per_sequence;
        let capacity = runs::capacity(plan, limits.max_tokens_per_batch, longest, ARENA_BYTES);
        let together = lane(Arc::clone(&host.pool), capacity)?;
        let longest = longest.min(LANE_TOKENS);
        let capacity = runs::capacity(plan, LANE_TOKENS + longest, longest, LANE_ARENA_BYTES);
        let affordable = host.threads() > 1 && runs::fits(plan, &capacity, LANE_ARENA_BYTES);
        let lanes = if affordable { host.threads() } else { 0 };
        let alone = |_| lane(Arc::new(ThreadPool::new(1)?), capacity).map(Mutex::new);
        let apart = (0..lanes).map(alone).collect::<Result<_, _>>()?;
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
        self.limits.check_batch(batch)?;
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

/// How the sequences lie in packed rows.
pub(crate) fn layout(batch: &[&Sequence]) -> Result<Layout, EngineError> {
    let span = |sequence: &&Sequence| {
        let selected = sequence.selected.iter().map(|&token| u32::try_from(token).unwrap_or(u32::MAX)).collect();
        Span { tokens: sequence.len(), pool_from: sequence.pool_from, selected, ..Span::default() }
    };
    Layout::new(batch.iter().map(span).collect()).map_err(failed)
}

impl Lane {
    /// Runs any number of sequences, as many at once as there is memory for.
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        let mut outputs = Vec::with_capacity(batch.len());
        for run in runs::cut(batch, &self.capacity) {
            outputs.append(&mut self.run_at_once(&batch[run])?);
        }
        Ok(outputs)
    }

    fn run_at_once(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        self.ids.clear();
        self.type_ids.clear();
        for sequence in batch {
            self.ids.extend(sequence.ids.iter().map(|&id| i64::from(id)));
            self.type_ids.extend(sequence.type_ids.iter().map(|&id| i64::from(id)));
        }
        let layout = layout(batch)?;
        let inputs = [("input_ids", InputData::I64(&self.ids)), ("token_type_ids", InputData::I64(&self.type_ids))];
        let bindings = layout.bindings();
        let batch = Batch { inputs: &inputs, layout: &layout, bindings, cache: None };
        self.session.run(&batch).map_err(failed)?;
        let rows = self.session.output(0).ok_or_else(|| EngineError::Contract("the plan has no output".to_owned()))?;
        let mut next = 0;
        let of = |span: &Span| {
            let count = match self.rows {
                RowsPer::Token => span.tokens,
                RowsPer::Selected => span.selected.len(),
                RowsPer::Sequence => 1,
            };
            let range = next..next + count;
            next = range.end;
            let mut data = Vec::with_capacity(range.len() * rows.columns());
            range.clone().for_each(|row| data.extend_from_slice(rows.row(row)));
            Output { rows: range.len(), columns: rows.columns(), data }
        };
        Ok(layout.spans().iter().map(of).collect())
    }
}

pub(crate) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Execution(Arc::new(error))
}

#[cfg(test)]
mod tests {
    use centuple_graph::{Binary, Graph, Op, Reduction};
    use centuple_runtime::lower;
    use centuple_tensor::{DType, Tensor};

    use super::*;
    use crate::host::HostOptions;

    type Error = Box<dyn std::error::Error>;

    const LIMITS: Limits = Limits { max_tokens_per_sequence: 16, max_tokens_per_batch: 4096, vocabulary: 50 };

    /// The ids themselves as rows of one column, picked and doubled.
    fn engine(threads: usize) -> Result<PlanEngine, Error> {
        let host = Host::new(&HostOptions { threads: Some(threads), isa: None })?;
        let mut graph = Graph::new();
        let ids = graph.input("input_ids", DType::I64, vec![Symbol::Tokens.into()])?;
        let numbers: Vec<f32> = (0..50u8).map(f32::from).collect();
        let table = graph.constant("table", Tensor::from_f32(&[50, 1], &numbers)?)?;
        let rows = graph.push("rows", Op::Embedding, &[table, ids])?;
        let picked = graph.push("picked", Op::Select, &[rows])?;
        let two = graph.constant("two", Tensor::from_f32(&[1, 1], &[2.0])?)?;
        let linear = Op::Linear { bias: false, activation: None, residual: false };
        let doubled = graph.push("doubled", linear, &[picked, two])?;
        graph.output("output", doubled);
        Ok(PlanEngine::new(&host, &Arc::new(lower(&graph, host.isa)?), LIMITS)?)
    }

    /// The ids of each sequence less the largest one of the sequence, on padded rows.
    fn padded_engine(threads: usize) -> Result<PlanEngine, Error> {
        let host = Host::new(&HostOptions { threads: Some(threads), isa: None })?;
        let mut graph = Graph::new();
        let ids = graph.input("input_ids", DType::I64, vec![Symbol::Tokens.into()])?;
        let numbers = graph.push("numbers", Op::ToFloat, &[ids])?;
        let padded = graph.push("padded", Op::Pad, &[numbers])?;
        let largest = graph.push("largest", Op::Reduce { reduction: Reduction::Max, axes: vec![0, 1] }, &[padded])?;
        let less = graph.push("less", Op::Binary(Binary::Sub), &[padded, largest])?;
        let packed = graph.push("packed", Op::Pack, &[less])?;
        let rows = graph.push("rows", Op::Reshape { shape: vec![Symbol::Tokens.into(), 1.into()] }, &[packed])?;
        graph.output("output", rows);
        Ok(PlanEngine::new(&host, &Arc::new(lower(&graph, host.isa)?), LIMITS)?)
    }

    /// What looks at everything in its batch sees one sequence only.
    #[test]
    fn padded_sequences_have_no_company() -> Result<(), Error> {
        let sequence = |index: usize| {
            let tokens = 1 + index * 7 % 16;
            Sequence::from_ids((0..tokens).map(|token| ((11 * index + token) % 50) as u32).collect())
        };
        for threads in [1, 2] {
            let mut engine = padded_engine(threads)?;
            for count in [1, 5, 120] {
                let batch: Vec<Sequence> = (0..count).map(sequence).collect();
                let outputs = engine.run(&batch.iter().collect::<Vec<_>>())?;
                for (sequence, output) in batch.iter().zip(outputs) {
                    let largest = sequence.ids.iter().max().copied().unwrap_or(0) as f32;
                    let expected: Vec<f32> = sequence.ids.iter().map(|&id| id as f32 - largest).collect();
                    assert_eq!(output.data, expected);
                }
            }
        }
        Ok(())
    }

    /// Whatever the batch selects, all together more than at once: a row for each selected token, in order.
    #[test]
    fn selected_tokens_have_a_row_each() -> Result<(), Error> {
        let sequence = |index: usize| Sequence {
            selected: (0..index % 13).filter(|token| !index.is_multiple_of(3) || token % 2 == 0).collect(),
            ..Sequence::from_ids((0..13).map(|token| ((7 * index + token) % 50) as u32).collect())
        };
        for threads in [1, 2] {
            let mut engine = engine(threads)?;
            for count in [1, 40, 120] {
                let batch: Vec<Sequence> = (0..count).map(sequence).collect();
                let outputs = engine.run(&batch.iter().collect::<Vec<_>>())?;
                assert_eq!(outputs.len(), count);
                for (sequence, output) in batch.iter().zip(outputs) {
                    let expected: Vec<f32> =
                        sequence.selected.iter().map(|&token| 2.0 * sequence.ids[token] as f32).collect();
                    assert_eq!((output.rows, output.columns, output.data), (expected.len(), 1, expected));
                }
            }
            for selected in [vec![13], vec![3, 3], vec![3, 2]] {
                let wrong = Sequence { selected, ..sequence(1) };
                assert!(matches!(engine.run(&[&wrong]), Err(EngineError::Selected { .. })));
            }
        }
        Ok(())
    }
}
