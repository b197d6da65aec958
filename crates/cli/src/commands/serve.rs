//! `centuple serve`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use centuple::tasks::{Engine, Sequence};
use centuple::{Host, HostOptions, LoadOptions, Loaded, Precision};
use centuple_serve::{ApiKey, Config, Report, ServedModel, Server, Shadow};
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
    let mut stop = std::pin::pin!(super::stop_signal());
    let server = Server::bind(config(command)?).await?;
    let address = server.address()?;
    let loading = tokio::task::spawn_blocking({
        let loader = Loader {
            host: command.machine.host()?,
            options: LoadOptions { max_batch_tokens: command.max_batch_tokens, ..command.machine.load_options() },
            shadow: command.shadow.filter(|share| *share > 0.0),
            shadow_model: command.shadow_model.clone(),
            accept_over_budget: command.accept_over_budget,
        };
        let names = command.models.clone();
        move || loader.load(&names)
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
        auto_truncate: command.auto_truncate,
        max_batch_tokens: command.max_batch_tokens,
        max_queued_requests: command.max_queued_requests,
        drain_timeout: Duration::from_secs(command.drain_timeout),
        ..Config::default()
    })
}

/// How models become servable.
struct Loader {
    host: Host,
    options: LoadOptions,
    shadow: Option<f64>,
    shadow_model: Option<String>,
    accept_over_budget: bool,
}

impl Loader {
    fn load(&self, names: &[String]) -> anyhow::Result<Vec<ServedModel>> {
        if self.shadow_model.is_some() && names.len() > 1 {
            bail!("--shadow-model is for one model, and {} are served; start a server for each", names.len());
        }
        let mut models: Vec<ServedModel> = Vec::with_capacity(names.len());
        for name in names {
            let served = self.load_one(name)?;
            let id = &served.model.card.id;
            let known = models.iter().any(|other| other.model.card.id == *id);
            ensure!(!known, "two models are called `{id}`, so clients could not tell them apart; rename one folder");
            models.push(served);
        }
        Ok(models)
    }

    fn load_one(&self, name: &str) -> anyhow::Result<ServedModel> {
        let mut loaded = self.host.load(name, &self.options)?;
        if let Some(artefact) = &loaded.artefact {
            ensure!(
                self.accept_over_budget || !artefact.is_over_budget(),
                "{name} has lost more accuracy than its budget allowed, as its report.html shows; optimise it again, or \
                 serve it all the same with --accept-over-budget"
            );
        }
        // The first client finds every page touched and every thread awake.
        let tokens = WARM_UP_TOKENS.min(loaded.engine.limits().max_tokens_per_sequence);
        loaded.engine.run(&[&Sequence::from_ids(vec![0; tokens])])?;
        tracing::info!("loaded {name}: {} threads, {}", self.host.threads(), self.host.isa());
        let shadow = self.shadow.map(|share| self.shadow(name, &loaded, share)).transpose()?.flatten();
        let report = loaded.artefact.as_ref().and_then(|artefact| artefact.report());
        let report = report.map(|(html, json)| Arc::new(Report { html, json }));
        Ok(ServedModel { model: loaded.model, engine: Box::new(loaded.engine), shadow, report })
    }

    /// The same model in f32, on a thread of its own.
    fn shadow(&self, name: &str, loaded: &Loaded, share: f64) -> anyhow::Result<Option<Shadow>> {
        if loaded.precision == Precision::F32 {
            tracing::warn!("{name} is served in f32, so there is nothing for --shadow to compare it with");
            return Ok(None);
        }
        let origin = match (&self.shadow_model, &loaded.artefact) {
            (Some(model), _) => model.as_str(),
            (None, Some(artefact)) => &artefact.source.model,
            (None, None) => name,
        };
        let folder =
            self.options.find(origin).context("--shadow needs the model in f32; name it with --shadow-model")?;
        if let Some(artefact) = &loaded.artefact {
            ensure!(artefact.is_made_of(&folder)?, "{origin} is not the model that {name} was made of");
        }
        let host = Host::new(&HostOptions { threads: Some(1), isa: Some(self.host.isa()) })?;
        let options = LoadOptions { precision: Some(Precision::F32), ..self.options.clone() };
        let shadow = host.load_folder(&folder, &loaded.model.card.id, &options)?;
        tracing::info!("comparing {share} of the sequences of {name} with {origin} in f32");
        Ok(Some(Shadow { engine: Box::new(shadow.engine), share }))
    }
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
