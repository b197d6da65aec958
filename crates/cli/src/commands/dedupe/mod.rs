//! `centuple dedupe`

mod records;
mod report;
mod seen;

use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::Context;
use centuple::hub::DEFAULT_MODEL;
use centuple::tasks::feature_extraction::{Inputs, Parameters, Request as Features};
use centuple::tasks::{Finish, Job, Model, OneOrMany, Reply, Request, Sequence, run_in_batches};
use centuple::{LoadOptions, Loaded};
use centuple_neighbours::{Leaders, Place};

use self::records::{Record, Records};
pub(crate) use self::report::Output;
use self::report::Report;
use self::seen::{Digest, Seen, Verdict};
use super::parallel;
use crate::args::Dedupe;
use crate::lines::{PARTS_AHEAD, open, progress};

/// Groups of embedded texts that wait for their places.
const GROUPS_AHEAD: usize = 2;

/// Finds texts that say the same.
pub(crate) fn dedupe(command: &Dedupe) -> anyhow::Result<ExitCode> {
    let (input, bytes) = open(&command.file, "give a file with a text a line")?;
    let records = Records::new(input, command.format_of_file(), command.field.as_deref())
        .with_context(|| format!("cannot read `{}`", command.file.display()))?;
    let host = command.machine.host()?;
    let mut loaded = load(command, &host)?;
    let mut leaders = Leaders::new(loaded.model.card.dimension(), command.threshold)?;
    let progress = progress(bytes);
    let layout = records.layout();
    let header = records.header().to_vec();
    let (sender, parts) = sync_channel(PARTS_AHEAD);
    thread::spawn(move || records.read(|records| sender.send(records).is_ok()));
    let seen = Seen::default();
    let (groups, embedded) = sync_channel(GROUPS_AHEAD);
    let summary = thread::scope(|scope| {
        let seen = &seen;
        // The index gets a thread of its own, since its library changes how the thread rounds tiny numbers.
        let placing = scope.spawn(move || {
            let mut report = Report::new(command.output(), &header)?;
            place(&embedded, &mut leaders, seen, &mut report)?;
            report.finish()
        });
        let embedding = (|| {
            for records in &parts {
                progress.inc(records.iter().map(Record::bytes).sum::<usize>() as u64);
                let items = read_texts(records, &layout, seen, command.unique);
                let group = embed(items, &mut loaded, host.threads(), seen)?;
                if !send(&groups, group) {
                    break;
                }
            }
            Ok::<_, anyhow::Error>(())
        })();
        drop(groups);
        let placed = placing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // That nobody reads the output ends the embedding too, and is the reason to tell.
        placed.and_then(|summary| embedding.map(|()| summary))
    });
    progress.finish_and_clear();
    match summary {
        Ok(summary) => {
            eprintln!("{summary}");
            Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::FAILURE),
        Err(error) => Err(error),
    }
}

fn load(command: &Dedupe, host: &centuple::Host) -> anyhow::Result<Loaded> {
    // No text is tokenised twice.
    let options = LoadOptions { token_cache_bytes: 0, ..command.machine.load_options() };
    let loaded = super::load(host, &command.model, &options)?;
    let card = &loaded.model.card;
    anyhow::ensure!(
        card.head.sentence_embedding().is_some(),
        "model `{}` gives no embedding of a text; take one that does, as {DEFAULT_MODEL}",
        card.id
    );
    Ok(loaded)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Sends a group; returns whether somebody takes it.
fn send<T>(groups: &SyncSender<T>, group: T) -> bool {
    groups.send(group).is_ok()
}

/// A record on its way.
struct Item<T> {
    line: u64,
    /// The record as it was, if it may be printed.
    raw: Vec<u8>,
    content: Result<Content<T>, String>,
}

/// A text by its digest.
enum Content<T> {
    /// It was there before.
    Repeated(Digest),
    /// The text, later its vector.
    New(Digest, T),
}

/// Takes the texts out of records; a text that was there before is not taken again.
fn read_texts(records: Vec<Record>, layout: &records::Layout, seen: &Seen, keep_raw: bool) -> Vec<Item<String>> {
    let item = |Record { line, raw }: Record| {
        let text = raw.as_ref().map_err(String::clone).and_then(|raw| layout.text(raw));
        let content = text.map(|text| {
            let digest = Digest::of(&text);
            if seen.is_new(digest) { Content::New(digest, text.into_owned()) } else { Content::Repeated(digest) }
        });
        Item { line, content, raw: raw.ok().filter(|_| keep_raw).unwrap_or_default() }
    };
    records.into_iter().map(item).collect()
}

/// Embeds the new texts of a group.
fn embed(
    items: Vec<Item<String>>,
    loaded: &mut Loaded,
    threads: usize,
    seen: &Seen,
) -> anyhow::Result<Vec<Item<Vec<f32>>>> {
    let texts: Vec<&str> = items.iter().filter_map(|item| item.new_text()).collect();
    let mut jobs: Vec<Result<(Finish, usize), String>> = Vec::with_capacity(texts.len());
    let mut sequences: Vec<Sequence> = Vec::with_capacity(texts.len());
    for job in parallel(&texts, threads, |text| tokenise(&loaded.model, text)) {
        jobs.push(job.map(|job| {
            let count = job.sequences.len();
            sequences.extend(job.sequences);
            (job.finish, count)
        }));
    }
    let mut outputs = run_in_batches(&mut loaded.engine, &sequences)?.into_iter();
    let mut vectors = jobs.into_iter().map(|job| {
        let (finish, count) = job?;
        let own = outputs.by_ref().take(count).collect();
        let reply = finish.reply(&loaded.model, own).map_err(|error| error.to_string())?;
        let Reply::Features(features) = reply else {
            return Err(format!("the model answered with something else than a vector: {reply:?}"));
        };
        Ok(features.outputs.into_iter().flat_map(|output| output.data).collect())
    });
    let embedded = items.into_iter().map(|Item { line, raw, content }| {
        let content = content.and_then(|content| match content {
            Content::Repeated(digest) => Ok(Content::Repeated(digest)),
            Content::New(digest, _) => {
                let vector: Result<Vec<f32>, String> = vectors.next().unwrap_or_else(|| Err("it was lost".to_owned()));
                vector.map(|vector| Content::New(digest, vector)).inspect_err(|_| seen.forget(digest))
            }
        });
        Item { line, raw, content }
    });
    Ok(embedded.collect())
}

impl Item<String> {
    fn new_text(&self) -> Option<&str> {
        match &self.content {
            Ok(Content::New(_, text)) => Some(text),
            Ok(Content::Repeated(_)) | Err(_) => None,
        }
    }
}

fn tokenise(model: &Model, text: &str) -> Result<Job, String> {
    let inputs = Inputs::Texts(OneOrMany { items: vec![text.to_owned()], single: true });
    let request = Request::FeatureExtraction(Features { inputs, parameters: Parameters::default() });
    Job::prepare(model, request).map_err(|error| error.to_string())
}

/// Finds the place of each text and reports it, group by group.
fn place(
    groups: &Receiver<Vec<Item<Vec<f32>>>>,
    leaders: &mut Leaders,
    seen: &Seen,
    report: &mut Report,
) -> anyhow::Result<()> {
    for group in groups {
        for Item { line, raw, content } in group {
            let verdict = match content {
                Ok(Content::New(digest, vector)) => {
                    let verdict = match leaders.place(line, &vector)? {
                        Place::Leader => Verdict::new(line, 1.0),
                        Place::Joined { leader, similarity } => Verdict::new(leader, similarity),
                    };
                    seen.settle(digest, verdict);
                    Ok(verdict)
                }
                Ok(Content::Repeated(digest)) => {
                    seen.verdict(digest).ok_or_else(|| "it is the same text as one that failed before".to_owned())
                }
                Err(reason) => Err(reason),
            };
            report.add(line, &raw, verdict)?;
        }
        report.flush()?;
    }
    Ok(())
}
