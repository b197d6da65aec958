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

/// All indices of a shape in row-major order.
fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let strides = strides(shape);
    let shape = shape.to_vec();
    let count: usize = shape.iter().product();
    (0..count).map(move |flat| strides.iter().zip(&shape).map(|(&stride, &dim)| flat / stride % dim).collect())
}

/// The element of `x` that broadcasts to `index`.
fn at(x: &Tensor, data: &[f32], index: &[usize]) -> f64 {
    let skip = index.len() - x.shape().len();
    let strides = strides(x.shape());
    let flat: usize = x
        .shape()
        .iter()
        .zip(&strides)
        .zip(&index[skip..])
        .map(|((&dim, &stride), &i)| if dim == 1 { 0 } else { i * stride })
        .sum();
    f64::from(data[flat])
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
    let (x, y) = (a.as_f32()?, b.as_f32()?);
    let out: Vec<f32> = indices(&shape).map(|i| function(at(a, x, &i), at(b, y, &i)) as f32).collect();
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn select(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let shape = broadcast(&broadcast(condition.shape(), a.shape()), b.shape());
    let (c, x, y) = (condition.as_f32()?, a.as_f32()?, b.as_f32()?);
    let pick = |i: Vec<usize>| if at(condition, c, &i) != 0.0 { at(a, x, &i) } else { at(b, y, &i) };
    let out: Vec<f32> = indices(&shape).map(|i| pick(i) as f32).collect();
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a_rank, b_rank) = (a.shape().len(), b.shape().len());
    let (m, k, n) = (a.shape()[a_rank - 2], a.shape()[a_rank - 1], b.shape()[b_rank - 1]);
    let batch = broadcast(&a.shape()[..a_rank - 2], &b.shape()[..b_rank - 2]);
    let shape = [batch, vec![m, n]].concat();
    let (x, y) = (a.as_f32()?, b.as_f32()?);
    let element = |index: Vec<usize>| {
        let rank = index.len();
        let (mut left, mut right) = (index.clone(), index);
        let mut sum = 0.0;
        for inner in 0..k {
            left[rank - 1] = inner;
            right[rank - 2] = inner;
            sum += at(a, x, &left) * at(b, y, &right);
        }
        sum as f32
    };
    let out: Vec<f32> = indices(&shape).map(element).collect();
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
    let shape: Vec<usize> = perm.iter().map(|&axis| x.shape()[axis]).collect();
    let data = x.as_f32()?;
    let element = |index: Vec<usize>| {
        let mut source = vec![0; index.len()];
        for (&axis, i) in perm.iter().zip(index) {
            source[axis] = i;
        }
        at(x, data, &source) as f32
    };
    let out: Vec<f32> = indices(&shape).map(element).collect();
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn slice(x: &Tensor, axis: usize, start: usize, end: usize) -> Result<Tensor> {
    let mut shape = x.shape().to_vec();
    shape[axis] = end - start;
    let data = x.as_f32()?;
    let element = |mut index: Vec<usize>| {
        index[axis] += start;
        data[index.iter().zip(strides(x.shape())).map(|(i, stride)| i * stride).sum::<usize>()]
    };
    let out: Vec<f32> = indices(&shape).map(element).collect();
    Ok(Tensor::from_f32(&shape, &out)?)
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
    let mut out = Vec::new();
    for block in data.chunks_exact((rows * inner).max(1)) {
        for &index in picked.as_i64()? {
            let row = usize::try_from(index).ok().filter(|&row| row < rows);
            let row = row.ok_or(ReferenceError::Index { index, rows })?;
            out.extend_from_slice(&block[row * inner..(row + 1) * inner]);
        }
    }
    let shape = [&x.shape()[..axis], picked.shape(), &x.shape()[axis + 1..]].concat();
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn reduce(reduction: Reduction, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let mut shape = x.shape().to_vec();
    for &axis in axes {
        shape[axis] = 1;
    }
    let count: usize = axes.iter().map(|&axis| x.shape()[axis]).product();
    let start = if reduction == Reduction::Max { f64::NEG_INFINITY } else { 0.0 };
    let mut out = vec![start; shape.iter().product()];
    let strides = strides(&shape);
    for (index, &value) in indices(x.shape()).zip(x.as_f32()?) {
        let kept = index.iter().zip(&shape).zip(&strides);
        let flat: usize = kept.map(|((&i, &dim), &stride)| if dim == 1 { 0 } else { i * stride }).sum();
        out[flat] = match reduction {
            Reduction::Sum | Reduction::Mean => out[flat] + f64::from(value),
            Reduction::Max => out[flat].max(f64::from(value)),
        };
    }
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
