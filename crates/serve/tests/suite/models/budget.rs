//! Models that make room for others.

use std::{thread, time::Duration};

use centuple_serve::{ModelOptions, Source};

use super::{
    BODY, answered, ask, begin, serve,
    shelf::{Shelf, source},
    states,
};

fn sized(name: &str, bytes: u64) -> Source {
    Source { bytes, ..source(name, 1, bytes) }
}

fn limited(bytes: u64) -> ModelOptions {
    ModelOptions { max_memory: Some(bytes), control: true, ..ModelOptions::default() }
}

fn ready(states: Vec<String>) -> String {
    let ready = states.iter().filter_map(|state| state.strip_suffix(":1 READY"));
    ready.collect::<Vec<_>>().join(" ")
}

#[test]
fn those_go_that_were_not_used_for_longest() {
    let shelf = Shelf::of(["a", "b", "c", "d"].map(|name| sized(name, 40)));
    let server = serve(&shelf, limited(100));
    for (name, expected) in
        [("a", "a"), ("b", "a b"), ("a", "a b"), ("c", "a c"), ("d", "c d"), ("c", "c d"), ("b", "b c")]
    {
        assert_eq!(answered(&ask(&server, name)), 40);
        assert_eq!(ready(states(&server)), expected, "after {name}");
        assert!(shelf.engines() <= 2);
    }
    assert_eq!(server.metric("te_model_ready"), 2.0);
    server.await_metric("te_model_memory_bytes", 80.0);
    assert_eq!(shelf.loads(), ["a:1", "b:1", "c:1", "d:1", "b:1"]);
}

#[test]
fn what_can_not_fit_is_told_with_its_sizes() {
    let shelf = Shelf::of([sized("small", 60), sized("large", 3 << 20)]);
    let server = serve(&shelf, limited(2 << 20));
    assert_eq!(answered(&ask(&server, "small")), 60);
    let refused = ask(&server, "large");
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("it takes 3.0 MiB, and all models together may take 2.0 MiB"), "{}", refused.body);
    assert_eq!(ready(states(&server)), "small");
    assert_eq!(shelf.loads(), ["small:1"]);
    // A replacement must fit beside what it replaces.
    shelf.put(Source { fingerprint: 9, ..sized("small", 3 << 19) });
    assert_eq!(server.post("/v2/repository/models/small/load", "").status, 200);
    let refused = server.post("/v2/repository/models/small/load", "");
    assert!(refused.body.contains("1.5 MiB beside the 1.5 MiB of the one that it is to replace"), "{}", refused.body);
    assert_eq!(answered(&ask(&server, "small")), 9);
}

/// With room for one, each request for one of two models throws the other one out; all are answered.
#[test]
fn models_that_take_turns_answer_everybody() {
    let shelf = Shelf::of([sized("a", 60), sized("b", 70)]);
    let server = serve(&shelf, limited(100));
    thread::scope(|scope| {
        for client in 0..6 {
            let server = &server;
            scope.spawn(move || {
                let mut connection = server.connect();
                for round in 0..12 {
                    let (name, expected) = [("a", 60), ("b", 70)][(client + round) % 2];
                    let answer = connection.request("POST", &format!("/models/{name}"), &[], BODY.as_bytes());
                    assert_eq!(answered(&answer), expected);
                }
            });
        }
    });
    assert!(shelf.loads().len() >= 2);
    shelf.await_engines(1);
}

#[test]
fn requests_in_flight_are_finished_before_their_model_goes() {
    let shelf = Shelf::of([sized("a", 60), sized("b", 70)]);
    let server = serve(&shelf, limited(100));
    assert_eq!(answered(&ask(&server, "a")), 60);
    let hold = shelf.hold_engines();
    let mut first = begin(&server, "a");
    while server.metric("te_batch_next_size_count{model=\"a\"}") < 2.0 {
        thread::yield_now();
    }
    let mut second = begin(&server, "b");
    super::await_state(&server, "a:1 UNLOADING");
    assert_eq!(shelf.engines(), 1);
    // One that comes now waits until there is room again.
    let mut third = begin(&server, "a");
    thread::sleep(Duration::from_millis(20));
    drop(hold);
    assert_eq!(answered(&first.response().unwrap()), 60);
    assert_eq!(answered(&second.response().unwrap()), 70);
    assert_eq!(answered(&third.response().unwrap()), 60);
}
