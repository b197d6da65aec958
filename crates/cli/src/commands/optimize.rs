//! `centuple optimize`

use std::io::{self, Write};
use std::process::ExitCode;

use centuple::optimize::{OptimizeError, Optimized};

use super::progress::{Bars, INTERRUPTED, listen_for_signals};
use super::unless_closed;
use crate::args::Optimize;

/// Width of the receipt where nobody says how wide the terminal is.
const WIDTH: usize = 80;

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
