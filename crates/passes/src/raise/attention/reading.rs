//! Probes of scores: the softmax's operand of a region for chosen products.

use centuple_graph::NodeId;
use centuple_tensor::Tensor;

use super::Reason;
use super::region::{Region, Survey};
use crate::raise::probe::Probe;

/// Tokens on which factors are read.
pub(super) const FEW_TOKENS: usize = 5;
/// Most scores of all heads that are looked at.
const MAX_SCORES: usize = 1 << 24;
/// Most tokens whose distances are looked at.
const MAX_DISTANCES: usize = 1024;
/// What is added to a score that does not count; `transformers` once took -10000.
pub(super) const HIDDEN: f32 = -5e3;

/// A square of scores of every head for one sequence.
pub(super) struct Square {
    pub(super) heads: usize,
    pub(super) tokens: usize,
    data: Vec<f32>,
}

impl Square {
    fn head(&self, head: usize) -> &[f32] {
        &self.data[head * self.tokens * self.tokens..(head + 1) * self.tokens * self.tokens]
    }

    /// The scores by head and distance `i - j`, from `1 - tokens` on; `None` where they depend on more than that.
    pub(super) fn by_distance(&self) -> Option<Vec<Vec<f32>>> {
        let tokens = self.tokens;
        let of_head = |head: usize| {
            let scores = self.head(head);
            let first = |distance: usize| {
                let (query, key) =
                    if distance + 1 >= tokens { (distance + 1 - tokens, 0) } else { (0, tokens - 1 - distance) };
                scores[query * tokens + key]
            };
            let row: Vec<f32> = (0..2 * tokens - 1).map(first).collect();
            let same = |(at, &score): (usize, &f32)| {
                let expected = row[at / tokens + tokens - 1 - at % tokens];
                expected == score || (expected - score).abs() <= 1e-5 * score.abs().max(1e-2)
            };
            scores.iter().enumerate().all(same).then_some(row)
        };
        (0..self.heads).map(of_head).collect()
    }
}

/// Evaluates the softmax's operand of a region for given values in place of its products.
pub(super) struct Reading<'a> {
    pub(super) survey: &'a Survey<'a>,
    pub(super) region: &'a Region,
    /// The product of queries and keys, then those of either with positions.
    pub(super) products: Vec<NodeId>,
}

impl Reading<'_> {
    /// The scores where every element of product `which` is `value(column)` and the other products are 0.
    pub(super) fn of(&self, tokens: usize, which: usize, value: impl Fn(usize) -> f32) -> Result<Square, Reason> {
        let failed = || format!("its scores can't be computed on a probe of {tokens} tokens");
        let mut probe = Probe::new(self.survey.graph, &[tokens]).ok_or_else(failed)?;
        for (index, &product) in self.products.iter().enumerate() {
            let shape = probe.shape(product).ok_or_else(failed)?;
            let columns = shape.last().copied().unwrap_or(1).max(1);
            let volume: usize = shape.iter().product();
            let element = |at: usize| if index == which { value(at % columns) } else { 0.0 };
            let data: Vec<f32> = (0..volume).map(element).collect();
            let tensor = Tensor::from_f32(&shape, &data).map_err(|_| failed())?;
            probe.give(product, tensor).ok_or_else(failed)?;
        }
        let scores = probe.value(self.region.scores).ok_or_else(failed)?;
        let [lead @ .., queries, keys] = scores.shape() else { return Err(failed()) };
        if (*queries, *keys) != (tokens, tokens) {
            return Err("its scores are no square of tokens".to_owned());
        }
        let data = scores.as_f32().map_err(|_| failed())?.to_vec();
        Ok(Square { heads: lead.iter().product(), tokens, data })
    }

    /// The one factor that a product's elements have in the scores.
    pub(super) fn factor(&self, which: usize) -> Result<f32, Reason> {
        let (ones, zeros) = (self.of(FEW_TOKENS, which, |_| 1.0)?, self.of(FEW_TOKENS, which, |_| 0.0)?);
        let mut factors =
            ones.data.iter().zip(&zeros.data).filter(|(_, zero)| **zero > HIDDEN).map(|(one, zero)| one - zero);
        let uneven = || "its products are scaled by more than one factor".to_owned();
        let first = factors.next().filter(|factor| factor.is_normal()).ok_or_else(uneven)?;
        let even = factors.all(|factor| (factor - first).abs() <= 1e-4 * first.abs());
        if even { Ok(first) } else { Err(uneven()) }
    }

    /// Values that depend on the length of the sequence, behind the scores.
    pub(super) fn symbolic_leaves(&self) -> Vec<NodeId> {
        let mut leaves = self.survey.ambient_leaves(self.region.scores, &self.products);
        leaves.retain(|&leaf| self.survey.graph.constant_of(leaf).is_none());
        leaves
    }
}

/// Tokens whose distances are looked at.
pub(super) fn distances_seen(heads: usize, max_tokens: usize) -> usize {
    let affordable = (MAX_SCORES / heads.max(1)).isqrt();
    max_tokens.min(MAX_DISTANCES).min(affordable).max(2)
}
