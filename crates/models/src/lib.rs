//! From a checkpoint folder to a plain [`Graph`](centuple_graph::Graph).
//!
//! [`checkpoint`] reads files, `families` say how an architecture's layers are wired and its weights named (one file
//! each), `blocks` hold the parts that families share, and `heads` attach a task to any family's encoder. A family emits
//! only the plain graph: fusion, precision and device come later and elsewhere.

mod blocks;
mod builder;
mod catalog;
pub mod checkpoint;
mod config;
mod error;
mod families;
mod foreign;
mod gguf;
mod heads;
mod load;

pub use catalog::{Architecture, architectures};
pub use error::ModelError;
pub use foreign::{Foreign, adopt};
pub use gguf::{generation_config_of_gguf, load_gguf};
pub use heads::{Head, Problem};
pub use load::{Description, Model, Purpose, load};
