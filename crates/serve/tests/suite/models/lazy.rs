//! Models that are loaded when they are first asked for.

use std::time::Duration;

use centuple_serve::{ModelOptions, Origin, Source};

use super::{
    answered, ask, begin, serve,
    shelf::{Shelf, source},
    states,
};

#[test]
fn many_requests_for_one_model_are_held_for_one_load() {
    let shelf = Shelf::of([source("a", 1, 3), source("b", 1, 4)]);
    let server = serve(&shelf, ModelOptions::default());
    let hold = shelf.hold_loads();
    let clients: Vec<_> = (0..20).map(|_| begin(&server, "a")).collect();
    shelf.await_loads(1);
    assert_eq!(states(&server), ["a:1 LOADING", "b:1 UNAVAILABLE"]);
    // Who needs no model is not held up.
    while server.get("/health").status != 200 {}
    drop(hold);
    for mut client in clients {
        assert_eq!(answered(&client.response().unwrap()), 3);
    }
    assert_eq!(shelf.loads(), ["a:1"]);
    assert_eq!(answered(&ask(&server, "b")), 4);
    assert_eq!(states(&server), ["a:1 READY", "b:1 READY"]);
    assert_eq!(server.metric("te_model_loads{model=\"a\"}"), 1.0);
    server.end().unwrap();
    assert_eq!(shelf.engines(), 0);
}

#[test]
fn every_route_waits_for_its_model() {
    let requests = [
        ("/", r#"{"inputs": "cat"}"#),
        ("/models/a/pipeline/feature-extraction", r#"{"inputs": "cat"}"#),
        ("/v1/embeddings", r#"{"input": "cat", "model": "a"}"#),
        ("/embed", r#"{"inputs": "cat"}"#),
        ("/similarity", r#"{"inputs": {"source_sentence": "cat", "sentences": ["dog"]}}"#),
        ("/tokenize", r#"{"inputs": "cat"}"#),
        ("/v2/models/a/infer", r#"{"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["cat"]}]}"#),
    ];
    for (path, body) in requests {
        let shelf = Shelf::of([source("a", 1, 3)]);
        let server = serve(&shelf, ModelOptions::default());
        let answer = server.post(path, body);
        assert_eq!((answer.status, shelf.loads().len()), (200, 1), "{path}: {}", answer.body);
    }
    for (path, status) in [("/v2/models/a", 200), ("/v2/models/a/config", 200), ("/report", 404)] {
        let shelf = Shelf::of([source("a", 1, 3)]);
        let server = serve(&shelf, ModelOptions::default());
        assert_eq!((server.get(path).status, shelf.loads().len()), (status, 1), "{path}");
    }
    let shelf = Shelf::of([source("a", 1, 3)]);
    let server = serve(&shelf, ModelOptions::default());
    for path in ["/info", "/v1/models", "/v1/models/a", "/v2/models/a/stats", "/metrics"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(server.get("/v2/models/a/ready").status, 400);
    assert!(shelf.loads().is_empty());
}

#[test]
fn who_fails_to_load_is_not_tried_at_each_request() {
    let shelf = Shelf::of([source("a", 1, 3)]);
    shelf.spoil("a", Some("config.json is no JSON"));
    let server = serve(&shelf, ModelOptions { retry_pause: Duration::from_secs(3600), ..ModelOptions::default() });
    for _ in 0..3 {
        let answer = ask(&server, "a");
        assert_eq!(
            answer.line(),
            r#"500 {"error":"model `a` could not be loaded: config.json is no JSON","error_type":"Backend"}"#
        );
    }
    assert_eq!(server.metric("te_model_load_failures{model=\"a\"}"), 1.0);
    assert_eq!(shelf.loads().len(), 1);

    let shelf = Shelf::of([source("a", 1, 3)]);
    shelf.spoil("a", Some("panic"));
    let server = serve(&shelf, ModelOptions { retry_pause: Duration::ZERO, ..ModelOptions::default() });
    assert!(ask(&server, "a").body.contains("a bug in the loader"));
    shelf.spoil("a", None);
    assert_eq!(answered(&ask(&server, "a")), 3);
}

#[test]
fn a_load_that_takes_too_long_is_not_waited_for() {
    let shelf = Shelf::of([source("a", 1, 3)]);
    let server = serve(&shelf, ModelOptions { load_timeout: Duration::from_millis(30), ..ModelOptions::default() });
    let hold = shelf.hold_loads();
    assert_eq!(ask(&server, "a").status, 408);
    drop(hold);
    shelf.await_engines(1);
    super::await_state(&server, "a:1 READY");
    assert_eq!(answered(&ask(&server, "a")), 3);
    assert_eq!(shelf.loads().len(), 1);
}

#[test]
fn a_server_may_have_no_model_yet() {
    let shelf = Shelf::of([]);
    let server = serve(&shelf, ModelOptions::default());
    while server.get("/v2/health/ready").status != 200 {}
    assert!(server.post("/", r#"{"inputs": "cat"}"#).body.contains("no model is served here yet"));
    assert!(ask(&server, "a").body.contains("no model is"));
    assert_eq!(server.get("/info").json()["models"].as_array().unwrap().len(), 0);
}

#[test]
fn models_of_one_task_are_told_apart_once_loaded() {
    let named = |name| Source { origin: Origin::Named, ..source(name, 1, 7) };
    let shelf = Shelf::of([named("a"), source("b", 1, 8)]);
    let server = serve(&shelf, ModelOptions::default());
    super::await_state(&server, "a:1 READY");
    assert_eq!(server.post("/embed", r#"{"inputs": "cat"}"#).status, 200);
    assert_eq!(answered(&ask(&server, "b")), 8);
    assert_eq!(server.post("/embed", r#"{"inputs": "cat"}"#).status, 404);
}
