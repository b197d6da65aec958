//! How a server starts that has models to load.

use std::thread;

use centuple_serve::{ModelOptions, Origin, ServeError, Source};

use super::{
    answered, begin, serve,
    shelf::{Shelf, source},
    states,
};

fn named(name: &str) -> Source {
    Source { origin: Origin::Named, ..source(name, 1, 5) }
}

#[test]
fn it_is_ready_once_what_was_named_is_loaded() {
    let shelf = Shelf::of([named("a"), source("b", 1, 1)]);
    let hold = shelf.hold_loads();
    let server = serve(&shelf, ModelOptions::default());
    shelf.await_loads(1);
    let health = ["/health", "/ping", "/v2/health/ready", "/v2/health/live", "/v2/models/a/ready"];
    assert_eq!(health.map(|path| server.get(path).status), [503, 503, 400, 200, 400]);
    assert_eq!(server.get("/v2/health/ready").body, r#"{"ready":false}"#);
    let mut waiting = begin(&server, "a");
    drop(hold);
    assert_eq!(answered(&waiting.response().unwrap()), 5);
    while server.get("/health").status != 200 {}
    assert_eq!(health.map(|path| server.get(path).status), [200; 5]);
    assert_eq!(states(&server), ["a:1 READY", "b:1 UNAVAILABLE"]);
}

#[test]
fn it_ends_if_what_was_named_is_broken() {
    let shelf = Shelf::of([named("a"), named("b")]);
    shelf.spoil("b", Some("no weights"));
    let error = serve(&shelf, ModelOptions::default()).end_by_itself().unwrap_err();
    assert!(matches!(&error, ServeError::Load { name, .. } if name == "b"), "{error}");
    assert!(error.to_string().contains("no weights"), "{error}");
    shelf.await_engines(0);
}

#[test]
fn it_can_be_stopped_while_it_loads() {
    let shelf = Shelf::of([named("a")]);
    let hold = shelf.hold_loads();
    let server = serve(&shelf, ModelOptions::default());
    shelf.await_loads(1);
    server.end().unwrap();
    drop(hold);
    shelf.await_engines(0);
}

#[test]
fn with_little_memory_as_many_are_loaded_as_fit() {
    let shelf = Shelf::of(["a", "b", "c"].map(named));
    let server = serve(&shelf, ModelOptions { max_memory: Some(25), ..ModelOptions::default() });
    while server.get("/health").status != 200 {
        thread::yield_now();
    }
    assert_eq!(states(&server), ["a:1 READY", "b:1 READY", "c:1 UNAVAILABLE"]);
    assert_eq!(answered(&begin(&server, "c").response().unwrap()), 5);
    assert_eq!(states(&server), ["a:1 UNAVAILABLE", "b:1 READY", "c:1 READY"]);
}
