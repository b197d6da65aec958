//! Rotary positions (Su et al. 2021, arXiv:2104.09864).

use centuple_graph::{NodeId, Op};
use centuple_tensor::Tensor;

use super::frequencies::{Base, Frequencies};
use crate::ModelError;
use crate::builder::Builder;

/// Most positions that tables are computed for.
pub(crate) const MOST_POSITIONS: usize = 1 << 20;
/// Most elements of a table of angles.
const MOST_ANGLES: usize = 1 << 27;

/// How queries and keys are rotated by their positions.
#[derive(Clone)]
pub(crate) struct Rotary {
    positions: NodeId,
    table: NodeId,
    /// Whether neighbouring columns are a pair, and not those of the two halves.
    pub(crate) interleaved: bool,
    /// Whether values are rotated as well.
    pub(crate) values: bool,
}

impl Rotary {
    /// Most positions whose angles are computed for so many columns.
    pub(crate) fn most_positions(columns: usize) -> usize {
        MOST_POSITIONS.min(MOST_ANGLES / columns.max(1))
    }

    /// Rotation of the first `columns` columns of each head: pair `t` at position `p` by `p · base^(-2t / columns)`.
    pub(crate) fn new(
        builder: &mut Builder,
        name: &str,
        max_positions: usize,
        columns: usize,
        base: f64,
    ) -> Result<Rotary, ModelError> {
        let base = Base { columns, theta: base, positions: max_positions };
        Rotary::with(builder, name, &base.unscaled())
    }

    /// Rotation of two columns of each head for every frequency.
    pub(crate) fn with(builder: &mut Builder, name: &str, frequencies: &Frequencies) -> Result<Rotary, ModelError> {
        let positions =
            builder.graph.push(format!("{name}.positions"), Op::Positions { offset: 0, padding: None }, &[])?;
        let table = builder.constant(&format!("{name}.table"), angles(frequencies)?)?;
        Ok(Rotary { positions, table, interleaved: false, values: false })
    }

    /// Rotates `x [Tokens, heads·head_dim]`, which is called `name`.
    pub(crate) fn rotate(
        &self,
        builder: &mut Builder,
        name: &str,
        x: NodeId,
        heads: usize,
        head_dim: usize,
    ) -> Result<NodeId, ModelError> {
        let op = Op::Rotary { heads, head_dim, interleaved: self.interleaved };
        Ok(builder.graph.push(format!("{name}.rotated"), op, &[x, self.positions, self.table])?)
    }
}

/// Cosines, then sines of each position's angles: `[positions, columns]`. Angles are rounded to f32, as PyTorch rounds
/// them.
fn angles(frequencies: &Frequencies) -> Result<Tensor, ModelError> {
    let Frequencies { of_pairs, magnitude, positions } = frequencies;
    let mut table = Vec::with_capacity(positions * 2 * of_pairs.len());
    for position in 0..*positions {
        let angle = |frequency: &f32| f64::from(position as f32 * frequency);
        table.extend(of_pairs.iter().map(|frequency| angle(frequency).cos() as f32 * magnitude));
        table.extend(of_pairs.iter().map(|frequency| angle(frequency).sin() as f32 * magnitude));
    }
    Ok(Tensor::from_f32(&[*positions, 2 * of_pairs.len()], &table)?)
}
