//! `centuple bench`

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use centuple::tasks::{Engine, Sequence};
use centuple::timing::{self, Timing, random_sequences};
use centuple::{Compiled, Device, Host, LoadOptions, Loaded, Precision};
use serde::Serialize;

use super::{compile, unless_closed};
use crate::args::{Bench, Shape};

/// Time spent on a shape where the number of runs isn't given.
const BUDGET: Duration = Duration::from_secs(1);
/// Time before the first timed run, so that clocks and caches are warm.
const WARM_UP: Duration = Duration::from_millis(300);

/// What stands above the rows.
const HEADING: &str = "   shape  median ms     min ms     p99 ms     runs   GMAC/s";
/// What follows where the ceiling is known.
const CEILING: &str = "  of ceiling";

/// What one shape took.
#[derive(Serialize)]
struct Row {
    shape: String,
    precision: String,
    device: String,
    /// Names of the GPUs that compute; the next two are the CPU's, which they don't need.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpus: Vec<String>,
    threads: usize,
    isa: String,
    median_ms: f64,
    min_ms: f64,
    p99_ms: f64,
    repeat: usize,
    /// Multiply-accumulates per second at the median.
    gmacs: f64,
    /// What this CPU's multiply-add units reach in the same process, where it computes.
    #[serde(skip_serializing_if = "Option::is_none")]
    ceiling_gmacs: Option<f64>,
    /// The same for products of bytes; only where the precision uses them.
    #[serde(skip_serializing_if = "Option::is_none")]
    int8_ceiling_gmacs: Option<f64>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { shape, median_ms, min_ms, p99_ms, repeat, gmacs, .. } = self;
        write!(f, "{shape:>8} {median_ms:>10.3} {min_ms:>10.3} {p99_ms:>10.3} {repeat:>8} {gmacs:>8.1}")?;
        match self.int8_ceiling_gmacs.or(self.ceiling_gmacs) {
            Some(ceiling) => write!(f, "  {:.0} %", 100.0 * gmacs / ceiling),
            None => Ok(()),
        }
    }
}

/// Times a model on random tokens.
pub(crate) fn bench(command: &Bench) -> anyhow::Result<ExitCode> {
    let host = command.machine.host()?;
    let largest = command.shapes.iter().map(|shape| shape.sequences * shape.tokens).max().unwrap_or(0);
    let defaults = command.machine.load_options();
    let options = LoadOptions { max_batch_tokens: largest.max(defaults.max_batch_tokens), ..defaults };
    let compiled = compile(&host, &command.model, &options)?;
    let mut loaded = host.start(&compiled)?;
    let mut out = io::stdout().lock();
    if !command.json {
        let ceiling = if compiled.device() == Device::Cpu { CEILING } else { "" };
        unless_closed(writeln!(out, "{HEADING}{ceiling}"))?;
    }
    for shape in &command.shapes {
        let row = time(command, &host, &compiled, &mut loaded, *shape).with_context(|| format!("shape {shape}"))?;
        let line = if command.json { serde_json::to_string(&row)? } else { row.to_string() };
        unless_closed(writeln!(out, "{line}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn time(command: &Bench, host: &Host, compiled: &Compiled, loaded: &mut Loaded, shape: Shape) -> anyhow::Result<Row> {
    let limits = loaded.engine.limits();
    let sequences = random_sequences(shape.sequences, shape.tokens, limits.vocabulary);
    let batch: Vec<&Sequence> = sequences.iter().collect();
    let Timing { median_ms, min_ms, p99_ms, repeat } =
        timing::time(&mut loaded.engine, &batch, WARM_UP, BUDGET, command.repeat)?;
    let gpus: Vec<String> = loaded.engine.gpus().iter().map(|gpu| gpu.name.clone()).collect();
    let on_cpu = gpus.is_empty();
    Ok(Row {
        shape: shape.to_string(),
        precision: loaded.precision.to_string(),
        device: compiled.device().to_string(),
        gpus,
        threads: host.threads(),
        isa: host.isa().to_string(),
        median_ms,
        min_ms,
        p99_ms,
        repeat,
        gmacs: compiled.macs(&batch) as f64 / median_ms / 1e6,
        ceiling_gmacs: on_cpu.then(|| host.ceiling_gmacs()).transpose()?,
        int8_ceiling_gmacs: match loaded.precision {
            Precision::Int8 | Precision::Int4 if on_cpu => Some(host.int8_ceiling_gmacs()?),
            Precision::F32 | Precision::F16 | Precision::Bf16 | Precision::Int8 | Precision::Int4 | Precision::Fp8 => {
                None
            }
        },
    })
}
