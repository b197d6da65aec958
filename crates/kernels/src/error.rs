//! The one error type of this crate.

use crate::isa::Isa;

/// Why a kernel refused its arguments, or why the thread pool could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The CPU lacks an instruction set that was asked for.
    #[error("this CPU has no {0}; choose another instruction set (see `Isa::available`)")]
    IsaNotAvailable(Isa),
    /// The text names no instruction set.
    #[error("unknown instruction set `{0}`; known are {known}", known = Isa::ALL.map(Isa::name).join(", "))]
    UnknownIsa(String),
    /// A dimension of one operand does not fit the others.
    #[error("{kernel}: {what} is {found}, but {expected} is needed")]
    Shape {
        /// Kernel that was called.
        kernel: &'static str,
        /// Operand and dimension.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The value that fits.
        expected: usize,
    },
    /// A buffer is shorter than its shape says.
    #[error("{kernel}: {what} holds {found} elements, but at least {needed} are needed")]
    TooSmall {
        /// Kernel that was called.
        kernel: &'static str,
        /// The buffer.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The smallest length that would do.
        needed: usize,
    },
    /// A dimension is larger than the kernels can handle.
    #[error("{kernel}: {what} is {found}, but at most {limit} is possible")]
    TooLarge {
        /// Kernel that was called.
        kernel: &'static str,
        /// Operand and dimension.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The largest possible value.
        limit: usize,
    },
    /// An index points outside of the thing it indexes.
    #[error("{kernel}: {what} {index} at position {position} is not in 0..{limit}")]
    IndexOutOfRange {
        /// Kernel that was called.
        kernel: &'static str,
        /// What kind of index it is.
        what: &'static str,
        /// Where in the list of indices it stands.
        position: usize,
        /// Its value.
        index: i64,
        /// One more than the largest allowed value.
        limit: usize,
    },
    /// An operation needs at least one element.
    #[error("{kernel}: {what} is empty")]
    Empty {
        /// Kernel that was called.
        kernel: &'static str,
        /// The empty operand.
        what: &'static str,
    },
    /// Two shapes cannot be broadcast together.
    #[error("{kernel}: shapes {left:?} and {right:?} do not fit together")]
    Shapes {
        /// Kernel that was called.
        kernel: &'static str,
        /// Shape of the first operand.
        left: Vec<usize>,
        /// Shape of the second operand.
        right: Vec<usize>,
    },
    /// A weight that is not finite, or not once it is rounded to f16.
    #[error("weight {value} in row {row}, column {column} is beyond the range of f16; keep this matrix in f32")]
    BeyondHalf {
        /// The weight.
        value: f32,
        /// Its output of the layer.
        row: usize,
        /// Its input of the layer.
        column: usize,
    },
    /// Weight codes could overflow the 16-bit sums of a kernel.
    #[error(
        "column {column} from depth {depth} on: weight codes of one sign sum to {sum}, but {bits}-bit activations \
         allow {limit}; enlarge the scale of the column"
    )]
    Overflow {
        /// Output of the layer.
        column: usize,
        /// First input of the group of weights.
        depth: usize,
        /// Sum of the magnitudes that would be added to one sum.
        sum: u32,
        /// Bits of an activation.
        bits: u32,
        /// The largest harmless sum.
        limit: u32,
    },
    /// A weight code or zero point that 4 bits don't hold.
    #[error("{what} {code} at position {position} is not in -8..=7")]
    BeyondNibble {
        /// What kind of number it is.
        what: &'static str,
        /// Its value.
        code: i8,
        /// Where it stands.
        position: usize,
    },
    /// A worker thread could not be started.
    #[error("cannot start worker thread {index}: {source}; use fewer threads")]
    Spawn {
        /// Number of the worker.
        index: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// A worker panicked; the pool goes on and takes new work.
    #[error("a worker thread panicked: {0}")]
    WorkerPanicked(String),
    /// `ThreadPool::run` was called by a worker of a pool.
    #[error("a worker of a thread pool cannot start parallel work of its own")]
    NestedRun,
}

/// Checks one dimension of one operand.
pub(crate) fn expect_dimension(
    kernel: &'static str,
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), KernelError> {
    if found == expected { Ok(()) } else { Err(KernelError::Shape { kernel, what, found, expected }) }
}

/// Checks that a buffer is long enough.
pub(crate) fn expect_length(
    kernel: &'static str,
    what: &'static str,
    found: usize,
    needed: usize,
) -> Result<(), KernelError> {
    if found >= needed { Ok(()) } else { Err(KernelError::TooSmall { kernel, what, found, needed }) }
}
