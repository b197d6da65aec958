//! A server on loopback with the hub's routes, for one repository.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};

/// The commit of every revision.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server has, and how it misbehaves.
#[derive(Default)]
pub(crate) struct State {
    /// Files of the repository by path.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Sent instead of a file's content.
    pub(crate) fault: Option<(&'static str, Fault)>,
    /// Methods and paths of all requests so far.
    pub(crate) requests: Vec<String>,
}

/// What happens instead of delivering a file.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// The connection closes after half of the file.
    Cut,
    /// The server answers with this status.
    Status(u16),
}

/// The running server. Its thread lives as long as the test process.
pub(crate) struct Server {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Serves the repository `org/name`.
    pub(crate) fn start(files: BTreeMap<String, Vec<u8>>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || answer(&stream, &shared));
            }
        });
        Ok(Self { address, state })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one request and answers it. A client that goes away is no concern of the test.
fn answer(stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    let mut words = request.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = target.split('?').next()?;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.requests.push(format!("{method} {path}"));
    let (status, body, mut length) = respond(&state, path);
    length += body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nETag: \"{length}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
    );
    drop(state);
    let mut stream = stream;
    stream.write_all(head.as_bytes()).ok()?;
    if method == "GET" { stream.write_all(&body).ok() } else { Some(()) }
}

/// Status, body, and how many bytes are promised beyond the body.
fn respond(state: &State, path: &str) -> (u16, Vec<u8>, usize) {
    let json = |value: Value| (200, value.to_string().into_bytes(), 0);
    if ["main", "v1", COMMIT].iter().any(|revision| path == format!("/api/models/org/name/revision/{revision}")) {
        return json(json!({"id": "org/name", "sha": COMMIT}));
    }
    if path == format!("/api/models/org/name/tree/{COMMIT}") {
        let entry = |(path, content): (&String, &Vec<u8>)| json!({"type": "file", "path": path, "size": content.len(), "oid": "0"});
        return json(state.files.iter().map(entry).collect());
    }
    let name = path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/"));
    match name.and_then(|name| Some((name, state.files.get(name)?))) {
        None => (404, b"{\"error\": \"not found\"}".to_vec(), 0),
        Some((name, content)) => match state.fault {
            Some((faulty, Fault::Cut)) if faulty == name => {
                let half = content.len() / 2;
                (200, content.iter().take(half).copied().collect(), content.len() - half)
            }
            Some((faulty, Fault::Status(status))) if faulty == name => (status, b"out of order".to_vec(), 0),
            _ => (200, content.clone(), 0),
        },
    }
}
