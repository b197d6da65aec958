//! Clients that load and unload.

use std::thread;

use centuple_serve::ModelOptions;

use super::{
    BODY, answered, ask, await_state, begin, serve,
    shelf::{Shelf, source},
};

fn controlled() -> ModelOptions {
    ModelOptions { control: true, ..ModelOptions::default() }
}

#[test]
fn clients_may_not_control_models_unless_they_are_let() {
    let shelf = Shelf::of([source("a", 1, 1)]);
    let server = serve(&shelf, ModelOptions::default());
    for verb in ["load", "unload"] {
        let refused = server.post(&format!("/v2/repository/models/a/{verb}"), "");
        assert_eq!(refused.status, 501);
        assert!(refused.body.contains("--model-control"), "{}", refused.body);
    }
    assert!(shelf.loads().is_empty());
}

#[test]
fn what_a_client_unloads_stays_unloaded() {
    let shelf = Shelf::of([source("org/a", 1, 1)]);
    let server = serve(&shelf, controlled());
    assert_eq!(
        server.post("/v2/repository/models/org/a/load", r#"{"parameters": {"unload_dependents": true}}"#).body,
        "{}"
    );
    assert_eq!(server.get("/v2/models/org/a/ready").json()["ready"], true);
    assert_eq!(server.post("/v2/repository/models/org%2Fa/unload", "").status, 200);
    shelf.await_engines(0);
    assert_eq!(server.get("/v2/models/org/a/ready").status, 400);
    let refused = ask(&server, "org/a");
    assert_eq!(refused.status, 404);
    assert!(refused.body.contains("was unloaded; POST /v2/repository/models/org/a/load"), "{}", refused.body);
    assert_eq!(server.post("/v2/repository/index", r#"{"ready": true}"#).json().as_array().unwrap().len(), 0);
    assert_eq!(server.post("/v2/repository/models/org/a/load", "{}").status, 200);
    assert_eq!(answered(&ask(&server, "org/a")), 1);
    assert_eq!(server.post("/v2/repository/index", r#"{"ready": true}"#).json().as_array().unwrap().len(), 1);
}

#[test]
fn only_what_is_there_can_be_loaded_and_as_it_is() {
    let shelf = Shelf::of([source("a", 1, 1)]);
    let server = serve(&shelf, controlled());
    for (path, body, status) in [
        ("b/load", "", 404),
        ("b/unload", "", 404),
        ("../a/load", "", 404),
        ("%2Fetc/load", "", 404),
        ("a", "", 404),
        ("a/load", "[", 400),
        ("a/load", r#"{"parameters": {"config": "{}"}}"#, 400),
        ("a/load", r#"{"parameters": {"file:1/model.onnx": "AAAA"}}"#, 400),
    ] {
        let answer = server.post(&format!("/v2/repository/models/{path}"), body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
    }
    assert_eq!(server.post("/v2/repository/index", "7").status, 400);
    assert!(shelf.loads().is_empty());
    // What was put there just now is found.
    shelf.put(source("b", 1, 2));
    assert_eq!(server.post("/v2/repository/models/b/load", "").status, 200);
    assert_eq!(answered(&ask(&server, "b")), 2);
}

#[test]
fn an_unload_waits_for_the_load_before_it() {
    let shelf = Shelf::of([source("a", 1, 1)]);
    let server = serve(&shelf, controlled());
    let hold = shelf.hold_loads();
    let mut waiting = begin(&server, "a");
    shelf.await_loads(1);
    thread::scope(|scope| {
        let unload = scope.spawn(|| server.post("/v2/repository/models/a/unload", "").status);
        await_state(&server, "a:1 LOADING");
        drop(hold);
        assert_eq!(unload.join().unwrap(), 200);
    });
    // Who has waited is answered, whatever came after.
    assert_eq!(answered(&waiting.response().unwrap()), 1);
    await_state(&server, "a:1 UNAVAILABLE");
    assert_eq!(shelf.engines(), 0);
}

/// Everybody loads, unloads and asks at once. A request is answered, or told that its model is unloaded.
#[test]
fn loads_and_unloads_may_come_in_any_order() {
    let shelf = Shelf::of([source("a", 1, 1)]);
    let server = serve(&shelf, controlled());
    thread::scope(|scope| {
        for verb in ["load", "unload"] {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..40 {
                    assert_eq!(server.post(&format!("/v2/repository/models/a/{verb}"), "").status, 200);
                }
            });
        }
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = server.connect();
                for _ in 0..100 {
                    let answer = connection.request("POST", "/models/a", &[], BODY.as_bytes());
                    assert!(answer.status == 200 || answer.body.contains("was unloaded"), "{}", answer.body);
                }
            });
        }
    });
    assert_eq!(server.post("/v2/repository/models/a/load", "").status, 200);
    assert_eq!(answered(&ask(&server, "a")), 1);
    shelf.await_engines(1);
    server.end().unwrap();
    assert_eq!(shelf.engines(), 0);
}
