//! How fast a decoder reads a prompt and goes on, beside what the machine allows, in every precision.
//!
//!     cargo run --release -p centuple --example generation -- MODEL [PROMPT] [NEW] [THREADS] [PRECISION] [--json]
//!
//! One sequence of `PROMPT` tokens (128) that goes on for `NEW` (128); the median of a few runs. A step's bound is the time
//! that reading its weights and keys and values takes at the bandwidth measured just before or after the run, whichever is
//! larger: on a machine that others use, it moves by a factor of two within seconds.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use centuple::kernels::{Kernels, ThreadPool};
use centuple::{Compiled, Host, HostOptions, LoadOptions, Precision};
use centuple_runtime::{Batch, InputData, KvCache, KvPrecision, Session};
use centuple_tensor::{Bindings, Buffer, Layout, PAGE_TOKENS, Span};

const RUNS: usize = 9;
/// Bytes that are read to measure the bandwidth.
const READ: usize = 256 << 20;
/// Parts that they are read in; the fastest counts.
const READS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let (json, arguments): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word == "--json");
    let model = arguments.first().ok_or("name a model's folder")?;
    let number = |index: usize, usual: usize| arguments.get(index).map_or(Ok(usual), |word| word.parse());
    let (prompt, new) = (number(1, 128)?, number(2, 128)?);
    let threads = arguments.get(3).map(|word| word.parse()).transpose()?;
    let host = Host::new(&HostOptions { threads, isa: None })?;
    let pool = Arc::new(ThreadPool::new(host.threads())?);
    let memory = Memory::new(Arc::clone(&pool));
    if json.is_empty() {
        println!("{} on {} threads", host.isa(), host.threads());
    }
    let wanted = |precision: &Precision| arguments.get(4).is_none_or(|name| *name == precision.to_string());
    for precision in [Precision::F32, Precision::F16, Precision::Int8, Precision::Int4].into_iter().filter(wanted) {
        let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
        let compiled = host.compile_folder(Path::new(model), "model", &options)?;
        // As they are kept where nobody says.
        let kept = if precision == Precision::F32 { KvPrecision::F32 } else { KvPrecision::F16 };
        let mut run = Run::new(&compiled, Arc::clone(&pool), kept, prompt, new)?;
        let mut times = Vec::with_capacity(RUNS);
        let mut before = memory.rate()?;
        for _ in 0..RUNS {
            let [prefill, step, best_step] = run.go(prompt, new)?;
            let after = memory.rate()?;
            times.push([prefill, step, best_step, before.max(after)]);
            before = after;
        }
        let page = KvCache::page_bytes(compiled.plan.cache_slots(), kept);
        let cached = page * (prompt + new / 2) / PAGE_TOKENS;
        let bytes = compiled.plan.matrix_bytes() + cached;
        let bound = |rate: f64| bytes as f64 / rate;
        let found = Found {
            prefill: median(times.iter().map(|time| time[0])),
            step: median(times.iter().map(|time| time[1])),
            share: median(times.iter().map(|time| bound(time[3]) / time[1])),
            best_share: median(times.iter().map(|time| bound(time[3]) / time[2])),
            gmacs: compiled.plan.macs(&Layout::of_lengths(&[prompt])?) as f64 / 1e9,
            bytes,
            bandwidth: median(times.iter().map(|time| time[3])),
        };
        if json.is_empty() { found.print(precision, prompt) } else { found.print_json(precision) }
    }
    Ok(())
}

fn median(times: impl Iterator<Item = f64>) -> f64 {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// What was measured of one precision; times in seconds.
struct Found {
    prefill: f64,
    /// The mean step of the median run.
    step: f64,
    /// The bound to the mean step, and to one that a tenth of a run's steps are faster than.
    share: f64,
    best_share: f64,
    /// Multiply-accumulates of the prompt, in 10⁹.
    gmacs: f64,
    /// Bytes that a step in the middle reads.
    bytes: usize,
    /// Bytes per second that the same threads read between the runs.
    bandwidth: f64,
}

impl Found {
    fn print(&self, precision: Precision, prompt: usize) {
        println!(
            "{precision:5} prompt {:7.1} tokens/s ({:.0} GMAC/s), then {:6.1} tokens/s: {:.2} ms each; {:.0} MB at {:.1} GB/s: {:.0} % of the bound, at best {:.0} %",
            prompt as f64 / self.prefill,
            self.gmacs / self.prefill,
            1.0 / self.step,
            1e3 * self.step,
            self.bytes as f64 / 1e6,
            self.bandwidth / 1e9,
            100.0 * self.share,
            100.0 * self.best_share,
        );
    }

    fn print_json(&self, precision: Precision) {
        let Found { prefill, step, share, best_share, gmacs, bytes, bandwidth } = self;
        println!(
            r#"{{"precision": "{precision}", "prefill_s": {prefill}, "step_s": {step}, "share": {share}, "best_share": {best_share}, "gmacs": {gmacs}, "bytes": {bytes}, "bandwidth": {bandwidth}}}"#
        );
    }
}

/// Memory to be read, on huge pages as weights are.
struct Memory {
    pool: Arc<ThreadPool>,
    buffer: Buffer,
}

impl Memory {
    fn new(pool: Arc<ThreadPool>) -> Memory {
        let mut buffer = Buffer::zeroed(READ);
        buffer.as_bytes_mut().fill(1);
        Memory { pool, buffer }
    }

    /// Bytes per second at which all threads together read it, at best.
    fn rate(&self) -> Result<f64, Box<dyn Error>> {
        let mut best = f64::INFINITY;
        for part in self.buffer.as_f32().chunks(READ / 4 / READS) {
            let start = Instant::now();
            self.pool.run(&|worker| {
                worker.barrier();
                let sum = part[worker.share(part.len())].iter().fold(0, |sum: u32, float| sum ^ float.to_bits());
                black_box(sum);
                worker.barrier();
            })?;
            best = best.min(start.elapsed().as_secs_f64() * (READ / READS) as f64 / (4 * part.len()) as f64);
        }
        Ok((READ / READS) as f64 / best)
    }
}

/// A sequence that goes on.
struct Run {
    kernels: Kernels,
    session: Session,
    cache: KvCache,
    pages: Vec<u32>,
}

impl Run {
    fn new(
        compiled: &Compiled,
        pool: Arc<ThreadPool>,
        kept: KvPrecision,
        prompt: usize,
        new: usize,
    ) -> Result<Run, Box<dyn Error>> {
        let pages = (prompt + new).div_ceil(PAGE_TOKENS);
        let past = prompt + new;
        let capacity =
            Bindings { tokens: prompt, sequences: 1, sequence: prompt, selected: 1, past, ..Bindings::default() };
        let cache = KvCache::new(compiled.plan.cache_slots(), kept, pages)?;
        let session = Session::new(Arc::clone(&compiled.plan), pool, capacity)?;
        let kernels = Kernels::new(compiled.plan.isa())?;
        Ok(Run { kernels, session, cache, pages: (0..pages as u32).collect() })
    }

    /// Seconds that the prompt takes, the mean step after it, and one of the fastest.
    fn go(&mut self, prompt: usize, new: usize) -> Result<[f64; 3], Box<dyn Error>> {
        let ids: Vec<i64> = (0..prompt as i64).map(|token| 100 + 37 * token % 1009).collect();
        let start = Instant::now();
        let mut next = self.step(&ids, 0)?;
        let prefill = start.elapsed().as_secs_f64();
        let mut steps = Vec::with_capacity(new);
        for step in 0..new {
            let start = Instant::now();
            next = self.step(&[next], prompt + step)?;
            steps.push(start.elapsed().as_secs_f64());
        }
        let mean = steps.iter().sum::<f64>() / new.max(1) as f64;
        steps.sort_by(f64::total_cmp);
        Ok([prefill, mean, steps.get(new / 10).copied().unwrap_or_default()])
    }

    /// The likeliest token after some new ones.
    fn step(&mut self, ids: &[i64], past: usize) -> Result<i64, Box<dyn Error>> {
        let (tokens, pages) = (ids.len(), self.pages.clone());
        let selected = vec![tokens as u32 - 1];
        let layout = Layout::new(vec![Span { tokens, past, pages, selected, ..Span::default() }])?;
        let inputs = [("input_ids", InputData::I64(ids))];
        let bindings = layout.bindings();
        self.session.run(&Batch { inputs: &inputs, layout: &layout, bindings, cache: Some(&self.cache) })?;
        let logits = self.session.output(0).ok_or("no output")?;
        let peak = self.kernels.peak(logits.row(0)).ok_or("no finite logits")?;
        Ok(peak.index as i64)
    }
}
