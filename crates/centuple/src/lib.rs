//! Centuple for Rust users: a model folder or hub id becomes something that answers.
//!
//! ```no_run
//! use centuple::{Host, LoadOptions, tasks};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::new(&Default::default())?;
//! let mut loaded = host.load("sentence-transformers/all-MiniLM-L6-v2", &LoadOptions::default())?;
//! let body = br#"{"inputs": "A happy person"}"#;
//! let request = tasks::Request::parse(tasks::Task::FeatureExtraction, body)?;
//! let job = tasks::Job::prepare(&loaded.model, request)?;
//! let reply = job.run(&loaded.model, &mut loaded.engine)?;
//! println!("{}", String::from_utf8(reply.to_json())?);
//! # Ok(())
//! # }
//! ```
//!
//! Loading is: resolve the name → read the checkpoint → build the plain graph → passes → plan → session. Each step is
//! a crate of its own; this one only puts them in a row.

mod apart;
mod artefact;
mod calibrate;
mod cuda;
mod device;
mod device_engine;
mod engine;
mod error;
pub mod evaluate;
pub mod export;
mod fastest;
mod generate;
mod gguf;
mod host;
mod load;
mod onnx;
pub mod optimize;
mod options;
mod precision;
mod rounding;
mod runs;
pub mod timing;

pub use centuple_generate as generation;
pub use centuple_kernels as kernels;
pub use centuple_models::checkpoint::hub;
pub use centuple_receipt as receipt;
pub use centuple_tasks as tasks;

pub use artefact::{Artefact, ArtefactError, Manifest, Origin};
pub use centuple_models::Purpose;
pub use centuple_passes::{LayerPrecision, Quantization, Report as PassReport, quantizable_layers};
pub use centuple_runtime::Memory;
pub use cuda::{CudaEngine, CudaSteps, Gpu};
pub use device::{CudaFiles, Device};
pub use device_engine::{DeviceEngine, DeviceSteps};
pub use engine::PlanEngine;
pub use error::Error;
pub use fastest::{Choice, Latency};
pub use generate::{Generating, GenerationOptions, PlanSteps};
pub use host::{Host, HostOptions};
pub use load::{Compiled, Loaded, is_model};
pub use options::LoadOptions;
pub use precision::{INT4_GROUP, Precision};
