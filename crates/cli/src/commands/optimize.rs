//! `centuple optimize`

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use centuple::optimize::{OptimizeError, Optimized, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use super::unless_closed;
use crate::args::Optimize;

/// Exit code of a command that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;
/// Width of the receipt where nobody says how wide the terminal is.
const WIDTH: usize = 80;

/// Set at the first Ctrl-C or SIGTERM.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Writes an optimised model with the receipt of what it cost.
pub(crate) fn optimize(command: &Optimize) -> anyhow::Result<ExitCode> {
    listen_for_signals()?;
    let host = command.machine.host()?;
    let options = command.options();
    let bars = Bars::default();
    let optimized = host.optimize(&command.model, &command.output, &options, &bars);
    bars.end();
    let Optimized { receipt, manifest, refusal } = match optimized {
        Err(OptimizeError::Cancelled) => {
            eprintln!("{}", OptimizeError::Cancelled);
            return Ok(ExitCode::from(INTERRUPTED));
        }
        other => other?,
    };
    let mut out = io::stdout().lock();
    unless_closed(writeln!(out, "{}", receipt.table(WIDTH).trim_end()))?;
    let place = command.output.display();
    match (manifest, refusal) {
        (Some(_), None) => {
            unless_closed(writeln!(out, "\nwritten to {place}; the receipt is {place}/report.html"))?;
            Ok(ExitCode::SUCCESS)
        }
        (Some(_), Some(refusal)) => {
            unless_closed(writeln!(out, "\nwritten to {place} all the same: {refusal}"))?;
            Ok(ExitCode::SUCCESS)
        }
        (None, refusal) => {
            let refusal = refusal.unwrap_or_default();
            anyhow::bail!(
                "{refusal}; nothing was written. Allow more with --max-drop or --budget-ms, take another --precision, \
                 or write it all the same with --keep-over-budget"
            )
        }
    }
}

/// Ctrl-C and SIGTERM end the work at the next step, so that nothing is left behind.
fn listen_for_signals() -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot listen for signals")?;
    let stop = {
        let _within = runtime.enter();
        super::stop_signal()
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(stop);
            STOPPED.store(true, Ordering::Relaxed);
            // A second one finds nobody to wait for.
            runtime.block_on(async { super::stop_signal().await });
            std::process::exit(INTERRUPTED.into());
        })
        .context("cannot listen for signals")?;
    Ok(())
}

/// Progress bars on standard error, one after the other.
#[derive(Default)]
struct Bars(Mutex<Option<ProgressBar>>);

impl Bars {
    fn replace(&self, bar: Option<ProgressBar>) {
        let mut current = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *current, bar) {
            old.finish_and_clear();
        }
    }

    fn end(&self) {
        self.replace(None);
    }
}

impl Progress for Bars {
    fn begin(&self, part: &str, steps: usize) {
        let template = if steps > 0 { "{msg:28} {bar:30} {pos}/{len}, {eta} left" } else { "{msg:28} {spinner}" };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = if steps > 0 { ProgressBar::new(steps as u64) } else { ProgressBar::new_spinner() };
        let bar = bar.with_style(style).with_message(part.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.replace(Some(bar));
    }

    fn advance(&self) {
        if let Some(bar) = &*self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            bar.inc(1);
        }
    }

    fn is_cancelled(&self) -> bool {
        STOPPED.load(Ordering::Relaxed)
    }
}
