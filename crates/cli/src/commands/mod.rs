//! The commands.

mod bench;
mod chat;
mod dedupe;
mod eval;
mod export;
mod inspect;
mod optimize;
mod progress;
mod pull;
mod run;
mod serve;
mod text_generation;

use std::io;

use centuple::{Compiled, Error, Generating, GenerationOptions, Host, LoadOptions, Loaded};

pub(crate) use bench::bench;
pub(crate) use chat::chat;
pub(crate) use dedupe::{Output, dedupe};
pub(crate) use eval::eval;
pub(crate) use export::export;
pub(crate) use inspect::inspect;
pub(crate) use optimize::optimize;
pub(crate) use pull::pull;
pub(crate) use run::run;
pub(crate) use serve::serve;

/// Compiles a model by folder or hub id.
fn compile(host: &Host, name: &str, options: &LoadOptions) -> Result<Compiled, Error> {
    host.compile(name, options).inspect(tell_choice)
}

/// Loads a model by folder or hub id.
fn load(host: &Host, name: &str, options: &LoadOptions) -> Result<Loaded, Error> {
    host.start(&compile(host, name, options)?)
}

/// Loads a model that generates, by folder or hub id.
fn load_generating(
    host: &Host,
    name: &str,
    options: &LoadOptions,
    generation: &GenerationOptions,
) -> Result<Generating, Error> {
    let (folder, id) = options.locate(name)?;
    let compiled = host.compile_folder(&folder, &id, options).inspect(tell_choice)?;
    host.start_generating(&compiled, &folder, generation)
}

/// Says what computes a model and why, where that was to be the fastest.
fn tell_choice(compiled: &Compiled) {
    if let Some(choice) = &compiled.choice {
        eprintln!("{choice}");
    }
}

/// What became of writing to standard output: that nobody reads any more, as behind `head`, is no failure.
fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// The results of some work on each item, in their order, shared among threads.
fn parallel<T: Sync, U: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> U + Sync) -> Vec<U> {
    let mut results: Vec<Option<U>> = Vec::new();
    results.resize_with(items.len(), || None);
    let share = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let mut parts = items.chunks(share).zip(results.chunks_mut(share));
        let own = parts.next();
        let fill = |(items, results): (&[T], &mut [Option<U>])| {
            results.iter_mut().zip(items).for_each(|(slot, item)| *slot = Some(work(item)));
        };
        for part in parts {
            scope.spawn(move || fill(part));
        }
        own.map(fill);
    });
    results.into_iter().flatten().collect()
}

/// Listens for Ctrl-C and SIGTERM from the call on, which must be within a runtime; resolves at the first of them.
#[cfg(unix)]
fn stop_signal() -> impl Future<Output = ()> {
    use tokio::signal::unix::{Signal, SignalKind, signal};

    async fn received(signals: Option<Signal>) {
        match signals {
            Some(mut signals) => drop(signals.recv().await),
            None => std::future::pending().await,
        }
    }

    let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok());
    async {
        tokio::select! {
            () = received(interrupt) => {}
            () = received(terminate) => {}
        }
    }
}

/// Resolves at the first Ctrl-C.
#[cfg(not(unix))]
async fn stop_signal() {
    let _ = tokio::signal::ctrl_c().await;
}
