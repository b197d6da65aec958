//! How fast a decoder reads a prompt and goes on, beside what the machine allows, in every precision.
//!
//!     cargo run --release -p centuple --example generation -- MODEL [PROMPT] [NEW] [THREADS] [PRECISION]
//!
//! One sequence of `PROMPT` tokens (128) that goes on for `NEW` (128); the median of a few runs. A step's bound is the time
//! that reading its weights and keys and values takes at the bandwidth measured in the same run.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use centuple::kernels::{ThreadPool, ceiling};
use centuple::{Compiled, Host, HostOptions, LoadOptions, Precision};
use centuple_runtime::{Batch, InputData, KvCache, Session};
use centuple_tensor::{Bindings, Layout, PAGE_TOKENS, Span};

const RUNS: usize = 5;
/// Bytes that are read to measure the bandwidth.
const READ: usize = 512 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let model = arguments.first().ok_or("name a model's folder")?;
    let number = |index: usize, usual: usize| arguments.get(index).map_or(Ok(usual), |word| word.parse());
    let (prompt, new) = (number(1, 128)?, number(2, 128)?);
    let threads = arguments.get(3).map(|word| word.parse()).transpose()?;
    let host = Host::new(&HostOptions { threads, isa: None })?;
    let pool = Arc::new(ThreadPool::new(host.threads())?);
    let bandwidth = ceiling::giga_bytes_per_second(&pool, READ)?;
    println!("{} on {} threads, which read {bandwidth:.1} GB/s", host.isa(), host.threads());
    let wanted = |precision: &Precision| arguments.get(4).is_none_or(|name| *name == precision.to_string());
    for precision in [Precision::F32, Precision::F16, Precision::Int8].into_iter().filter(wanted) {
        let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
        let compiled = host.compile_folder(Path::new(model), "model", &options)?;
        let mut times: Vec<[f64; 2]> = Vec::new();
        let mut run = Run::new(&compiled, Arc::clone(&pool), prompt, new)?;
        for _ in 0..RUNS {
            times.push(run.go(prompt, new)?);
        }
        let median = |of: usize| {
            let mut of: Vec<f64> = times.iter().map(|time| time[of]).collect();
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        };
        let [prefill, step] = [median(0), median(1) / new as f64];
        let cached: usize = compiled.plan.cache_widths().iter().map(|width| 2 * 4 * width * (prompt + new / 2)).sum();
        let bytes = compiled.plan.matrix_bytes() + cached;
        let bound = bytes as f64 / bandwidth / 1e9;
        let gmacs = compiled.plan.macs(&Layout::of_lengths(&[prompt])?) as f64 / prefill / 1e9;
        println!(
            "{precision:5} prompt {:7.1} tokens/s ({gmacs:.0} GMAC/s), then {:6.1} tokens/s: {:.2} ms each, {:.0} MB, {:.0} % of the bound",
            prompt as f64 / prefill,
            1.0 / step,
            1e3 * step,
            bytes as f64 / 1e6,
            100.0 * bound / step,
        );
    }
    Ok(())
}

/// A sequence that goes on.
struct Run {
    session: Session,
    cache: KvCache,
    pages: Vec<u32>,
}

impl Run {
    fn new(compiled: &Compiled, pool: Arc<ThreadPool>, prompt: usize, new: usize) -> Result<Run, Box<dyn Error>> {
        let pages = (prompt + new).div_ceil(PAGE_TOKENS);
        let past = prompt + new;
        let capacity =
            Bindings { tokens: prompt, sequences: 1, sequence: prompt, selected: 1, past, ..Bindings::default() };
        let cache = KvCache::new(compiled.plan.cache_widths(), pages)?;
        let session = Session::new(Arc::clone(&compiled.plan), pool, capacity)?;
        Ok(Run { session, cache, pages: (0..pages as u32).collect() })
    }

    /// Seconds that the prompt takes, and all steps after it.
    fn go(&mut self, prompt: usize, new: usize) -> Result<[f64; 2], Box<dyn Error>> {
        let ids: Vec<i64> = (0..prompt as i64).map(|token| 100 + 37 * token % 1009).collect();
        let start = Instant::now();
        let mut next = self.step(&ids, 0)?;
        let prefill = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for step in 0..new {
            next = self.step(&[next], prompt + step)?;
        }
        Ok([prefill, start.elapsed().as_secs_f64()])
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
        let logits = logits.row(0);
        let best = (0..logits.len()).fold(0, |best, token| if logits[token] > logits[best] { token } else { best });
        Ok(best as i64)
    }
}
