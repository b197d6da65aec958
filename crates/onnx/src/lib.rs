//! ONNX files: reading them into a graph of primitive ops, and writing graphs as them.

mod error;
pub mod export;
mod file;
pub mod import;
pub mod proto;

pub use error::OnnxError;
pub use file::File;
