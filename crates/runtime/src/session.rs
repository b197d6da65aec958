//! A session: the memory of a plan, and the loop that runs it.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use centuple_kernels::{KernelError, Kernels, Matrix, ThreadPool, Worker};
use centuple_tensor::{Bindings, DType, Layout, Symbol};

use crate::attend::{FEW_QUERIES, whole_queries};
use crate::compute::{Block, Run};
use crate::error::{Result, RuntimeError};
use crate::ids::BatchIds;
use crate::kv_cache::KvCache;
use crate::plan::{Phase, Place, Plan, Stage};
use crate::progress::Progress;
use crate::shared::{Region, SharedFloats};
use crate::steps::{Ahead, Step};

/// Most rows that a worker takes at once: their intermediate results stay in its second-level cache.
const BLOCK_ROWS: usize = 96;
/// Rows per thread up to which threads split columns instead of rows, so that each weight is read by one core only.
const COLUMN_ROWS_PER_THREAD: usize = 16;
/// Rows up to which every thread computes for itself what would be done before the others are told.
const OWN_ROWS: usize = 4;

/// The elements of one input.
#[derive(Clone, Copy, Debug)]
pub enum InputData<'a> {
    /// Token ids and the like.
    I64(&'a [i64]),
    /// Numbers.
    F32(&'a [f32]),
}

impl InputData<'_> {
    fn describe(&self) -> (DType, usize) {
        match self {
            InputData::I64(data) => (DType::I64, data.len()),
            InputData::F32(data) => (DType::F32, data.len()),
        }
    }
}

/// One batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The plan's inputs by name.
    pub inputs: &'a [(&'a str, InputData<'a>)],
    /// The packed sequences; empty for padded graphs.
    pub layout: &'a Layout,
    /// Values of the symbols; for packed graphs [`Layout::bindings`].
    pub bindings: Bindings,
    /// Keys and values of earlier steps, for plans that use them. Without one, every sequence is computed from its first
    /// token on, and nothing is kept.
    pub cache: Option<&'a KvCache>,
}

/// Bytes that a session takes, known before the first batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Weights, shared with other sessions of the same plan.
    pub weights: usize,
    /// Further weights, which lie in the memory of plans that were there before: see [`WeightStore`](crate::WeightStore).
    pub shared_weights: usize,
    /// The shared arena at the largest batch.
    pub arena: usize,
    /// Private blocks of all workers.
    pub workers: usize,
}

/// Rows of one output.
#[derive(Clone, Copy, Debug)]
pub struct OutputRows<'a>(Matrix<'a>);

impl<'a> OutputRows<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.0.rows()
    }

    /// Length of a row.
    pub fn columns(&self) -> usize {
        self.0.columns()
    }

    /// One row; empty outside of the matrix.
    pub fn row(&self, row: usize) -> &'a [f32] {
        self.0.row(row).unwrap_or_default()
    }
}

/// A plan with memory and threads, ready for batches up to a capacity.
pub struct Session {
    plan: Arc<Plan>,
    kernels: Kernels,
    pool: Arc<ThreadPool>,
    capacity: Bindings,
    arena: SharedFloats,
    locals: SharedFloats,
    /// Rows that one worker's private block holds.
    local_rows: usize,
    scratch: SharedFloats,
    /// Floats of scratch per worker.
    scratch_length: usize,
    /// Work of each stage, and behind them of each phase, that has been claimed and that is done.
    progress: Vec<Progress>,
    /// Number of runs so far.
    runs: u64,
    slot_starts: Vec<usize>,
    /// The integers of the running batch.
    ids: BatchIds,
    last: Bindings,
}

impl Session {
    /// Memory for batches of at most `capacity`, run by the threads of `pool`.
    ///
    /// # Errors
    /// The plan's instruction set is not available, or the memory is beyond the address space.
    pub fn new(plan: Arc<Plan>, pool: Arc<ThreadPool>, capacity: Bindings) -> Result<Session> {
        let kernels = Kernels::new(plan.isa)?;
        let mut slot_starts = Vec::new();
        let arena = lay_out(&plan, &capacity, &mut slot_starts)?;
        let local_rows = (BLOCK_ROWS + FEW_QUERIES).max(column_rows(pool.threads()));
        let scratch_length = crate::compute::scratch_length(&plan, &capacity).next_multiple_of(16);
        Ok(Session {
            kernels,
            arena: SharedFloats::zeroed(arena)?,
            locals: SharedFloats::zeroed(plan.local_stride * local_rows * pool.threads())?,
            local_rows,
            scratch: SharedFloats::zeroed(scratch_length * pool.threads())?,
            scratch_length,
            progress: (0..plan.stages.len() + plan.phases.len()).map(|_| Progress::new(pool.threads())).collect(),
            runs: 0,
            slot_starts,
            ids: BatchIds::new(&plan),
            last: Bindings::default(),
            plan,
            pool,
            capacity,
        })
    }

    /// Bytes that this session takes.
    pub fn memory(&self) -> Memory {
        let bytes = |floats: &SharedFloats| floats.len() * size_of::<f32>();
        Memory {
            weights: self.plan.weight_bytes(),
            shared_weights: self.plan.shared_weight_bytes(),
            arena: bytes(&self.arena),
            workers: bytes(&self.locals) + bytes(&self.scratch),
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Number of threads that run a batch.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Runs one batch; its results are there until the next run.
    ///
    /// # Errors
    /// An input is missing or has the wrong length, the batch is over the capacity, or an id is outside its table.
    pub fn run(&mut self, batch: &Batch) -> Result<()> {
        self.admit(batch)?;
        self.inputs(batch)?;
        let rows = self.phase_rows(&batch.bindings)?;
        self.progress.iter().for_each(Progress::reset);
        self.runs += 1;
        let run = Run {
            plan: &self.plan,
            kernels: self.kernels,
            weights: &self.plan.weights,
            arena: &self.arena,
            locals: &self.locals,
            scratch: &self.scratch,
            scratch_length: self.scratch_length,
            slot_starts: &self.slot_starts,
            bindings: batch.bindings,
            threads: self.pool.threads(),
            layout: batch.layout,
            ids: &self.ids,
            cache: batch.cache,
        };
        let team = Team { session: self, run: &run, rows: &rows, failure: OnceLock::new() };
        self.pool.run_available(&|worker| team.work(worker))?;
        let failure = team.failure.into_inner();
        self.last = batch.bindings;
        failure.map_or(Ok(()), Err)
    }

    /// The rows of an output of the last run.
    pub fn output(&self, index: usize) -> Option<OutputRows<'_>> {
        let output = self.plan.outputs.get(index)?;
        let value = &self.plan.values[output.view.value];
        let Place::Shared { slot } = value.place else { return None };
        let size = output.shape.iter().try_fold(1, |size, dim| Some(size * dim.evaluate(&self.last)?))?;
        let (columns, stride) = (output.view.columns, output.view.stride);
        let start = self.slot_starts.get(slot)? + output.view.start;
        self.arena.read(Region { start, rows: size / columns.max(1), columns, stride }).ok().map(OutputRows)
    }

    /// Names of the outputs, in order.
    pub fn output_names(&self) -> impl Iterator<Item = &str> {
        self.plan.outputs.iter().map(|output| output.name.as_str())
    }

    /// Checks the batch against the capacity and lays out the arena for it.
    fn admit(&mut self, batch: &Batch) -> Result<()> {
        for symbol in Symbol::ALL {
            let (needed, limit) = (batch.bindings.get(symbol), self.capacity.get(symbol));
            let matters = symbol != Symbol::Sequence || self.plan.padded;
            if matters && needed > limit {
                return Err(RuntimeError::Capacity { symbol: format!("{symbol:?}"), needed, limit });
            }
        }
        let layout = batch.layout.bindings();
        let padded = (self.plan.padded && !batch.layout.spans().is_empty()).then_some(Symbol::Sequence);
        for symbol in [Symbol::Tokens, Symbol::Sequences, Symbol::Selected].into_iter().chain(padded) {
            let (found, expected) = (layout.get(symbol), batch.bindings.get(symbol));
            if found != expected {
                return Err(RuntimeError::Layout { symbol: format!("{symbol:?}"), found, expected });
            }
        }
        if !self.plan.cache_slots.is_empty() {
            let spans = batch.layout.spans();
            match batch.cache {
                Some(cache) => cache.check(&self.plan.cache_slots, spans)?,
                None if spans.iter().any(|span| span.past > 0 || !span.pages.is_empty()) => {
                    return Err(RuntimeError::Cache("none was given for sequences with a past or pages".to_owned()));
                }
                None => {}
            }
        }
        lay_out(&self.plan, &batch.bindings, &mut self.slot_starts)?;
        Ok(())
    }

    /// Checks every input and takes its elements: floats into the arena, ids as they are looked up.
    fn inputs(&mut self, batch: &Batch) -> Result<()> {
        for (index, input) in self.plan.inputs.iter().enumerate() {
            let given = batch.inputs.iter().find(|(name, _)| *name == input.name);
            let data = given.ok_or_else(|| RuntimeError::MissingInput(input.name.clone()))?.1;
            let mut expected = 1;
            for dim in &input.shape {
                expected *= dim.evaluate(&batch.bindings).ok_or_else(|| RuntimeError::Unbound(dim.to_string()))?;
            }
            let (dtype, found) = data.describe();
            if (dtype, found) != (input.dtype, expected) {
                let name = input.name.clone();
                return Err(RuntimeError::Input { name, dtype: input.dtype, expected, found });
            }
            match data {
                InputData::I64(data) => self.ids.set_input(index, data),
                InputData::F32(data) => {
                    let place = input.value.map(|value| self.plan.values[value].place);
                    if let Some(Place::Shared { slot }) = place {
                        self.arena.write_slice(self.slot_starts[slot], data.len())?.copy_from_slice(data);
                    }
                }
            }
        }
        self.ids.derive(&self.plan, batch.layout);
        Ok(())
    }

    fn phase_rows(&self, bindings: &Bindings) -> Result<Vec<usize>> {
        let rows =
            |phase: &Phase| phase.rows.evaluate(bindings).ok_or_else(|| RuntimeError::Unbound(phase.rows.to_string()));
        self.plan.phases.iter().map(rows).collect()
    }
}

impl Plan {
    /// Bytes that the results shared by all workers take for batches of at most `capacity`; `None` beyond the address
    /// space.
    pub fn arena_bytes(&self, capacity: &Bindings) -> Option<usize> {
        lay_out(self, capacity, &mut Vec::new()).ok()?.checked_mul(size_of::<f32>())
    }
}

/// Most rows for which columns are split.
fn column_rows(threads: usize) -> usize {
    COLUMN_ROWS_PER_THREAD * threads
}

/// Writes the first float of every slot for one batch; returns the floats of the whole arena.
fn lay_out(plan: &Plan, bindings: &Bindings, starts: &mut Vec<usize>) -> Result<usize> {
    starts.clear();
    let mut length = 0usize;
    for slot in &plan.slots {
        starts.push(length);
        let rows = slot.rows.evaluate(bindings).ok_or_else(|| RuntimeError::Unbound(slot.rows.to_string()))?;
        let floats = rows.checked_mul(slot.stride).and_then(|floats| floats.checked_next_multiple_of(16));
        let end = floats.and_then(|floats| length.checked_add(floats)).filter(|&end| end < usize::MAX / 8);
        length = end.ok_or_else(|| RuntimeError::Unbound(slot.rows.to_string()))?;
    }
    Ok(length)
}

/// All workers on one batch.
struct Team<'a> {
    session: &'a Session,
    run: &'a Run<'a>,
    /// Rows of each phase.
    rows: &'a [usize],
    failure: OnceLock<RuntimeError>,
}

impl Team<'_> {
    /// One worker's part of the whole plan.
    fn work(&self, worker: &Worker) {
        let ahead = RefCell::default();
        for (index, (phase, &rows)) in self.run.plan.phases.iter().zip(self.rows).enumerate() {
            if !phase.row_wise {
                self.split_primitives(phase, worker);
            } else if worker.threads() > 1 && rows <= column_rows(worker.threads()) {
                self.split_columns(phase, rows, worker, &ahead);
            } else {
                self.split_rows(index, phase, rows, worker);
            }
        }
    }

    /// Takes blocks of rows until none is left, and runs every stage of the phase on each.
    fn split_rows(&self, index: usize, phase: &Phase, rows: usize, worker: &Worker) {
        let progress = &self.session.progress[self.run.plan.stages.len() + index];
        let size = rows.div_ceil(block_count(rows, worker.threads()).max(1)).max(1);
        let blocks = rows.div_ceil(size);
        // Where rows are tokens, no cut leaves a few queries of a sequence over.
        let layout = Some(self.run.layout).filter(|layout| layout.tokens() == rows);
        let cut = |row: usize| layout.map_or(row.min(rows), |layout| whole_queries(layout, row));
        progress.share(worker, self.session.runs, blocks, |block| {
            let rows = cut(block * size)..cut((block + 1) * size);
            if !rows.is_empty() {
                self.stages(phase, rows, worker);
            }
        });
    }

    /// Runs every stage of a phase on one block, in this worker's private memory.
    fn stages(&self, phase: &Phase, rows: Range<usize>, worker: &Worker) {
        let block = self.block(rows, worker.index(), [worker.index(); 2]);
        for stage in &self.run.plan.stages[phase.stages.clone()] {
            if let Err(source) = self.run.stage(stage, &block) {
                let stage = stage.name.clone();
                let _ = self.failure.set(RuntimeError::Stage { stage, source });
                return;
            }
        }
    }

    /// Splits each step over the workers, one step after the other; private memory is worker 0's.
    fn split_columns(&self, phase: &Phase, rows: usize, worker: &Worker, ahead: &RefCell<Ahead>) {
        let mut steps = phase.steps.iter().peekable();
        while let Some(Step { own, split }) = steps.next() {
            if let Some(next) = steps.peek() {
                self.session.progress[next.split.start].expect(worker);
                // The first worker is the one that is going to write a row or two.
                if rows <= OWN_ROWS && worker.index() == 0 {
                    self.run.plan.stages[next.split.clone()].iter().for_each(|stage| self.run.expect_append(stage));
                }
            }
            if own.is_empty() || rows <= OWN_ROWS {
                self.step(own.clone(), split.clone(), rows, worker, ahead);
            } else {
                self.step(own.start..own.start, own.clone(), rows, worker, ahead);
                self.step(split.start..split.start, split.clone(), rows, worker, ahead);
            }
        }
    }

    /// Splits some stages over the workers, each of which first computes others for itself.
    fn step(&self, own: Range<usize>, split: Range<usize>, rows: usize, worker: &Worker, ahead: &RefCell<Ahead>) {
        let plan = self.run.plan;
        let Some(first) = plan.stages.get(split.start) else { return };
        let items = self.run.items(first, rows, worker.threads());
        let memory = if own.is_empty() { 0 } else { worker.index() };
        let block = self.block(0..rows, worker.index(), [0, memory]);
        let prepared = Cell::new(false);
        let note = |stage: &Stage, result: std::result::Result<(), KernelError>| {
            if let Err(source) = result {
                let _ = self.failure.set(RuntimeError::Stage { stage: stage.name.clone(), source });
            }
        };
        let work = |item| {
            // Not before a piece is begun: only then does nobody change what is read.
            if !prepared.replace(true) {
                plan.stages[own.clone()].iter().for_each(|stage| note(stage, self.run.stage(stage, &block)));
            }
            plan.stages[split.clone()].iter().for_each(|stage| note(stage, self.run.item(stage, item, items, &block)));
        };
        let begun = Cell::new(false);
        self.session.progress[split.start].share_and(worker, self.session.runs, items, work, || {
            let mut ahead = ahead.borrow_mut();
            if !begun.replace(true) {
                ahead.look(plan, split.end, worker.index(), worker.threads());
            }
            ahead.fetch(plan);
        });
    }

    /// Splits the results of primitive stages over the workers, one stage after the other.
    fn split_primitives(&self, phase: &Phase, worker: &Worker) {
        for index in phase.stages.clone() {
            let stage = &self.run.plan.stages[index];
            let pieces = self.run.pieces(stage, worker.threads());
            self.session.progress[index].share(worker, self.session.runs, pieces, |piece| {
                if let Err(source) = self.run.piece(stage, (piece, pieces), worker) {
                    let stage = stage.name.clone();
                    let _ = self.failure.set(RuntimeError::Stage { stage, source });
                }
            });
        }
    }

    /// A block in the private memory of two workers, the second for what a worker computes for itself.
    fn block(&self, rows: Range<usize>, worker: usize, memory: [usize; 2]) -> Block {
        let local_rows = self.session.local_rows;
        let [local_start, own_start] = memory.map(|memory| memory * self.run.plan.local_stride * local_rows);
        Block { rows, worker, local_start, own_start, local_rows }
    }
}

/// How many blocks rows are cut into: as few as fit the block size, a multiple of the threads.
fn block_count(rows: usize, threads: usize) -> usize {
    rows.div_ceil(BLOCK_ROWS).next_multiple_of(threads).min(rows.max(1))
}
