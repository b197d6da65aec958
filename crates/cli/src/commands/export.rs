//! `centuple export`

use std::io::{self, Write};
use std::process::ExitCode;

use centuple::export::{ExportError, ExportedFile};

use super::progress::{Bars, INTERRUPTED, listen_for_signals};
use super::unless_closed;
use crate::args::Export;

/// Writes a model as ONNX files or as a Triton model repository.
pub(crate) fn export(command: &Export) -> anyhow::Result<ExitCode> {
    listen_for_signals()?;
    let host = command.machine.host()?;
    let bars = Bars::default();
    let exported = host.export(&command.model, &command.output, &command.options(), &bars);
    bars.end();
    let files = match exported {
        Err(ExportError::Cancelled) => {
            eprintln!("{}", ExportError::Cancelled);
            return Ok(ExitCode::from(INTERRUPTED));
        }
        other => other?,
    };
    unless_closed(summary(&mut io::stdout().lock(), command, &files))?;
    Ok(ExitCode::SUCCESS)
}

fn summary(out: &mut impl Write, command: &Export, files: &[ExportedFile]) -> io::Result<()> {
    let longest = files.iter().map(|written| written.file.len()).max().unwrap_or(0);
    for ExportedFile { file, bytes, nodes } in files {
        let mebibytes = *bytes as f64 / f64::from(1 << 20);
        writeln!(out, "{file:longest$}  {nodes:5} operators  {mebibytes:8.1} MiB")?;
    }
    writeln!(out, "\nwritten to {}", command.output.display())
}
