//! Attention whose scores are those of contents and of relative positions (He et al. 2020, arXiv:2006.03654).

use centuple_graph::{Attention, NodeId, Op, PositionScores};
use centuple_tensor::Tensor;

use crate::ModelError;
use crate::builder::Builder;

/// Disentangled attention. Its relative positions are the rows of a table with `2 · span` rows.
pub(crate) struct Disentangled {
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    /// Factor on the scores.
    pub(crate) scale: f32,
    /// Rows of relative positions on either side.
    pub(crate) span: usize,
    /// Row of each distance, query position less key position: `[2D + 1]` i64; none where there are no relative positions.
    pub(crate) rows: Option<NodeId>,
}

impl Disentangled {
    /// Appends a table of rows: that of distance `d` is `relative(d) + span`, within the table. Distances go to `largest`
    /// on either side.
    pub(crate) fn rows(
        builder: &mut Builder,
        largest: usize,
        span: usize,
        relative: impl Fn(i64) -> i64,
    ) -> Result<NodeId, ModelError> {
        let (largest, span) = (largest as i64, span as i64);
        let row = |distance: i64| (relative(distance) + span).clamp(0, 2 * span - 1);
        let rows: Vec<i64> = (-largest..=largest).map(row).collect();
        builder.constant("relative_positions", Tensor::from_i64(&[rows.len()], &rows)?)
    }

    /// Appends the attention called `name`. `keys` and `queries` are the projections of the relative positions
    /// `[2 · span, heads·head_dim]`, where queries, and keys, meet them.
    pub(crate) fn attend(
        &self,
        builder: &mut Builder,
        name: &str,
        [q, k, v]: [NodeId; 3],
        keys: Option<NodeId>,
        queries: Option<NodeId>,
    ) -> Result<NodeId, ModelError> {
        let mut operands = vec![q, k, v];
        for (term, content, relative) in [("c2p", q, keys), ("p2c", k, queries)] {
            let Some(relative) = relative else { continue };
            let by_head = self.by_head(builder, &format!("{name}.{term}"), relative)?;
            let op = Op::GroupedLinear { groups: self.heads };
            operands.push(builder.graph.push(format!("{name}.{term}"), op, &[content, by_head])?);
        }
        let position = if keys.is_some() || queries.is_some() {
            operands.extend(self.rows);
            PositionScores::Disentangled { content_to_position: keys.is_some(), position_to_content: queries.is_some() }
        } else {
            PositionScores::None
        };
        let attention = Attention {
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: self.head_dim,
            scale: self.scale,
            soft_cap: None,
            causal: false,
            window: None,
            position,
            cache: None,
        };
        Ok(builder.graph.push(name, Op::Attention(attention), &operands)?)
    }

    /// `[2 · span, heads·head_dim]` as `[heads, 2 · span, head_dim]`.
    fn by_head(&self, builder: &mut Builder, name: &str, x: NodeId) -> Result<NodeId, ModelError> {
        let shape = [2 * self.span, self.heads, self.head_dim].map(Into::into).to_vec();
        let x = builder.graph.push(format!("{name}.heads"), Op::Reshape { shape }, &[x])?;
        Ok(builder.graph.push(format!("{name}.by_head"), Op::Transpose { perm: vec![1, 0, 2] }, &[x])?)
    }
}
