//! Data types, symbolic dimensions, aligned buffers and the packed-batch [`Layout`].
//!
//! This crate is the vocabulary of every other one. It computes nothing: evaluation lives in
//! `reference` and `kernels`.

mod buffer;
mod dim;
mod dtype;
mod layout;
mod tensor;

pub use buffer::Buffer;
pub use dim::{Bindings, Dim, ParseDimError, Shape, Symbol, shape_of};
pub use dtype::DType;
pub use layout::{Layout, LayoutError, PAGE_TOKENS, Source, Span};
pub use tensor::{Bytes, Tensor, TensorError};
