//! The engine over GPUs: a batch is dealt out to all of them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{RecvError, channel};

use centuple_cuda::{Capacity, CudaError, Plan, Rows, SessionOutput};
use centuple_runtime::Memory;
use centuple_tasks::{Engine, EngineError, Limits, Output, Sequence};
use centuple_tensor::Layout;

use super::{Batch, Gpu, Job, Room, Task, Worker, gone, probe};
use crate::device::CudaFiles;
use crate::engine::{failed, layout};

/// Most sequences that a GPU gets at once.
const MAX_SEQUENCES: usize = 1024;

/// Runs packed batches on GPUs.
pub struct CudaEngine {
    workers: Vec<Worker>,
    /// The worker that gets the next part.
    next: usize,
    /// Most sequences that a GPU gets at once.
    sequences: usize,
    limits: Limits,
    memory: Memory,
}

impl CudaEngine {
    /// Brings a plan to the GPU of a number, or to all.
    ///
    /// # Errors
    /// There is no driver or no such GPU, a kernel can't be had, or memory is short.
    pub(crate) fn new(
        plan: &Plan,
        number: Option<usize>,
        files: &CudaFiles,
        limits: Limits,
    ) -> Result<CudaEngine, CudaError> {
        let numbers = probe(number, files)?;
        let tokens = limits.max_tokens_per_batch;
        let capacity = Capacity { tokens, sequences: tokens.min(MAX_SEQUENCES) };
        let task =
            Task { plan: plan.clone().without_cache(), encoder: None, files: files.clone(), capacity, cache: None };
        let mut workers = Vec::with_capacity(numbers.len());
        let mut memory = Memory { weights: 0, shared_weights: 0, arena: 0, workers: 0 };
        for number in numbers {
            let (worker, Room { bytes: [weights, arena, _], .. }) = Worker::start(number, task.clone())?;
            workers.push(worker);
            memory.weights += weights;
            memory.arena += arena;
        }
        Ok(CudaEngine { workers, next: 0, sequences: capacity.sequences, limits, memory })
    }

    /// Bytes that the model takes on all GPUs.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// The GPUs that the model is on.
    pub fn gpus(&self) -> Vec<Arc<Gpu>> {
        self.workers.iter().map(|worker| Arc::clone(&worker.gpu)).collect()
    }

    /// Consecutive sequences that go to one GPU at once: a part for each GPU, more only where a part has no room for as many.
    /// All tokens of a batch have room, or it was refused.
    fn parts(&self, batch: &[&Sequence]) -> Vec<Range<usize>> {
        let tokens: usize = batch.iter().map(|sequence| sequence.len()).sum();
        let fair = tokens.div_ceil(self.workers.len());
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut filled = 0;
        for (index, sequence) in batch.iter().enumerate() {
            match parts.last_mut() {
                Some(part) if filled < fair && part.len() < self.sequences => {
                    part.end = index + 1;
                    filled += sequence.len();
                }
                _ => {
                    parts.push(index..index + 1);
                    filled = sequence.len();
                }
            }
        }
        parts
    }
}

impl Engine for CudaEngine {
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        self.limits.check_batch(batch)?;
        let mut awaited = Vec::new();
        for part in self.parts(batch) {
            let part = &batch[part];
            let layout = layout(part)?;
            let numbers = |of: fn(&Sequence) -> &[u32]| -> Vec<i64> {
                part.iter().flat_map(|sequence| of(sequence)).map(|&number| i64::from(number)).collect()
            };
            let (ids, type_ids) = (numbers(|sequence| &sequence.ids), numbers(|sequence| &sequence.type_ids));
            let (reply, outcome) = channel();
            let spans = layout.clone();
            let worker = &self.workers[self.next];
            self.next = (self.next + 1) % self.workers.len();
            let batch = Batch { layout, ids, type_ids, ..Batch::default() };
            worker.give(Job { batch, reply }).map_err(failed)?;
            awaited.push((spans, outcome, Arc::clone(&worker.gpu)));
        }
        let mut outputs = Vec::with_capacity(batch.len());
        for (layout, outcome, gpu) in awaited {
            let output = outcome.recv().map_err(|RecvError| failed(gone(&gpu)))?.map_err(failed)?;
            if let Some(output) = output {
                deal(&layout, &output, &mut outputs);
            }
        }
        Ok(outputs)
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// Hands out the rows of each sequence.
fn deal(layout: &Layout, output: &SessionOutput, outputs: &mut Vec<Output>) {
    let columns = output.columns;
    let mut data = output.data.as_slice();
    for span in layout.spans() {
        let rows = match output.rows {
            Rows::Tokens => span.tokens,
            Rows::Sequences => 1,
            Rows::Selected => span.selected.len(),
        };
        let (own, rest) = data.split_at(rows * columns);
        data = rest;
        outputs.push(Output { rows, columns, data: own.to_vec() });
    }
}
