//! The engine over NVIDIA GPUs. Each has the whole model and a thread of its own, since what the driver hands out stays with a
//! thread; a batch is dealt out to all of them.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use centuple_cuda::{
    Capacity, CubinCache, CubinPack, CudaDevice, CudaError, Driver, Encoder, EncoderOutput, KernelStore, Plan,
};
use centuple_runtime::Memory;
use centuple_tasks::{Engine, EngineError, Limits, Output, Sequence};
use centuple_tensor::Layout;

use crate::device::CudaFiles;
use crate::engine::{failed, layout};

/// Most sequences that a GPU gets at once.
const MAX_SEQUENCES: usize = 1024;

/// A GPU while a model is on it.
#[derive(Debug)]
pub struct Gpu {
    /// Its number in the driver's order.
    pub number: usize,
    /// Its name.
    pub name: String,
    busy: AtomicU64,
    used: AtomicU64,
    total: u64,
}

impl Gpu {
    /// Time that it has spent on batches of this model, copies included.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy.load(Ordering::Relaxed))
    }

    /// Bytes of its memory: taken by all that use it, as of the last batch, and there.
    pub fn memory(&self) -> [u64; 2] {
        [self.used.load(Ordering::Relaxed), self.total]
    }
}

/// Runs packed batches on GPUs.
pub struct CudaEngine {
    workers: Vec<Worker>,
    /// The worker that gets the next part.
    next: usize,
    capacity: Capacity,
    limits: Limits,
    memory: Memory,
}

/// The thread that a GPU belongs to; it ends when nothing can be asked of it any more.
struct Worker {
    gpu: Arc<Gpu>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Some sequences of a batch.
struct Job {
    layout: Layout,
    ids: Vec<i64>,
    type_ids: Vec<i64>,
    reply: Sender<Result<EncoderOutput, CudaError>>,
}

/// What a GPU says when it is ready.
struct Ready {
    gpu: Arc<Gpu>,
    memory: [usize; 2],
}

/// Whether there are the driver and the GPU of a number, or any.
pub(crate) fn probe(number: Option<usize>, files: &CudaFiles) -> Result<Range<usize>, CudaError> {
    let found = Driver::load(files.driver.as_deref())?.devices()?.len();
    let numbers = number.map_or(0..found, |number| number..number + 1);
    if numbers.is_empty() || numbers.end > found {
        return Err(CudaError::Device { wanted: numbers.start, found });
    }
    Ok(numbers)
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
        let mut workers = Vec::with_capacity(numbers.len());
        let mut memory = Memory { weights: 0, shared_weights: 0, arena: 0, workers: 0 };
        for number in numbers {
            let (worker, [weights, arena]) = Worker::start(number, plan.clone(), files.clone(), capacity)?;
            workers.push(worker);
            memory.weights += weights;
            memory.arena += arena;
        }
        Ok(CudaEngine { workers, next: 0, capacity, limits, memory })
    }

    /// Bytes that the model takes on all GPUs.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// The GPUs that the model is on.
    pub fn gpus(&self) -> Vec<Arc<Gpu>> {
        self.workers.iter().map(|worker| Arc::clone(&worker.gpu)).collect()
    }

    /// Consecutive sequences that go to one GPU at once: as large as there is room, but a part for each GPU.
    fn parts(&self, batch: &[&Sequence]) -> Vec<Range<usize>> {
        let tokens: usize = batch.iter().map(|sequence| sequence.len()).sum();
        let fair = tokens.div_ceil(self.workers.len());
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut filled = 0;
        for (index, sequence) in batch.iter().enumerate() {
            match parts.last_mut() {
                Some(part)
                    if filled + sequence.len() <= self.capacity.tokens
                        && filled < fair
                        && part.len() < self.capacity.sequences =>
                {
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
            let job = Job { layout, ids, type_ids, reply };
            let sent = worker.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
            if !sent {
                return Err(gone(&worker.gpu));
            }
            awaited.push((spans, outcome, Arc::clone(&worker.gpu)));
        }
        let mut outputs = Vec::with_capacity(batch.len());
        for (layout, outcome, gpu) in awaited {
            let output = outcome.recv().map_err(|mpsc::RecvError| gone(&gpu))?.map_err(failed)?;
            deal(&layout, &output, &mut outputs)?;
        }
        Ok(outputs)
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

fn gone(gpu: &Gpu) -> EngineError {
    EngineError::execution(format!("the thread of GPU {} ({}) has ended; restart the process", gpu.number, gpu.name))
}

/// Hands out the rows of each sequence: one for each of its tokens, or one.
fn deal(layout: &Layout, output: &EncoderOutput, outputs: &mut Vec<Output>) -> Result<(), EngineError> {
    let columns = output.columns;
    let rows = output.data.len().checked_div(columns).unwrap_or_default();
    let per_token = rows == layout.tokens();
    if !per_token && rows != layout.spans().len() {
        return Err(EngineError::Contract(format!("{rows} rows for {} tokens", layout.tokens())));
    }
    let mut data = output.data.as_slice();
    for span in layout.spans() {
        let rows = if per_token { span.tokens } else { 1 };
        let (own, rest) = data.split_at(rows * columns);
        data = rest;
        outputs.push(Output { rows, columns, data: own.to_vec() });
    }
    Ok(())
}

impl Worker {
    fn start(
        number: usize,
        plan: Plan,
        files: CudaFiles,
        capacity: Capacity,
    ) -> Result<(Worker, [usize; 2]), CudaError> {
        let (jobs, received) = channel();
        let (ready, started) = channel();
        let life = move || {
            let (mut encoder, gpu) = match open(number, plan, &files, capacity) {
                Ok((encoder, gpu)) => (encoder, Arc::new(gpu)),
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let memory = encoder.memory();
            if ready.send(Ok(Ready { gpu: Arc::clone(&gpu), memory })).is_ok() {
                serve(&mut encoder, &gpu, &received);
            }
        };
        let thread = std::thread::Builder::new().name(format!("centuple-cuda-{number}")).spawn(life);
        let thread = thread.map_err(|source| CudaError::Thread { source })?;
        let died = |mpsc::RecvError| CudaError::Thread { source: std::io::Error::other("it died as it started") };
        let Ready { gpu, memory } = started.recv().map_err(died)??;
        Ok((Worker { gpu, jobs: Some(jobs), thread: Some(thread) }, memory))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Memory of the GPU is given back before anything else is loaded.
            let _ = thread.join();
        }
    }
}

/// Takes a GPU and brings a plan to it.
fn open(
    number: usize,
    plan: Plan,
    files: &CudaFiles,
    capacity: Capacity,
) -> Result<(Encoder<CudaDevice>, Gpu), CudaError> {
    let mut store = KernelStore::new();
    if let Some(pack) = &files.kernels {
        store = store.with_pack(CubinPack::open(pack)?);
    }
    if let Some(folder) = &files.cache {
        store = store.with_cache(CubinCache::new(folder));
    }
    let device = CudaDevice::open(&Driver::load(files.driver.as_deref())?, number, store)?;
    let (name, total, target) = (device.info().name.clone(), device.info().memory as u64, device.target());
    let encoder = Encoder::new(device, plan, target, capacity)?;
    let used = AtomicU64::new(encoder.device().used_memory()? as u64);
    Ok((encoder, Gpu { number, name, busy: AtomicU64::new(0), used, total }))
}

/// Answers until nobody can ask any more.
fn serve(encoder: &mut Encoder<CudaDevice>, gpu: &Gpu, jobs: &Receiver<Job>) {
    for Job { layout, ids, type_ids, reply } in jobs {
        let start = Instant::now();
        let inputs: [(&str, &[i64]); 2] = [("input_ids", &ids), ("token_type_ids", &type_ids)];
        let outputs = encoder.run(&layout, &inputs);
        let outcome = outputs.and_then(|outputs| {
            let first = outputs.into_iter().next();
            first.ok_or_else(|| CudaError::Batch("the plan has no output".to_owned()))
        });
        gpu.busy.fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        // Who asked may have gone.
        let _ = reply.send(outcome);
        if let Ok(used) = encoder.device().used_memory() {
            gpu.used.store(used as u64, Ordering::Relaxed);
        }
    }
}
