//! `centuple run`

use std::io::{self, BufReader, BufWriter, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::Context;
use centuple::tasks::{Finish, Job, Model, Request, Sequence, Task, run_in_batches};
use centuple::{Host, LoadOptions, Loaded, Purpose};

use super::parallel;
use crate::args::{Asked, Run};
use crate::lines::{BYTES_TOGETHER, Input, Line, PARTS_AHEAD, open, progress, read_line};

/// What to give instead of a folder.
pub(super) const REMEDY: &str = "give a file with one JSON object a line";

/// Answers JSON Lines.
pub(crate) fn run(command: &Run) -> anyhow::Result<ExitCode> {
    match &command.task {
        Asked::Once(task) => run_once(command, *task),
        Asked::Generated(task) => super::text_generation::run(command, task),
    }
}

fn run_once(command: &Run, task: Task) -> anyhow::Result<ExitCode> {
    let (input, bytes) = open(&command.input, REMEDY)?;
    let host = command.machine.host()?;
    let mut loaded = load(command, task, &host)?;
    let progress = progress(bytes);
    let (sender, parts) = sync_channel(PARTS_AHEAD);
    std::thread::spawn(move || read_lines(input, |lines| sender.send(lines).is_ok()));
    let mut out = BufWriter::new(io::stdout().lock());
    let mut failed = false;
    while let Some(lines) = next_lines(&parts) {
        progress.inc(bytes_of(&lines) as u64);
        let group = Group::prepare(lines, &loaded.model, task, host.threads());
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

/// Loads the model; feature-extraction of a model with another head gives its token features, as in transformers.
fn load(command: &Run, task: Task, host: &Host) -> anyhow::Result<Loaded> {
    let options = command.machine.load_options();
    let loaded = super::load(host, &command.model, &options)?;
    let card = &loaded.model.card;
    if card.tasks().contains(&task) {
        return Ok(loaded);
    }
    let offers = card.offers();
    anyhow::ensure!(task == Task::FeatureExtraction, "model `{}` does not do {task}; it does {offers}", card.id);
    Ok(super::load(host, &command.model, &LoadOptions { purpose: Purpose::TokenFeatures, ..options })?)
}

/// Bytes of the lines that could be read.
pub(super) fn bytes_of(lines: &[Line]) -> usize {
    lines.iter().flatten().map(Vec::len).sum()
}

/// Reads lines until the end, an error, or until nobody takes them; those that came together are taken together.
pub(super) fn read_lines(input: Input, mut take: impl FnMut(Vec<Line>) -> bool) {
    let mut reader = BufReader::with_capacity(BYTES_TOGETHER, input);
    let (mut lines, mut bytes) = (Vec::new(), 0);
    loop {
        match read_line(&mut reader) {
            Ok(Some(line)) => {
                bytes += line.as_ref().map_or(0, Vec::len);
                lines.push(line);
            }
            Ok(None) => break,
            Err(error) => {
                lines.push(Err(format!("cannot read the input: {error}")));
                break;
            }
        }
        if bytes >= BYTES_TOGETHER || !reader.buffer().contains(&b'\n') {
            if !take(std::mem::take(&mut lines)) {
                return;
            }
            bytes = 0;
        }
    }
    take(lines);
}

/// Waits for lines, then takes what else is there, up to a few batches.
pub(super) fn next_lines(parts: &Receiver<Vec<Line>>) -> Option<Vec<Line>> {
    let mut lines = parts.recv().ok()?;
    while bytes_of(&lines) < BYTES_TOGETHER {
        match parts.try_recv() {
            Ok(more) => lines.extend(more),
            Err(_) => break,
        }
    }
    Some(lines)
}

/// Lines that are answered together, tokenised.
struct Group {
    /// For each line its finish and the number of its sequences, or its error.
    answers: Vec<(Result<Finish, String>, usize)>,
    sequences: Vec<Sequence>,
}

impl Group {
    /// Parses and tokenises lines on several threads; empty ones disappear.
    fn prepare(mut lines: Vec<Line>, model: &Model, task: Task, threads: usize) -> Group {
        lines.retain(|line| !line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty()));
        let job = |line: &Line| {
            let line = line.as_ref().map_err(String::clone)?;
            let request = Request::parse(task, line.trim_ascii()).map_err(|error| error.to_string())?;
            Job::prepare(model, request).map_err(|error| error.to_string())
        };
        let jobs = parallel(&lines, threads, job);
        let mut group = Group { answers: Vec::with_capacity(jobs.len()), sequences: Vec::new() };
        for job in jobs {
            match job {
                Ok(job) => {
                    group.answers.push((Ok(job.finish), job.sequences.len()));
                    group.sequences.extend(job.sequences);
                }
                Err(error) => group.answers.push((Err(error), 0)),
            }
        }
        group
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
