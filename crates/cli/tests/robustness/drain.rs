//! The end of a server under load: what was sent before the signal is answered, and nothing by halves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use serde_json::json;

use crate::connection::{Connection, Outcome, post};
use crate::grpc::Caller;
use crate::http::Server;
use crate::tiny::Tiny;
use crate::vitals::wait_until;

/// Clients of HTTP/1.1, and of gRPC.
const CLIENTS: usize = 24;
const CALLERS: usize = 8;

/// What became of the requests of one client.
#[derive(Default)]
struct Told {
    answers: usize,
    /// Answers to requests that were sent before the signal.
    owed: usize,
}

#[test]
fn sigterm_loses_no_request() {
    let model = Tiny::new("sentence-mean");
    for texts in [1, 64] {
        let server = Server::start(&[model.path()], &["--threads", "1"]);
        let request = post("/", json!({"inputs": vec!["what a great film"; texts]}).to_string());
        let expected = match Connection::open(&server.address).expect("it listens").ask(&request) {
            Outcome::Answer(answer) if answer.status == 200 => answer.body,
            other @ (Outcome::Answer(_) | Outcome::Closed | Outcome::Torn(_)) => panic!("{}", other.name()),
        };
        let (signalled, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let told: Vec<Told> = thread::scope(|scope| {
            let client = || until_the_end(&server.address, &request, &expected, &signalled, &answered);
            let caller = || calls_until_the_end(&server.address, texts, &signalled, &answered);
            let mut clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients.extend((0..CALLERS).map(|_| scope.spawn(caller)));
            wait_until("every client had answers", || answered.load(SeqCst) >= 20 * (CLIENTS + CALLERS));
            signalled.store(true, SeqCst);
            server.process.signal("TERM");
            clients.into_iter().map(|client| client.join().expect("a client ends")).collect()
        });
        let (code, log) = server.stop("0");
        assert_eq!(code, Some(0), "{log:?}");
        assert!(!log.concat().contains("cut"), "{log:?}");
        let (answers, owed) = told.iter().fold((0, 0), |(all, owed), told| (all + told.answers, owed + told.owed));
        println!("{texts} texts a request: {answers} whole answers, {owed} of them were owed at the signal");
    }
}

/// Asks on one connection until it is closed. A request that was sent before the signal must be answered.
fn until_the_end(
    address: &str,
    request: &[u8],
    expected: &[u8],
    signalled: &AtomicBool,
    answered: &AtomicUsize,
) -> Told {
    let mut connection = Connection::open(address).expect("it listens");
    let mut told = Told::default();
    loop {
        let sent = connection.send(request).is_ok();
        let is_owed = sent && !signalled.load(SeqCst);
        match connection.answer() {
            Outcome::Answer(answer) => {
                assert_eq!((answer.status, answer.body.as_slice()), (200, expected));
                told.answers += 1;
                told.owed += usize::from(is_owed && signalled.load(SeqCst));
                answered.fetch_add(1, SeqCst);
                if answer.last {
                    return told;
                }
            }
            Outcome::Closed => {
                assert!(!is_owed, "a request that was sent before the signal is lost");
                return told;
            }
            Outcome::Torn(reason) => panic!("half an answer: {reason}"),
        }
    }
}

/// The same by gRPC.
fn calls_until_the_end(address: &str, texts: usize, signalled: &AtomicBool, answered: &AtomicUsize) -> Told {
    let mut caller = Caller::new(address);
    let texts = vec!["what a great film".to_owned(); texts];
    let mut told = Told::default();
    loop {
        let is_owed = !signalled.load(SeqCst);
        match caller.infer("sentence-mean", &texts) {
            Ok(()) => {
                told.answers += 1;
                told.owed += usize::from(is_owed && signalled.load(SeqCst));
                answered.fetch_add(1, SeqCst);
            }
            Err(status) => {
                assert!(!is_owed, "a call that was sent before the signal is lost: {status}");
                return told;
            }
        }
    }
}
