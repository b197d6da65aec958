//! What can go wrong.

use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, CudaError>;

/// Why CUDA can't be used, or can't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// A library of NVIDIA's is not there.
    #[error("{library} can't be loaded ({reason}); {remedy}")]
    Library {
        /// What was looked for.
        library: String,
        /// What the loader says.
        reason: String,
        /// What would help.
        remedy: &'static str,
    },
    /// A library lacks a function.
    #[error("{library} has no function {function}: it is too old; {remedy}")]
    Symbol {
        /// The library.
        library: String,
        /// The function.
        function: &'static str,
        /// What would help.
        remedy: &'static str,
    },
    /// The driver has no such device.
    #[error("there is no CUDA device {wanted}: the driver has {found}")]
    Device {
        /// Number of the device.
        wanted: usize,
        /// Number of devices.
        found: usize,
    },
    /// A call of the driver failed.
    #[error("{call} failed: {name} ({code})")]
    Driver {
        /// The driver's function.
        call: &'static str,
        /// What the driver calls the failure.
        name: String,
        /// Its number.
        code: i32,
    },
    /// A kernel can't be compiled.
    #[error("the kernel {kernel} can't be compiled for {architecture}: {log}")]
    Compile {
        /// Name of the kernel.
        kernel: String,
        /// The architecture.
        architecture: String,
        /// What the compiler says.
        log: String,
    },
    /// The GPU is too old, or a kernel needs a newer one.
    #[error("{what} needs compute capability {needed} or newer; this device has {found}")]
    Capability {
        /// What needs it.
        what: String,
        /// The least capability.
        needed: String,
        /// The device's.
        found: String,
    },
    /// No kernel was built for that.
    #[error("there is no CUDA kernel for {0}")]
    Unsupported(String),
    /// A batch that doesn't fit the plan.
    #[error("the batch doesn't fit: {0}")]
    Batch(String),
    /// A file of compiled kernels is damaged or foreign.
    #[error("{path}: {reason}; remove the file, or build it again", path = path.display())]
    Pack {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system grants no thread for a GPU.
    #[error("no thread can be started for a GPU: {source}")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
    /// A file can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
