//! Many clients at once: batches, fairness, refusal, cancellation, crashes, the end.

use std::{net::TcpStream, thread::spawn, time::Duration};

use centuple_serve::Config;
use centuple_tasks::EngineError;

use crate::harness::{Client, Gate, Response, Running, config, tiny};

/// Token ids of `cat` and `dog`, in no other word of these tests.
const CAT: u32 = 7;
const DOG: u32 = 8;
/// As many `cat`s of 3 tokens as a batch of 64 tokens takes.
const CATS_PER_BATCH: usize = 21;

fn begin(server: &Running, body: &str) -> Client {
    let mut client = server.connect();
    client.begin("POST", "/", &[], body.as_bytes());
    client
}

fn cats(count: usize) -> String {
    serde_json::json!({"inputs": vec!["cat"; count]}).to_string()
}

fn answer(mut client: Client) -> Response {
    client.response().expect("a response")
}

#[test]
fn what_queues_up_runs_together() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(config(), interfere);
    let first = begin(&server, &cats(1));
    assert_eq!(gate.batch().len(), 1);
    let others: Vec<_> = (0..5).map(|_| begin(&server, &cats(2))).collect();
    server.await_queue(5);
    gate.release();
    assert_eq!(gate.batch().len(), 10);
    gate.release();
    assert_eq!(answer(first).status, 200);
    for other in others {
        assert_eq!(answer(other).json().as_array().unwrap().len(), 2);
    }
}

#[test]
fn a_huge_request_does_not_starve_a_small_one() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(config(), interfere);
    let huge = begin(&server, &cats(10 * CATS_PER_BATCH));
    assert_eq!(gate.batch().len(), CATS_PER_BATCH);
    let small = begin(&server, r#"{"inputs": "dog"}"#);
    server.await_queue(2);
    gate.release();
    let batch = gate.batch();
    assert!(batch.iter().any(|ids| ids.contains(&DOG)), "{batch:?}");
    gate.release();
    assert_eq!(answer(small).status, 200);
    drop(gate);
    assert_eq!(answer(huge).json().as_array().unwrap().len(), 10 * CATS_PER_BATCH);
}

#[test]
fn what_is_done_sooner_goes_first() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(config(), interfere);
    let first = begin(&server, &cats(100));
    gate.batch();
    let second = begin(&server, &cats(100).replace("cat", "dog"));
    server.await_queue(2);
    let mut dogs = Vec::new();
    for _ in 0..5 {
        gate.release();
        dogs.push(gate.batch().iter().filter(|ids| ids.contains(&DOG)).count());
    }
    assert_eq!(dogs, [0, 0, 0, 5, 21], "100 cats fill four batches and 16 places");
    drop(gate);
    assert_eq!((answer(first).status, answer(second).status), (200, 200));
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(Config { max_queued_requests: 3, ..config() }, interfere);
    let mut accepted = vec![begin(&server, &cats(1))];
    gate.batch();
    accepted.extend((0..2).map(|_| begin(&server, &cats(1))));
    server.await_queue(2);
    let refused = [server.post("/", &cats(1)), server.post("/v1/embeddings", r#"{"input": "cat"}"#)];
    for refused in &refused {
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    insta::assert_snapshot!(refused.map(|refused| refused.line()).join("\n"));
    assert_eq!(server.metric("te_request_failure{err=\"overloaded\"}"), 2.0);
    drop(gate);
    for accepted in accepted {
        assert_eq!(answer(accepted).status, 200);
    }
    server.await_queue(0);
    assert_eq!(server.post("/", &cats(1)).status, 200);
}

#[test]
fn a_client_that_leaves_is_forgotten() {
    let (gate, interfere) = Gate::new();
    let server = Running::interfered(config(), interfere);
    let batches = 400;
    let huge = begin(&server, &cats(batches * CATS_PER_BATCH));
    gate.batch();
    drop(huge);
    let mut run = 1;
    while server.metric("te_queue_size") > 0.0 {
        gate.release();
        if gate.batches.recv_timeout(Duration::from_millis(100)).is_ok() {
            run += 1;
        }
    }
    assert!(run < batches, "all {run} batches ran");
    drop(gate);
    assert_eq!(server.post("/", &cats(1)).status, 200);
}

#[test]
fn many_clients_get_their_own_answers() {
    let server = Running::new(config(), vec![tiny::embedder(false)]);
    let words = ["cat", "dog", "the mat", "", "a film in the rain", "hello world !"];
    let expected: Vec<_> = words.map(|word| server.post("/", &format!(r#"{{"inputs": "{word}"}}"#)).body).into();
    std::thread::scope(|scope| {
        for client in 0..16 {
            let (server, expected) = (&server, &expected);
            scope.spawn(move || {
                let mut connection = server.connect();
                for round in 0..50 {
                    let which = (client + round) % words.len();
                    let body = format!(r#"{{"inputs": "{}"}}"#, words[which]);
                    let answer = connection.request("POST", "/", &[], body.as_bytes());
                    assert_eq!((answer.status, &answer.body), (200, &expected[which]));
                }
            });
        }
    });
    assert_eq!(server.metric("te_request_success"), 806.0);
    server.await_queue(0);
}

#[test]
fn a_crash_costs_one_batch() {
    let interfere: tiny::Interfere = Box::new(|batch, outputs| {
        let has = |id: u32| batch.iter().any(|sequence| sequence.ids.contains(&id));
        assert!(!has(DOG), "a bug");
        if has(CAT) {
            return Err(EngineError::execution("out of luck"));
        }
        outputs[0].data[0] = if has(50) { f32::NAN } else { 1.0 };
        Ok(())
    });
    let server = Running::interfered(config(), interfere);
    let openai = r#"{"input": [50]}"#;
    let answers = [
        server.post("/", r#"{"inputs": "dog"}"#),
        server.post("/", r#"{"inputs": "cat"}"#),
        server.post("/v1/embeddings", openai),
        server.post("/v1/embeddings", r#"{"input": "dog"}"#),
    ];
    insta::assert_snapshot!(answers.map(|answer| answer.line()).join("\n"));
    assert_eq!(server.post("/", r#"{"inputs": "the mat"}"#).status, 200);
    assert_eq!(server.metric("te_request_failure{err=\"engine\"}"), 4.0);
    server.end().unwrap();
}

#[test]
fn what_is_in_flight_is_finished_before_the_end() {
    let (gate, interfere) = Gate::new();
    let mut server = Running::interfered(config(), interfere);
    let mut idle = server.connect();
    let running = begin(&server, &cats(3 * CATS_PER_BATCH));
    gate.batch();
    let queued = begin(&server, &cats(1));
    server.await_queue(2);
    server.stop();
    while TcpStream::connect(server.address).is_ok() {}
    assert!(idle.response().is_none());
    drop(gate);
    assert_eq!(answer(running).status, 200);
    assert_eq!(answer(queued).status, 200);
    server.end().unwrap();
}

#[test]
fn what_takes_too_long_is_cut_at_the_end() {
    let (gate, interfere) = Gate::new();
    let config = Config { drain_timeout: Duration::from_millis(50), ..config() };
    let mut server = Running::interfered(config, interfere);
    let mut running = begin(&server, &cats(1));
    gate.batch();
    server.stop();
    assert!(running.response().is_none());
    drop(gate);
    server.end().unwrap();
}

#[test]
fn connections_are_bounded() {
    let server = Running::new(Config { max_connections: 2, ..config() }, vec![tiny::embedder(true)]);
    let mut first = server.connect();
    assert_eq!(first.request("GET", "/health", &[], b"").status, 200);
    let mut second = server.connect();
    assert_eq!(second.request("GET", "/health", &[], b"").status, 200);
    let mut third = server.connect();
    third.begin("GET", "/health", &[], b"");
    let waiting = spawn(move || third.response().unwrap().status);
    assert_eq!(first.request("GET", "/health", &[], b"").status, 200);
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(waiting.join().unwrap(), 200);
}
