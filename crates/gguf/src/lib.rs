//! GGUF files: what llama.cpp and its kin keep a model in, as one file with metadata, tokenizer and tensors.
//!
//! A [`Header`] is everything before the tensors' bytes: [`Metadata`] by key, and for each tensor its shape, its type and where
//! its bytes lie. [`TensorType::dequantize`] turns those into f32. Nothing here knows an architecture or a tokenizer.
//!
//! A file is untrusted. Whatever its bytes are, reading them gives a value or a [`GgufError`]; what it claims is compared with how
//! many bytes there are before any memory is taken for it, so a header takes at most a small multiple of the file's own size.

mod error;
mod header;
mod metadata;
mod quants;
mod reader;
mod tensor_type;

pub use error::GgufError;
pub use header::{Header, TensorInfo};
pub use metadata::{List, Metadata, Value};
pub use tensor_type::TensorType;
