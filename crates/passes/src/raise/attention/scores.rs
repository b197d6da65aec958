//! What becomes of the products of queries and keys before the softmax: a factor, and what is added by distance.

use std::collections::HashMap;

use centuple_graph::{NodeId, PositionScores};
use centuple_tensor::Tensor;

use super::Reason;
use super::operand::{Operand, Rotations};
use super::reading::{FEW_TOKENS, HIDDEN, Reading, distances_seen};
use super::region::{Region, Survey};
use super::terms::{self, Terms};

/// What a region computes of its products.
pub(super) struct Scores {
    /// Factor on the products.
    pub(super) scale: f32,
    pub(super) causal: bool,
    pub(super) window: Option<usize>,
    pub(super) position: Position,
}

/// What positions add.
pub(super) enum Position {
    None,
    /// `[heads, 2D + 1]`
    Bias(Tensor),
    Disentangled(Terms),
}

impl Position {
    pub(super) fn kind(&self) -> PositionScores {
        match self {
            Position::None => PositionScores::None,
            Position::Bias(_) => PositionScores::Bias,
            Position::Disentangled(terms) => PositionScores::Disentangled {
                content_to_position: terms.content_to_position.is_some(),
                position_to_content: terms.position_to_content.is_some(),
            },
        }
    }
}

/// What is added to scores whatever the tokens are.
#[derive(Clone)]
pub(super) struct Added {
    causal: bool,
    window: Option<usize>,
    bias: Option<Tensor>,
}

/// Reads the scores of a region.
pub(super) fn read(
    survey: &Survey,
    region: &Region,
    operands: [&Operand; 2],
    max_tokens: usize,
    known: &mut HashMap<Vec<NodeId>, Added>,
    rotations: &mut Rotations,
) -> Result<Scores, Reason> {
    let mut products = vec![region.content];
    products.extend(terms::products(survey, region));
    let reading = Reading { survey, region, products };
    let scale = reading.factor(0)?;
    if reading.products.len() > 1 {
        let terms = terms::read(&reading, operands, scale, max_tokens, rotations)?;
        return Ok(Scores { scale, causal: false, window: None, position: Position::Disentangled(terms) });
    }
    let leaves = reading.symbolic_leaves();
    let added = match known.get(&leaves) {
        Some(added) => added.clone(),
        None => {
            let added = added(&reading, operands[0].heads, max_tokens, leaves.is_empty())?;
            known.insert(leaves, added.clone());
            added
        }
    };
    let position = added.bias.map_or(Position::None, Position::Bias);
    Ok(Scores { scale, causal: added.causal, window: added.window, position })
}

/// What is added by distance; `fixed` where that can't depend on how long a sequence is.
fn added(reading: &Reading, heads: usize, max_tokens: usize, fixed: bool) -> Result<Added, Reason> {
    let tokens = if fixed { FEW_TOKENS } else { distances_seen(heads, max_tokens) };
    let square = reading.of(tokens, 0, |_| 0.0)?;
    let table = square.by_distance().ok_or("what is added to its scores is no function of the distance")?;
    let visible: Vec<bool> = table[0].iter().map(|&score| score > HIDDEN).collect();
    if table.iter().flatten().any(|score| score.is_nan()) {
        return Err("what is added to its scores is no number".to_owned());
    }
    if table.iter().any(|row| !row.iter().zip(&visible).all(|(&score, &seen)| (score > HIDDEN) == seen)) {
        return Err("its heads see different tokens".to_owned());
    }
    let (before, behind) = visible.split_at(tokens - 1);
    let causal = !before.is_empty() && before.iter().all(|seen| !seen);
    let reach = behind.iter().take_while(|seen| **seen).count().saturating_sub(1);
    let window = (reach + 1 < tokens).then_some(reach);
    let expected = |at: usize| {
        let distance = at.abs_diff(tokens - 1);
        distance <= reach && !(causal && at + 1 < tokens)
    };
    if !visible.iter().enumerate().all(|(at, &seen)| seen == expected(at)) {
        return Err("the tokens that it hides are neither those ahead nor those beyond a distance".to_owned());
    }
    let bias = bias(&table, &visible)?;
    // Whatever is the same at the last distances is taken to go on like that.
    if tokens < max_tokens && !fixed && window.is_none() {
        let settled =
            table.iter().all(|row| row[..8] == [row[0]; 8] && row[row.len() - 8..] == [row[row.len() - 1]; 8]);
        if bias.is_none() && !causal || !settled {
            return Err(format!("what is added to its scores can't be seen for {max_tokens} tokens"));
        }
    }
    Ok(Added { causal, window, bias })
}

/// The table of what is added where tokens are seen; none where it is the same for all.
fn bias(table: &[Vec<f32>], visible: &[bool]) -> Result<Option<Tensor>, Reason> {
    let seen =
        |row: &[f32]| row.iter().zip(visible).filter(|(_, seen)| **seen).map(|(score, _)| *score).collect::<Vec<_>>();
    let even = |row: &Vec<f32>| seen(row).windows(2).all(|pair| pair[0] == pair[1]);
    if table.iter().all(even) {
        return Ok(None);
    }
    // Distances beyond the table count as its last ones.
    let settled = |cut: usize| {
        table.iter().all(|row| row[cut] == row[cut + 1] && row[row.len() - 1 - cut] == row[row.len() - 2 - cut])
    };
    let distances = visible.len() / 2;
    let cut = (0..distances.saturating_sub(1)).take_while(|&cut| settled(cut)).count();
    let kept = cut..visible.len() - cut;
    let values: Vec<f32> = table
        .iter()
        .flat_map(|row| {
            row[kept.clone()].iter().zip(&visible[kept.clone()]).map(|(&score, &seen)| if seen { score } else { 0.0 })
        })
        .collect();
    Tensor::from_f32(&[table.len(), kept.len()], &values).map(Some).map_err(|error| error.to_string())
}
