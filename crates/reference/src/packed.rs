//! The transformer ops on packed tokens.

use centuple_graph::{Activation, Pooling};
use centuple_tensor::{Layout, Tensor};

use crate::activation::activate;
use crate::{ReferenceError, Result};

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

pub(crate) fn positions(operands: &[&Tensor], offset: i64, padding: Option<i64>, layout: &Layout) -> Result<Tensor> {
    let mut positions = Vec::with_capacity(layout.tokens());
    for span in layout.spans() {
        let mut next = span.past as i64 + offset;
        for token in span.start..span.start + span.tokens {
            if padding.is_some() && padding == Some(operands[0].as_i64()?[token]) {
                positions.push(offset - 1);
            } else {
                positions.push(next);
                next += 1;
            }
        }
    }
    Ok(Tensor::from_i64(&[positions.len()], &positions)?)
}

pub(crate) fn shift_right(ids: &Tensor, first: Option<i64>, layout: &Layout) -> Result<Tensor> {
    let mut shifted = Vec::with_capacity(ids.len());
    for span in layout.spans() {
        let ids = &ids.as_i64()?[span.start..span.start + span.tokens];
        shifted.push(first.unwrap_or(ids[ids.len() - 1]));
        shifted.extend_from_slice(&ids[..ids.len() - 1]);
    }
    Ok(Tensor::from_i64(&[shifted.len()], &shifted)?)
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

/// A dot product by eight independent sums: constant folding multiplies whole weight matrices.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let (a_eights, b_eights) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a_eights.remainder().iter().zip(b_eights.remainder());
    let rest: f64 = rest.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    let mut sums = [0.0f64; 8];
    for (a, b) in a_eights.zip(b_eights) {
        for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += f64::from(a) * f64::from(b);
        }
    }
    sums.iter().sum::<f64>() + rest
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
            let mut sum = dot(row, weights);
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

pub(crate) fn grouped_linear(operands: &[&Tensor], groups: usize) -> Result<Tensor> {
    let (x, weight) = (operands[0], operands[1]);
    let (n, k) = (weight.shape()[1], weight.shape()[2]);
    let mut out = Vec::new();
    if k > 0 {
        for row in x.as_f32()?.chunks_exact(groups * k) {
            for (column, weights) in weight.as_f32()?.chunks_exact(k).enumerate() {
                let group = &row[column / n * k..][..k];
                out.push(dot(group, weights) as f32);
            }
        }
    }
    let mut shape = x.shape().to_vec();
    shape.pop();
    shape.push(groups * n);
    out.resize(shape.iter().product(), 0.0);
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn rotary(operands: &[&Tensor], head_dim: usize, interleaved: bool) -> Result<Tensor> {
    let (x, columns) = (operands[0], width(operands[0]));
    let half = operands[2].shape()[1] / 2;
    let mut out = x.as_f32()?.to_vec();
    for (row, &position) in out.chunks_exact_mut(columns).zip(operands[1].as_i64()?) {
        let (cosines, sines) = lookup(operands[2], position)?.split_at(half);
        for head in row.chunks_exact_mut(head_dim) {
            for pair in 0..half {
                let [a, b] = if interleaved { [2 * pair, 2 * pair + 1] } else { [pair, pair + half] };
                let [x1, x2, cosine, sine] = [head[a], head[b], cosines[pair], sines[pair]].map(f64::from);
                head[a] = (x1 * cosine - x2 * sine) as f32;
                head[b] = (x2 * cosine + x1 * sine) as f32;
            }
        }
    }
    Ok(Tensor::from_f32(x.shape(), &out)?)
}

/// The first operand, and the second added where it is a residual.
fn summed(operands: &[&Tensor], residual: bool) -> Result<Vec<f64>> {
    let mut values: Vec<f64> = operands[0].as_f32()?.iter().map(|&value| f64::from(value)).collect();
    if residual {
        for (value, &add) in values.iter_mut().zip(operands[1].as_f32()?) {
            *value += f64::from(add);
        }
    }
    Ok(values)
}

pub(crate) fn rms_norm(operands: &[&Tensor], epsilon: f32, residual: bool) -> Result<Tensor> {
    let x = operands[0];
    let columns = width(x);
    let gamma = operands[1 + usize::from(residual)].as_f32()?;
    let mut out = Vec::with_capacity(x.len());
    for row in summed(operands, residual)?.chunks_exact(columns) {
        let square = row.iter().map(|value| value * value).sum::<f64>() / columns as f64;
        let scale = 1.0 / (square + f64::from(epsilon)).sqrt();
        out.extend(row.iter().zip(gamma).map(|(value, &g)| (value * scale * f64::from(g)) as f32));
    }
    Ok(Tensor::from_f32(x.shape(), &out)?)
}

pub(crate) fn head_norm(operands: &[&Tensor], epsilon: f32) -> Result<Tensor> {
    let (x, head_dim) = (operands[0], operands[1].len().max(1));
    let heads = x.reshaped(&[x.len() / head_dim, head_dim])?;
    Ok(rms_norm(&[&heads, operands[1]], epsilon, false)?.reshaped(x.shape())?)
}

pub(crate) fn gate(operands: &[&Tensor], activation: Activation) -> Result<Tensor> {
    let pairs = operands[0].as_f32()?.iter().zip(operands[1].as_f32()?);
    let out: Vec<f32> = pairs.map(|(&a, &b)| (activate(activation, f64::from(a)) * f64::from(b)) as f32).collect();
    Ok(Tensor::from_f32(operands[0].shape(), &out)?)
}

pub(crate) fn layer_norm(operands: &[&Tensor], epsilon: f32, residual: bool) -> Result<Tensor> {
    let x = operands[0];
    let columns = width(x);
    let first = 1 + usize::from(residual);
    let (gamma, beta) = (operands[first].as_f32()?, operands[first + 1].as_f32()?);
    let values = summed(operands, residual)?;
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

pub(crate) fn select(x: &Tensor, layout: &Layout) -> Result<Tensor> {
    let columns = width(x);
    let data = x.as_f32()?;
    let out: Vec<f32> = layout.selected().flat_map(|row| &data[row * columns..(row + 1) * columns]).copied().collect();
    Ok(Tensor::from_f32(&[out.len() / columns, columns], &out)?)
}

pub(crate) fn pool(operands: &[&Tensor], pooling: Pooling, layout: &Layout) -> Result<Tensor> {
    let x = operands[0];
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
                Pooling::LastEqual(id) => {
                    let ids = &operands[1].as_i64()?[span.start..span.start + span.tokens];
                    token(ids.iter().rposition(|&found| found == id).unwrap_or(span.tokens - 1), column)
                }
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
