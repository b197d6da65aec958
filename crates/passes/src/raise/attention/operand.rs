//! What the heads of an attention read: columns of rows of tokens, scaled, shifted and rotated.

use std::collections::HashMap;

use centuple_graph::NodeId;
use centuple_tensor::Tensor;

use super::Reason;
use super::region::{Survey, row_width};
use crate::raise::probe::{Probe, noise};

/// Tokens on which an operand's form is looked at.
const FEW_TOKENS: usize = 5;
/// Most that a probe may differ by, relative to what is compared.
const TOLERANCE: f32 = 2e-5;

/// `factor · rotation(rows[.., columns] + offset)` for each head.
pub(super) struct Operand {
    /// The rows of tokens.
    pub(super) source: NodeId,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// Column of the rows behind each column of each head.
    pub(super) columns: Vec<usize>,
    pub(super) factor: f32,
    /// The same as f32 numbers, where they don't follow each other.
    pub(super) picked: Option<Tensor>,
    /// What is added to each column of each head, where it isn't 0.
    pub(super) offset: Option<Tensor>,
    pub(super) rotation: Option<Rotation>,
}

/// Angles by position.
#[derive(Clone)]
pub(super) struct Rotation {
    pub(super) interleaved: bool,
    /// `[positions, R]`: R/2 cosines, then R/2 sines, as for [`Op::Rotary`](centuple_graph::Op::Rotary).
    pub(super) table: Tensor,
}

/// Rotations by the values of the layout that they are made of.
pub(super) type Rotations = HashMap<Vec<NodeId>, Rotation>;

/// The elements of an operand by head, token and column.
struct Heads {
    heads: usize,
    tokens: usize,
    head_dim: usize,
    data: Vec<f32>,
}

impl Heads {
    /// Reads `[..., S, D]`, or `[..., D, S]` where it is transposed.
    fn of(value: &Tensor, transposed: bool) -> Option<Heads> {
        let data = value.as_f32().ok()?;
        let [lead @ .., rows, columns] = value.shape() else { return None };
        let (heads, rows, columns) = (lead.iter().product(), *rows, *columns);
        if !transposed {
            return Some(Heads { heads, tokens: rows, head_dim: columns, data: data.to_vec() });
        }
        let turned = (0..heads).flat_map(|head| {
            let block = &data[head * rows * columns..(head + 1) * rows * columns];
            (0..columns).flat_map(move |token| (0..rows).map(move |column| block[column * columns + token]))
        });
        Some(Heads { heads, tokens: columns, head_dim: rows, data: turned.collect() })
    }

    fn at(&self, head: usize, token: usize, column: usize) -> f32 {
        self.data[(head * self.tokens + token) * self.head_dim + column]
    }
}

/// Evaluates operands for one sequence whose rows are given.
struct Reading<'a> {
    survey: &'a Survey<'a>,
    node: NodeId,
    transposed: bool,
    source: NodeId,
    width: usize,
}

impl Reading<'_> {
    /// The operand for rows `row(token, column)`.
    fn of(&self, tokens: usize, row: impl Fn(usize, usize) -> f32) -> Result<Heads, Reason> {
        let failed = || "one of its operands can't be computed on a probe".to_owned();
        let mut probe = Probe::new(self.survey.graph, &[tokens]).ok_or_else(failed)?;
        let shape = probe.shape(self.source).ok_or_else(failed)?;
        let data: Vec<f32> = (0..tokens)
            .flat_map(|token| (0..self.width).map(move |column| (token, column)))
            .map(|(t, c)| row(t, c))
            .collect();
        let rows = Tensor::from_f32(&shape, &data).map_err(|_| failed())?;
        probe.give(self.source, rows).ok_or_else(failed)?;
        let value = probe.value(self.node).ok_or_else(failed)?;
        Heads::of(&value, self.transposed).filter(|heads| heads.tokens == tokens).ok_or_else(failed)
    }
}

impl Operand {
    /// Reads what an operand of a product is made of.
    pub(super) fn read(
        survey: &Survey,
        node: NodeId,
        transposed: bool,
        rotations: &mut Rotations,
        max_tokens: usize,
    ) -> Result<Operand, Reason> {
        let source = survey.source(node)?;
        let width = row_width(&survey.graph.node(source).fact.shape).unwrap_or(0);
        let reading = Reading { survey, node, transposed, source, width };
        let mut operand = reading.unrotated()?;
        if reading.differs(&operand)? {
            if operand.offset.is_some() {
                return Err("one of its operands is shifted and rotated".to_owned());
            }
            let leaves = survey.ambient_leaves(node, &[source]);
            if let Some(known) = rotations.get(&leaves) {
                operand.rotation = Some(known.clone());
                if !reading.differs(&operand)? {
                    return Ok(operand);
                }
            }
            let rotation = reading.rotation(&mut operand, max_tokens)?;
            rotations.insert(leaves, rotation);
        }
        Ok(operand)
    }

    /// Whether the operand reads the rows as another one does, but for a factor.
    pub(super) fn reads_as(&self, other: &Operand) -> bool {
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * a.abs().max(1.0);
        let shifts = match (&self.offset, &other.offset) {
            (Some(a), Some(b)) => match (a.as_f32(), b.as_f32()) {
                (Ok(a), Ok(b)) => a.iter().zip(b).all(near),
                _ => false,
            },
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let alike = (self.source, &self.columns) == (other.source, &other.columns);
        alike && shifts && self.rotation.is_none()
    }
}

impl Reading<'_> {
    /// The operand as the first token shows it: there no angle is anything but 0.
    fn unrotated(&self) -> Result<Operand, Reason> {
        let shift = self.of(1, |_, _| 0.0)?;
        let ones = self.of(1, |_, _| 1.0)?;
        let coded = self.of(1, |_, column| (column + 1) as f32)?;
        let moved = || "one of its operands doesn't just move columns".to_owned();
        let factor = ones.data.first().zip(shift.data.first()).map(|(one, zero)| one - zero).ok_or_else(moved)?;
        if !factor.is_normal() {
            return Err(moved());
        }
        let parts = ones.data.iter().zip(&shift.data).zip(&coded.data);
        let column = |((one, zero), code): ((&f32, &f32), &f32)| {
            let (scale, place) = ((one - zero) / factor, (code - zero) / factor - 1.0);
            let column = place.round();
            let exact = (scale - 1.0).abs() < 1e-4 && (place - column).abs() < 0.1 && column >= 0.0;
            (exact && (column as usize) < self.width).then_some(column as usize)
        };
        let columns: Vec<usize> = parts.map(column).collect::<Option<_>>().ok_or_else(moved)?;
        let shifted = shift.data.iter().any(|&value| value != 0.0);
        let offset: Vec<f32> = shift.data.iter().map(|value| value / factor).collect();
        let follow = columns.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let numbers: Vec<f32> = columns.iter().map(|&column| column as f32).collect();
        let tensor = |data: &[f32]| Tensor::from_f32(&[data.len()], data).map_err(|error| error.to_string());
        let picked = (!follow).then(|| tensor(&numbers)).transpose()?;
        let offset = shifted.then(|| tensor(&offset)).transpose()?;
        let factor = if (factor - 1.0).abs() < 1e-6 { 1.0 } else { factor };
        let Heads { heads, head_dim, .. } = shift;
        Ok(Operand { source: self.source, heads, head_dim, columns, factor, picked, offset, rotation: None })
    }

    /// Whether the operand isn't what `operand` says, on random rows.
    fn differs(&self, operand: &Operand) -> Result<bool, Reason> {
        let row = |token: usize, column: usize| noise(token * self.width + column);
        let found = self.of(FEW_TOKENS, row)?;
        let width = operand.head_dim;
        let offset = operand.offset.as_ref().and_then(|offset| offset.as_f32().ok());
        let near = |(head, token): (usize, usize)| {
            let plain = |column: usize| {
                let at = head * width + column;
                row(token, operand.columns[at]) + offset.map_or(0.0, |offset| offset[at])
            };
            let expected: Vec<f32> = (0..width).map(plain).collect();
            let expected = operand.rotation.as_ref().map_or_else(|| expected.clone(), |r| r.rotate(&expected, token));
            let close = |column: usize| {
                let (a, b) = (found.at(head, token, column), operand.factor * expected[column]);
                (a - b).abs() <= TOLERANCE * (a.abs() + operand.factor.abs())
            };
            (0..width).all(close)
        };
        let places = (0..operand.heads).flat_map(|head| (0..FEW_TOKENS).map(move |token| (head, token)));
        Ok(!places.into_iter().all(near))
    }

    /// How the operand is rotated; both ways of pairing columns are tried.
    fn rotation(&self, operand: &mut Operand, max_tokens: usize) -> Result<Rotation, Reason> {
        let rotated = self.rotated_columns(operand)?;
        let unknown = || "one of its operands is transformed in an unknown way".to_owned();
        if rotated == 0 || !rotated.is_multiple_of(2) {
            return Err(unknown());
        }
        for interleaved in [false, true] {
            operand.rotation = Some(self.angles(operand, rotated, interleaved, FEW_TOKENS)?);
            if !self.differs(operand)? {
                let rotation = self.angles(operand, rotated, interleaved, max_tokens)?;
                operand.rotation = Some(rotation.clone());
                return Ok(rotation);
            }
        }
        Err(unknown())
    }

    /// Columns of a head up to the last one that depends on the position.
    fn rotated_columns(&self, operand: &Operand) -> Result<usize, Reason> {
        let row = |_: usize, column: usize| noise(column);
        let found = self.of(FEW_TOKENS, row)?;
        let moves = |&column: &usize| {
            let still = operand.factor * row(0, operand.columns[column]);
            (1..FEW_TOKENS).any(|token| (found.at(0, token, column) - still).abs() > TOLERANCE)
        };
        let last = (0..operand.head_dim).rev().find(moves);
        Ok(last.map_or(0, |last| last + 1).next_multiple_of(2))
    }

    /// The angles: what becomes of rows that are 1 in the first column of each pair.
    fn angles(&self, operand: &Operand, rotated: usize, interleaved: bool, tokens: usize) -> Result<Rotation, Reason> {
        let pairs = pairs(rotated, interleaved);
        let mut first = vec![false; self.width];
        for head in 0..operand.heads {
            pairs.iter().for_each(|&[column, _]| first[operand.columns[head * operand.head_dim + column]] = true);
        }
        let found = self.of(tokens, |_, column| f32::from(u8::from(first[column])))?;
        let mut table = Vec::with_capacity(tokens * rotated);
        for token in 0..tokens {
            for part in 0..2 {
                table.extend(pairs.iter().map(|pair| found.at(0, token, pair[part]) / operand.factor));
            }
        }
        let table = Tensor::from_f32(&[tokens, rotated], &table).map_err(|error| error.to_string())?;
        Ok(Rotation { interleaved, table })
    }
}

/// The columns of each pair.
fn pairs(rotated: usize, interleaved: bool) -> Vec<[usize; 2]> {
    let half = rotated / 2;
    (0..half).map(|pair| if interleaved { [2 * pair, 2 * pair + 1] } else { [pair, pair + half] }).collect()
}

impl Rotation {
    /// Rotates the columns of one head at a position.
    fn rotate(&self, row: &[f32], position: usize) -> Vec<f32> {
        let rotated = self.table.shape().last().copied().unwrap_or(0);
        let angles = self.table.as_f32().ok().and_then(|table| table.chunks_exact(rotated.max(1)).nth(position));
        let mut out = row.to_vec();
        let Some((cosines, sines)) = angles.map(|angles| angles.split_at(rotated / 2)) else { return out };
        for (pair, [first, second]) in pairs(rotated, self.interleaved).into_iter().enumerate() {
            let (x, y) = (row[first], row[second]);
            out[first] = x * cosines[pair] - y * sines[pair];
            out[second] = y * cosines[pair] + x * sines[pair];
        }
        out
    }
}
