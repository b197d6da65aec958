//! The real binary under hostile clients, too much load, and death: what it promises in `docs/robustness.md`.
//!
//! Nothing here asserts on time; limits only keep a hanging test from hanging for ever. Figures are printed.

// The modules of the other tests have more than is used here.
#[allow(dead_code)]
#[path = "../end_to_end/http.rs"]
mod http;
#[allow(dead_code)]
#[path = "../end_to_end/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../end_to_end/tiny.rs"]
mod tiny;

mod balancer;
mod connection;
mod drain;
mod generation;
mod grpc;
mod hostile;
mod overload;
mod random;
mod soak;
mod traffic;
mod vitals;
