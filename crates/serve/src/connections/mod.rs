//! The open connections: accepted within bounds, told apart as HTTP/1.1 or HTTP/2, drained at the end.
//!
//! One port speaks both: HTTP/2 begins with a preface that is no request of HTTP/1. No time is without a bound: a
//! connection that says nothing, takes nothing or has nothing to do is closed.

mod socket;
mod streams;

use std::{convert::Infallible, future::poll_fn, io, pin::pin, sync::Arc, task::Poll, time::Duration};

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::graceful::GracefulConnection,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{config::Config, tls::Tls};
use socket::{Socket, Traffic};
use streams::Streams;

/// Pause after the system refused to accept a connection, for want of file handles for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the other side of an HTTP/2 connection is asked whether it is there, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Streams that a client may reset before they were looked at; a flood of them costs it its connection.
const MOST_RESET_STREAMS: usize = 128;
/// How long the other side may be silent once the server stops: what has nothing to do any more is cut after twice that.
const LAST_LOOKS: Duration = Duration::from_secs(5);
/// A connection without requests lives on while it sends at least so many bytes in each span of the header's timeout.
const LEAST_TRAFFIC: u64 = 4096;

/// The answer to a request without TLS where TLS is wanted.
const PLAIN_TO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n\
    content-length: 46\r\n\r\n{\"error\":\"this port speaks TLS: use https://\"}";

/// Listeners and what came in through them.
pub(crate) struct Connections {
    listeners: Vec<TcpListener>,
    front: Arc<Front>,
    places: Arc<Semaphore>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What every connection is served with.
struct Front {
    router: Router,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<Arc<Tls>>,
    header_timeout: Duration,
}

impl Connections {
    /// The router behind listeners, all of them with TLS or none.
    pub(crate) fn new(listeners: Vec<TcpListener>, router: Router, tls: Option<Arc<Tls>>, config: &Config) -> Self {
        let header_timeout = config.header_timeout;
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_header_size(config.max_header_bytes);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        let header_bytes = u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.max_streams)
            .max_header_list_size(header_bytes)
            .max_pending_accept_reset_streams(MOST_RESET_STREAMS)
            .max_local_error_reset_streams(MOST_RESET_STREAMS)
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1);
        let places = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
        let front = Arc::new(Front { router, http1, http2, tls, header_timeout });
        Self { listeners, front, places, stop: watch::Sender::new(false), tasks: JoinSet::new() }
    }

    /// Takes connections for ever.
    pub(crate) async fn accept(&mut self) -> Infallible {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { std::future::pending().await };
            match poll_fn(|context| self.poll_accept(context)).await {
                Ok(stream) => self.open(stream, place),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    fn poll_accept(&self, context: &mut std::task::Context<'_>) -> Poll<io::Result<TcpStream>> {
        let accepted = self.listeners.iter().find_map(|listener| match listener.poll_accept(context) {
            Poll::Ready(accepted) => Some(accepted.map(|(stream, _)| stream)),
            Poll::Pending => None,
        });
        accepted.map_or(Poll::Pending, Poll::Ready)
    }

    fn open(&mut self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // A connection that can't be set so works all the same, later.
        let _ = stream.set_nodelay(true);
        let (front, stop) = (Arc::clone(&self.front), self.stop.subscribe());
        self.tasks.spawn(async move {
            front.serve(stream, stop).await;
            drop(place);
        });
    }

    /// Closes the listeners, lets each connection finish its requests, and cuts those that take too long.
    pub(crate) async fn drain(mut self, time: Duration) {
        // Who has been let in by the system already is served like the others.
        while let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            match poll_fn(|context| Poll::Ready(self.poll_accept(context))).await {
                Poll::Ready(Ok(stream)) => self.open(stream, place),
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        let Self { listeners, front, stop, mut tasks, .. } = self;
        drop((listeners, front));
        stop.send_replace(true);
        let ended = tokio::time::timeout(time, async { while tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!(connections = tasks.len(), ?time, "connections were cut, their requests took too long");
        }
        tasks.shutdown().await;
    }
}

impl Front {
    /// Serves a connection to its end.
    async fn serve(&self, stream: TcpStream, stop: watch::Receiver<bool>) {
        let outcome = match &self.tls {
            None => self.greet(Socket::begin(stream), stop).await,
            Some(tls) => self.greet(greet_privately(tls.acceptor(), stream), stop).await,
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Waits for the first bytes, then speaks the protocol that they begin.
    async fn greet<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        begin: impl Future<Output = io::Result<Option<Socket<S>>>>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Broken> {
        let begun = tokio::select! {
            biased;
            begun = tokio::time::timeout(self.header_timeout, begin) => begun,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        match begun {
            Ok(socket) => match socket? {
                Some(socket) => self.speak(socket, stop).await,
                None => Ok(()),
            },
            Err(_) => Err("it didn't begin in time".into()),
        }
    }

    async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        socket: Socket<S>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), Broken> {
        let mut watch = Watch { traffic: socket.traffic(), ..Watch::default() };
        let service = TowerToHyperService::new(self.router.clone());
        if socket.is_http2() {
            let streams = Arc::<Streams>::default();
            watch.streams = Some(Arc::clone(&streams));
            let connection = self.http2.serve_connection(socket, streams.counted(service));
            attend(connection, watch, self.header_timeout, stop).await
        } else {
            attend(self.http1.serve_connection(socket, service), watch, self.header_timeout, stop).await
        }
    }
}

/// Shakes hands by TLS. Who speaks plain HTTP is told so.
async fn greet_privately(
    acceptor: TlsAcceptor,
    mut stream: TcpStream,
) -> io::Result<Option<Socket<TlsStream<TcpStream>>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first[0].is_ascii_alphabetic() {
        stream.write_all(PLAIN_TO_TLS).await?;
        return Err(io::Error::other("plain HTTP to a port of TLS"));
    }
    Socket::begin(acceptor.accept(stream).await?).await
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Drives a connection to its end, which comes early where it stands still or has nothing to do, or the server stops.
async fn attend<C>(
    connection: C,
    mut watch: Watch,
    mut span: Duration,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Broken>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = pin!(connection);
    let mut clock = pin!(tokio::time::sleep(span));
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Ok(ended.map(drop)?),
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                span = span.min(LAST_LOOKS);
                clock.as_mut().reset(tokio::time::Instant::now() + span);
                connection.as_mut().graceful_shutdown();
            }
            () = clock.as_mut() => {
                match watch.look() {
                    State::Alive => {}
                    State::Idle if !stopping => connection.as_mut().graceful_shutdown(),
                    State::Idle => {}
                    State::Stalled => return Err("the other side takes nothing and asks for nothing".into()),
                }
                clock.as_mut().reset(tokio::time::Instant::now() + span);
            }
        }
    }
}

/// What is looked at from time to time.
#[derive(Default)]
struct Watch {
    traffic: Arc<Traffic>,
    /// Only of HTTP/2; hyper itself closes idle connections of HTTP/1.
    streams: Option<Arc<Streams>>,
    written: u64,
    requests: u64,
    was_blocked: bool,
    was_idle: bool,
}

enum State {
    Alive,
    /// Without a request since the last look.
    Idle,
    /// Still idle after it was told to end, or what is to be sent isn't taken.
    Stalled,
}

impl Watch {
    /// How the connection has fared since the last look.
    fn look(&mut self) -> State {
        let (written, is_blocked) = (self.traffic.written(), self.traffic.is_blocked());
        let sent = written - std::mem::replace(&mut self.written, written);
        let stuck = std::mem::replace(&mut self.was_blocked, is_blocked) && is_blocked && sent == 0;
        let Some(streams) = &self.streams else {
            return if stuck { State::Stalled } else { State::Alive };
        };
        let requests = streams.requests();
        let asked = requests != std::mem::replace(&mut self.requests, requests);
        let idle = !asked && streams.open() == 0 && sent < LEAST_TRAFFIC;
        let was_idle = std::mem::replace(&mut self.was_idle, idle);
        match (stuck || (idle && was_idle), idle) {
            (true, _) => State::Stalled,
            (false, true) => State::Idle,
            (false, false) => State::Alive,
        }
    }
}
