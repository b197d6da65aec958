//! `centuple serve`

mod loader;
mod repository;
mod without;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use centuple::hub::DEFAULT_MODEL;
use centuple_serve::{ApiKeys, CachePolicy, Config, ModelOptions, Reload, Server};
use tracing_subscriber::EnvFilter;

use crate::args::{Cache, LogFormat, Serve, Stage};
use loader::Folders;

/// Serves models until Ctrl-C or SIGTERM.
pub(crate) fn serve(command: &Serve) -> anyhow::Result<ExitCode> {
    start_log(command.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the I/O thread")?;
    runtime.block_on(listen(command))
}

async fn listen(command: &Serve) -> anyhow::Result<ExitCode> {
    // From here on a signal ends the command in order, also while models are loaded.
    let mut stop = std::pin::pin!(super::stop_signal());
    let config = config(command)?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let server = Server::bind(config).await?;
    let address = server.address()?;
    tokio::spawn(reload_at_hangup(server.reload_handle()));
    let finding = tokio::task::spawn_blocking({
        let (command, names) = (command.clone(), names(command));
        move || Folders::find(&command, &names)
    });
    let folders = tokio::select! {
        folders = finding => folders??,
        () = &mut stop => std::process::exit(130),
    };
    let (ids, is_ready) = (folders.ids(), AtomicBool::new(false));
    let ready = || {
        is_ready.store(true, Ordering::Relaxed);
        for id in ids {
            tracing::info!("serving {id} on {scheme}://{address}");
        }
        if let Some(repository) = &command.model_repository {
            tracing::info!("serving the models in {} on {scheme}://{address}", repository.display());
        }
    };
    server.serve_from(Arc::new(folders), ready, stop).await?;
    if !is_ready.load(Ordering::Relaxed) {
        // A model is being loaded, which nobody waits for.
        std::process::exit(130);
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The models that are named; the default one where nothing is said at all.
fn names(command: &Serve) -> Vec<String> {
    match (command.models.as_slice(), &command.model_repository) {
        ([], None) => vec![DEFAULT_MODEL.to_owned()],
        (models, _) => models.to_vec(),
    }
}

fn config(command: &Serve) -> anyhow::Result<Config> {
    Ok(Config {
        host: command.host.clone(),
        port: command.port,
        api_keys: api_keys(command)?,
        max_body_bytes: command.max_body_bytes,
        auto_truncate: command.auto_truncate,
        // A batch has at least one sequence.
        max_batch_tokens: if command.lacks(Stage::Batching) { 1 } else { command.max_batch_tokens },
        max_queued_requests: command.max_queued_requests,
        drain_timeout: Duration::from_secs(command.drain_timeout),
        drain_delay: Duration::from_secs(command.drain_delay),
        timeout: command.timeout,
        cache: match command.cache {
            Cache::Asked => CachePolicy::Asked,
            Cache::Always => CachePolicy::Always,
            Cache::Off => CachePolicy::Off,
        },
        cache_bytes: command.cache_bytes,
        models: model_options(command),
        ..command.network.config()
    })
}

/// The keys of flags, of the environment and of the file.
fn api_keys(command: &Serve) -> anyhow::Result<ApiKeys> {
    let mut keys = ApiKeys::default();
    for key in &command.api_key {
        keys.add(None, key)?;
    }
    if let Some(file) = &command.api_key_file {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read the keys in {}", file.display()))?;
        keys.add_lines(&text).with_context(|| format!("in {}", file.display()))?;
        ensure!(!keys.is_empty(), "{} holds no key; leave it out to let everybody in", file.display());
    }
    Ok(keys)
}

fn model_options(command: &Serve) -> ModelOptions {
    let watch = command.model_repository.is_some().then_some(command.watch_interval);
    ModelOptions {
        max_memory: command.max_memory,
        load_timeout: Duration::from_secs(command.load_timeout),
        watch: watch.filter(|interval| !interval.is_zero()),
        control: command.model_control,
        ..ModelOptions::default()
    }
}

/// Has the server look again at its files at each SIGHUP.
#[cfg(unix)]
async fn reload_at_hangup(reload: Reload) {
    use tokio::signal::unix::{SignalKind, signal};

    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: looking for changed files");
        reload.now();
    }
}

/// There is no such signal here.
#[cfg(not(unix))]
async fn reload_at_hangup(_: Reload) {}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,hf_hub=off"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).init(),
    }
}
