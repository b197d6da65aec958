//! Quantisation: linear layers over tokens become integer products, large embedding tables become codes.
//!
//! Weights are symmetric per output channel, activations unsigned per token and quantised when a batch runs. Before
//! that each input channel is smoothed: `x / s` and `w · s` with `s = max|x|^a / max|w|^(1 - a)` (Xiao et al. 2022,
//! arXiv:2211.10438), where `max|x|` was observed on calibration texts. What rounding the weights takes from a layer's mean
//! result is given back in its bias (Nagel et al. 2019, arXiv:1906.04721).
//!
//! How many bits activations have is chosen layer by layer: 7 are the fastest, 12 the nearest to floats. Those take twice
//! the products, but no weight has to shrink so that 16-bit lanes hold it.
//!
//! Weights of 4 bits have a scale for each group along the depth instead, and no smoothing: activations are quantised by
//! the same groups.
//!
//! Not in the pipeline: it needs observations, so the caller runs it on the optimised graph.

use std::collections::{BTreeMap, HashMap};

use centuple_graph::{Graph, GraphError, Node, NodeId, Op};
use centuple_tensor::{Symbol, Tensor, TensorError};

use crate::compensation::Moments;
use crate::group_codes::GroupCodes;
use crate::pipeline::{PassError, apply_alone};
use crate::rewrite::{Refusal, Report, Rewrite, is_over_tokens, rewrite};

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
    /// Mean square.
    pub square: Vec<f32>,
    /// Products of channels, or nothing; only for weights in groups.
    pub moments: Moments,
}

/// The numbers that one linear layer computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerPrecision {
    /// Integers, an activation's code having 7, 8 or 12 bits.
    Bits(u8),
    /// Integers, the weights having 4 bits in groups of so many along the depth; a multiple of 8.
    Groups(usize),
    /// The floats that it has.
    Float,
}

/// How a graph is quantised.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    /// Bits of an activation's code: 7, 8 or 12.
    pub bits: u8,
    /// The same for values that come straight out of an activation function, whose tails are long.
    pub activated_bits: u8,
    /// The exponent `a` of smoothing; 0 puts all difficulty on the activations, 1 on the weights.
    pub smoothing: f32,
    /// The same for layers with 12 bits, whose weights are coarser than their activations.
    pub fine_smoothing: f32,
    /// Whether large embedding tables are quantised too.
    pub tables: bool,
    /// Elements of a group where weights are to have 4 bits instead of 8: those of all layers but the ones whose inputs come
    /// straight out of an activation function, which take much of the accuracy for a quarter of the weights. Bits and smoothing
    /// then don't count for them, and layers whose inputs were not observed are quantised too.
    pub groups: Option<usize>,
    /// Bits of an activation's code in layers with a row per selected token, as heads over a vocabulary; their weights have 8
    /// bits then, whatever others have. `None` where they go by the same as others.
    pub selected_bits: Option<u8>,
    /// Layers that go by a precision of their own, by the names that [`quantizable_layers`] gives; layers of the same
    /// name go together. A name that no layer has is reported as refused.
    pub layers: BTreeMap<String, LayerPrecision>,
}

impl Default for Quantization {
    fn default() -> Quantization {
        Quantization {
            bits: 7,
            activated_bits: 8,
            smoothing: 0.65,
            fine_smoothing: 0.4,
            tables: true,
            groups: None,
            selected_bits: None,
            layers: BTreeMap::new(),
        }
    }
}

/// The values whose channels must be observed before [`quantize`].
pub fn observed_values(graph: &Graph) -> Vec<NodeId> {
    let mut values: Vec<NodeId> = linear_layers(graph).map(|node| node.inputs[0]).collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// Names of the layers that [`quantize`] can turn into integer ones, in the order of computation.
///
/// They are those of the modules in the checkpoint, or `….qkv` for the merged projections of an attention and
/// `….gate_up` for those of a gate, so they stay the same from load to load.
pub fn quantizable_layers(graph: &Graph) -> Vec<&str> {
    linear_layers(graph).map(|node| node.name.as_str()).collect()
}

/// The precision that each layer of a graph gets, by its name.
pub fn layer_precisions(graph: &Graph, quantization: &Quantization) -> BTreeMap<String, LayerPrecision> {
    linear_layers(graph).map(|node| (node.name.clone(), precision(graph, node, quantization))).collect()
}

fn linear_layers(graph: &Graph) -> impl Iterator<Item = &Node> {
    graph.nodes().iter().filter(|node| linear_over_tokens(graph, node).is_some())
}

/// Quantises every linear layer over tokens whose input was observed, unless it is to stay as it is. For weights in
/// groups nothing has to be observed; what was corrects the bias.
///
/// Layers that share a weight share its codes too, where their activations have the same bits: they are smoothed by what
/// all of them have shown.
///
/// # Errors
/// The rewritten graph does not verify.
pub fn quantize(
    graph: &Graph,
    observations: &Observations,
    quantization: &Quantization,
) -> Result<(Graph, Report), PassError> {
    Quantizer::new(graph, observations).quantize(quantization)
}

/// Quantises one graph in several ways; what they have in common is made once.
pub struct Quantizer<'a> {
    graph: &'a Graph,
    shown: HashMap<Key, Channels>,
    made: Made,
    /// Smoothing of what was made, by exponents of usual and fine layers.
    smoothing: Option<(f32, f32)>,
}

impl<'a> Quantizer<'a> {
    /// Nothing is made yet.
    pub fn new(graph: &'a Graph, observations: &Observations) -> Quantizer<'a> {
        Quantizer { graph, shown: of_weights(graph, observations), made: Made::default(), smoothing: None }
    }

    /// With weights in groups that are rounded already.
    pub fn with_rounded(mut self, rounded: RoundedWeights) -> Quantizer<'a> {
        self.made.groups = rounded;
        self
    }

    /// All weights in groups that were rounded.
    pub fn into_rounded(self) -> RoundedWeights {
        self.made.groups
    }

    /// As [`quantize`].
    ///
    /// # Errors
    /// The rewritten graph does not verify.
    pub fn quantize(&mut self, quantization: &Quantization) -> Result<(Graph, Report), PassError> {
        let smoothing = Some((quantization.smoothing, quantization.fine_smoothing));
        if self.smoothing != smoothing {
            // Weights in groups are not smoothed.
            let groups = std::mem::take(&mut self.made.groups);
            (self.made, self.smoothing) = (Made { groups, ..Made::default() }, smoothing);
        }
        rewritten(self.graph, &self.shown, quantization, &mut self.made)
    }
}

fn rewritten(
    graph: &Graph,
    shown: &HashMap<Key, Channels>,
    quantization: &Quantization,
    made: &mut Made,
) -> Result<(Graph, Report), PassError> {
    let rule = |state: &mut Rewrite, _, node: &Node| {
        if matches!(node.op, Op::Linear { .. }) {
            linear(state, node, shown, quantization, made)
        } else if quantization.tables && node.op == Op::Embedding {
            embedding(state, node, made)
        } else {
            Ok(None)
        }
    };
    apply_alone("quantize", graph, |graph| {
        let mut outcome = rewrite(graph, rule)?;
        let known = quantizable_layers(graph);
        for name in quantization.layers.keys().filter(|name| !known.contains(&name.as_str())) {
            let reason = "a precision is given for it, but no linear layer over tokens has this name".to_owned();
            outcome.refused.push(Refusal { node: name.clone(), reason });
        }
        Ok(outcome)
    })
}

/// A tensor's identity and shape.
type Key = ((usize, usize), Vec<usize>);

fn key(tensor: &Tensor) -> Key {
    (tensor.identity(), tensor.shape().to_vec())
}

/// What the inputs of all layers with the same weight have shown.
fn of_weights(graph: &Graph, observations: &Observations) -> HashMap<Key, Channels> {
    let mut shown: HashMap<Key, (Channels, f32)> = HashMap::new();
    for node in linear_layers(graph) {
        let weight = linear_over_tokens(graph, node);
        let (Some(weight), Some(channels)) = (weight, observations.get(&node.inputs[0])) else { continue };
        let (all, layers) = shown.entry(key(weight)).or_insert_with(|| {
            let nothing = vec![0.0; channels.largest.len()];
            let moments = Moments::default();
            (Channels { largest: nothing.clone(), mean: nothing.clone(), square: nothing, moments }, 0.0)
        });
        *layers += 1.0;
        all.moments.merge(&channels.moments);
        all.largest.iter_mut().zip(&channels.largest).for_each(|(all, one)| *all = all.max(*one));
        for (all, one) in [(&mut all.mean, &channels.mean), (&mut all.square, &channels.square)] {
            all.iter_mut().zip(one).for_each(|(all, one)| *all += (one - *all) / *layers);
        }
    }
    shown.into_iter().map(|(key, (channels, _))| (key, channels)).collect()
}

/// Weights in groups that are rounded already, by the sizes of groups.
#[derive(Clone, Default)]
pub struct RoundedWeights(HashMap<(Key, usize), GroupCodes>);

/// What was made of weights and tables; those that are used again get the same tensors.
#[derive(Default)]
struct Made {
    layers: HashMap<(Key, u8), Codes>,
    groups: RoundedWeights,
    biases: HashMap<(Key, Key, LayerPrecision), Tensor>,
    tables: HashMap<Key, (Tensor, Tensor)>,
}

/// A quantised weight.
#[derive(Clone)]
struct Codes {
    codes: Tensor,
    scales: Tensor,
    /// What undoes the smoothing of each channel.
    factor: Tensor,
    /// What rounding takes from the mean of each output.
    lost: Tensor,
}

/// The weight of a linear layer with one row per token, or per selected token.
fn linear_over_tokens<'a>(graph: &'a Graph, node: &Node) -> Option<&'a Tensor> {
    let weight = graph.constant_of(*node.inputs.get(1)?)?;
    (matches!(node.op, Op::Linear { .. }) && is_over_tokens(node) && node.fact.shape.len() == 2).then_some(weight)
}

fn linear(
    state: &mut Rewrite,
    node: &Node,
    shown: &HashMap<Key, Channels>,
    quantization: &Quantization,
    made: &mut Made,
) -> Result<Option<NodeId>, GraphError> {
    let Op::Linear { bias, activation, residual } = node.op else { return Ok(None) };
    let Some(weight) = linear_over_tokens(state.old, node) else {
        state.refuse(node, "it has no row per token, or its weight is computed");
        return Ok(None);
    };
    let bits = match precision(state.old, node, quantization) {
        LayerPrecision::Bits(bits) => bits,
        LayerPrecision::Groups(group) => return grouped(state, node, group, shown.get(&key(weight)), made),
        LayerPrecision::Float => return Ok(None),
    };
    let Some(channels) = shown.get(&key(weight)) else {
        state.refuse(node, "its input was not observed");
        return Ok(None);
    };
    let k = weight.shape()[1];
    if k > max_depth(bits) {
        let limit = max_depth(bits);
        state.refuse(node, format!("32-bit sums hold {limit} products of {bits}-bit activations, it needs {k}"));
        return Ok(None);
    }
    let codes = match made.layers.get(&(key(weight), bits)) {
        Some(codes) => codes.clone(),
        None => {
            let exponent = if bits == 12 { quantization.fine_smoothing } else { quantization.smoothing };
            let Ok(codes) = Codes::of(weight, channels, bits, exponent) else {
                state.refuse(node, "its weight is not stored as f32");
                return Ok(None);
            };
            made.layers.entry((key(weight), bits)).or_insert(codes).clone()
        }
    };
    let mut inputs = vec![
        state.image(node.inputs[0]),
        state.new.constant(format!("{}.codes", node.name), codes.codes.clone())?,
        state.new.constant(format!("{}.scales", node.name), codes.scales.clone())?,
        state.new.constant(format!("{}.factor", node.name), codes.factor.clone())?,
    ];
    inputs.extend(state.images(&node.inputs[2..]));
    if !bias {
        inputs.insert(4, state.new.constant(format!("{}.bias", node.name), codes.lost)?);
    } else if let Some(corrected) = state
        .new
        .constant_of(inputs[4])
        .and_then(|bias| made.bias(bias, weight, LayerPrecision::Bits(bits), &codes.lost))
    {
        inputs[4] = state.new.constant(format!("{}.bias", node.name), corrected)?;
    }
    let op = Op::QuantizedLinear { bits, range: None, bias: true, activation, residual };
    state.new.push(node.name.clone(), op, &inputs).map(Some)
}

/// A layer whose weights become codes of 4 bits in groups.
fn grouped(
    state: &mut Rewrite,
    node: &Node,
    group: usize,
    channels: Option<&Channels>,
    made: &mut Made,
) -> Result<Option<NodeId>, GraphError> {
    let Op::Linear { bias, activation, residual } = node.op else { return Ok(None) };
    let Some(weight) = linear_over_tokens(state.old, node) else { return Ok(None) };
    let codes = match made.groups.0.get(&(key(weight), group)) {
        Some(codes) => codes.clone(),
        None => {
            let Ok(codes) = GroupCodes::of(weight, group, channels) else {
                state.refuse(node, "its weight is not stored as floats");
                return Ok(None);
            };
            made.groups.0.entry((key(weight), group)).or_insert(codes).clone()
        }
    };
    let mut inputs = vec![
        state.image(node.inputs[0]),
        state.new.constant(format!("{}.codes", node.name), codes.codes.clone())?,
        state.new.constant(format!("{}.scales", node.name), codes.scales.clone())?,
    ];
    inputs.extend(state.images(&node.inputs[2..]));
    if let Some(lost) = &codes.lost {
        if !bias {
            inputs.insert(3, state.new.constant(format!("{}.bias", node.name), lost.clone())?);
        } else if let Some(corrected) = state
            .new
            .constant_of(inputs[3])
            .and_then(|bias| made.bias(bias, weight, LayerPrecision::Groups(group), lost))
        {
            inputs[3] = state.new.constant(format!("{}.bias", node.name), corrected)?;
        }
    }
    let bias = bias || codes.lost.is_some();
    let op = Op::GroupQuantizedLinear { bits: 4, group, zero_points: false, bias, activation, residual };
    state.new.push(node.name.clone(), op, &inputs).map(Some)
}

impl Codes {
    /// Codes of a weight `[n, k]`, smoothed by what its inputs have shown.
    fn of(weight: &Tensor, channels: &Channels, bits: u8, exponent: f32) -> Result<Codes, TensorError> {
        let [n, k] = [weight.shape()[0], weight.shape()[1]];
        let data = weight.as_f32()?;
        let smoothing = smoothing(data, &channels.largest, exponent);
        let means: Vec<f64> = channels.mean.iter().zip(&smoothing).map(|(mean, s)| f64::from(mean / s)).collect();
        let mut lost = Vec::with_capacity(n);
        let mut scales = Vec::with_capacity(n);
        let quantize_row = |(row, codes): (&[f32], &mut [i8])| {
            let row: Vec<f32> = row.iter().zip(&smoothing).map(|(weight, factor)| weight * factor).collect();
            let (row_codes, scale) = weight_codes(&row, bits);
            let rounding = row.iter().zip(&row_codes).map(|(weight, &code)| weight - f32::from(code) * scale);
            lost.push(rounding.zip(&means).map(|(rounding, mean)| f64::from(rounding) * mean).sum::<f64>() as f32);
            codes.copy_from_slice(&row_codes);
            scales.push(scale);
        };
        let rows = data.chunks_exact(k.max(1));
        let codes =
            Tensor::from_i8_with(&[n, k], |codes| rows.zip(codes.chunks_exact_mut(k.max(1))).for_each(quantize_row))?;
        let factor: Vec<f32> = smoothing.iter().map(|factor| 1.0 / factor).collect();
        let [scales, lost] = [scales, lost].map(|values| Tensor::from_f32(&[n], &values));
        Ok(Codes { codes, scales: scales?, factor: Tensor::from_f32(&[k], &factor)?, lost: lost? })
    }
}

/// Tables of many rows become codes with a scale per row.
fn embedding(state: &mut Rewrite, node: &Node, made: &mut Made) -> Result<Option<NodeId>, GraphError> {
    let mut inputs = Vec::with_capacity(node.inputs.len());
    let mut changed = false;
    for pair in node.inputs.chunks_exact(2) {
        let table = state.old.constant_of(pair[0]).filter(|table| table.shape()[0] >= TABLE_ROWS);
        let name = &state.old.node(pair[0]).name;
        let quantised = match table.map(|table| made.table(table)) {
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

/// The precision of a layer: its own, or that of its kind.
fn precision(graph: &Graph, node: &Node, quantization: &Quantization) -> LayerPrecision {
    let activated = is_activated(graph, node.inputs[0]);
    let deep = linear_over_tokens(graph, node).is_some_and(|weight| weight.shape()[1] > max_depth(12));
    let bits = match (activated, quantization.activated_bits) {
        (true, 12) if deep => 8,
        (true, bits) => bits,
        (false, _) => quantization.bits,
    };
    let selected = node.fact.shape.first() == Some(&Symbol::Selected.into());
    let of_all = match (quantization.groups, quantization.selected_bits.filter(|_| selected)) {
        (_, Some(bits)) => LayerPrecision::Bits(bits),
        (Some(_), None) if activated => LayerPrecision::Bits(bits),
        (Some(group), None) => LayerPrecision::Groups(group),
        (None, None) => LayerPrecision::Bits(bits),
    };
    quantization.layers.get(&node.name).copied().unwrap_or(of_all)
}

/// The depth up to which 32-bit sums of products cannot overflow.
fn max_depth(bits: u8) -> usize {
    if bits == 12 { 4096 } else { 65_536 }
}

/// Whether a value is the result of an activation function, or its product with something.
fn is_activated(graph: &Graph, value: NodeId) -> bool {
    let op = &graph.node(value).op;
    matches!(op, Op::Activation(_) | Op::Gate { .. } | Op::Linear { activation: Some(_), residual: false, .. })
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
/// products, of two neighbours and of those four channels further on. So it is with 12-bit ones, which come in two
/// parts of 6 bits; of these no weights are too large. Codes of one sign may all meet the largest activation, so
/// both signs are bounded on their own.
fn lane_excess(codes: &[i8], bits: u8) -> f32 {
    let (chained, activation) = match bits {
        7 => (true, 127),
        12 => (true, 63),
        _ => (false, 255),
    };
    let worst_of = |group: [i16; 8]| {
        let pairs = [group[0] + group[1], group[2] + group[3], group[4] + group[5], group[6] + group[7]];
        let four = [pairs[0] + pairs[2], pairs[1] + pairs[3]];
        if chained { four[0].max(four[1]) } else { pairs.into_iter().fold(0, i16::max) }
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
    (i32::from(worst) * activation) as f32 / LANE_LIMIT as f32
}

impl Made {
    /// A layer's bias with what rounding its weight takes from the mean.
    fn bias(&mut self, bias: &Tensor, weight: &Tensor, precision: LayerPrecision, lost: &Tensor) -> Option<Tensor> {
        let place = (key(bias), key(weight), precision);
        if let Some(known) = self.biases.get(&place) {
            return Some(known.clone());
        }
        let pairs = bias.as_f32().ok()?.iter().zip(lost.as_f32().ok()?);
        let corrected: Vec<f32> = pairs.map(|(bias, lost)| bias + lost).collect();
        let corrected = Tensor::from_f32(bias.shape(), &corrected).ok()?;
        self.biases.insert(place, corrected.clone());
        Some(corrected)
    }

    /// Codes of a table and a scale per row.
    fn table(&mut self, table: &Tensor) -> Option<(Tensor, Tensor)> {
        if let Some(known) = self.tables.get(&key(table)) {
            return Some(known.clone());
        }
        let codes = table_codes(table)?;
        self.tables.insert(key(table), codes.clone());
        Some(codes)
    }
}

/// Codes of a table and a scale per row.
fn table_codes(table: &Tensor) -> Option<(Tensor, Tensor)> {
    let [rows, columns] = table.shape() else { return None };
    let mut scales = Vec::with_capacity(*rows);
    let quantize_row = |(row, codes): (&[f32], &mut [i8])| {
        let scale = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / WEIGHT_LEVELS;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        codes.iter_mut().zip(row).for_each(|(to, value)| *to = code(value * inverse));
        scales.push(scale);
    };
    let data = table.as_f32().ok()?.chunks_exact((*columns).max(1));
    let fill = |codes: &mut [i8]| data.zip(codes.chunks_exact_mut((*columns).max(1))).for_each(quantize_row);
    let codes = Tensor::from_i8_with(table.shape(), fill).ok()?;
    Some((codes, Tensor::from_f32(&[*rows], &scales).ok()?))
}

#[cfg(test)]
mod tests {
    use centuple_graph::Activation;
    use centuple_kernels::{ActivationBits, check_overflow};
    use centuple_tensor::DType;

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
            for bits in [7, 8, 12] {
                let (codes, scale) = weight_codes(row, bits);
                assert!(lane_excess(&codes, bits) <= 1.0);
                for (code, weight) in codes.iter().zip(row) {
                    assert!((f32::from(*code) * scale - weight).abs() <= scale * 0.51, "{weight}: {code} · {scale}");
                }
            }
        }
    }

    #[test]
    fn twelve_bits_leave_the_weights_theirs() {
        let row: Vec<f32> = (0..24).map(|index| 1.0 - index as f32 / 100.0).collect();
        let (codes, scale) = weight_codes(&row, 12);
        assert_eq!((codes[0], scale), (127, 1.0 / 127.0));
        assert!(weight_codes(&row, 8).1 > 1.9 * scale);
    }

    /// What the kernels prove again when they pack.
    #[test]
    fn limits_are_those_of_the_kernels() {
        for kernel_bits in ActivationBits::ALL {
            let bits = kernel_bits.count() as u8;
            assert_eq!(max_depth(bits), kernel_bits.max_depth());
            let (codes, _) = weight_codes(&[1.0; 24], bits);
            check_overflow(&codes, 24, kernel_bits).expect("codes that fit");
            let fits = |code: i8| check_overflow(&[code; 8], 8, kernel_bits).is_ok();
            assert!((0..=127).all(|code| fits(code) == (lane_excess(&[code; 8], bits) <= 1.0)), "{bits} bits");
        }
    }

    /// Two layers over tokens of depth `k`, the second behind an activation function.
    fn two_layers(k: usize) -> Result<(Graph, Observations), Box<dyn std::error::Error>> {
        let mut graph = Graph::new();
        let mut value = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), k.into()])?;
        for (name, activation) in [("up", Some(Activation::Gelu)), ("down", None)] {
            let weight: Vec<f32> = (0..k * k).map(|index| (index as f32).sin()).collect();
            let weight = graph.constant(format!("{name}.weight"), Tensor::from_f32(&[k, k], &weight)?)?;
            value = graph.push(name, Op::Linear { bias: false, activation, residual: false }, &[value, weight])?;
        }
        graph.output("output", value);
        let channels =
            || Channels { largest: vec![1.0; k], mean: vec![0.1; k], square: vec![0.1; k], ..Channels::default() };
        let observations = observed_values(&graph).into_iter().map(|value| (value, channels())).collect();
        Ok((graph, observations))
    }

    /// Bits of each layer of a graph, by its name.
    fn bits_of(graph: &Graph) -> Vec<(&str, Option<u8>)> {
        let of = |node: &'_ Node| {
            if let Op::QuantizedLinear { bits, .. } = node.op { Some(bits) } else { None }
        };
        let layers = graph.nodes().iter().filter(|node| of(node).is_some() || matches!(node.op, Op::Linear { .. }));
        layers.map(|node| (node.name.as_str(), of(node))).collect()
    }

    #[test]
    fn every_layer_has_its_own_precision() -> Result<(), Box<dyn std::error::Error>> {
        let (graph, observations) = two_layers(24)?;
        assert_eq!(quantizable_layers(&graph), ["up", "down"]);
        let quantized = |layers: &[(&str, LayerPrecision)]| {
            let layers = layers.iter().map(|(name, precision)| ((*name).to_owned(), *precision)).collect();
            quantize(&graph, &observations, &Quantization { layers, ..Quantization::default() })
        };
        let (by_default, _) = quantized(&[])?;
        assert_eq!(bits_of(&by_default), [("up", Some(7)), ("down", Some(8))]);
        let (chosen, report) = quantized(&[("up", LayerPrecision::Float), ("down", LayerPrecision::Bits(12))])?;
        assert_eq!(bits_of(&chosen), [("up", None), ("down", Some(12))]);
        assert_eq!((report.applied, report.refused), (1, Vec::new()));
        let (_, report) = quantized(&[("sideways", LayerPrecision::Float)])?;
        assert_eq!((report.applied, report.refused[0].node.as_str()), (2, "sideways"));
        let error = quantized(&[("up", LayerPrecision::Bits(9))]).expect_err("there are no 9 bits");
        assert!(format!("{error}").contains("7, 8 and 12 are supported"), "{error}");
        Ok(())
    }

    #[test]
    fn groups_need_no_observations_and_correct_the_bias_with_them() -> Result<(), Box<dyn std::error::Error>> {
        let (graph, observations) = two_layers(24)?;
        let layers = BTreeMap::from([("down".to_owned(), LayerPrecision::Float)]);
        let quantization = Quantization { groups: Some(16), layers, ..Quantization::default() };
        for (observations, corrected) in [(&Observations::new(), false), (&observations, true)] {
            let (quantized, report) = quantize(&graph, observations, &quantization)?;
            assert_eq!((report.applied, report.refused), (1, Vec::new()));
            let (id, node) = quantized.iter().find(|(_, node)| node.name == "up").ok_or("the layer is there")?;
            assert!(
                matches!(node.op, Op::GroupQuantizedLinear { bits: 4, group: 16, bias, .. } if bias == corrected),
                "{id:?}"
            );
            let scales = quantized.constant_of(node.inputs[2]).ok_or("scales")?;
            assert_eq!(scales.shape(), [24, 2]);
            assert_eq!(bits_of(&quantized), [("down", None)]);
        }
        let wrong = Quantization { groups: Some(12), ..Quantization::default() };
        let error = quantize(&graph, &observations, &wrong).expect_err("no multiple of 8");
        assert!(format!("{error}").contains("groups of 12"), "{error}");
        Ok(())
    }

    #[test]
    fn a_layer_too_deep_for_12_bits_stays_as_it_is() -> Result<(), Box<dyn std::error::Error>> {
        let mut graph = Graph::new();
        let k = 4097;
        let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), k.into()])?;
        let weight = graph.constant("weight", Tensor::from_f32(&[1, k], &vec![1.0; k])?)?;
        let layer = graph.push("deep", Op::Linear { bias: false, activation: None, residual: false }, &[x, weight])?;
        graph.output("output", layer);
        let observations = Observations::from([(
            x,
            Channels { largest: vec![1.0; k], mean: vec![0.0; k], square: vec![0.0; k], ..Channels::default() },
        )]);
        let (quantized, report) =
            quantize(&graph, &observations, &Quantization { bits: 12, ..Quantization::default() })?;
        assert_eq!(bits_of(&quantized), [("deep", None)]);
        assert!(report.refused[0].reason.contains("4096") && report.refused[0].reason.contains("4097"));
        let (quantized, _) = quantize(&graph, &observations, &Quantization::default())?;
        assert_eq!(bits_of(&quantized), [("deep", Some(7))]);
        Ok(())
    }

    #[test]
    fn a_channel_without_values_is_not_smoothed() {
        assert_eq!(smoothing(&[1.0, 0.0, 2.0, 4.0], &[0.0, 3.0], 0.5), [1.0, (3.0f32 / 4.0).sqrt()]);
    }
}
