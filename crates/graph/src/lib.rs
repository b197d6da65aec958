//! The intermediate representation: a graph of operators on tensors of symbolic shape.
//!
//! An [`Op`] is pure data. What it computes is written once in `reference` (slow and obvious) and lowered
//! once in `runtime`; both match on it without wildcard arms, so the compiler lists every place that a new
//! op must reach. This crate knows no model family, no file format and no kernel.

mod document;
mod graph;
mod op;
mod print;
mod shape;
mod verify;

pub use document::{Document, DocumentError};
pub use graph::{Fact, Graph, GraphError, Node, NodeId};
pub use op::{Activation, Attention, Binary, CrossAttention, Op, Pooling, PositionScores, Reduction, Unary};
pub use shape::{ShapeError, is_range};
