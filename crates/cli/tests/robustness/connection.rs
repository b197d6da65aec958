//! A connection to a server that may refuse, close or die at any time.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::process::PATIENCE;

/// A connection.
pub(crate) struct Connection(BufReader<TcpStream>);

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A whole answer.
    Answer(Answer),
    /// The end of the connection before any byte of an answer.
    Closed,
    /// An answer that broke off.
    Torn(String),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    /// Whether the server closes the connection after it.
    pub(crate) last: bool,
    pub(crate) body: Vec<u8>,
}

impl Outcome {
    /// The status, or `closed`, or why there is none.
    pub(crate) fn name(&self) -> String {
        match self {
            Outcome::Answer(answer) => answer.status.to_string(),
            Outcome::Closed => "closed".to_owned(),
            Outcome::Torn(reason) => format!("torn: {reason}"),
        }
    }
}

impl Connection {
    /// A connection to `host:port`.
    pub(crate) fn open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Connection(BufReader::new(stream)))
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// Sends the same again and again until the other side takes no more; how often it did.
    pub(crate) fn send_until_full(&mut self, bytes: &[u8]) -> usize {
        let stream = self.0.get_mut();
        stream.set_nonblocking(true).expect("a socket can be set so");
        let (mut sent, mut refusals) = (0, 0);
        // The other side may be slow to take what it does take.
        while refusals < 40 {
            match stream.write(&bytes[sent % bytes.len()..]) {
                Ok(some) => sent += some,
                Err(_) => {
                    refusals += 1;
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        sent / bytes.len()
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Outcome {
        // A server may answer and close before all was sent.
        let _ = self.send(request);
        self.answer()
    }

    /// Reads an answer.
    pub(crate) fn answer(&mut self) -> Outcome {
        self.answer_in_pieces(usize::MAX, || ())
    }

    /// Reads an answer whose body is taken so many bytes at a time, with a pause before each piece.
    pub(crate) fn answer_in_pieces(&mut self, bytes: usize, pause: impl FnMut()) -> Outcome {
        match self.0.fill_buf() {
            Ok([]) => return Outcome::Closed,
            Ok(_) => {}
            // What it is told by depends on what the other side has left unread.
            Err(error) if [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()) => {
                return Outcome::Closed;
            }
            Err(error) => return Outcome::Torn(error.to_string()),
        }
        match self.read_answer(bytes, pause) {
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => Outcome::Torn(error.to_string()),
        }
    }

    fn read_answer(&mut self, bytes: usize, mut pause: impl FnMut()) -> io::Result<Answer> {
        let broken = |line: &str| io::Error::new(ErrorKind::InvalidData, format!("{line:?} is no line of an answer"));
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| broken(&line))?;
        let mut answer = Answer { status, retry_after: None, last: false, body: Vec::new() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").ok_or_else(|| broken(&line))?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => answer.body = vec![0; value.parse().map_err(|_| broken(&line))?],
                "retry-after" => answer.retry_after = value.parse().ok(),
                "connection" => answer.last = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        for piece in answer.body.chunks_mut(bytes) {
            pause();
            self.0.read_exact(piece)?;
        }
        Ok(answer)
    }

    /// A line without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// Waits for the first byte of an answer and resets the connection, whose other bytes nobody has read.
    pub(crate) fn reset(self) {
        // It may have been closed by the other side.
        let _ = self.0.get_ref().peek(&mut [0]);
    }
}

/// A `POST` of JSON.
pub(crate) fn post(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    post_with(path, "", body)
}

/// The same with further lines of header, each with its end.
pub(crate) fn post_with(path: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// A `GET`.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes()
}
