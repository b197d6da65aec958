//! `centuple run` for tasks that generate text: many requests in flight, answered in the order of their lines.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::Context;
use centuple::tasks::GenerationTask;
use centuple::tasks::text_generation::{Request, Running, TextGenerator};
use serde_json::json;

use super::run::{REMEDY, bytes_of, next_lines, read_lines};
use crate::args::Run;
use crate::lines::{Line, PARTS_AHEAD, open, progress};

/// Most requests that run or wait for their turn to be written.
const IN_FLIGHT: usize = 256;

/// Whose requests all lines are, so that what prompts begin with is computed once.
const CLIENT: u64 = 0;

/// A request that runs, or why it doesn't.
type Begun = Result<Running, String>;

/// Answers JSON Lines.
pub(super) fn run(command: &Run, task: &GenerationTask) -> anyhow::Result<ExitCode> {
    let (input, bytes) = open(&command.input, REMEDY)?;
    let host = command.machine.host()?;
    let options = command.generation.options();
    let loaded = super::load_generating(&host, &command.model, &command.machine.load_options(), &options)?;
    let card = &loaded.model.card;
    anyhow::ensure!(card.generates(task), "model `{}` does not do {task}; it does {}", card.id, card.offers());
    let generator = loaded.start().context("cannot start a thread")?;
    let progress = progress(bytes);
    let (sender, parts) = sync_channel(PARTS_AHEAD);
    std::thread::spawn(move || read_lines(input, |lines| sender.send(lines).is_ok()));
    let (begun, requests) = sync_channel(IN_FLIGHT);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(move || write(&requests));
        'reading: while let Some(lines) = next_lines(&parts) {
            progress.inc(bytes_of(&lines) as u64);
            for line in lines.iter().filter(|line| !line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty())) {
                if begun.send(begin(line, task, &generator)).is_err() {
                    break 'reading;
                }
            }
        }
        drop(begun);
        writer.join()
    });
    progress.finish_and_clear();
    match written {
        Ok(Ok(false)) => Ok(ExitCode::SUCCESS),
        Ok(Ok(true)) => Ok(ExitCode::FAILURE),
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::FAILURE),
        Ok(Err(error)) => Err(error).context("cannot write to standard output"),
        Err(_) => anyhow::bail!("the thread that writes has crashed; please report this"),
    }
}

fn begin(line: &Line, task: &GenerationTask, generator: &TextGenerator) -> Begun {
    let line = line.as_ref().map_err(String::clone)?;
    let request = Request::parse_for(task.clone(), line.trim_ascii()).map_err(|error| error.to_string())?;
    if request.stream {
        return Err("`stream` is for the server; a line has one reply".to_owned());
    }
    let prepared = generator.prepare(request, true, Some(CLIENT)).map_err(|error| error.to_string())?;
    generator.submit(prepared).map_err(|error| error.to_string())
}

/// Writes a reply for each request as soon as it and those before it have ended; whether one failed.
fn write(requests: &Receiver<Begun>) -> io::Result<bool> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut failed = false;
    for request in requests {
        let reply = request.and_then(|running| running.wait().map_err(|error| error.to_string()));
        let line = reply.map(|reply| reply.to_json()).unwrap_or_else(|error| {
            failed = true;
            json!({ "error": error }).to_string().into_bytes()
        });
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(failed)
}
