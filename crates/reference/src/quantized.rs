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

/// Quantises one row on its own; the steps are those of f32, so that the integers are the kernels'.
fn quantize(row: &[f32], factor: &[f32], bits: u8) -> Row {
    let values: Vec<f32> = row.iter().zip(factor).map(|(&value, &factor)| value * factor).collect();
    let low = values.iter().copied().fold(0.0f32, f32::min);
    let high = values.iter().copied().fold(0.0f32, f32::max);
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
    bias: bool,
    activation: Option<Activation>,
    residual: bool,
) -> Result<Tensor> {
    let (x, codes) = (operands[0], operands[1].as_i8()?);
    let (scales, factor) = (operands[2].as_f32()?, operands[3].as_f32()?);
    let (k, n) = (width(x), scales.len());
    let bias_of = if bias { Some(operands[4].as_f32()?) } else { None };
    let residual_of = if residual { Some(operands[4 + usize::from(bias)].as_f32()?) } else { None };
    let mut out = Vec::with_capacity(x.len() / k * n);
    for row in x.as_f32()?.chunks_exact(k) {
        let row = quantize(row, factor, bits);
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

pub(crate) fn dequantize(operands: &[&Tensor]) -> Result<Tensor> {
    let columns = width(operands[0]);
    let rows = operands[0].as_i8()?.chunks_exact(columns).zip(operands[1].as_f32()?);
    let out: Vec<f32> = rows.flat_map(|(row, &scale)| row.iter().map(move |&code| f32::from(code) * scale)).collect();
    Ok(Tensor::from_f32(operands[0].shape(), &out)?)
}
