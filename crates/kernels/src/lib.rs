//! CPU kernels: slices and views in, slices and views out.
//!
//! Nothing here knows graphs, models or plans. [`Kernels`] is a token for an instruction set that the
//! CPU was checked to have; its methods compute on the calling thread, on rows or panels that the caller
//! chose. [`ThreadPool`] runs one closure on several threads with barriers inside. Every safe function
//! checks the shapes it is given; results are bit-identical however work is split.
//!
//! - matrices: [`Matrix`], [`MatrixMut`], [`row_stride`]; packed weights: [`PackedMatrix`], [`pack()`]
//! - f16-stored weights with f32 arithmetic: [`PackedHalf`], [`pack_half`], [`Kernels::gemm_half`]
//! - keys and values of earlier tokens: [`KvForm`] stores them in pages, [`PagedKeys`] reads them,
//!   [`Kernels::attend_token`] attends to them
//! - fused kernels: [`Kernels::gemm`], [`Kernels::attention`], [`Kernels::layer_norm`],
//!   [`Kernels::rms_norm`], [`Kernels::gate`], [`Kernels::combine`], [`Kernels::rotary`], [`Kernels::activate`],
//!   [`Kernels::softmax`], [`Kernels::peak`], [`embed`], [`pool`], [`maximum`], [`l2_normalize`]
//! - int8: [`Int8Weight`], [`pack_int8`] and [`PackedInt8`] for weights; [`Kernels::quantize_rows`],
//!   [`Kernels::layer_norm_quantize`], [`Kernels::rms_norm_quantize`], [`Kernels::gate_quantize`] and
//!   [`QuantizedRows`] for activations; [`Kernels::gemm_int8`];
//!   [`pack_table`] and [`Int8Table`] for embeddings
//! - 4-bit weights in groups: [`Int4Weight`], [`pack_int4`] and [`PackedInt4`]; activations are [`QuantizedRows`] in
//!   [`RowCodes::Groups`]; [`Kernels::gemm_int4`]
//! - n-dimensional building blocks for graphs that no fused kernel fits: [`primitive`]
//! - weights that are wanted soon: [`prefetch`]; plain loops, vectorised for this CPU: [`vectorise()`]
//! - threads: [`ThreadPool`], [`Worker`], [`CpuBudget`]

mod activation;
mod attention;
pub mod ceiling;
mod combine;
mod cpus;
mod dispatch;
mod embedding;
mod error;
mod gate;
mod gemm;
mod int4;
mod int8;
mod isa;
mod matrix;
mod norm;
mod pack;
mod peak;
mod pooling;
mod prefetch;
pub mod primitive;
mod rotary;
mod rows;
mod simd;
mod softmax;
mod thread_pool;
mod tile;
mod vectorise;

pub use activation::Activation;
pub use attention::{
    AttentionBlock, KeyRun, KvForm, KvPage, KvPrecision, PagedKeys, PositionScores, TokenAttention, attention_scratch,
};
pub use combine::RowOperand;
pub use cpus::{CpuBudget, default_threads};
pub use dispatch::Kernels;
pub use embedding::{EmbeddingTable, Table, embed};
pub use error::KernelError;
pub use gate::Gate;
pub use gemm::Epilogue;
pub use int4::{Int4Weight, PackedInt4, UnpackedInt4, pack_int4, packed_int4_len, unpack_int4};
pub use int8::{
    ActivationBits, Int8Table, Int8Weight, PackedInt8, Quantization, QuantizedRows, QuantizedRowsMut, RowCodes,
    check_overflow, int8_table_columns, pack_int8, pack_table, packed_int8_len, quantized_columns, unpack_int8,
    unpack_table,
};
pub use isa::Isa;
pub use matrix::{Matrix, MatrixMut, row_stride};
pub use norm::{LayerNorm, RmsNorm, l2_normalize};
pub use pack::{
    PANEL, PackedHalf, PackedMatrix, pack, pack_half, pack_right, packed_half_len, packed_len, panels, unpack,
};
pub use peak::Peak;
pub use pooling::{Pooling, maximum, pool};
pub use prefetch::{prefetch, prefetch_to_write};
pub use rotary::Rotary;
pub use thread_pool::{ThreadPool, Worker, share};
pub use vectorise::vectorise;
