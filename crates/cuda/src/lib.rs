//! Kernels for NVIDIA GPUs, and what loads, compiles and runs them.
//!
//! Nothing of CUDA is needed to build this crate or to run its tests but NVRTC and nvdisasm from two Python packages;
//! libraries are loaded at run time, and a missing one is an error and no panic. `docs/cuda.md` says what was never run on
//! a GPU.

mod architecture;
mod cache;
pub mod contract;
mod device;
mod driver;
mod error;
mod launch;
mod library;
mod matmul;
mod nvrtc;
mod pack;
mod plan;
mod specialisation;
mod store;

pub use architecture::Architecture;
pub use cache::CubinCache;
pub use device::{Device, GraphId, Operation};
pub use driver::{CudaDevice, DeviceInfo, Driver};
pub use error::{CudaError, Result};
pub use launch::{
    Argument, AttentionOperands, BatchPointers, CachePointers, Capacity, CodePointers, Columns, ContentScores,
    DenseOperands, Distances, EpilogueOperands, Extent, GemmOperands, GroupedGemmOperands, HeadNormOperands,
    IntegerOperands, Launch, NormOperands, Pointer, RotaryOperands, Rows, WideNormOperands, attention_blocks,
};
pub use matmul::{Matmul, Scaling};
pub use nvrtc::{Compiled, Nvrtc};
pub use pack::{CubinPack, pack};
pub use plan::{CacheRoom, Plan, Session, SessionOutput, Target, lower, lower_encoder, lower_fp8};
pub use specialisation::{
    ATTENTION_WARPS, Activation, CODE_TYPES, CONTENT_HEAD_DIM, CodeType, Format, GEMM_ACTIVATIONS, HEAD_DIMS, KEYS,
    Kernel, NORM_ROOMS, POOLINGS, Pooling, ROWS_PER_BLOCK, Specialisation, Tile, head_tile,
};
pub use store::KernelStore;
