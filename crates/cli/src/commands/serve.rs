//! `centuple serve`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use centuple::LoadOptions;
use centuple::tasks::{Engine, Sequence};
use centuple_serve::{ApiKey, Config, ServedModel, Server};
use tracing_subscriber::EnvFilter;

use crate::args::{LogFormat, Serve};

/// Length of the sequence that each model runs before it serves.
const WARM_UP_TOKENS: usize = 16;

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
    let mut stop = std::pin::pin!(stop_signal());
    let server = Server::bind(config(command)?).await?;
    let address = server.address()?;
    let loading = tokio::task::spawn_blocking({
        let names = command.models.clone();
        let host = command.machine.host()?;
        let options = LoadOptions { max_batch_tokens: command.max_batch_tokens, ..command.machine.load_options() };
        move || load(&host, &names, &options)
    });
    let models = tokio::select! {
        models = loading => models??,
        () = &mut stop => std::process::exit(130),
    };
    for model in &models {
        tracing::info!("serving {} on http://{address}", model.model.card.id);
    }
    server.serve(models, stop).await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn config(command: &Serve) -> anyhow::Result<Config> {
    let api_key = match &command.api_key {
        Some(key) => Some(ApiKey::new(key).context("the API key is empty; leave it out to let everybody in")?),
        None => None,
    };
    Ok(Config {
        host: command.host.clone(),
        port: command.port,
        api_key,
        max_body_bytes: command.max_body_bytes,
        max_batch_tokens: command.max_batch_tokens,
        max_queued_requests: command.max_queued_requests,
        drain_timeout: Duration::from_secs(command.drain_timeout),
        ..Config::default()
    })
}

fn load(host: &centuple::Host, names: &[String], options: &LoadOptions) -> anyhow::Result<Vec<ServedModel>> {
    let mut models: Vec<ServedModel> = Vec::with_capacity(names.len());
    for name in names {
        let mut loaded = host.load(name, options)?;
        // The first client finds every page touched and every thread awake.
        let tokens = WARM_UP_TOKENS.min(loaded.engine.limits().max_tokens_per_sequence);
        loaded.engine.run(&[&Sequence::from_ids(vec![0; tokens])])?;
        let id = &loaded.model.card.id;
        let known = models.iter().any(|other| other.model.card.id == *id);
        anyhow::ensure!(
            !known,
            "two models are called `{id}`, so clients could not tell them apart; rename one folder"
        );
        tracing::info!("loaded {name}: {} threads, {}", host.threads(), host.isa());
        models.push(ServedModel { model: loaded.model, engine: Box::new(loaded.engine) });
    }
    Ok(models)
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,hf_hub=off"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Resolves at the first Ctrl-C or SIGTERM.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
