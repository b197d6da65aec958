//! Raising: graphs of primitive ops on `[Sequences, Sequence]`, as ONNX files have them, become graphs of transformer ops on
//! packed tokens.
//!
//! What a region of a graph is follows from what it computes and not from how it is spelt: it is evaluated on probes and
//! compared with what it could be. What isn't recognised stays as it is, between a `Pack` and a `Pad`.

mod activation;
mod attention;
mod columns;
mod linear;
mod longest;
mod norm;
mod pooling;
mod positions;
mod probe;
mod region;
mod scaled_rows;
mod select;
mod tidy;
mod uniform;
mod unpad;

use centuple_graph::{Graph, GraphError};

pub use longest::longest_sequence;

use crate::pipeline::{PassError, apply};
use crate::rewrite::{Outcome, Report};
use crate::{constant_folding, dead_code};

/// What is known of a model besides its graph.
#[derive(Clone, Copy, Debug)]
pub struct RaiseOptions {
    /// Tokens of the longest sequence: as many positions are looked at where values depend on them.
    pub max_tokens: usize,
}

/// A pass: the rewritten graph with what it did and what it refused to do.
type Pass = fn(&Graph, &RaiseOptions) -> Result<Outcome, GraphError>;

/// Every pass in the order of its application.
const PASSES: &[(&str, Pass)] = &[
    ("linear", |graph, _| linear::run(graph)),
    ("constant_folding", |graph, _| constant_folding::run(graph)),
    ("tidy", |graph, _| tidy::run(graph)),
    ("norm", |graph, _| norm::run(graph)),
    ("activation", |graph, _| activation::run(graph)),
    ("positions", positions::run),
    ("attention", attention::run),
    ("pooling", |graph, _| pooling::run(graph)),
    ("dead_code", |graph, _| dead_code::run(graph)),
    ("unpad", |graph, _| unpad::run(graph)),
    ("dead_code", |graph, _| dead_code::run(graph)),
    ("columns", |graph, _| columns::run(graph)),
    ("linear", |graph, _| linear::run(graph)),
    ("select", |graph, _| select::run(graph)),
    ("scaled_rows", |graph, _| scaled_rows::run(graph)),
    ("tidy", |graph, _| tidy::run(graph)),
    ("dead_code", |graph, _| dead_code::run(graph)),
];

/// Recognises transformer ops in a graph of primitive ones.
///
/// # Errors
/// The given graph, or one that a pass made, does not verify.
pub fn raise(graph: &Graph, options: &RaiseOptions) -> Result<(Graph, Vec<Report>), PassError> {
    graph.verify().map_err(|source| PassError { pass: "input", source: Box::new(source) })?;
    let mut graph = graph.clone();
    let mut reports: Vec<Report> = Vec::new();
    for &(pass, run) in PASSES {
        let (next, report) = apply(pass, &graph, |graph| run(graph, options))?;
        graph = next;
        match reports.iter_mut().find(|earlier| earlier.pass == pass) {
            Some(earlier) => {
                earlier.applied += report.applied;
                earlier.refused.extend(report.refused);
            }
            None => reports.push(report),
        }
    }
    Ok((graph, reports))
}
