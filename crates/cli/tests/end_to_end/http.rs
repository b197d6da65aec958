//! A running server, and a client that sees every byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::process::{Lines, PATIENCE, Process, centuple};

/// `centuple serve` on a free port; killed when it is dropped.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) log: Lines,
    /// Host and port.
    pub(crate) address: String,
}

impl Server {
    /// Starts it and waits until every model is served.
    pub(crate) fn start(models: &[PathBuf], flags: &[&str]) -> Server {
        Server::start_with(centuple("serve").args(flags), models)
    }

    /// Starts it by a command of one's own.
    pub(crate) fn start_with(command: &mut Command, models: &[PathBuf]) -> Server {
        let mut process = Process::spawn(command.args(["--port", "0"]).args(models));
        let log = process.stderr();
        let mut address = None;
        // A repository without further models is told in a line too.
        for _ in 0..models.len().max(1) {
            address = Some(await_address(&log));
        }
        Server { process, log, address: address.expect("at least one line") }
    }

    /// A connection.
    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Client(BufReader::new(stream))
    }

    /// Posts a body on a connection of its own.
    pub(crate) fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.connect().post(path, body)
    }

    /// Gets a page on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Response {
        let mut client = self.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes());
        client.response()
    }

    /// Ends it by a signal; yields its exit code and what it logged since it began to serve.
    pub(crate) fn stop(mut self, signal: &str) -> (Option<i32>, Vec<String>) {
        self.process.signal(signal);
        let code = self.process.wait().code();
        (code, self.log.rest())
    }
}

/// Host and port of the next line `serving ID on http://ADDRESS`.
fn await_address(log: &Lines) -> String {
    let mut seen = Vec::new();
    while let Some(line) = log.next() {
        if let Some((_, address)) = line.split_once(" on http://") {
            // A line of JSON goes on after it.
            return address.split('"').next().unwrap_or_default().trim().to_owned();
        }
        seen.push(line);
    }
    panic!("the server did not start: {seen:?}");
}

/// One connection.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    /// Sends bytes as they are; the server may have stopped to listen.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// Sends the head of a request with a body of so many bytes.
    pub(crate) fn head(&mut self, path: &str, length: usize, headers: &str) {
        self.send(
            format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n{headers}\r\n").as_bytes(),
        );
    }

    /// Posts a body and reads the answer.
    pub(crate) fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Response {
        let body = body.as_ref();
        self.head(path, body.len(), "");
        self.send(body);
        self.response()
    }

    /// Reads a response.
    pub(crate) fn response(&mut self) -> Response {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a response");
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no response, but {line:?}"));
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a header");
            match line.trim_end().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().expect("a length"),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        Response { status, body: String::from_utf8(body).expect("answers are UTF-8") }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Response {
    /// The body of an answer that went well.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).expect("answers are JSON")
    }
}
