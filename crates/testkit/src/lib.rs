//! What several crates' tests share: op cases, random numbers, and the place of the fixtures.
//!
//! A [`Case`] is a small graph with its batches. Every executor runs the same cases: the reference evaluator gives the
//! truth, and the plain plan, the optimised plan and each instruction set are held against it.

mod attention_cases;
mod cases;
mod families;
mod golden;
pub mod json;
mod onnx;
mod padded_cases;
mod primitive_cases;
mod random;

use std::path::{Path, PathBuf};

use centuple_graph::{Graph, GraphError};
use centuple_tensor::{Bindings, Layout, LayoutError, Tensor, TensorError};

pub use families::{FamilyCase, FamilyGolden, FamilyInput};
pub use golden::{Golden, GoldenAsk, GoldenCase, GoldenInput, pipeline_cases, tensor};
pub use onnx::{OnnxCase, OnnxGolden};
pub use random::Random;

/// A graph and the batches that it is run on, one after the other, with one key/value cache.
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The graph.
    pub graph: Graph,
    /// The batches.
    pub steps: Vec<Step>,
    /// Pages of the key/value cache; 0 for none.
    pub cache_pages: usize,
    /// Largest accepted `|found - expected| / (1 + |expected|)`.
    pub tolerance: f32,
}

/// One batch of a case.
pub struct Step {
    /// The inputs by name.
    pub inputs: Vec<(&'static str, Tensor)>,
    /// The packed sequences.
    pub layout: Layout,
    /// Values of the symbols.
    pub bindings: Bindings,
}

/// Why a case could not be built.
#[derive(Debug)]
pub struct CaseError(pub String);

impl From<GraphError> for CaseError {
    fn from(error: GraphError) -> CaseError {
        CaseError(error.to_string())
    }
}

impl From<TensorError> for CaseError {
    fn from(error: TensorError) -> CaseError {
        CaseError(error.to_string())
    }
}

impl From<LayoutError> for CaseError {
    fn from(error: LayoutError) -> CaseError {
        CaseError(error.to_string())
    }
}

/// Every op case.
///
/// # Errors
/// A case does not fit the shape rules.
pub fn cases() -> Result<Vec<Case>, CaseError> {
    let mut all = cases::cases()?;
    all.extend(primitive_cases::cases()?);
    all.extend(padded_cases::cases()?);
    Ok(all)
}

/// The largest `|found - expected| / (1 + |expected|)`; infinite where lengths differ or a number is NaN on one side.
pub fn distance(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() {
        return f32::INFINITY;
    }
    let of = |(&a, &b): (&f32, &f32)| {
        if a == b || (a.is_nan() && b.is_nan()) {
            return 0.0;
        }
        let distance = (a - b).abs() / (1.0 + b.abs());
        if distance.is_nan() { f32::INFINITY } else { distance }
    };
    found.iter().zip(expected).map(of).fold(0.0, f32::max)
}

/// The folder of the committed fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}
