//! Models that come and go while the server runs.

mod shelf;

mod budget;
mod control;
mod grpc;
mod lazy;
mod reload;
mod repository;
mod start;

use std::{sync::Arc, time::Duration};

use centuple_serve::{Config, ModelOptions, Reload};
use serde_json::Value;

use self::shelf::Shelf;
use crate::harness::{Client, Response, Running};

const BODY: &str = r#"{"inputs": "cat"}"#;

/// A configuration with these options for models.
fn config(models: ModelOptions) -> Config {
    Config { models, ..crate::harness::config() }
}

/// A server of what a shelf has.
fn serve(shelf: &Arc<Shelf>, models: ModelOptions) -> Running {
    serve_reloading(shelf, models).0
}

fn serve_reloading(shelf: &Arc<Shelf>, models: ModelOptions) -> (Running, Reload) {
    Running::with_loader(config(models), Arc::clone(shelf) as _)
}

/// Asks a model.
fn ask(server: &Running, name: &str) -> Response {
    server.post(&format!("/models/{name}"), BODY)
}

/// Asks a model, without waiting for the answer.
fn begin(server: &Running, name: &str) -> Client {
    let mut client = server.connect();
    client.begin("POST", &format!("/models/{name}"), &[], BODY.as_bytes());
    client
}

/// The fingerprint of the model that has answered.
fn answered(response: &Response) -> u64 {
    assert_eq!(response.status, 200, "{}", response.body);
    let value = response.json()[0].as_f64().expect("a number");
    value as u64
}

/// The state of each version, as `name:version`.
fn states(server: &Running) -> Vec<String> {
    let index = server.post("/v2/repository/index", "").json();
    let state = |entry: &Value| {
        let part = |name: &str| entry[name].as_str().expect("a text").to_owned();
        format!("{}:{} {}", part("name"), part("version"), part("state"))
    };
    index.as_array().expect("a list").iter().map(state).collect()
}

/// Waits for a state of a model.
fn await_state(server: &Running, state: &str) {
    while !states(server).iter().any(|other| other == state) {
        std::thread::sleep(Duration::from_millis(2));
    }
}
