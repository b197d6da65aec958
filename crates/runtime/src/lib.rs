//! From a graph to numbers: [`lower()`] makes a flat [`Plan`], a [`Session`] runs it.
//!
//! A plan is data: a list of stages (kernel, weights, views) in phases, and the memory each value gets. A session owns
//! that memory and a pool of threads. After warm-up a run allocates nothing and takes no lock. Nothing above this crate
//! knows which kernels or which device did the work.

mod attend;
mod compute;
mod error;
mod ids;
mod kv_cache;
mod lower;
mod memory;
mod plan;
mod pooled;
mod primitive;
mod progress;
mod session;
mod shared;
mod steps;
mod store;
mod views;
mod weights;

pub use centuple_kernels::KvPrecision;
pub use error::RuntimeError;
pub use kv_cache::{CacheSlot, KvCache};
pub use lower::{lower, lower_stored, restore};
pub use plan::Plan;
pub use session::{Batch, InputData, Memory, OutputRows, Session};
pub use store::WeightStore;
