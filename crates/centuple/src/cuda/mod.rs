//! Models on NVIDIA GPUs. Each GPU has the whole model and a thread of its own, since what the driver hands out stays with a thread.

mod engine;
mod steps;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use centuple_cuda::{
    CacheRoom, Capacity, CubinCache, CubinPack, CudaDevice, CudaError, Driver, Format, KernelStore, Plan, Session,
    SessionOutput,
};
use centuple_generate::Encoding;
use centuple_graph::Graph;
use centuple_tensor::{Layout, PAGE_TOKENS};

pub use engine::CudaEngine;
pub use steps::CudaSteps;

use crate::device::CudaFiles;
use crate::generate::encoder;
use crate::precision::Precision;

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

/// Whether there are the driver and the GPU of a number, or any.
pub(crate) fn probe(number: Option<usize>, files: &CudaFiles) -> Result<Range<usize>, CudaError> {
    let found = Driver::load(files.driver.as_deref())?.devices()?.len();
    let numbers = number.map_or(0..found, |number| number..number + 1);
    if numbers.is_empty() || numbers.end > found {
        return Err(CudaError::Device { wanted: numbers.start, found });
    }
    Ok(numbers)
}

/// The steps of a graph in a precision.
pub(crate) fn plan(graph: &Graph, precision: Precision) -> Result<Plan, CudaError> {
    if precision == Precision::Fp8 {
        return centuple_cuda::lower_fp8(graph, format(precision));
    }
    centuple_cuda::lower(graph, format(precision))
}

/// The numbers that stay floats.
fn format(precision: Precision) -> Format {
    if precision == Precision::Bf16 { Format::Bf16 } else { Format::F16 }
}

/// The steps of the encoder in front of a decoder.
pub(crate) fn encoder_plan(graph: &Graph, precision: Precision) -> Result<Plan, CudaError> {
    centuple_cuda::lower_encoder(graph, format(precision), precision == Precision::Fp8)
}

/// The thread that a GPU belongs to; it ends when nothing can be asked of it any more.
struct Worker {
    gpu: Arc<Gpu>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What a GPU is to run.
#[derive(Clone)]
struct Task {
    plan: Plan,
    /// What reads texts, and how much at once, where the model is a decoder behind an encoder.
    encoder: Option<(Plan, Capacity)>,
    files: CudaFiles,
    capacity: Capacity,
    /// Keys and values, where the model keeps them.
    cache: Option<Wish>,
}

/// Which keys and values are to be kept.
#[derive(Clone, Copy, Debug)]
struct Wish {
    /// Bytes for them; by default half of what is free, at most what as many longest sequences as are run together need.
    bytes: Option<usize>,
    /// Tokens of the longest sequence.
    positions: usize,
}

/// What a GPU says when it is ready.
struct Ready {
    gpu: Arc<Gpu>,
    room: Room,
}

/// What a model takes on a GPU.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Bytes of weights, of a batch, of keys and values.
    bytes: [usize; 3],
    cache: CacheRoom,
}

/// What to compute: first the copies, then what the encoder is to read, then the batch, if it has tokens.
#[derive(Default)]
struct Batch {
    /// Pages of keys and values, and the pages that they are copied to.
    copies: Vec<[u32; 2]>,
    encodings: Vec<Encoding>,
    layout: Layout,
    ids: Vec<i64>,
    type_ids: Vec<i64>,
}

/// A batch, and who waits for it.
struct Job {
    batch: Batch,
    reply: Sender<Result<Option<SessionOutput>, CudaError>>,
}

/// Why a worker doesn't answer.
#[derive(Debug, thiserror::Error)]
#[error("the thread of GPU {number} ({name}) has ended; restart the process")]
struct Gone {
    number: usize,
    name: String,
}

impl Worker {
    fn start(number: usize, task: Task) -> Result<(Worker, Room), CudaError> {
        let (jobs, received) = channel();
        let (ready, started) = channel();
        let life = move || match open(number, task) {
            Ok((mut session, gpu)) => {
                let (gpu, room) = (Arc::new(gpu), Room { bytes: session.memory(), cache: session.cache() });
                if ready.send(Ok(Ready { gpu: Arc::clone(&gpu), room })).is_ok() {
                    serve(&mut session, &gpu, &received);
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name(format!("centuple-cuda-{number}")).spawn(life);
        let thread = thread.map_err(|source| CudaError::Thread { source })?;
        let died = |RecvError| CudaError::Thread { source: std::io::Error::other("it died as it started") };
        let Ready { gpu, room } = started.recv().map_err(died)??;
        Ok((Worker { gpu, jobs: Some(jobs), thread: Some(thread) }, room))
    }

    fn give(&self, job: Job) -> Result<(), Gone> {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err(gone(&self.gpu)) }
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

fn gone(gpu: &Gpu) -> Gone {
    Gone { number: gpu.number, name: gpu.name.clone() }
}

/// Takes a GPU and brings a plan to it.
fn open(number: usize, task: Task) -> Result<(Session<CudaDevice>, Gpu), CudaError> {
    let Task { plan, encoder, files, capacity, cache } = task;
    let mut store = KernelStore::new();
    if let Some(pack) = &files.kernels {
        store = store.with_pack(CubinPack::open(pack)?);
    }
    if let Some(folder) = &files.cache {
        store = store.with_cache(CubinCache::new(folder));
    }
    let mut device = CudaDevice::open(&Driver::load(files.driver.as_deref())?, number, store)?;
    if let Some(cublas) = files.cublas {
        device = device.with_cublas(cublas);
    }
    let (name, total, target) = (device.info().name.clone(), device.info().memory, device.target());
    let weights = plan.weight_bytes() + encoder.as_ref().map_or(0, |(encoder, _)| encoder.weight_bytes());
    let free = total.saturating_sub(device.used_memory()?).saturating_sub(weights);
    let cache = cache.map_or_else(CacheRoom::default, |wish| room(wish, &plan, capacity, free));
    let mut session = Session::new(device, plan, target, capacity, cache)?;
    if let Some((encoder, capacity)) = encoder {
        session = session.with_encoder(encoder, target, capacity)?;
    }
    let used = AtomicU64::new(session.device().used_memory()? as u64);
    Ok((session, Gpu { number, name, busy: AtomicU64::new(0), used, total: total as u64 }))
}

/// The pages that a wish comes to where so many bytes are free.
fn room(wish: Wish, plan: &Plan, capacity: Capacity, free: usize) -> CacheRoom {
    let Wish { bytes, positions } = wish;
    let texts = if plan.has_sources() { 2 } else { 1 };
    let longest = positions.div_ceil(PAGE_TOKENS).saturating_mul(capacity.sequences).saturating_mul(texts);
    let page = plan.page_bytes().max(1);
    let pages = bytes.map_or_else(|| (free / 2 / page).min(longest), |bytes| bytes / page);
    CacheRoom { pages: pages.min(i32::MAX as usize / PAGE_TOKENS), positions }
}

/// Answers until nobody can ask any more.
fn serve(session: &mut Session<CudaDevice>, gpu: &Gpu, jobs: &Receiver<Job>) {
    for job in jobs {
        let start = Instant::now();
        let outcome = run(session, &job.batch);
        gpu.busy.fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        // Who asked may have gone.
        let _ = job.reply.send(outcome);
        if let Ok(used) = session.device().used_memory() {
            gpu.used.store(used as u64, Ordering::Relaxed);
        }
    }
}

fn run(session: &mut Session<CudaDevice>, batch: &Batch) -> Result<Option<SessionOutput>, CudaError> {
    for &[from, to] in &batch.copies {
        session.copy_page(from, to)?;
    }
    let Capacity { tokens, sequences } = session.encoder_capacity();
    for texts in encoder::batches(&batch.encodings, tokens, sequences) {
        let layout = encoder::layout(texts).map_err(|error| CudaError::Batch(error.to_string()))?;
        let ids: Vec<i64> = encoder::ids(texts).collect();
        session.encode(&layout, &[("input_ids", &ids)])?;
    }
    if batch.layout.spans().is_empty() {
        return Ok(None);
    }
    let inputs: [(&str, &[i64]); 2] = [("input_ids", &batch.ids), ("token_type_ids", &batch.type_ids)];
    let first = session.run(&batch.layout, &inputs)?.into_iter().next();
    first.map(Some).ok_or_else(|| CudaError::Batch("the plan has no output".to_owned()))
}
