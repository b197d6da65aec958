//! Twice as much as can be computed, by clients that don't wait for each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::connection::{Connection, Outcome, post};
use crate::http::Server;
use crate::tiny::Tiny;
use crate::vitals::{Vitals, metric, queued, wait_until};

/// Requests that may wait.
const LIMIT: usize = 16;
/// Connections that requests are sent through, far more than wait.
const CLIENTS: usize = 64;
/// How long each load lasts.
const SPAN: Duration = Duration::from_secs(2);

/// A status, and the time from when its request was due.
type Sample = (u16, Duration);

#[test]
fn only_200_and_429() {
    let model = Tiny::new("sentence-mean");
    let server = Server::start(&[model.path()], &["--threads", "1", "--max-queued-requests", &LIMIT.to_string()]);
    let request =
        post("/", json!({"inputs": vec!["what a great film and how terrible the weather is"; 128]}).to_string());
    let capacity = closed_loop(&server.address, &request);
    let before = Vitals::at_rest(&server, None);
    let (mut samples, mut factor) = (Vec::new(), 1.0);
    // Where the machine has become faster meanwhile, twice the capacity is not enough to be too much.
    while samples.iter().all(|(status, _)| *status == 200) {
        factor *= 2.0;
        assert!(factor < 1000.0, "nothing is ever refused");
        samples.extend(open_loop(&server.address, &request, capacity * factor));
    }
    report(&samples, capacity, factor);
    assert!(samples.iter().any(|(status, _)| *status == 200), "everything was refused");
    wait_until("the queue is empty", || queued(&server) == 0.0);
    let refused = samples.iter().filter(|(status, _)| *status == 429).count();
    assert_eq!(metric(&server, "te_request_failure{err=\"overloaded\"}") as usize, refused);
    assert_eq!(metric(&server, "te_request_failure") as usize, refused);
    let after = Vitals::at_rest(&server, Some(before));
    println!("before {before:?}, after {after:?}");
    assert!(after.memory < before.memory + before.memory / 4 + (16 << 10), "{before:?} has become {after:?}");
    let (code, log) = server.stop("TERM");
    assert_eq!(code, Some(0), "{log:?}");
}

/// Requests per second of clients that wait for their answers and fill the queue.
fn closed_loop(address: &str, request: &[u8]) -> f64 {
    let start = Instant::now();
    let ask = || {
        let mut connection = Connection::open(address).expect("the server listens");
        let mut answers = 0;
        while start.elapsed() < SPAN {
            assert_eq!(connection.ask(request).name(), "200");
            answers += 1;
        }
        answers
    };
    let answers: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..LIMIT / 2).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().expect("a client ends")).sum()
    });
    answers as f64 / start.elapsed().as_secs_f64()
}

/// Requests at a rate that doesn't follow the answers.
fn open_loop(address: &str, request: &[u8], rate: f64) -> Vec<Sample> {
    let (start, next) = (Instant::now(), AtomicUsize::new(0));
    let ask = || {
        let mut connection = Connection::open(address).expect("the server listens");
        let mut samples = Vec::new();
        loop {
            let due = Duration::from_secs_f64(next.fetch_add(1, Relaxed) as f64 / rate);
            if due > SPAN {
                return samples;
            }
            thread::sleep(due.saturating_sub(start.elapsed()));
            let Outcome::Answer(answer) = connection.ask(request) else { panic!("no answer") };
            assert!([200, 429].contains(&answer.status), "{answer:?}");
            let told = answer.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds));
            assert_eq!(told, answer.status == 429, "{answer:?}");
            samples.push((answer.status, start.elapsed().saturating_sub(due)));
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client ends")).collect()
    })
}

/// Prints the figures of the law that accepted requests wait no longer than the queue is long.
fn report(samples: &[Sample], capacity: f64, factor: f64) {
    let mut counts = BTreeMap::new();
    samples.iter().for_each(|(status, _)| *counts.entry(status).or_insert(0) += 1);
    let mut times: Vec<_> = samples.iter().filter(|(status, _)| *status == 200).map(|(_, time)| *time).collect();
    times.sort();
    let p99 = times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
    let law = LIMIT as f64 / capacity * 1.2;
    println!(
        "capacity {capacity:.0}/s, offered {factor} times that: {counts:?}; p99 of accepted {:.1} ms, law {:.1} ms",
        p99.as_secs_f64() * 1e3,
        law * 1e3
    );
}
