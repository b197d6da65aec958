//! Vectors that mean the same, in a stream of any length.
//!
//! [`Leaders`] takes vectors one by one. One that is as similar as the threshold to an earlier leader joins the most similar
//! of them; any other becomes a leader itself. So each group lies around one vector, and no chain of small steps joins two
//! vectors that have little in common. What becomes of a vector depends on the vectors before it and on nothing else.
//!
//! Only leaders are kept, and of each only [`SKETCH_BITS`] bits and its links in memory: an index of usearch (HNSW)
//! proposes the leaders whose bits differ least, and the cosine to each of them, from a temporary file that has the
//! vectors in 16-bit floats, decides.

mod distance;
mod error;
mod index;
mod leaders;
mod sketch;
mod vectors;

pub use error::NeighbourError;
pub use leaders::{Leaders, Place};
pub use sketch::SKETCH_BITS;
