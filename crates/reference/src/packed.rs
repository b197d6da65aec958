//! The transformer ops on packed tokens.

use centuple_graph::{Activation, Attention, Pooling};
use centuple_tensor::{Layout, PAGE_TOKENS, Span, Tensor};

use crate::activation::activate;
use crate::{Batch, ReferenceError, Result};

/// Keys and values of earlier steps: per cache slot and page, `PAGE_TOKENS` rows of keys and of values.
#[derive(Default)]
pub struct Cache {
    slots: Vec<Vec<[Vec<f32>; 2]>>,
}

impl Cache {
    /// A cache of `slots` slots with `pages` pages; rows get their width at the first write.
    pub fn new(slots: usize, pages: usize) -> Cache {
        Cache { slots: vec![vec![[Vec::new(), Vec::new()]; pages]; slots] }
    }

    fn row(&mut self, slot: usize, span: &Span, position: usize) -> Result<(&mut [Vec<f32>; 2], usize)> {
        let page = span.pages.get(position / PAGE_TOKENS).copied().unwrap_or(u32::MAX);
        let pages = self.slots.get_mut(slot);
        let rows = pages.and_then(|pages| pages.get_mut(page as usize));
        rows.map(|rows| (rows, position % PAGE_TOKENS)).ok_or(ReferenceError::Page { slot, page })
    }
}

/// Width of the last dimension.
pub(crate) fn width(x: &Tensor) -> usize {
    x.shape().last().copied().unwrap_or(1).max(1)
}

fn lookup(table: &Tensor, id: i64) -> Result<&[f32]> {
    let columns = width(table);
    let rows = table.len() / columns;
    let row = usize::try_from(id).ok().filter(|&row| row < rows);
    let row = row.ok_or(ReferenceError::Index { index: id, rows })?;
    Ok(&table.as_f32()?[row * columns..(row + 1) * columns])
}

pub(crate) fn positions(offset: i64, layout: &Layout) -> Result<Tensor> {
    let of = |span: &Span| (span.past..span.past + span.tokens).map(|position| position as i64 + offset);
    let positions: Vec<i64> = layout.spans().iter().flat_map(|span| of(span).collect::<Vec<_>>()).collect();
    Ok(Tensor::from_i64(&[positions.len()], &positions)?)
}

pub(crate) fn embedding(operands: &[&Tensor]) -> Result<Tensor> {
    let columns = width(operands[0]);
    let mut out = vec![0.0f32; operands[1].len() * columns];
    for pair in operands.chunks_exact(2) {
        for (row, &id) in out.chunks_exact_mut(columns).zip(pair[1].as_i64()?) {
            for (value, add) in row.iter_mut().zip(lookup(pair[0], id)?) {
                *value += add;
            }
        }
    }
    Ok(Tensor::from_f32(&[operands[1].shape(), &[columns]].concat(), &out)?)
}

pub(crate) fn linear(
    operands: &[&Tensor],
    bias: bool,
    activation: Option<Activation>,
    residual: bool,
) -> Result<Tensor> {
    let (x, weight) = (operands[0], operands[1]);
    let (k, n) = (width(x), weight.shape()[0]);
    let bias_of = if bias { Some(operands[2].as_f32()?) } else { None };
    let residual_of = if residual { Some(operands[2 + usize::from(bias)].as_f32()?) } else { None };
    let mut out = Vec::with_capacity(x.len() / k * n);
    let weight = weight.to_f32()?;
    for row in x.as_f32()?.chunks_exact(k) {
        for (column, weights) in weight.chunks_exact(k).enumerate() {
            let mut sum: f64 = row.iter().zip(weights).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            sum += bias_of.map_or(0.0, |bias| f64::from(bias[column]));
            sum = activation.map_or(sum, |activation| activate(activation, sum));
            sum += residual_of.map_or(0.0, |residual| f64::from(residual[out.len()]));
            out.push(sum as f32);
        }
    }
    let mut shape = x.shape().to_vec();
    shape.pop();
    shape.push(n);
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn layer_norm(operands: &[&Tensor], epsilon: f32, residual: bool) -> Result<Tensor> {
    let x = operands[0];
    let columns = width(x);
    let first = 1 + usize::from(residual);
    let (gamma, beta) = (operands[first].as_f32()?, operands[first + 1].as_f32()?);
    let mut values: Vec<f64> = x.as_f32()?.iter().map(|&value| f64::from(value)).collect();
    if residual {
        for (value, &add) in values.iter_mut().zip(operands[1].as_f32()?) {
            *value += f64::from(add);
        }
    }
    let mut out = Vec::with_capacity(values.len());
    for row in values.chunks_exact(columns) {
        let mean = row.iter().sum::<f64>() / columns as f64;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / columns as f64;
        let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
        for (value, (&g, &b)) in row.iter().zip(gamma.iter().zip(beta)) {
            out.push(((value - mean) * scale * f64::from(g) + f64::from(b)) as f32);
        }
    }
    Ok(Tensor::from_f32(x.shape(), &out)?)
}

pub(crate) fn l2_normalize(x: &Tensor, epsilon: f32) -> Result<Tensor> {
    let columns = width(x);
    let mut out = Vec::with_capacity(x.len());
    for row in x.as_f32()?.chunks_exact(columns) {
        let norm = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        out.extend(row.iter().map(|&value| (f64::from(value) / norm.max(f64::from(epsilon))) as f32));
    }
    Ok(Tensor::from_f32(x.shape(), &out)?)
}

pub(crate) fn pool(x: &Tensor, pooling: Pooling, layout: &Layout) -> Result<Tensor> {
    let columns = width(x);
    let data = x.as_f32()?;
    let mut out = Vec::new();
    for span in layout.spans() {
        let from = span.pool_from.min(span.tokens);
        let token = |row: usize, column: usize| f64::from(data[(span.start + row) * columns + column]);
        for column in 0..columns {
            let counted = from..span.tokens;
            let count = counted.len().max(1) as f64;
            let sum: f64 = counted.clone().map(|row| token(row, column)).sum();
            let weight: f64 = counted.clone().map(|row| (row + 1) as f64).sum();
            let pooled = match pooling {
                Pooling::Cls => token(0, column),
                Pooling::LastToken => token(span.tokens - 1, column),
                Pooling::Mean => sum / count,
                Pooling::MeanSqrtLength => sum / count.sqrt(),
                Pooling::Max if counted.is_empty() => 0.0,
                Pooling::Max => counted.map(|row| token(row, column)).fold(f64::NEG_INFINITY, f64::max),
                Pooling::WeightedMean => {
                    counted.map(|row| token(row, column) * (row + 1) as f64).sum::<f64>() / weight.max(1.0)
                }
            };
            out.push(pooled as f32);
        }
    }
    Ok(Tensor::from_f32(&[layout.spans().len(), columns], &out)?)
}

pub(crate) fn attention(operands: &[&Tensor], attention: &Attention, batch: &mut Batch) -> Result<Tensor> {
    let mut out = vec![0.0f32; operands[0].len()];
    let columns = width(operands[0]);
    for span in batch.layout.spans() {
        let (keys, values) = keys_and_values(operands, attention, span, batch.cache)?;
        for token in 0..span.tokens {
            let row = (span.start + token) * columns;
            for head in 0..attention.heads {
                let at = row + head * attention.head_dim;
                let query = &operands[0].as_f32()?[at..at + attention.head_dim];
                let visible = if attention.causal { span.past + token + 1 } else { keys.len() };
                let result = attend(query, &keys[..visible], &values[..visible], head, attention);
                out[at..at + attention.head_dim].copy_from_slice(&result);
            }
        }
    }
    Ok(Tensor::from_f32(operands[0].shape(), &out)?)
}

type Rows = Vec<Vec<f32>>;

/// All keys and values that a sequence sees; new ones are written to the cache where there is one.
fn keys_and_values(
    operands: &[&Tensor],
    attention: &Attention,
    span: &Span,
    cache: &mut Cache,
) -> Result<(Rows, Rows)> {
    let columns = width(operands[1]);
    let new = |operand: usize, token: usize| -> Result<Vec<f32>> {
        let row = (span.start + token) * columns;
        Ok(operands[operand].as_f32()?[row..row + columns].to_vec())
    };
    let (mut keys, mut values) = (Rows::new(), Rows::new());
    let past = if attention.cache.is_some() { span.past } else { 0 };
    for position in 0..past + span.tokens {
        let Some(slot) = attention.cache else {
            keys.push(new(1, position)?);
            values.push(new(2, position)?);
            continue;
        };
        let (page, row) = cache.row(slot, span, position)?;
        for (operand, side) in page.iter_mut().enumerate() {
            side.resize(PAGE_TOKENS * columns, 0.0);
            if position >= past {
                side[row * columns..(row + 1) * columns].copy_from_slice(&new(operand + 1, position - past)?);
            }
        }
        keys.push(page[0][row * columns..(row + 1) * columns].to_vec());
        values.push(page[1][row * columns..(row + 1) * columns].to_vec());
    }
    Ok((keys, values))
}

/// `softmax(scale · q·Kᵀ) · V` of one query and one head.
fn attend(query: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>], head: usize, attention: &Attention) -> Vec<f32> {
    let at = head / (attention.heads / attention.kv_heads) * attention.head_dim;
    let part = |row: &Vec<f32>| row[at..at + attention.head_dim].to_vec();
    let score = |key: &Vec<f32>| {
        let dot: f64 = query.iter().zip(part(key)).map(|(&q, k)| f64::from(q) * f64::from(k)).sum();
        dot * f64::from(attention.scale)
    };
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0f64; attention.head_dim];
    for (weight, value) in weights.iter().zip(values) {
        for (sum, v) in out.iter_mut().zip(part(value)) {
            *sum += weight / total * f64::from(v);
        }
    }
    out.into_iter().map(|value| value as f32).collect()
}
