//! The step engine of a GPU: sequences of a step over the pages of keys and values on it.

use std::sync::Arc;
use std::sync::mpsc::{RecvError, channel};

use centuple_cuda::{Capacity, Plan};
use centuple_generate::{Logits, Step, StepEngine, StepError, StepLimits};
use centuple_kernels::KvPrecision;
use centuple_runtime::Memory;
use centuple_tensor::PAGE_TOKENS;

use super::{Batch, Gpu, Job, Room, Task, Wish, Worker, gone, probe};
use crate::device::CudaFiles;
use crate::error::Error;
use crate::generate::{GenerationOptions, steps};

/// Runs steps of a generating plan on one GPU, the first where no number was given.
pub struct CudaSteps {
    worker: Worker,
    room: Room,
    limits: StepLimits,
}

impl CudaSteps {
    /// Brings the plan of a decoder, and of the encoder that it may be behind, to a GPU, with a cache for its sequences.
    ///
    /// # Errors
    /// There is no driver or no such GPU, a kernel can't be had, memory is short or not enough for a page, or keys and values
    /// were to be kept as anything but 16 bits.
    pub(crate) fn new(
        plan: Plan,
        encoder: Option<Plan>,
        number: Option<usize>,
        files: &CudaFiles,
        [positions, vocabulary]: [usize; 2],
        options: &GenerationOptions,
    ) -> Result<CudaSteps, Error> {
        if let Some(precision @ (KvPrecision::F32 | KvPrecision::Int8)) = options.kv_precision {
            return Err(Error::OnlyCpu { what: format!("a cache of keys and values in {precision:?}") });
        }
        let tokens = options.tokens_per_step.max(1);
        let capacity = Capacity { tokens, sequences: options.sequences_per_step.clamp(1, tokens) };
        let (page, reads) = (plan.page_bytes(), encoder.is_some());
        // A text can't be cut.
        let encoder = encoder.map(|plan| (plan, Capacity { tokens: positions.max(tokens), ..capacity }));
        let cache = Some(Wish { bytes: options.kv_memory, positions });
        let number = probe(number, files)?.start;
        let (worker, room) = Worker::start(number, Task { plan, encoder, files: files.clone(), capacity, cache })?;
        if room.cache.pages == 0 {
            return Err(Error::CacheMemory { bytes: options.kv_memory.unwrap_or_default(), page });
        }
        let limits = StepLimits {
            page_tokens: PAGE_TOKENS,
            pages: room.cache.pages,
            positions,
            source_positions: if reads { positions } else { 0 },
            tokens_per_step: capacity.tokens,
            sequences_per_step: capacity.sequences,
            vocabulary,
        };
        Ok(CudaSteps { worker, room, limits })
    }

    /// Bytes that the engine takes on the GPU besides the keys and values.
    pub fn memory(&self) -> Memory {
        let [weights, arena, _] = self.room.bytes;
        Memory { weights, shared_weights: 0, arena, workers: 0 }
    }

    /// Bytes of the keys and values of all pages.
    pub fn cache_bytes(&self) -> usize {
        self.room.bytes[2]
    }

    /// The GPU.
    pub fn gpu(&self) -> Arc<Gpu> {
        Arc::clone(&self.worker.gpu)
    }
}

impl StepEngine for CudaSteps {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError> {
        let failed = |error: &dyn std::fmt::Display| StepError(format!("the model could not be run: {error}"));
        let layout = steps::layout(step).map_err(|error| failed(&error))?;
        let ids = steps::ids(step).collect();
        let copies = step.copies.iter().map(|copy| [copy.from, copy.to]).collect();
        let (reply, outcome) = channel();
        let batch = Batch { copies, encodings: step.encodings.clone(), layout, ids, type_ids: Vec::new() };
        self.worker.give(Job { batch, reply }).map_err(|error| failed(&error))?;
        let output = outcome.recv().map_err(|RecvError| failed(&gone(&self.worker.gpu)))?;
        logits.clear();
        if let Some(output) = output.map_err(|error| failed(&error))? {
            logits.values = output.data;
        }
        Ok(())
    }
}
