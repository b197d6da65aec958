//! CPU kernels: slices and views in, slices and views out.
//!
//! Nothing here knows graphs, models or plans. [`Kernels`] is a token for an instruction set that the
//! CPU was checked to have; its methods compute on the calling thread, on rows or panels that the caller
//! chose. [`ThreadPool`] runs one closure on several threads with barriers inside. Every safe function
//! checks the shapes it is given; results are bit-identical however work is split.
//!
//! - matrices: [`Matrix`], [`MatrixMut`], [`row_stride`]; packed weights: [`PackedMatrix`], [`pack()`]
//! - f16-stored weights with f32 arithmetic: [`PackedHalf`], [`pack_half`], [`Kernels::gemm_half`]
//! - fused kernels: [`Kernels::gemm`], [`Kernels::attention`], [`Kernels::layer_norm`],
//!   [`Kernels::activate`], [`Kernels::softmax`], [`embed`], [`pool`], [`l2_normalize`]
//! - int8: [`Int8Weight`], [`pack_int8`] and [`PackedInt8`] for weights; [`Kernels::quantize_rows`],
//!   [`Kernels::layer_norm_quantize`] and [`QuantizedRows`] for activations; [`Kernels::gemm_int8`];
//!   [`pack_table`] and [`Int8Table`] for embeddings
//! - n-dimensional building blocks for graphs that no fused kernel fits: [`primitive`]
//! - threads: [`ThreadPool`], [`Worker`], [`CpuBudget`]

mod activation;
mod attention;
pub mod ceiling;
mod cpus;
mod dispatch;
mod embedding;
mod error;
mod gemm;
mod int8;
mod isa;
mod matrix;
mod norm;
mod pack;
mod pooling;
pub mod primitive;
mod simd;
mod softmax;
mod thread_pool;
mod tile;

pub use activation::Activation;
pub use attention::{AttentionBlock, KeyRun, attention_scratch};
pub use cpus::{CpuBudget, default_threads};
pub use dispatch::Kernels;
pub use embedding::{EmbeddingTable, Table, embed};
pub use error::KernelError;
pub use gemm::Epilogue;
pub use int8::{
    ActivationBits, Int8Table, Int8Weight, PackedInt8, Quantization, QuantizedRows, QuantizedRowsMut, check_overflow,
    int8_table_columns, pack_int8, pack_table, packed_int8_len, quantized_columns,
};
pub use isa::Isa;
pub use matrix::{Matrix, MatrixMut, row_stride};
pub use norm::{LayerNorm, l2_normalize};
pub use pack::{PANEL, PackedHalf, PackedMatrix, pack, pack_half, pack_right, packed_half_len, packed_len, panels};
pub use pooling::{Pooling, pool};
pub use thread_pool::{ThreadPool, Worker, share};
