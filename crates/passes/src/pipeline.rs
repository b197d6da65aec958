//! The ordered list of passes.

use centuple_graph::{Graph, GraphError};

use crate::rewrite::{Outcome, Report};
use crate::{
    constant_folding, dead_code, embedding_sum, gate, linear_activation, linear_residual, norm_residual, qkv_merge,
};

/// A pass produced or met an invalid graph.
#[derive(Debug, thiserror::Error)]
#[error("the pass `{pass}` failed: {source}")]
pub struct PassError {
    /// Name of the pass; `input` for the graph as it was given.
    pub pass: &'static str,
    /// What is wrong.
    pub source: Box<GraphError>,
}

/// A pass: the rewritten graph with what it did and what it refused to do.
type Pass = fn(&Graph) -> Result<Outcome, GraphError>;

/// Every pass in the order of its application.
const PIPELINE: [(&str, Pass); 8] = [
    ("constant_folding", constant_folding::run),
    ("embedding_sum", embedding_sum::run),
    ("qkv_merge", qkv_merge::run),
    ("gate", gate::run),
    ("linear_activation", linear_activation::run),
    ("linear_residual", linear_residual::run),
    ("norm_residual", norm_residual::run),
    ("dead_code", dead_code::run),
];

/// Applies every pass.
///
/// # Errors
/// The given graph, or one that a pass made, does not verify.
pub fn optimize(graph: &Graph) -> Result<(Graph, Vec<Report>), PassError> {
    graph.verify().map_err(|source| PassError { pass: "input", source: Box::new(source) })?;
    let mut graph = graph.clone();
    let mut reports = Vec::with_capacity(PIPELINE.len());
    for (pass, run) in PIPELINE {
        let (next, report) = apply(pass, &graph, run)?;
        graph = next;
        reports.push(report);
    }
    Ok((graph, reports))
}

/// Computes what depends on constants only, and clears away what nothing reads after that.
///
/// # Errors
/// The given graph, or the one that was made, does not verify.
pub fn fold_constants(graph: &Graph) -> Result<Graph, PassError> {
    Ok(apply_alone("constant_folding", graph, constant_folding::run)?.0)
}

/// Applies a pass that stands outside of the pipeline, and clears away what nothing reads after it.
pub(crate) fn apply_alone(
    pass: &'static str,
    graph: &Graph,
    run: impl FnOnce(&Graph) -> Result<Outcome, GraphError>,
) -> Result<(Graph, Report), PassError> {
    let (graph, report) = apply(pass, graph, run)?;
    let (graph, _) = apply("dead_code", &graph, dead_code::run)?;
    Ok((graph, report))
}

/// Applies one pass and verifies what it made.
pub(crate) fn apply(
    pass: &'static str,
    graph: &Graph,
    run: impl FnOnce(&Graph) -> Result<Outcome, GraphError>,
) -> Result<(Graph, Report), PassError> {
    let failed = |source| PassError { pass, source: Box::new(source) };
    let Outcome { graph, applied, refused } = run(graph).map_err(failed)?;
    graph.verify().map_err(failed)?;
    Ok((graph, Report { pass, applied, refused }))
}
