//! Regions that compute attention become [`Op::Attention`].
//!
//! A region reaches from rows of tokens (queries, keys, values) over a softmax to rows of tokens. Its parts are probed: which
//! columns of the rows each head reads, how they are rotated, what is added to the scores of which distance. The
//! attention that follows from that is then compared with the region on random rows.

mod emit;
mod operand;
mod reading;
mod region;
mod scores;
mod terms;

use std::collections::HashMap;

use centuple_graph::{Attention, Graph, GraphError, NodeId, Op};

use super::RaiseOptions;
use crate::rewrite::{Outcome, rewrite};
use operand::{Operand, Rotations};
use region::{Region, Survey};
use scores::{Position, Scores};

/// Why a region is no attention that we have.
type Reason = String;

/// Regions that turn out to be none before no more are looked at: probes take time, and layers resemble each other.
const MOST_REFUSED: usize = 16;

/// An attention that computes what a region does.
struct Found {
    region: Region,
    queries: Operand,
    keys: Operand,
    values: Operand,
    attention: Attention,
    position: Position,
}

pub(crate) fn run(graph: &Graph, options: &RaiseOptions) -> Result<Outcome, GraphError> {
    let survey = Survey::new(graph);
    let mut search = Search { graph, options: *options, rotations: Rotations::default(), scores: HashMap::new() };
    let (mut found, mut refused) = (HashMap::new(), HashMap::new());
    for (id, node) in graph.iter().filter(|(_, node)| node.op == Op::Softmax) {
        let recognised = if refused.len() < MOST_REFUSED {
            survey.region(id).and_then(|region| search.recognise(&survey, region))
        } else {
            Err(format!("after {MOST_REFUSED} that are no attention no more are looked at"))
        };
        match recognised {
            Ok(attention) => {
                found.insert(attention.region.result, attention);
            }
            Err(reason) => {
                refused.insert(id, format!("`{}`: {reason}", node.name));
            }
        }
    }
    rewrite(graph, |state, id, node| {
        if let Some(reason) = refused.get(&id) {
            state.refuse(node, reason);
        }
        let Some(attention) = found.get(&id) else { return Ok(None) };
        let sources = attention.sources().map(|source| state.image(source));
        let rows = attention.emit(&mut state.new, &node.name, sources)?;
        let padded = state.new.push(node.name.clone(), Op::Pad, &[rows])?;
        if node.fact.shape.len() == 3 {
            return Ok(Some(padded));
        }
        state.new.push(node.name.clone(), Op::Reshape { shape: node.fact.shape.clone() }, &[padded]).map(Some)
    })
}

/// What has been learnt of the regions before, since layers resemble each other.
struct Search<'a> {
    graph: &'a Graph,
    options: RaiseOptions,
    rotations: Rotations,
    /// By the values that are added to scores.
    scores: HashMap<Vec<NodeId>, scores::Added>,
}

impl Search<'_> {
    fn recognise(&mut self, survey: &Survey, region: Region) -> Result<Found, Reason> {
        let limit = self.options.max_tokens;
        let [q, k] = [region.content_operands[0], region.content_operands[1]];
        let queries = Operand::read(survey, q, false, &mut self.rotations, limit)?;
        let keys = Operand::read(survey, k, true, &mut self.rotations, limit)?;
        let values = Operand::read(survey, region.values, false, &mut self.rotations, limit)?;
        if values.factor != 1.0 {
            return Err("its values are scaled".to_owned());
        }
        let (heads, head_dim) = (queries.heads, queries.head_dim);
        if [&keys, &values].iter().any(|operand| (operand.heads, operand.head_dim) != (heads, head_dim)) {
            return Err("its queries, keys and values have different heads".to_owned());
        }
        let Scores { scale, causal, window, position } =
            scores::read(survey, &region, [&queries, &keys], limit, &mut self.scores, &mut self.rotations)?;
        let scale = exact(scale * queries.factor * keys.factor, head_dim);
        let attention = Attention {
            heads,
            kv_heads: heads,
            head_dim,
            scale,
            soft_cap: None,
            causal,
            window,
            position: position.kind(),
            cache: None,
        };
        let found = Found { region, queries, keys, values, attention, position };
        found.check(self.graph, limit)?;
        Ok(found)
    }
}

/// The scale without the rounding of the factors that a file splits it into: `1 / sqrt(head_dim · summands)`, where it is next to
/// that. DeBERTa has up to three summands.
fn exact(scale: f32, head_dim: usize) -> f32 {
    let usual = (1..=3).map(|summands| 1.0 / ((head_dim * summands) as f32).sqrt());
    usual.into_iter().find(|usual| (scale - usual).abs() <= 4.0 * f32::EPSILON * usual).unwrap_or(scale)
}
