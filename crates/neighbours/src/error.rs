//! What can go wrong.

use std::io;

/// Why a vector has no place.
#[derive(Debug, thiserror::Error)]
pub enum NeighbourError {
    /// The threshold is no cosine that separates anything.
    #[error("a threshold of {0} is not above 0 and at most 1")]
    Threshold(f32),
    /// Vectors without numbers.
    #[error("vectors have no numbers")]
    NoDimensions,
    /// A vector of another length.
    #[error("a vector has {found} numbers instead of {expected}")]
    Length {
        /// Numbers that it has.
        found: usize,
        /// Numbers that it should have.
        expected: usize,
    },
    /// A number that is none.
    #[error("a vector has a number that is not finite")]
    NotFinite,
    /// The temporary file.
    #[error(
        "the temporary file of vectors cannot be used: {0}; free space in the temporary folder, or name another one by TMPDIR"
    )]
    File(#[from] io::Error),
    /// The index.
    #[error("the index of vectors failed: {0}")]
    Index(String),
}
