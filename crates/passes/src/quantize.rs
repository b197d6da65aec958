//! Quantisation: linear layers over tokens become integer products, large embedding tables become codes.
//!
//! Weights are symmetric per output channel, activations unsigned per token and quantised when a batch runs. Before
//! that each input channel is smoothed: `x / s` and `w · s` with `s = max|x|^a / max|w|^(1 - a)` (Xiao et al. 2022,
//! arXiv:2211.10438), where `max|x|` was observed on calibration texts. What rounding the weights takes from a layer's mean
//! result is given back in its bias (Nagel et al. 2019, arXiv:1906.04721).
//!
//! Not in the pipeline: it needs observations, so the caller runs it on the optimised graph.

use std::collections::HashMap;

use centuple_graph::{Graph, GraphError, Node, NodeId, Op};
use centuple_tensor::{Symbol, Tensor};

use crate::pipeline::{PassError, apply_alone};
use crate::rewrite::{Report, Rewrite, rewrite};

/// Largest code of a weight.
const WEIGHT_LEVELS: f32 = 127.0;
/// Largest sum that a 16-bit lane of the byte products holds.
const LANE_LIMIT: i32 = 32767;
/// Tables of fewer rows stay as they are.
const TABLE_ROWS: usize = 256;

/// What was seen of the values that feed the linear layers, by the value's node.
pub type Observations = HashMap<NodeId, Channels>;

/// What was seen of each channel of a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channels {
    /// Largest magnitude.
    pub largest: Vec<f32>,
    /// Mean.
    pub mean: Vec<f32>,
}

/// How a graph is quantised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantization {
    /// Bits of an activation's code: 7 or 8.
    pub bits: u8,
    /// The same for values that come straight out of an activation function, whose tails are long.
    pub activated_bits: u8,
    /// The exponent `a` of smoothing; 0 puts all difficulty on the activations, 1 on the weights.
    pub smoothing: f32,
    /// Whether large embedding tables are quantised too.
    pub tables: bool,
}

impl Default for Quantization {
    fn default() -> Quantization {
        Quantization { bits: 7, activated_bits: 8, smoothing: 0.65, tables: true }
    }
}

/// The values whose channels must be observed before [`quantize`].
pub fn observed_values(graph: &Graph) -> Vec<NodeId> {
    let mut values: Vec<NodeId> = graph
        .nodes()
        .iter()
        .filter(|node| linear_over_tokens(graph, node).is_some())
        .map(|node| node.inputs[0])
        .collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// Quantises every linear layer over tokens whose input was observed.
///
/// # Errors
/// The rewritten graph does not verify.
pub fn quantize(
    graph: &Graph,
    observations: &Observations,
    quantization: &Quantization,
) -> Result<(Graph, Report), PassError> {
    let rule = |state: &mut Rewrite, _, node: &Node| {
        if matches!(node.op, Op::Linear { .. }) {
            linear(state, node, observations, quantization)
        } else if quantization.tables && node.op == Op::Embedding {
            embedding(state, node)
        } else {
            Ok(None)
        }
    };
    apply_alone("quantize", graph, |graph| rewrite(graph, rule))
}

/// The weight of a linear layer with one row per token.
fn linear_over_tokens<'a>(graph: &'a Graph, node: &Node) -> Option<&'a Tensor> {
    let over_tokens = node.fact.shape.first() == Some(&Symbol::Tokens.into());
    let weight = graph.constant_of(*node.inputs.get(1)?)?;
    (matches!(node.op, Op::Linear { .. }) && over_tokens && node.fact.shape.len() == 2).then_some(weight)
}

fn linear(
    state: &mut Rewrite,
    node: &Node,
    observations: &Observations,
    quantization: &Quantization,
) -> Result<Option<NodeId>, GraphError> {
    let Op::Linear { bias, activation, residual } = node.op else { return Ok(None) };
    let Some(weight) = linear_over_tokens(state.old, node) else {
        state.refuse(node, "it has no row per token, or its weight is computed");
        return Ok(None);
    };
    let (Some(channels), Ok(data)) = (observations.get(&node.inputs[0]), weight.as_f32()) else {
        state.refuse(node, "its input was not observed");
        return Ok(None);
    };
    let [n, k] = [weight.shape()[0], weight.shape()[1]];
    let smoothing = smoothing(data, &channels.largest, quantization.smoothing);
    let bits = if is_activated(state.old, node.inputs[0]) { quantization.activated_bits } else { quantization.bits };
    let means: Vec<f64> = channels.mean.iter().zip(&smoothing).map(|(mean, s)| f64::from(mean / s)).collect();
    let mut lost = Vec::with_capacity(n);
    let (mut codes, mut scales) = (Vec::with_capacity(n * k), Vec::with_capacity(n));
    for row in data.chunks_exact(k.max(1)) {
        let row: Vec<f32> = row.iter().zip(&smoothing).map(|(weight, factor)| weight * factor).collect();
        let (row_codes, scale) = weight_codes(&row, bits);
        let rounding = row.iter().zip(&row_codes).map(|(weight, &code)| weight - f32::from(code) * scale);
        lost.push(rounding.zip(&means).map(|(rounding, mean)| f64::from(rounding) * mean).sum::<f64>() as f32);
        codes.extend(row_codes);
        scales.push(scale);
    }
    let factor: Vec<f32> = smoothing.iter().map(|factor| 1.0 / factor).collect();
    let (Ok(codes), Ok(scales), Ok(factor)) =
        (Tensor::from_i8(&[n, k], &codes), Tensor::from_f32(&[n], &scales), Tensor::from_f32(&[k], &factor))
    else {
        return Ok(None);
    };
    let mut inputs = vec![
        state.image(node.inputs[0]),
        state.new.constant(format!("{}.codes", node.name), codes)?,
        state.new.constant(format!("{}.scales", node.name), scales)?,
        state.new.constant(format!("{}.factor", node.name), factor)?,
    ];
    inputs.extend(state.images(&node.inputs[2..]));
    let old_bias = bias.then(|| state.new.constant_of(inputs[4])).flatten().and_then(|bias| bias.as_f32().ok());
    if let Some(old_bias) = old_bias {
        let corrected: Vec<f32> = old_bias.iter().zip(&lost).map(|(bias, lost)| bias + lost).collect();
        if let Ok(corrected) = Tensor::from_f32(&[n], &corrected) {
            inputs[4] = state.new.constant(format!("{}.bias", node.name), corrected)?;
        }
    }
    let op = Op::QuantizedLinear { bits, bias, activation, residual };
    state.new.push(node.name.clone(), op, &inputs).map(Some)
}

/// Tables of many rows become codes with a scale per row.
fn embedding(state: &mut Rewrite, node: &Node) -> Result<Option<NodeId>, GraphError> {
    let mut inputs = Vec::with_capacity(node.inputs.len());
    let mut changed = false;
    for pair in node.inputs.chunks_exact(2) {
        let table = state.old.constant_of(pair[0]).filter(|table| table.shape()[0] >= TABLE_ROWS);
        let name = &state.old.node(pair[0]).name;
        let quantised = match table.map(table_codes) {
            Some(Some((codes, scales))) => {
                let codes = state.new.constant(format!("{name}.codes"), codes)?;
                let scales = state.new.constant(format!("{name}.scales"), scales)?;
                changed = true;
                state.new.push(name.clone(), Op::Dequantize, &[codes, scales])?
            }
            Some(None) | None => state.image(pair[0]),
        };
        inputs.extend([quantised, state.image(pair[1])]);
    }
    if !changed {
        return Ok(None);
    }
    state.new.push(node.name.clone(), Op::Embedding, &inputs).map(Some)
}

/// Whether a value is the result of an activation function.
fn is_activated(graph: &Graph, value: NodeId) -> bool {
    let op = &graph.node(value).op;
    matches!(op, Op::Activation(_) | Op::Linear { activation: Some(_), residual: false, .. })
}

/// The factor `s` of every input channel.
fn smoothing(weight: &[f32], largest: &[f32], exponent: f32) -> Vec<f32> {
    let mut of_weight = vec![0.0f32; largest.len()];
    for row in weight.chunks_exact(largest.len().max(1)) {
        for (channel, value) in of_weight.iter_mut().zip(row) {
            *channel = channel.max(value.abs());
        }
    }
    let factor = |(&x, &w): (&f32, &f32)| {
        let factor = x.powf(exponent) / w.powf(1.0 - exponent);
        if x > 0.0 && w > 0.0 && factor.is_normal() { factor } else { 1.0 }
    };
    largest.iter().zip(&of_weight).map(factor).collect()
}

/// Codes of one output channel and their scale, such that no 16-bit lane can overflow.
fn weight_codes(row: &[f32], bits: u8) -> (Vec<i8>, f32) {
    let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    if !(largest > 0.0 && largest.is_finite()) {
        return (vec![0; row.len()], 0.0);
    }
    let mut scale = largest / WEIGHT_LEVELS;
    loop {
        let codes: Vec<i8> = row.iter().map(|value| code(value / scale)).collect();
        let excess = lane_excess(&codes, bits);
        if excess <= 1.0 {
            return (codes, scale);
        }
        // Rounding can put a shrunk sum back over the limit, hence the loop and the small extra.
        scale *= excess * 1.001;
    }
}

/// The code next to a value, of two the even one.
fn code(value: f32) -> i8 {
    // At this magnitude a float's last bit is 1, so adding it rounds. Unlike a call for each value, it vectorises.
    const ROUND: f32 = 12_582_912.0;
    ((value.clamp(-WEIGHT_LEVELS, WEIGHT_LEVELS) + ROUND) - ROUND) as i8
}

/// How many times the worst 16-bit lane exceeds its limit; at most 1 where none overflows.
///
/// With 8-bit activations a lane sums the products of two neighbouring channels, with 7-bit ones it is chained: four
/// products, of two neighbours and of those four channels further on. Codes of one sign may all meet the
/// largest activation, so both signs are bounded on their own.
fn lane_excess(codes: &[i8], bits: u8) -> f32 {
    let worst_of = |group: [i16; 8]| {
        let pairs = [group[0] + group[1], group[2] + group[3], group[4] + group[5], group[6] + group[7]];
        let chained = [pairs[0] + pairs[2], pairs[1] + pairs[3]];
        if bits == 7 { chained[0].max(chained[1]) } else { pairs.into_iter().fold(0, i16::max) }
    };
    let mut worst = 0;
    let mut widen = |codes: &[i8; 8]| {
        worst = worst.max(worst_of(codes.map(|code| i16::from(code.max(0)))));
        worst = worst.max(worst_of(codes.map(|code| -i16::from(code.min(0)))));
    };
    let (groups, rest) = codes.as_chunks::<8>();
    groups.iter().for_each(&mut widen);
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    widen(&last);
    let activation = (1i32 << bits) - 1;
    (i32::from(worst) * activation) as f32 / LANE_LIMIT as f32
}

/// Codes of a table and a scale per row.
fn table_codes(table: &Tensor) -> Option<(Tensor, Tensor)> {
    let [rows, columns] = table.shape() else { return None };
    let (mut codes, mut scales) = (Vec::with_capacity(table.len()), Vec::with_capacity(*rows));
    for row in table.as_f32().ok()?.chunks_exact((*columns).max(1)) {
        let scale = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / WEIGHT_LEVELS;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        codes.extend(row.iter().map(|value| code(value * inverse)));
        scales.push(scale);
    }
    Some((Tensor::from_i8(table.shape(), &codes).ok()?, Tensor::from_f32(&[*rows], &scales).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lane_can_overflow() {
        let rows: [Vec<f32>; 4] = [
            vec![1.0; 24],
            (0..24).map(|index| if index % 2 == 0 { 1.0 } else { -1.0 }).collect(),
            (0..17).map(|index| (index as f32).sin()).collect(),
            vec![0.0; 9],
        ];
        for row in &rows {
            for bits in [7, 8] {
                let (codes, scale) = weight_codes(row, bits);
                assert!(lane_excess(&codes, bits) <= 1.0);
                for (code, weight) in codes.iter().zip(row) {
                    assert!((f32::from(*code) * scale - weight).abs() <= scale * 0.51, "{weight}: {code} · {scale}");
                }
            }
        }
    }

    #[test]
    fn a_channel_without_values_is_not_smoothed() {
        assert_eq!(smoothing(&[1.0, 0.0, 2.0, 4.0], &[0.0, 3.0], 0.5), [1.0, (3.0f32 / 4.0).sqrt()]);
    }
}
