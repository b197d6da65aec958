//! Attention in standard operators: products of matrices, masks, and what positions add.

use centuple_graph::{Attention, Node, NodeId, PositionScores};

use super::MASK;
use super::emitter::int;
use super::lower::{Exporter, Result};
use crate::proto::tensor_proto::DataType;

impl Exporter<'_> {
    pub(super) fn attention(&mut self, node: &Node, attention: &Attention) -> Result {
        // The file has no cache: it computes texts from their beginning.
        let &[q, k, v, ref scores @ ..] = node.inputs.as_slice() else {
            return Err(self.unsupported(node, "it lacks an operand"));
        };
        if self.fuses()
            && let Some(fused) = self.fused_attention([q, k, v], scores, attention)?
        {
            return Ok(fused);
        }
        let disentangled = matches!(attention.position, PositionScores::Disentangled { .. });
        let Attention { heads, kv_heads, head_dim, .. } = *attention;
        let q = self.full(q);
        let q = self.heads(&q, heads, head_dim, &[0, 2, 1, 3]);
        let q = if disentangled { q } else { self.times(&q, attention.scale) };
        let k = self.full(k);
        let k = self.heads(&k, kv_heads, head_dim, &[0, 2, 3, 1]);
        let k = self.repeated(k, attention, [head_dim as i64, -1]);
        let mut sum = self.emitter.node("MatMul", &[&q, &k]);
        for term in self.position_scores(scores, attention)? {
            sum = self.emitter.node("Add", &[&sum, &term]);
        }
        if disentangled {
            sum = self.times(&sum, attention.scale);
        }
        if let Some(cap) = attention.soft_cap {
            let limit = self.emitter.float(cap);
            let part = self.emitter.node("Div", &[&sum, &limit]);
            let tanh = self.emitter.node("Tanh", &[&part]);
            sum = self.emitter.node("Mul", &[&tanh, &limit]);
        }
        let mask = self.additive_mask(attention.causal, attention.window);
        let sum = self.emitter.node("Add", &[&sum, &mask]);
        let weights = self.emitter.with("Softmax", &[&sum], vec![int("axis", -1)]);
        let v = self.full(v);
        let v = self.heads(&v, kv_heads, head_dim, &[0, 2, 1, 3]);
        let v = self.repeated(v, attention, [-1, head_dim as i64]);
        let context = self.emitter.node("MatMul", &[&weights, &v]);
        let context = self.permuted(&context, &[0, 2, 1, 3]);
        Ok(self.reshaped(&context, &[0, 0, (heads * head_dim) as i64]))
    }

    /// `[batch_size, sequence_length, heads·head_dim]` as four dimensions in this order.
    fn heads(&mut self, x: &str, heads: usize, head_dim: usize, order: &[i64]) -> String {
        let x = self.reshaped(x, &[0, 0, heads as i64, head_dim as i64]);
        self.permuted(&x, order)
    }

    fn times(&mut self, x: &str, factor: f32) -> String {
        if factor == 1.0 {
            return x.to_owned();
        }
        let factor = self.emitter.float(factor);
        self.emitter.node("Mul", &[x, &factor])
    }

    /// Keys or values of fewer heads, once for each query head.
    fn repeated(&mut self, x: String, attention: &Attention, [rows, columns]: [i64; 2]) -> String {
        let times = attention.heads / attention.kv_heads.max(1);
        if times == 1 {
            return x;
        }
        let groups = self.unsqueeze(&x, &[2]);
        let shape = self.emitter.ints(&[1, 1, times as i64, 1, 1]);
        let groups = self.emitter.node("Expand", &[&groups, &shape]);
        self.reshaped(&groups, &[0, attention.heads as i64, rows, columns])
    }

    /// What positions add to the scores; that of a disentangled attention before it is scaled.
    fn position_scores(&mut self, operands: &[NodeId], attention: &Attention) -> Result<Vec<String>> {
        match (attention.position, operands) {
            (PositionScores::Bias, &[table]) => Ok(vec![self.bias(table)]),
            (PositionScores::Disentangled { content_to_position, .. }, [terms @ .., buckets]) => {
                let mut scores = Vec::with_capacity(terms.len());
                for (place, &term) in terms.iter().enumerate() {
                    scores.push(self.disentangled(term, *buckets, attention.heads, !content_to_position || place == 1));
                }
                Ok(scores)
            }
            (PositionScores::None | PositionScores::Bias | PositionScores::Disentangled { .. }, _) => Ok(Vec::new()),
        }
    }

    /// Scores by distance, `[1, heads, sequence_length, sequence_length]`, of a table `[heads, 2D + 1]`.
    pub(super) fn bias(&mut self, table: NodeId) -> String {
        let index = self.distance_index(table);
        let table = self.value(table);
        self.shared(&format!("{table}.scores"), |exporter| {
            let scores = exporter.emitter.with("Gather", &[&table, &index], vec![int("axis", 1)]);
            exporter.unsqueeze(&scores, &[0])
        })
    }

    /// Column of each pair of query and key in a table by distance, `[sequence_length, sequence_length]`.
    fn distance_index(&mut self, table: NodeId) -> String {
        let columns = self.graph.node(table).fact.shape.last().and_then(|dim| dim.constant()).unwrap_or(1);
        let largest = (columns / 2) as i64;
        let distances = self.distances();
        self.shared(&format!("distances_to_{largest}"), |exporter| {
            let [low, high] = [-largest, largest].map(|value| exporter.emitter.int(value));
            let clamped = exporter.emitter.node("Clip", &[&distances, &low, &high]);
            exporter.emitter.node("Add", &[&clamped, &high])
        })
    }

    /// One term of disentangled attention: of each query, or key, the score of the bucket.
    fn disentangled(&mut self, term: NodeId, buckets: NodeId, heads: usize, of_keys: bool) -> String {
        let index = self.distance_index(buckets);
        let buckets = self.value(buckets);
        let index = self.shared(&format!("{buckets}.of_pairs"), |exporter| {
            exporter.emitter.with("Gather", &[&buckets, &index], vec![int("axis", 0)])
        });
        let scores = match self.by_head.get(&term) {
            Some(scores) => scores.clone(),
            None => {
                let columns = self.graph.node(term).fact.shape.last().and_then(|dim| dim.constant()).unwrap_or(0);
                let x = self.full(term);
                self.heads(&x, heads, columns / heads.max(1), &[0, 2, 1, 3])
            }
        };
        // The shape of the scores: batch and heads of the term, then pairs.
        let what = format!("{index}.{}.{heads}", if of_keys { "of_keys" } else { "of_queries" });
        let index = self.shared(&what, |exporter| {
            let index = if of_keys { exporter.permuted(&index, &[1, 0]) } else { index };
            let batch = exporter.extent(super::BATCH);
            let heads = exporter.emitter.ints(&[heads as i64]);
            let ones = exporter.emitter.ints(&[1, 1]);
            let shape = exporter.emitter.with("Concat", &[&batch, &heads, &ones], vec![int("axis", 0)]);
            exporter.emitter.node("Expand", &[&index, &shape])
        });
        let found = self.emitter.with("GatherElements", &[&scores, &index], vec![int("axis", 3)]);
        if of_keys { self.permuted(&found, &[0, 1, 3, 2]) } else { found }
    }

    /// What is added to the scores, 0 or the least number: `[batch_size, 1, 1 or sequence_length, sequence_length]`.
    fn additive_mask(&mut self, causal: bool, window: Option<usize>) -> String {
        let near = self.near(causal, window);
        let what = format!("mask{}", near.as_deref().unwrap_or_default());
        self.shared(&what, |exporter| {
            let is_token = exporter.shared("key_is_token", |exporter| {
                let is_token = exporter.cast(MASK, DataType::Bool);
                exporter.unsqueeze(&is_token, &[1, 2])
            });
            let seen = match near {
                Some(near) => exporter.emitter.node("And", &[&is_token, &near]),
                None => is_token,
            };
            exporter.hidden_where_not(&seen)
        })
    }

    /// 0 where a query sees a key, else the least number.
    pub(super) fn hidden_where_not(&mut self, seen: &str) -> String {
        let [zero, least] = [0.0, f32::MIN].map(|value| self.emitter.float(value));
        self.emitter.node("Where", &[seen, &zero, &least])
    }

    /// Which keys a query sees by position, `[sequence_length, sequence_length]` bool; all where there is no limit.
    pub(super) fn near(&mut self, causal: bool, window: Option<usize>) -> Option<String> {
        if !causal && window.is_none() {
            return None;
        }
        let distances = self.distances();
        let mut near = window.map(|window| {
            self.shared(&format!("within_{window}"), |exporter| {
                let distances = exporter.emitter.node("Abs", &[&distances]);
                let window = exporter.emitter.int(i64::try_from(window).unwrap_or(i64::MAX));
                exporter.emitter.node("LessOrEqual", &[&distances, &window])
            })
        });
        if causal {
            let before = self.shared("before", |exporter| {
                let zero = exporter.emitter.int(0);
                exporter.emitter.node("GreaterOrEqual", &[&distances, &zero])
            });
            near = Some(match near {
                Some(near) => self.emitter.node("And", &[&near, &before]),
                None => before,
            });
        }
        near
    }
}
