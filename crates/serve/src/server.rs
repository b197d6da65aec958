//! The life of a server: bind, serve, drain.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};

use crate::{
    cache::Cache,
    config::Config,
    connections::Connections,
    error::ServeError,
    http,
    metrics::Metrics,
    models::{Keeping, Loader, ServedModel},
    service::Service,
    tls::Tls,
    trace::Tracing,
};

/// How often metrics are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// The shortest time from the signal to stop to the end of listening: a request that was sent before the signal has
/// arrived by then.
const SHORTEST_DELAY: Duration = Duration::from_millis(100);

/// A server that has its port; clients that connect wait until [`serve`](Self::serve).
pub struct Server {
    listeners: Vec<TcpListener>,
    tls: Option<Arc<Tls>>,
    tracing: Option<Arc<Tracing>>,
    config: Config,
    reload: Reload,
}

impl Server {
    /// Takes the ports, and reads the certificate if there is to be one.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let tls = config.tls.clone().map(Tls::new).transpose()?.map(Arc::new);
        let tracing = config.otlp_endpoint.as_deref().map(Tracing::new).transpose()?.map(Arc::new);
        let mut listeners = Vec::new();
        for port in std::iter::once(config.port).chain(config.grpc_port) {
            let host = config.host.as_str();
            let listener = TcpListener::bind((host, port))
                .await
                .map_err(|source| ServeError::Bind { address: format!("{host}:{port}"), source })?;
            listeners.push(listener);
        }
        Ok(Self { listeners, tls, tracing, config, reload: Reload(watch::Sender::new(())) })
    }

    /// Where it listens: at the port, and at the further one if there is one.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, ServeError> {
        self.listeners.iter().map(|listener| listener.local_addr().map_err(ServeError::Socket)).collect()
    }

    /// Where it listens first.
    pub fn address(&self) -> Result<SocketAddr, ServeError> {
        self.listeners[0].local_addr().map_err(ServeError::Socket)
    }

    /// What has the server look again at what it has read from files.
    pub fn reload_handle(&self) -> Reload {
        self.reload.clone()
    }

    /// Serves models until `shutdown` resolves. From then on it says that it is not ready, for a configured time goes
    /// on serving, and then finishes what is in flight, up to another configured time. Needs a tokio runtime with I/O
    /// and time; one thread of it is enough.
    pub async fn serve(self, models: Vec<ServedModel>, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let metrics = metrics()?;
        let keeping = Keeping::fixed(&self.config, &metrics, models)?;
        self.run(keeping, metrics, || {}, shutdown).await
    }

    /// Serves what a loader lists and loads; otherwise as [`serve`](Self::serve). Requests for models that
    /// are not loaded yet wait. `ready` is called once those are loaded that are loaded at the start.
    ///
    /// # Errors
    /// Also where a model that was named at the start can't be loaded.
    pub async fn serve_from(
        self,
        loader: Arc<dyn Loader>,
        ready: impl FnOnce(),
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let metrics = metrics()?;
        let mut shutdown = std::pin::pin!(shutdown);
        let scan = tokio::task::spawn_blocking({
            let loader = Arc::clone(&loader);
            move || loader.scan()
        });
        let found = tokio::select! {
            found = scan => found.map_err(|_| ServeError::Batcher)??,
            () = &mut shutdown => return Ok(()),
        };
        let keeping = Keeping::of(&self.config, &metrics, loader, found)?;
        self.run(keeping, metrics, ready, shutdown).await
    }

    async fn run(
        self,
        mut keeping: Keeping,
        metrics: Arc<Metrics>,
        ready: impl FnOnce(),
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let Self { listeners, tls, tracing, config, reload } = self;
        let (delay, drain_timeout) = (config.drain_delay.max(SHORTEST_DELAY), config.drain_timeout);
        let (cache, closing) = (Cache::new(config.cache, config.cache_bytes), watch::Sender::new(false));
        let (models, traced) = (keeping.models(), tracing.clone());
        let service = Arc::new(Service { models, config, metrics, cache, closing, tracing: traced });
        let upkeep = tokio::spawn(keep_up(Arc::clone(&service)));
        let certificate = tls.clone().map(|tls| tokio::spawn(tls.follow(reload.subscribe())));
        let mut connections = Connections::new(listeners, http::router(Arc::clone(&service)), tls, &service.config);
        let mut reloads = reload.subscribe();
        let outcome = tokio::select! {
            never = connections.accept() => match never {},
            () = shutdown => Ok(()),
            failed = keeping.follow(ready, &mut reloads) => Err(failed),
        };
        service.closing.send_replace(true);
        drop(service);
        // Whoever sends requests here is told to send them elsewhere, and is answered until he does; at once where
        // there is nothing to be answered.
        let (delay, drain_timeout) = if outcome.is_ok() { (delay, drain_timeout) } else { Default::default() };
        tokio::select! {
            never = connections.accept() => match never {},
            () = tokio::time::sleep(delay) => {}
        }
        upkeep.abort();
        if let Some(follower) = certificate {
            follower.abort();
        }
        connections.drain(drain_timeout).await;
        // Their queues are closed now; each ends after the batch that it is at. Shadows end by
        // themselves: nobody needs what they are at.
        let ended = tokio::task::spawn_blocking(move || {
            let ended = keeping.end();
            if let Some(tracing) = tracing {
                tracing.end();
            }
            ended
        })
        .await;
        outcome.and(ended.unwrap_or(Err(ServeError::Batcher)))
    }
}

fn metrics() -> Result<Arc<Metrics>, ServeError> {
    Metrics::new().map(Arc::new).map_err(|error| ServeError::Metrics(error.to_string()))
}

/// Has a running server look again at what it has read from files, as at SIGHUP.
#[derive(Clone, Debug)]
pub struct Reload(watch::Sender<()>);

impl Reload {
    /// Has it look now: models whose files have changed are loaded anew.
    pub fn now(&self) {
        self.0.send_replace(());
    }

    /// Changes each time.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

async fn keep_up(service: Arc<Service>) {
    let mut clock = tokio::time::interval(UPKEEP);
    loop {
        clock.tick().await;
        service.metrics.upkeep();
    }
}
