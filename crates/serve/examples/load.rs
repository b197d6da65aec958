//! Puts load on a server over HTTP/1.1, and tells as JSON what its clients saw.
//!
//! ```text
//! load ADDRESS PATH BODIES closed CLIENTS REQUESTS   each client sends its next request once it has its reply
//! load ADDRESS PATH BODIES open RATE SECONDS         requests come at that rate, whatever becomes of those before
//! ```
//!
//! A line of BODIES is a request's body; they are sent in turn, the first again after the last. Times of an
//! open load count from when a request was due, so a client that comes late hides nothing. `overhead` is a
//! request's time less that of the inference, as the reply's `server-timing` tells it. One thread.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    error::Error,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    task::{LocalSet, spawn_local},
    time::sleep_until,
};

/// Most idle connections that an open load keeps.
const MOST_IDLE: usize = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, bodies, kind, first, second] = arguments.as_slice() else {
        return Err("load ADDRESS PATH BODIES closed CLIENTS REQUESTS | open RATE SECONDS".into());
    };
    let address: SocketAddr = address.parse()?;
    let bodies = std::fs::read_to_string(bodies)?;
    let requests: Vec<Vec<u8>> = bodies.lines().map(|body| request(path, body)).collect();
    if requests.is_empty() {
        return Err("no bodies".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = match kind.as_str() {
        "closed" => LocalSet::new().block_on(&runtime, closed(address, requests, first.parse()?, second.parse()?)),
        "open" => LocalSet::new().block_on(&runtime, open(address, requests, first.parse()?, second.parse()?)),
        _ => return Err(format!("`{kind}` is neither closed nor open").into()),
    };
    println!("{}", seen.to_json());
    Ok(())
}

/// A whole request.
fn request(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: load\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<String, usize>,
    /// Of requests that were answered with 200: their milliseconds, and those that are not the engine's.
    answered: Vec<(f64, f64)>,
    /// Answers of 429 without `retry-after`.
    without_time: usize,
    time: Duration,
}

impl Seen {
    fn note(&mut self, reply: io::Result<Reply>, time: Duration) {
        let milliseconds = time.as_secs_f64() * 1e3;
        match reply {
            Ok(reply) => {
                *self.statuses.entry(reply.status.to_string()).or_default() += 1;
                if reply.status == 200 {
                    self.answered.push((milliseconds, milliseconds - reply.inference));
                }
                self.without_time += usize::from(reply.status == 429 && !reply.has_time);
            }
            Err(error) => *self.statuses.entry(error.kind().to_string()).or_default() += 1,
        }
    }

    fn to_json(&self) -> Value {
        let quantiles = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            let at = |share: f64| times.get((share * times.len().saturating_sub(1) as f64).round() as usize);
            json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "worst": times.last()})
        };
        json!({
            "statuses": self.statuses,
            "seconds": self.time.as_secs_f64(),
            "answered_per_second": self.answered.len() as f64 / self.time.as_secs_f64(),
            "without_retry_after": self.without_time,
            "milliseconds": quantiles(self.answered.iter().map(|(all, _)| *all).collect()),
            "overhead_milliseconds": quantiles(self.answered.iter().map(|(_, overhead)| *overhead).collect()),
        })
    }
}

/// So many clients share so many requests.
async fn closed(address: SocketAddr, requests: Vec<Vec<u8>>, clients: usize, count: usize) -> Seen {
    let (requests, next) = (Rc::new(requests), Rc::new(RefCell::new(0)));
    let (seen, started) = (Rc::new(RefCell::new(Seen::default())), Instant::now());
    let client = || {
        let (requests, next, seen) = (Rc::clone(&requests), Rc::clone(&next), Rc::clone(&seen));
        spawn_local(async move {
            let mut connection = None;
            loop {
                let index = next.replace_with(|index| *index + 1);
                if index >= count {
                    return;
                }
                let sent = Instant::now();
                let reply = ask(address, &mut connection, &requests[index % requests.len()]).await;
                seen.borrow_mut().note(reply, sent.elapsed());
            }
        })
    };
    let clients: Vec<_> = (0..clients).map(|_| client()).collect();
    for client in clients {
        let _ = client.await;
    }
    seen.borrow_mut().time = started.elapsed();
    seen.take()
}

/// Requests at so many a second, for so many seconds; waits for every reply.
async fn open(address: SocketAddr, requests: Vec<Vec<u8>>, rate: f64, seconds: f64) -> Seen {
    let requests = Rc::new(requests);
    let (seen, started) = (Rc::new(RefCell::new(Seen::default())), Instant::now());
    let idle = Rc::new(RefCell::new(Vec::new()));
    let mut clients = Vec::new();
    for index in 0..(rate * seconds) as usize {
        let due = started + Duration::from_secs_f64(index as f64 / rate);
        sleep_until(due.into()).await;
        let (requests, seen, idle) = (Rc::clone(&requests), Rc::clone(&seen), Rc::clone(&idle));
        clients.push(spawn_local(async move {
            let mut connection = idle.borrow_mut().pop();
            let reply = ask(address, &mut connection, &requests[index % requests.len()]).await;
            seen.borrow_mut().note(reply, due.elapsed());
            if idle.borrow().len() < MOST_IDLE {
                idle.borrow_mut().extend(connection);
            }
        }));
    }
    for client in clients {
        let _ = client.await;
    }
    seen.borrow_mut().time = started.elapsed();
    seen.take()
}

/// What matters of a reply.
struct Reply {
    status: u16,
    /// Milliseconds.
    inference: f64,
    /// Whether it says when to try again.
    has_time: bool,
}

/// Sends a request and reads its reply; the connection is made if there is none, and dropped where it fails.
async fn ask(address: SocketAddr, connection: &mut Option<TcpStream>, request: &[u8]) -> io::Result<Reply> {
    let stream = match connection.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream
        }
    };
    let mut rest = request;
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let reply = read(&stream).await?;
    *connection = Some(stream);
    Ok(reply)
}

async fn read(stream: &TcpStream) -> io::Result<Reply> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    let mut whole = None;
    loop {
        stream.readable().await?;
        match stream.try_read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if whole.is_none() {
            whole = head(&bytes);
        }
        if let Some((length, reply)) = whole.take() {
            if bytes.len() >= length {
                return Ok(reply);
            }
            whole = Some((length, reply));
        }
    }
}

/// Length of a reply and what its head says, once that is there.
fn head(bytes: &[u8]) -> Option<(usize, Reply)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let length: usize = header("content-length")?.parse().ok()?;
    let inference =
        header("server-timing").and_then(|timing| timing.split_once("inference;dur=")).map(|(_, rest)| rest);
    let inference = inference.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0.0);
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((end + length, Reply { status, inference, has_time: header("retry-after").is_some() }))
}
