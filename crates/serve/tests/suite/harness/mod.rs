//! A running server with tiny models, and a client that sees every byte.

#![allow(unreachable_pub)]

#[path = "../../../../tasks/tests/suite/tiny/mod.rs"]
pub mod tiny;

pub mod generating;
pub mod grpc;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
};

use centuple_serve::{Config, Loader, Reload, ServeError, ServedModel, Server};
use centuple_tasks::{Engine, Model};
use tokio::sync::oneshot;

/// A server on a port of its own, with one I/O thread.
pub struct Running {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

/// A configuration on a free port.
pub fn config() -> Config {
    Config { port: 0, ..Config::default() }
}

/// A model with neither shadow nor report.
pub fn served(model: Model, engine: impl Engine + 'static) -> ServedModel {
    ServedModel {
        accelerators: Vec::new(),
        model: Arc::new(model),
        engine: Box::new(engine),
        generation: None,
        memory: 0,
        shadow: None,
        report: None,
    }
}

impl Running {
    /// Serves models with plain engines.
    pub fn new(config: Config, models: Vec<Model>) -> Self {
        let models = models.into_iter().map(|model| {
            let engine = tiny::Tiny::new(&model);
            (model, engine)
        });
        Self::with_engines(config, models.collect())
    }

    /// Serves one model of sentence embeddings on an engine that is interfered with.
    pub fn interfered(config: Config, interfere: tiny::Interfere) -> Self {
        let model = tiny::embedder(true);
        let engine = tiny::Tiny::with(&model, interfere);
        Self::with_engines(config, vec![(model, engine)])
    }

    /// Serves models with the given engines.
    pub fn with_engines(config: Config, models: Vec<(Model, tiny::Tiny)>) -> Self {
        Self::with_models(config, models.into_iter().map(|(model, engine)| served(model, engine)).collect())
    }

    /// Serves models as they are.
    pub fn with_models(config: Config, models: Vec<ServedModel>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(config).await?;
                bound.send(server.address()?).unwrap();
                server.serve(models, async { stopped.await.unwrap_or_default() }).await
            })
        });
        Self { address: address.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    /// Serves what a loader has; the handle has it look for changes.
    pub fn with_loader(config: Config, loader: Arc<dyn Loader>) -> (Self, Reload) {
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(config).await?;
                bound.send((server.address()?, server.reload_handle())).unwrap();
                server.serve_from(loader, || {}, async { stopped.await.unwrap_or_default() }).await
            })
        });
        let (address, reload) = address.recv().unwrap();
        (Self { address, stop: Some(stop), thread: Some(thread) }, reload)
    }

    /// Gives the signal to stop.
    pub fn stop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    /// Stops and tells how the server ended.
    pub fn end(mut self) -> Result<(), ServeError> {
        self.stop();
        self.thread.take().unwrap().join().unwrap()
    }

    /// Waits for it to end without a signal, and tells how.
    pub fn end_by_itself(mut self) -> Result<(), ServeError> {
        self.thread.take().unwrap().join().unwrap()
    }

    /// A connection.
    pub fn connect(&self) -> Client {
        Client(BufReader::new(TcpStream::connect(self.address).unwrap()))
    }

    /// Posts a JSON body on a connection of its own.
    pub fn post(&self, path: &str, body: &str) -> Response {
        self.connect().request("POST", path, &[], body.as_bytes())
    }

    /// Gets a path on a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        self.connect().request("GET", path, &[], b"")
    }

    /// A value of `/metrics`; 0 where it has none yet.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit_once(' ')).map_or(0.0, |(_, value)| value.parse().unwrap())
    }

    /// Waits until so many requests are queued.
    pub fn await_queue(&self, requests: usize) {
        self.await_metric("te_queue_size", requests as f64);
    }

    /// Waits until a metric has a value.
    pub fn await_metric(&self, name: &str, value: f64) {
        while self.metric(name) != value {
            std::thread::yield_now();
        }
    }
}

/// Holds an engine up: each batch is told, then waits for leave to end.
pub struct Gate {
    pub batches: mpsc::Receiver<Vec<Vec<u32>>>,
    pub leave: mpsc::Sender<()>,
}

impl Gate {
    /// A gate, and what holds the engine up.
    pub fn new() -> (Self, tiny::Interfere) {
        let (tell, batches) = mpsc::channel();
        let (leave, wait) = mpsc::channel();
        let wait = Mutex::new(wait);
        let interfere: tiny::Interfere = Box::new(move |batch, _| {
            let _ = tell.send(batch.iter().map(|sequence| sequence.ids.clone()).collect());
            // Once the test has dropped its gate, nothing waits any more.
            let _ = wait.lock().map(|wait| wait.recv());
            Ok(())
        });
        (Self { batches, leave }, interfere)
    }

    /// Waits for the next batch to start.
    pub fn batch(&self) -> Vec<Vec<u32>> {
        self.batches.recv().unwrap()
    }

    /// Lets the current batch end.
    pub fn release(&self) {
        self.leave.send(()).unwrap();
    }
}

/// One connection.
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Sends bytes as they are; whether the server still takes them is its matter.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// Sends a request and reads its response.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.begin(method, path, headers, body);
        self.response().expect("a response")
    }

    /// Sends a request.
    pub fn begin(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat());
    }

    /// Reads a response; `None` if the connection ends without one.
    pub fn response(&mut self) -> Option<Response> {
        let mut response = self.head()?;
        let mut body = vec![0; response.header("content-length")?.parse().ok()?];
        self.0.read_exact(&mut body).ok()?;
        response.body = String::from_utf8(body.clone()).unwrap_or_default();
        response.bytes = body;
        Some(response)
    }

    /// Reads a body that comes in chunks.
    pub fn chunks(&mut self) -> String {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            let start = body.len();
            body.resize(start + size, 0);
            self.0.read_exact(&mut body[start..]).unwrap();
            self.0.read_line(&mut String::new()).unwrap();
            if size == 0 {
                return String::from_utf8(body).unwrap();
            }
        }
    }

    /// Reads a response up to its body, which an answer to HEAD lacks.
    pub fn head(&mut self) -> Option<Response> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok()?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
                None => break,
            }
        }
        Some(Response { status, headers, body: String::new(), bytes: Vec::new() })
    }
}

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Empty where it is no text.
    pub body: String,
    pub bytes: Vec<u8>,
}

impl Response {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and body in a line.
    pub fn line(&self) -> String {
        format!("{} {}", self.status, self.body)
    }
}
