//! Linear layers on integers.

use centuple_graph::Activation;
use centuple_tensor::Tensor;

use crate::Result;
use crate::activation::activate;
use crate::packed::width;

/// A quantised row: its codes, and what they mean.
struct Row {
    codes: Vec<i64>,
    scale: f32,
    zero_point: i64,
}

/// Quantises one row, within its own range where none is given; the steps are those of f32, so that the integers are the
/// kernels'.
fn quantize(row: &[f32], factor: &[f32], bits: u8, range: Option<[f32; 2]>) -> Row {
    let values: Vec<f32> = row.iter().zip(factor).map(|(&value, &factor)| value * factor).collect();
    let [low, high] = range.unwrap_or_else(|| [f32::min, f32::max].map(|of| values.iter().copied().fold(0.0, of)));
    let levels = f32::from((1u16 << bits) - 1);
    let scale = (high - low) / levels;
    if scale == 0.0 || !scale.is_finite() {
        return Row { codes: vec![0; row.len()], scale: 0.0, zero_point: 0 };
    }
    let inverse = 1.0 / scale;
    let zero_point = (-low * inverse).round_ties_even();
    let code = |value: &f32| ((value * inverse).round_ties_even() + zero_point).clamp(0.0, levels) as i64;
    Row { codes: values.iter().map(code).collect(), scale, zero_point: zero_point as i64 }
}

pub(crate) fn linear(
    operands: &[&Tensor],
    bits: u8,
    range: Option<[f32; 2]>,
    Epilogue { bias, activation, residual }: Epilogue,
) -> Result<Tensor> {
    let (x, codes) = (operands[0], operands[1].as_i8()?);
    let (scales, factor) = (operands[2].as_f32()?, operands[3].as_f32()?);
    let (k, n) = (width(x), scales.len());
    let bias_of = if bias { Some(operands[4].as_f32()?) } else { None };
    let residual_of = if residual { Some(operands[4 + usize::from(bias)].as_f32()?) } else { None };
    let mut out = Vec::with_capacity(x.len() / k * n);
    for row in x.as_f32()?.chunks_exact(k) {
        let row = quantize(row, factor, bits, range);
        for (column, weights) in codes.chunks_exact(k).enumerate() {
            let products = row.codes.iter().zip(weights);
            let sum: i64 = products.map(|(&code, &weight)| (code - row.zero_point) * i64::from(weight)).sum();
            let mut value = f64::from(row.scale) * f64::from(scales[column]) * sum as f64;
            value += bias_of.map_or(0.0, |bias| f64::from(bias[column]));
            value = activation.map_or(value, |activation| activate(activation, value));
            value += residual_of.map_or(0.0, |residual| f64::from(residual[out.len()]));
            out.push(value as f32);
        }
    }
    let mut shape = x.shape().to_vec();
    shape.pop();
    shape.push(n);
    Ok(Tensor::from_f32(&shape, &out)?)
}

/// What follows the products.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue {
    pub(crate) bias: bool,
    pub(crate) activation: Option<Activation>,
    pub(crate) residual: bool,
}

/// Quantises one group of a row on its own: its codes and their scale.
fn quantize_group(values: &[f32]) -> (Vec<i64>, f32) {
    let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = 1.0 / scale;
    if !(scale.is_finite() && inverse.is_finite()) {
        return (vec![0; values.len()], 0.0);
    }
    (values.iter().map(|value| (value * inverse).round_ties_even() as i64).collect(), scale)
}

pub(crate) fn group_linear(
    operands: &[&Tensor],
    group: usize,
    zero_points: bool,
    epilogue: Epilogue,
) -> Result<Tensor> {
    let (x, codes, scales) = (operands[0], operands[1].as_i8()?, operands[2].as_f32()?);
    let (k, n) = (width(x), operands[1].shape()[0]);
    let groups = k.div_ceil(group);
    let zero_points = if zero_points { operands[3].as_i8()? } else { &vec![0; scales.len()] };
    let rest = operands.len() - usize::from(epilogue.bias) - usize::from(epilogue.residual);
    let bias = if epilogue.bias { Some(operands[rest].as_f32()?) } else { None };
    let residual = if epilogue.residual { Some(operands[operands.len() - 1].as_f32()?) } else { None };
    let mut out = Vec::with_capacity(x.len() / k * n);
    for row in x.as_f32()?.chunks_exact(k) {
        let row: Vec<_> = row.chunks(group).map(quantize_group).collect();
        for (column, weights) in codes.chunks_exact(k).enumerate() {
            let mut total = 0.0f32;
            for (number, (weights, (codes, scale))) in weights.chunks(group).zip(&row).enumerate() {
                let place = column * groups + number;
                let zero_point = i64::from(zero_points[place]);
                let products = codes.iter().zip(weights).map(|(&x, &weight)| x * (i64::from(weight) - zero_point));
                total += products.sum::<i64>() as f32 * (scale * scales[place]);
            }
            let mut value = f64::from(total) + bias.map_or(0.0, |bias| f64::from(bias[column]));
            value = epilogue.activation.map_or(value, |activation| activate(activation, value));
            value += residual.map_or(0.0, |residual| f64::from(residual[out.len()]));
            out.push(value as f32);
        }
    }
    let mut shape = x.shape().to_vec();
    shape.pop();
    shape.push(n);
    Ok(Tensor::from_f32(&shape, &out)?)
}

pub(crate) fn dequantize(operands: &[&Tensor]) -> Result<Tensor> {
    let columns = width(operands[0]);
    let rows = operands[0].as_i8()?.chunks_exact(columns).zip(operands[1].as_f32()?);
    let out: Vec<f32> = rows.flat_map(|(row, &scale)| row.iter().map(move |&code| f32::from(code) * scale)).collect();
    Ok(Tensor::from_f32(operands[0].shape(), &out)?)
}
