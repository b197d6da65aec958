//! The life of a server: bind, serve, drain.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use centuple_tasks::{Engine, Model};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use crate::{
    batcher::Batcher,
    config::Config,
    error::ServeError,
    http,
    metrics::{Metrics, Tally},
    queue::{Capacity, Queue},
    service::{Models, Report, Served, Service},
    shadow::Shadow,
};

/// How often metrics are folded.
const UPKEEP: Duration = Duration::from_secs(5);
/// Pause after the system refused to accept a connection, for want of file handles for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A model and what computes it.
pub struct ServedModel {
    /// The model.
    pub model: Arc<Model>,
    /// Its engine, which moves to a thread of its own.
    pub engine: Box<dyn Engine>,
    /// What measures the engine's drift on served sequences, if anything does.
    pub shadow: Option<Shadow>,
    /// What its optimisation was found to cost in accuracy, if it was optimised.
    pub report: Option<Arc<Report>>,
}

/// A server that has its port; clients that connect wait until [`serve`](Self::serve).
pub struct Server {
    listener: TcpListener,
    config: Config,
}

impl Server {
    /// Takes the port.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let (host, port) = (config.host.as_str(), config.port);
        let listener = TcpListener::bind((host, port))
            .await
            .map_err(|source| ServeError::Bind { address: format!("{host}:{port}"), source })?;
        Ok(Self { listener, config })
    }

    /// Where it listens.
    pub fn address(&self) -> Result<SocketAddr, ServeError> {
        self.listener.local_addr().map_err(ServeError::Socket)
    }

    /// Serves until `shutdown` resolves, then finishes what is in flight, up to the configured
    /// time. Needs a tokio runtime with I/O and time; one thread of it is enough.
    pub async fn serve(self, models: Vec<ServedModel>, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { listener, config } = self;
        let drain_timeout = config.drain_timeout;
        let (service, batchers) = start(config, models)?;
        let upkeep = tokio::spawn(keep_up(Arc::clone(&service)));
        let mut connections = Connections::new(service);
        tokio::select! {
            never = connections.accept(&listener) => match never {},
            () = shutdown => {}
        }
        drop(listener);
        upkeep.abort();
        connections.drain(drain_timeout).await;
        // Their queues are closed now; each ends after the batch that it is at. Shadows end by
        // themselves: nobody needs what they are at.
        let ended = tokio::task::spawn_blocking(move || batchers.into_iter().try_for_each(|batcher| batcher.join()));
        match ended.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ServeError::Batcher),
        }
    }
}

type Batchers = Vec<std::thread::JoinHandle<()>>;

/// Starts a batcher for each model.
fn start(config: Config, models: Vec<ServedModel>) -> Result<(Arc<Service>, Batchers), ServeError> {
    if models.is_empty() {
        return Err(ServeError::NoModel);
    }
    let metrics = Metrics::new().map_err(|error| ServeError::Metrics(error.to_string()))?;
    let (mut served, mut batchers) = (Vec::new(), Vec::new());
    for ServedModel { model, engine, shadow, report } in models {
        let id = model.card.id.as_str();
        let batch_tokens = config.max_batch_tokens.min(engine.limits().max_tokens_per_batch);
        let (requests, tokens) = (config.max_queued_requests, config.max_queued_tokens);
        let (queue, tickets) = Queue::new(Capacity { requests, tokens, batch_tokens });
        let load = Arc::clone(queue.load());
        let sampler = match shadow {
            Some(shadow) => shadow.start(&model.card, &metrics).map_err(ServeError::Thread)?,
            None => None,
        };
        let tally = Arc::<Tally>::default();
        let batches = metrics.batches(id, Arc::clone(&tally));
        let batcher = Batcher { engine, tickets, load: Arc::clone(&load), batch_tokens, metrics: batches, sampler };
        batchers.push(batcher.spawn(id).map_err(ServeError::Thread)?);
        let metrics = metrics.model(id, load, tally);
        served.push(Arc::new(Served { model, queue, metrics, report }));
    }
    Ok((Arc::new(Service { models: Models(served), config, metrics }), batchers))
}

async fn keep_up(service: Arc<Service>) {
    let mut clock = tokio::time::interval(UPKEEP);
    loop {
        clock.tick().await;
        service.metrics.upkeep();
    }
}

/// The open connections.
struct Connections {
    router: Router,
    http: http1::Builder,
    places: Arc<Semaphore>,
    graceful: GracefulShutdown,
    tasks: JoinSet<()>,
}

impl Connections {
    fn new(service: Arc<Service>) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(service.config.header_timeout);
        let places = Arc::new(Semaphore::new(service.config.max_connections.min(Semaphore::MAX_PERMITS)));
        let (graceful, tasks) = (GracefulShutdown::new(), JoinSet::new());
        Self { router: http::router(service), http, places, graceful, tasks }
    }

    /// Takes connections for ever.
    async fn accept(&mut self, listener: &TcpListener) -> std::convert::Infallible {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { std::future::pending().await };
            match listener.accept().await {
                Ok((stream, _)) => self.open(stream, place),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    fn open(&mut self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // A connection that can't be set so works all the same, later.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.graceful.watch(self.http.serve_connection(TokioIo::new(stream), service));
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }

    /// Lets each connection finish its request, and cuts those that take too long.
    async fn drain(self, time: Duration) {
        let Self { router, graceful, mut tasks, .. } = self;
        drop(router);
        if tokio::time::timeout(time, graceful.shutdown()).await.is_err() {
            tracing::warn!(connections = tasks.len(), ?time, "connections were cut, their requests took too long");
        }
        tasks.shutdown().await;
    }
}
