//! Lines of a file or of standard input, read ahead in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Longest line that is read; a longer one is answered with an error.
pub(crate) const LINE_LIMIT: usize = 64 << 20;
/// Parts of the input that wait between the reader and the engine, each of about [`BYTES_TOGETHER`] or one long line.
pub(crate) const PARTS_AHEAD: usize = 4;
/// Bytes of input that are answered together, so that the engine's batches are full: some thousand tokens.
pub(crate) const BYTES_TOGETHER: usize = 64 << 10;

/// What lines are read from.
pub(crate) type Input = Box<dyn Read + Send>;

/// Opens a file, or standard input for `-`; also gives the file's length in bytes. `remedy` says what to give instead of a
/// folder.
pub(crate) fn open(path: &Path, remedy: &str) -> anyhow::Result<(Input, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("cannot read `{}`", path.display()))?;
    anyhow::ensure!(!metadata.is_dir(), "`{}` is a folder; {remedy}", path.display());
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), bytes))
}

/// A bar on standard error over so many bytes.
pub(crate) fn progress(bytes: Option<u64>) -> ProgressBar {
    // Without a terminal, or where the user is typing, a bar would only disturb.
    if !io::stderr().is_terminal() || (bytes.is_none() && io::stdin().is_terminal()) {
        return ProgressBar::hidden();
    }
    let template = match bytes {
        Some(_) => "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}",
        None => "{spinner} {bytes} {bytes_per_sec}",
    };
    let bar = bytes.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// One line with its end, or why it could not be read.
pub(crate) type Line = Result<Vec<u8>, String>;

/// The next line; `None` at the end.
pub(crate) fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    reader.by_ref().take(LINE_LIMIT as u64 + 1).read_until(b'\n', &mut line)?;
    if line.len() > LINE_LIMIT {
        reader.skip_until(b'\n')?;
        return Ok(Some(Err(format!("the line is longer than {LINE_LIMIT} bytes; split it"))));
    }
    Ok((!line.is_empty()).then_some(Ok(line)))
}
