//! `centuple bench`

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use centuple::tasks::{Engine, Sequence};
use centuple::{Host, LoadOptions, Loaded};
use serde::Serialize;

use super::unless_closed;
use crate::args::{Bench, Precision, Shape};

/// Time spent on a shape where the number of runs isn't given.
const BUDGET: Duration = Duration::from_secs(1);
/// Least number of runs where it isn't given.
const LEAST: usize = 10;
/// Time before the first timed run, so that clocks and caches are warm.
const WARM_UP: Duration = Duration::from_millis(300);

/// What stands above the rows.
const HEADING: &str = "   shape  median ms     min ms     p99 ms     runs   GMAC/s  of ceiling";

/// What one shape took.
#[derive(Serialize)]
struct Row {
    shape: String,
    precision: &'static str,
    threads: usize,
    isa: String,
    median_ms: f64,
    min_ms: f64,
    p99_ms: f64,
    repeat: usize,
    /// Multiply-accumulates per second at the median.
    gmacs: f64,
    /// What this machine's multiply-add units reach in the same process.
    ceiling_gmacs: f64,
    /// The same for products of bytes; only where the precision uses them.
    #[serde(skip_serializing_if = "Option::is_none")]
    int8_ceiling_gmacs: Option<f64>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { shape, median_ms, min_ms, p99_ms, repeat, gmacs, .. } = self;
        write!(f, "{shape:>8} {median_ms:>10.3} {min_ms:>10.3} {p99_ms:>10.3} {repeat:>8} {gmacs:>8.1}")?;
        write!(f, "  {:.0} %", 100.0 * gmacs / self.int8_ceiling_gmacs.unwrap_or(self.ceiling_gmacs))
    }
}

/// Times a model on random tokens.
pub(crate) fn bench(command: &Bench) -> anyhow::Result<ExitCode> {
    let host = command.machine.host()?;
    let largest = command.shapes.iter().map(|shape| shape.sequences * shape.tokens).max().unwrap_or(0);
    let defaults = command.machine.load_options();
    let options = LoadOptions { max_batch_tokens: largest.max(defaults.max_batch_tokens), ..defaults };
    let mut loaded = host.load(&command.model, &options)?;
    let mut out = io::stdout().lock();
    if !command.json {
        unless_closed(writeln!(out, "{HEADING}"))?;
    }
    for shape in &command.shapes {
        let row = time(command, &host, &mut loaded, *shape).with_context(|| format!("shape {shape}"))?;
        let line = if command.json { serde_json::to_string(&row)? } else { row.to_string() };
        unless_closed(writeln!(out, "{line}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn time(command: &Bench, host: &Host, loaded: &mut Loaded, shape: Shape) -> anyhow::Result<Row> {
    let limits = loaded.engine.limits();
    let sequences = random_sequences(shape, limits.vocabulary);
    let batch: Vec<&Sequence> = sequences.iter().collect();
    let warm_up = Instant::now();
    let mut once = Duration::MAX;
    while warm_up.elapsed() < WARM_UP {
        let start = Instant::now();
        loaded.engine.run(&batch)?;
        once = once.min(start.elapsed());
    }
    let fitting = (BUDGET.as_nanos() / once.as_nanos().max(1)) as usize;
    let repeat = command.repeat.unwrap_or(fitting.max(LEAST));
    let mut times = Vec::with_capacity(repeat);
    for _ in 0..repeat {
        let start = Instant::now();
        loaded.engine.run(&batch)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((repeat - 1) as f64 * share).round() as usize];
    Ok(Row {
        shape: shape.to_string(),
        precision: command.machine.precision_name(),
        threads: host.threads(),
        isa: host.isa().to_string(),
        median_ms: at(0.5),
        min_ms: at(0.0),
        p99_ms: at(0.99),
        repeat,
        gmacs: loaded.engine.macs(&batch) as f64 / at(0.5) / 1e6,
        ceiling_gmacs: host.ceiling_gmacs()?,
        int8_ceiling_gmacs: match command.machine.precision {
            Precision::F32 | Precision::F16 => None,
            Precision::Int8 => Some(host.int8_ceiling_gmacs()?),
        },
    })
}

/// Token ids from a fixed generator (Steele & Vigna's SplitMix64), the same on every machine.
fn random_sequences(shape: Shape, vocabulary: usize) -> Vec<Sequence> {
    let mut state = 0u64;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % vocabulary.max(1) as u64) as u32
    };
    (0..shape.sequences).map(|_| Sequence::from_ids((0..shape.tokens).map(|_| next()).collect())).collect()
}
