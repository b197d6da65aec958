//! The real binary, on tiny models: what it prints, answers, refuses and survives.
//!
//! Nothing here asserts on time; limits only keep a hanging test from hanging for ever.

mod bench;
mod broken_models;
mod chat;
mod clients;
mod dedupe;
mod device;
mod eval;
mod export;
mod generation;
mod generation_clients;
mod http;
mod inspect;
mod onnx;
mod operations;
mod optimize;
mod process;
mod pull;
mod repository;
mod run;
mod serve;
mod serve_hostile;
mod tiny;
mod usage;
mod without;
