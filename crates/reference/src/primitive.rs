//! The primitive ops on tensors of any rank.

use centuple_graph::{Binary, Reduction, Unary};
use centuple_tensor::{DType, Tensor};

use crate::activation::erf;
use crate::{ReferenceError, Result};

/// Row-major strides of a shape.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Strides that read `x` as a tensor of the shape that it broadcasts to.
fn broadcast_strides(x: &[usize], shape: &[usize]) -> Vec<usize> {
    let own = strides(x).into_iter().zip(x).map(|(stride, &dim)| if dim == 1 { 0 } else { stride });
    std::iter::repeat_n(0, shape.len() - x.len()).chain(own).collect()
}

/// Visits all indices of a shape in row-major order, as the flat places that several strides give them.
fn walk<const N: usize>(shape: &[usize], strides: [&[usize]; N], mut visit: impl FnMut([usize; N])) {
    let Some((&last, outer)) = shape.split_last() else { return visit([0; N]) };
    if shape.contains(&0) {
        return;
    }
    let step = strides.map(|strides| strides[outer.len()]);
    let (mut index, mut row) = (vec![0; outer.len()], [0; N]);
    loop {
        let mut places = row;
        for _ in 0..last {
            visit(places);
            places.iter_mut().zip(step).for_each(|(place, step)| *place += step);
        }
        // The next row: the last index that has not come to its end, and 0 for those behind it.
        let Some(axis) = (0..outer.len()).rev().find(|&axis| index[axis] + 1 < outer[axis]) else { return };
        index[axis] += 1;
        index[axis + 1..].fill(0);
        row = strides.map(|strides| index.iter().zip(strides).map(|(i, stride)| i * stride).sum());
    }
}

/// The elements at the places that strides give the indices of a shape.
fn elements(data: &[f32], start: usize, shape: &[usize], strides: &[usize]) -> Result<Tensor> {
    let mut out = Vec::with_capacity(shape.iter().product());
    walk(shape, [strides], |[place]| out.push(data[start + place]));
    Ok(Tensor::from_f32(shape, &out)?)
}

fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let length = a.len().max(b.len());
    let dim = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(length).map_or(1, |at| shape[at]);
    (0..length).map(|i| if dim(a, i) == 1 { dim(b, i) } else { dim(a, i) }).collect()
}

pub(crate) fn map(x: &Tensor, function: impl Fn(f64) -> f64) -> Result<Tensor> {
    let out: Vec<f32> = x.as_f32()?.iter().map(|&value| function(f64::from(value)) as f32).collect();
    Ok(Tensor::from_f32(x.shape(), &out)?)
}

pub(crate) fn unary(unary: Unary, x: f64) -> f64 {
    match unary {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Log1p => x.ln_1p(),
        Unary::Sqrt => x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Erf => erf(x),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Trunc => x.trunc(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Sign => f64::from(u8::from(x > 0.0)) - f64::from(u8::from(x < 0.0)),
        Unary::IsNan => f64::from(u8::from(x.is_nan())),
    }
}

pub(crate) fn binary(binary: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let function = |x: f64, y: f64| match binary {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Pow => x.powf(y),
        Binary::Min => x.min(y),
        Binary::Max => x.max(y),
        Binary::Equal => f64::from(u8::from(x == y)),
        Binary::Less => f64::from(u8::from(x < y)),
    };
    let shape = broadcast(a.shape(), b.shape());
    let [of_a, of_b] = [a, b].map(|x| broadcast_strides(x.shape(), &shape));
    let (x, y) = (a.as_f32()?, b.as_f32()?);
    let mut out = Vec::with_capacity(shape.iter().product());
    walk(&shape, [&of_a, &of_b], |[i, j]| out.push(function(f64::from(x[i]), f64::from(y[j])) as f32));
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn select(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let shape = broadcast(&broadcast(condition.shape(), a.shape()), b.shape());
    let [of_condition, of_a, of_b] = [condition, a, b].map(|x| broadcast_strides(x.shape(), &shape));
    let (c, x, y) = (condition.as_f32()?, a.as_f32()?, b.as_f32()?);
    let mut out = Vec::with_capacity(shape.iter().product());
    walk(&shape, [&of_condition, &of_a, &of_b], |[i, j, k]| out.push(if c[i] != 0.0 { x[j] } else { y[k] }));
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a_rank, b_rank) = (a.shape().len(), b.shape().len());
    let (m, k, n) = (a.shape()[a_rank - 2], a.shape()[a_rank - 1], b.shape()[b_rank - 1]);
    let (a_batch, b_batch) = (&a.shape()[..a_rank - 2], &b.shape()[..b_rank - 2]);
    let batch = broadcast(a_batch, b_batch);
    let [of_a, of_b] = [a_batch, b_batch].map(|own| broadcast_strides(own, &batch));
    let shape = [batch.as_slice(), &[m, n]].concat();
    let (x, y) = (a.as_f32()?, b.as_f32()?);
    let mut out = Vec::with_capacity(shape.iter().product());
    walk(&batch, [&of_a, &of_b], |[i, j]| {
        let (x, y) = (&x[i * m * k..(i + 1) * m * k], &y[j * k * n..(j + 1) * k * n]);
        for row in 0..m {
            let mut sums = vec![0.0; n];
            for inner in 0..k {
                let left = f64::from(x[row * k + inner]);
                let right = &y[inner * n..(inner + 1) * n];
                sums.iter_mut().zip(right).for_each(|(sum, &right)| *sum += left * f64::from(right));
            }
            out.extend(sums.into_iter().map(|sum| sum as f32));
        }
    });
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    let columns = x.shape().last().copied().unwrap_or(1).max(1);
    let mut out = Vec::with_capacity(x.len());
    for row in x.as_f32()?.chunks_exact(columns) {
        let largest = row.iter().map(|&value| f64::from(value)).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = row.iter().map(|&value| (f64::from(value) - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        out.extend(weights.into_iter().map(|weight| (weight / total) as f32));
    }
    Ok(Tensor::from_f32(x.shape(), &out)?)
}

pub(crate) fn transpose(x: &Tensor, perm: &[usize]) -> Result<Tensor> {
    let own = strides(x.shape());
    let shape: Vec<usize> = perm.iter().map(|&axis| x.shape()[axis]).collect();
    let permuted: Vec<usize> = perm.iter().map(|&axis| own[axis]).collect();
    elements(x.as_f32()?, 0, &shape, &permuted)
}

pub(crate) fn slice(x: &Tensor, axis: usize, start: usize, end: usize) -> Result<Tensor> {
    let (mut shape, strides) = (x.shape().to_vec(), strides(x.shape()));
    shape[axis] = end - start;
    elements(x.as_f32()?, start * strides[axis], &shape, &strides)
}

pub(crate) fn concat(operands: &[&Tensor], axis: usize) -> Result<Tensor> {
    let mut shape = operands[0].shape().to_vec();
    shape[axis] = operands.iter().map(|operand| operand.shape()[axis]).sum();
    let outer: usize = shape[..axis].iter().product();
    let mut out = Vec::new();
    for block in 0..outer {
        for operand in operands {
            let size = operand.len() / outer;
            out.extend_from_slice(&operand.as_f32()?[block * size..(block + 1) * size]);
        }
    }
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn gather(x: &Tensor, picked: &Tensor, axis: usize) -> Result<Tensor> {
    let rows = x.shape()[axis];
    let inner: usize = x.shape()[axis + 1..].iter().product();
    let data = x.as_f32()?;
    let picked_rows = indices_below(picked, rows)?;
    let mut out = Vec::new();
    for block in data.chunks_exact((rows * inner).max(1)) {
        for &row in &picked_rows {
            out.extend_from_slice(&block[row * inner..(row + 1) * inner]);
        }
    }
    let shape = [&x.shape()[..axis], picked.shape(), &x.shape()[axis + 1..]].concat();
    Ok(Tensor::from_f32(&shape, &out)?)
}

/// Indices into `rows` rows.
fn indices_below(picked: &Tensor, rows: usize) -> Result<Vec<usize>> {
    let integers: Vec<i64> = match picked.dtype() {
        DType::F32 => picked.as_f32()?.iter().map(|&number| number as i64).collect(),
        DType::F16 | DType::BF16 | DType::I8 | DType::I64 => picked.as_i64()?.to_vec(),
    };
    let row = |index: i64| usize::try_from(index).ok().filter(|&row| row < rows);
    integers.into_iter().map(|index| row(index).ok_or(ReferenceError::Index { index, rows })).collect()
}

pub(crate) fn gather_elements(x: &Tensor, picked: &Tensor, axis: usize) -> Result<Tensor> {
    let data = x.as_f32()?;
    let mut others = strides(x.shape());
    let stride = std::mem::replace(&mut others[axis], 0);
    let mut along = indices_below(picked, x.shape()[axis])?.into_iter();
    let mut out = Vec::with_capacity(picked.len());
    walk(picked.shape(), [&others], |[place]| out.extend(along.next().map(|along| data[place + along * stride])));
    Ok(Tensor::from_f32(picked.shape(), &out)?)
}

pub(crate) fn cumulative_sum(x: &Tensor, axis: usize) -> Result<Tensor> {
    let inner: usize = x.shape()[axis + 1..].iter().product();
    let mut out = x.as_f32()?.to_vec();
    for block in out.chunks_exact_mut((x.shape()[axis] * inner).max(1)) {
        for column in 0..inner {
            let mut sum = 0.0;
            for element in block.iter_mut().skip(column).step_by(inner) {
                sum += f64::from(*element);
                *element = sum as f32;
            }
        }
    }
    Ok(Tensor::from_f32(x.shape(), &out)?)
}

pub(crate) fn expand(x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    elements(x.as_f32()?, 0, shape, &broadcast_strides(x.shape(), shape))
}

pub(crate) fn iota(size: usize) -> Result<Tensor> {
    let out: Vec<f32> = (0..size).map(|index| index as f32).collect();
    Ok(Tensor::from_f32(&[size], &out)?)
}

pub(crate) fn reduce(reduction: Reduction, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let mut shape = x.shape().to_vec();
    for &axis in axes {
        shape[axis] = 1;
    }
    let count: usize = axes.iter().map(|&axis| x.shape()[axis]).product();
    let start = if reduction == Reduction::Max { f64::NEG_INFINITY } else { 0.0 };
    let mut out = vec![start; shape.iter().product()];
    let kept = broadcast_strides(&shape, x.shape());
    let mut values = x.as_f32()?.iter().map(|&value| f64::from(value));
    walk(x.shape(), [&kept], |[place]| {
        let value = values.next().unwrap_or_default();
        out[place] = match reduction {
            Reduction::Sum | Reduction::Mean => out[place] + value,
            Reduction::Max => out[place].max(value),
        };
    });
    let divisor = if reduction == Reduction::Mean { count as f64 } else { 1.0 };
    let out: Vec<f32> = out.into_iter().map(|value| (value / divisor) as f32).collect();
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn to_float(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::I64 => {
            let out: Vec<f32> = x.as_i64()?.iter().map(|&value| value as f32).collect();
            Ok(Tensor::from_f32(x.shape(), &out)?)
        }
        DType::F32 | DType::F16 | DType::BF16 | DType::I8 => Ok(Tensor::from_f32(x.shape(), x.as_f32()?)?),
    }
}
