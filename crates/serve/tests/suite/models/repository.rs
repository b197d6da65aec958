//! A repository whose models appear, change and go.

use std::time::Duration;

use centuple_serve::{ModelOptions, Origin, Source};

use super::{
    answered, ask, await_state, serve,
    shelf::{Shelf, source},
    states,
};

fn watching() -> ModelOptions {
    ModelOptions { watch: Some(Duration::from_millis(5)), ..ModelOptions::default() }
}

#[test]
fn what_changes_is_followed() {
    let shelf = Shelf::of([]);
    let server = serve(&shelf, watching());
    assert_eq!(ask(&server, "a").status, 404);
    shelf.put(source("a", 1, 1));
    await_state(&server, "a:1 UNAVAILABLE");
    assert_eq!(answered(&ask(&server, "a")), 1);
    shelf.put(source("a", 1, 2));
    while answered(&ask(&server, "a")) != 2 {}
    shelf.remove("a", 1);
    while ask(&server, "a").status != 404 {}
    shelf.await_engines(0);
    assert!(states(&server).is_empty());
}

#[test]
fn the_latest_version_is_meant() {
    let shelf = Shelf::of([source("a", 1, 1), source("a", 2, 2), source("a", 10, 10)]);
    let server = serve(&shelf, watching());
    assert_eq!(answered(&ask(&server, "a")), 10);
    let infer = r#"{"inputs": [{"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["cat"]}]}"#;
    for (path, version) in
        [("/v2/models/a", "10"), ("/v2/models/a/versions/2", "2"), ("/v2/models/a/versions/10", "10")]
    {
        let answer = server.post(&format!("{path}/infer"), infer).json();
        assert_eq!(answer["model_version"], version);
        assert_eq!(answer["outputs"][0]["data"][0].as_f64().unwrap().to_string(), version);
    }
    assert_eq!(server.get("/v2/models/a").json()["versions"], serde_json::json!(["1", "2", "10"]));
    assert_eq!(states(&server), ["a:1 UNAVAILABLE", "a:2 READY", "a:10 READY"]);
    let unknown = server.post("/v2/models/a/versions/3/infer", infer);
    assert_eq!(unknown.line(), r#"404 {"error":"model `a` has no version `3`; it has 1, 2, 10"}"#);
    assert_eq!(server.get("/v2/models/a/versions/2/ready").status, 200);
    assert_eq!(server.get("/v2/models/a/versions/1/ready").status, 400);
    assert_eq!(server.get("/v1/models").json()["data"].as_array().unwrap().len(), 1);
}

#[test]
fn a_broken_version_does_not_take_over() {
    let shelf = Shelf::of([source("a", 1, 1)]);
    let server = serve(&shelf, watching());
    assert_eq!(answered(&ask(&server, "a")), 1);
    shelf.spoil("a:2", Some("no weights"));
    shelf.put(source("a", 2, 2));
    await_state(&server, "a:2 UNAVAILABLE");
    while shelf.loads().len() < 2 {}
    assert_eq!(answered(&ask(&server, "a")), 1);
    let index = server.post("/v2/repository/index", "").json();
    while server.metric("te_model_load_failures{model=\"a\"}") < 1.0 {}
    assert_eq!(index[0]["state"], "READY");
    // It is repaired.
    shelf.spoil("a:2", None);
    shelf.put(source("a", 2, 3));
    while answered(&ask(&server, "a")) != 3 {}
    await_state(&server, "a:1 UNAVAILABLE");
    shelf.await_engines(1);
    // And taken back.
    shelf.remove("a", 2);
    while answered(&ask(&server, "a")) != 1 {}
    assert_eq!(shelf.loads(), ["a:1", "a:2", "a:2", "a:1"]);
}

#[test]
fn eager_models_are_loaded_as_they_appear() {
    let eager = |name, fingerprint| Source { origin: Origin::Found { eager: true }, ..source(name, 1, fingerprint) };
    let shelf = Shelf::of([eager("a", 1), eager("broken", 1)]);
    shelf.spoil("broken", Some("no weights"));
    let server = serve(&shelf, watching());
    await_state(&server, "a:1 READY");
    while server.get("/health").status != 200 {}
    shelf.put(eager("b", 2));
    await_state(&server, "b:1 READY");
    assert_eq!(states(&server), ["a:1 READY", "broken:1 UNAVAILABLE", "b:1 READY"]);
    assert_eq!(server.post("/v2/repository/index", "").json()[1]["reason"], "no weights");
}
