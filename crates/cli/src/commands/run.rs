//! `centuple run`

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::Context;
use centuple::tasks::{Engine, Finish, Job, Model, Request, Sequence, Task, run_in_batches};
use centuple::{LoadOptions, Loaded, Purpose};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Run;

/// Longest line that is read; a longer one is answered with an error.
const LINE_LIMIT: usize = 64 << 20;
/// Lines that wait between the reader and the engine.
const LINES_AHEAD: usize = 4096;
/// Batches of the engine that are answered together, so that its batches are full.
const BATCHES_TOGETHER: usize = 4;

/// Answers JSON Lines.
pub(crate) fn run(command: &Run) -> anyhow::Result<ExitCode> {
    let (input, bytes) = open(&command.input)?;
    let host = command.machine.host()?;
    let purpose = purpose(command.task);
    let mut loaded = host.load(&command.model, &LoadOptions { purpose, ..LoadOptions::default() })?;
    let progress = progress(bytes);
    let (sender, lines) = sync_channel(LINES_AHEAD);
    std::thread::spawn(move || read_lines(input, |line| sender.send(line).is_ok()));
    let mut out = BufWriter::new(io::stdout().lock());
    let mut failed = false;
    while let Some(group) = next_group(&lines, &loaded, command.task) {
        progress.inc(group.bytes);
        failed |= group.answers.iter().any(|(answer, _)| answer.is_err());
        match answer(group, &mut loaded, &mut out) {
            Ok(engine_failed) => failed |= engine_failed,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::FAILURE),
            Err(error) => return Err(error).context("cannot write to standard output"),
        }
    }
    progress.finish_and_clear();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Token features are asked of a classifier's encoder; every other task is the model's own.
fn purpose(task: Task) -> Purpose {
    match task {
        Task::FeatureExtraction | Task::SentenceSimilarity | Task::TextClassification => Purpose::Own,
    }
}

type Input = Box<dyn Read + Send>;

fn open(path: &Path) -> anyhow::Result<(Input, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("cannot read `{}`", path.display()))?;
    anyhow::ensure!(!metadata.is_dir(), "`{}` is a folder; give a file with one JSON object a line", path.display());
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), bytes))
}

fn progress(bytes: Option<u64>) -> ProgressBar {
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

/// One line, or why it could not be read.
type Line = Result<Vec<u8>, String>;

/// Reads lines until the end, an error, or until nobody takes them.
fn read_lines(input: Input, mut take: impl FnMut(Line) -> bool) {
    let mut reader = BufReader::with_capacity(1 << 16, input);
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LINE_LIMIT as u64 + 1).read_until(b'\n', &mut line);
        let line = match read {
            Ok(0) => return,
            Ok(_) if line.len() > LINE_LIMIT => {
                let rest = reader.skip_until(b'\n');
                rest.map_err(|error| error.to_string())
                    .and(Err(format!("the line is longer than {LINE_LIMIT} bytes; split it")))
            }
            Ok(_) => Ok(line),
            Err(error) => {
                take(Err(format!("cannot read the input: {error}")));
                return;
            }
        };
        if !take(line) {
            return;
        }
    }
}

/// Lines that are answered together.
#[derive(Default)]
struct Group {
    /// For each line its finish and the number of its sequences, or its error.
    answers: Vec<(Result<Finish, String>, usize)>,
    sequences: Vec<Sequence>,
    tokens: usize,
    bytes: u64,
}

/// Waits for a line, then takes what else is there, up to a few batches.
fn next_group(lines: &Receiver<Line>, loaded: &Loaded, task: Task) -> Option<Group> {
    let mut group = Group::default();
    let budget = BATCHES_TOGETHER * loaded.engine.limits().max_tokens_per_batch;
    let mut line = lines.recv().ok()?;
    loop {
        group.add(line, &loaded.model, task);
        if group.tokens >= budget {
            break;
        }
        match lines.try_recv() {
            Ok(next) => line = next,
            Err(_) => break,
        }
    }
    Some(group)
}

impl Group {
    fn add(&mut self, line: Line, model: &Model, task: Task) {
        self.bytes += line.as_ref().map_or(0, Vec::len) as u64;
        if line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty()) {
            return;
        }
        let prepare = |line: Vec<u8>| {
            let request = Request::parse(task, line.trim_ascii()).map_err(|error| error.to_string())?;
            Job::prepare(model, request).map_err(|error| error.to_string())
        };
        match line.and_then(prepare) {
            Ok(job) => {
                self.answers.push((Ok(job.finish), job.sequences.len()));
                self.tokens += job.usage.tokens;
                self.sequences.extend(job.sequences);
            }
            Err(error) => self.answers.push((Err(error), 0)),
        }
    }
}

/// Computes and writes the answers of a group; returns whether one failed that had been accepted.
fn answer(group: Group, loaded: &mut Loaded, out: &mut impl Write) -> io::Result<bool> {
    let mut failed = false;
    let outputs = run_in_batches(&mut loaded.engine, &group.sequences).map_err(|error| error.to_string());
    let mut outputs = outputs.map(Vec::into_iter);
    for (answer, count) in group.answers {
        let reply = answer.and_then(|finish| match &mut outputs {
            Ok(outputs) => {
                let own = outputs.by_ref().take(count).collect();
                finish.reply(&loaded.model, own).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.clone()),
        });
        let line = match reply {
            Ok(reply) => reply.to_json(),
            Err(error) => {
                failed = true;
                serde_json::json!({ "error": error }).to_string().into_bytes()
            }
        };
        out.write_all(&line)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(failed)
}
