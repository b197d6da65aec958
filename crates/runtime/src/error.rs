//! The one error type of this crate.

use centuple_kernels::KernelError;

/// Why a graph could not be lowered, or a batch not be run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The graph asks for something that has no kernel.
    #[error("cannot lower node `{node}`: {reason}")]
    Unsupported {
        /// Name of the node.
        node: String,
        /// What is missing.
        reason: String,
    },
    /// An input of the plan was not given.
    #[error("the input `{0}` was not given")]
    MissingInput(String),
    /// An input has the wrong type or length.
    #[error("the input `{name}` must hold {expected} values of type {dtype}, not {found}")]
    Input {
        /// Name of the input.
        name: String,
        /// Its element type.
        dtype: centuple_tensor::DType,
        /// Elements that this batch asks for.
        expected: usize,
        /// Elements given, if the type was right.
        found: usize,
    },
    /// The batch is larger than the session was made for.
    #[error("the batch needs {needed} for `{symbol}`, but the session was made for {limit}")]
    Capacity {
        /// The symbol that is too large.
        symbol: String,
        /// Its value.
        needed: usize,
        /// The largest value.
        limit: usize,
    },
    /// The layout is not the one that the symbols were bound for.
    #[error("the layout has {found} for `{symbol}`, but the batch binds {expected}; bind what the layout says")]
    Layout {
        /// The symbol.
        symbol: String,
        /// What the layout has.
        found: usize,
        /// What the batch binds.
        expected: usize,
    },
    /// The system does not grant the memory.
    #[error("the system does not grant memory for {floats} numbers; ask for smaller batches")]
    Memory {
        /// Number of f32 values.
        floats: usize,
    },
    /// A file of weights is not the one of the graph.
    #[error("the file of weights cannot be used: {0}")]
    Weights(String),
    /// A dimension has no value for this batch.
    #[error("the dimension {0} has no value for this batch")]
    Unbound(String),
    /// The plan uses a key/value cache that was not given, or that is too small.
    #[error("the plan needs a key/value cache: {0}")]
    Cache(String),
    /// A stage failed.
    #[error("stage `{stage}`: {source}")]
    Stage {
        /// Name of the stage.
        stage: String,
        /// What the kernel says.
        source: KernelError,
    },
    /// The kernels or the thread pool refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A weight is not what lowering expected.
    #[error(transparent)]
    Tensor(#[from] centuple_tensor::TensorError),
    /// The memory plan is unsound; a defect of this crate.
    #[error("stage `{stage}` {hazard}; please report this")]
    Hazard {
        /// Name of the stage.
        stage: String,
        /// What it would do.
        hazard: String,
    },
}

pub(crate) type Result<T> = std::result::Result<T, RuntimeError>;
