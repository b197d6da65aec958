//! Models that are loaded anew under load.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};

use centuple_serve::ModelOptions;

use super::{
    BODY, answered, ask, await_state, serve, serve_reloading,
    shelf::{Shelf, source},
};

const CONTROL: ModelOptions = ModelOptions { control: true, ..unlimited() };

const fn unlimited() -> ModelOptions {
    ModelOptions {
        max_memory: None,
        load_timeout: std::time::Duration::from_secs(300),
        retry_pause: std::time::Duration::from_secs(5),
        watch: None,
        control: false,
    }
}

/// Threads of this process that compute for a model.
#[cfg(target_os = "linux")]
fn batchers(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|comm| comm.trim_end() == format!("batcher {name}")).count()
}

#[test]
fn no_request_fails_while_models_are_loaded_anew() {
    const RELOADS: u64 = 60;
    let shelf = Shelf::of([source("storm", 1, 0)]);
    let server = serve(&shelf, CONTROL);
    let (done, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut connection = server.connect();
                let mut last = 0;
                while !done.load(SeqCst) {
                    let answer = connection.request("POST", "/models/storm", &[], BODY.as_bytes());
                    let value = answered(&answer);
                    assert!(value >= last, "{value} after {last}");
                    last = value;
                    answers.fetch_add(1, SeqCst);
                }
            });
        }
        for round in 1..=RELOADS {
            // Each round meets requests in every stage.
            let before = answers.load(SeqCst);
            while answers.load(SeqCst) < before + 5 {
                thread::yield_now();
            }
            shelf.put(source("storm", 1, round));
            let reloaded = server.post("/v2/repository/models/storm/load", "");
            assert_eq!(reloaded.status, 200, "{}", reloaded.body);
        }
        done.store(true, SeqCst);
    });
    assert_eq!(answered(&ask(&server, "storm")), RELOADS);
    // What was replaced is gone, its threads too.
    shelf.await_engines(1);
    #[cfg(target_os = "linux")]
    while batchers("storm") != 1 {
        thread::yield_now();
    }
    assert_eq!(server.metric("te_request_failure"), 0.0);
    let statistics = server.get("/v2/models/storm/stats").json();
    assert!(statistics["model_stats"][0]["inference_stats"]["success"]["count"].as_u64().unwrap() > 5 * RELOADS);
    server.end().unwrap();
    assert_eq!(shelf.engines(), 0);
}

#[test]
fn what_was_replaced_finishes_what_it_has() {
    let shelf = Shelf::of([source("a", 1, 1)]);
    let (server, reload) = serve_reloading(&shelf, ModelOptions::default());
    assert_eq!(answered(&ask(&server, "a")), 1);
    let hold = shelf.hold_engines();
    let mut old = super::begin(&server, "a");
    server.await_queue(0);
    while server.metric("te_batch_next_size_count{model=\"a\"}") < 2.0 {
        thread::yield_now();
    }
    shelf.put(source("a", 1, 2));
    reload.now();
    server.await_metric("te_model_loads{model=\"a\"}", 2.0);
    let mut new = super::begin(&server, "a");
    drop(hold);
    assert_eq!((answered(&old.response().unwrap()), answered(&new.response().unwrap())), (1, 2));
    shelf.await_engines(1);
}

#[test]
fn a_failed_reload_leaves_the_old_one() {
    let shelf = Shelf::of([source("a", 1, 1)]);
    let server = serve(&shelf, CONTROL);
    assert_eq!(answered(&ask(&server, "a")), 1);
    shelf.put(source("a", 1, 2));
    shelf.spoil("a", Some("half a file"));
    let failed = server.post("/v2/repository/models/a/load", "");
    assert_eq!(failed.line(), r#"500 {"error":"model `a` could not be loaded: half a file"}"#);
    assert_eq!(answered(&ask(&server, "a")), 1);
    let index = server.post("/v2/repository/index", "").json();
    assert_eq!((index[0]["state"].as_str(), index[0]["reason"].as_str()), (Some("READY"), Some("half a file")));
    shelf.spoil("a", None);
    assert_eq!(server.post("/v2/repository/models/a/load", "{}").status, 200);
    assert_eq!(answered(&ask(&server, "a")), 2);
}

#[test]
fn a_hangup_loads_only_what_has_changed() {
    let shelf = Shelf::of([source("a", 1, 1), source("b", 1, 1)]);
    let (server, reload) = serve_reloading(&shelf, ModelOptions::default());
    assert_eq!((answered(&ask(&server, "a")), answered(&ask(&server, "b"))), (1, 1));
    shelf.put(source("b", 1, 2));
    shelf.put(source("c", 1, 3));
    reload.now();
    await_state(&server, "c:1 UNAVAILABLE");
    while answered(&ask(&server, "b")) != 2 {}
    assert_eq!(answered(&ask(&server, "a")), 1);
    assert_eq!(shelf.loads(), ["a:1", "b:1", "b:1"]);
}
