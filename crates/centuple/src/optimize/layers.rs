//! What quantisation does to each linear layer, beside its floats on real text.

use std::cell::RefCell;
use std::sync::Arc;

use centuple_graph::{Graph, NodeId, Op};
use centuple_passes::{LayerPrecision, Observations, Quantization, Quantizer, RoundedWeights, quantizable_layers};
use centuple_receipt::{Rung, report, search};
use centuple_runtime::{Batch, InputData, RuntimeError, Session, lower};
use centuple_tasks::{Engine, Sequence};

use super::{Bench, OptimizeError, judge};
use crate::calibrate;
use crate::engine::layout;
use crate::precision::{INT4_GROUP, Precision};

/// Most tokens on which layers are measured.
const TOKENS: usize = 256;

/// A linear layer before the search.
pub(super) struct Measured {
    pub(super) name: String,
    /// Outputs and inputs.
    pub(super) shape: [usize; 2],
    pub(super) start: Rung,
    /// Signal to noise of its result on inputs in f32, in decibels.
    sqnr_db: Option<f64>,
    /// Mean cosine of the rows of its result.
    cosine: f64,
    /// Mean of 1 − cosine of the model's output, with this layer alone quantised.
    damage: f64,
}

/// A graph and what it takes to quantise it.
pub(super) struct Quantizing<'a> {
    /// The graph in floats.
    plain: &'a Graph,
    quantizer: RefCell<Quantizer<'a>>,
    /// How layers compute that are on no rung.
    base: Quantization,
}

impl<'a> Quantizing<'a> {
    pub(super) fn new(
        plain: &'a Graph,
        observations: &Observations,
        rounded: RoundedWeights,
        base: Quantization,
    ) -> Quantizing<'a> {
        let quantizer = Quantizer::new(plain, observations).with_rounded(rounded);
        Quantizing { plain, quantizer: RefCell::new(quantizer), base }
    }

    /// How a layer on a rung computes.
    fn precision(&self, rung: Rung) -> LayerPrecision {
        match rung {
            Rung::Int4 => LayerPrecision::Groups(self.base.groups.unwrap_or(INT4_GROUP)),
            Rung::Int8Chained => LayerPrecision::Bits(7),
            Rung::Int8 => LayerPrecision::Bits(8),
            Rung::W8A12 => LayerPrecision::Bits(12),
            Rung::Float => LayerPrecision::Float,
        }
    }

    /// Layers by name on their rungs.
    fn quantization(&self, names: &[String], rungs: &[Rung]) -> Quantization {
        let layers = names.iter().cloned().zip(rungs.iter().map(|&rung| self.precision(rung))).collect();
        Quantization { layers, ..self.base.clone() }
    }

    fn graph(&self, quantization: &Quantization) -> Result<Graph, OptimizeError> {
        Ok(self.quantizer.borrow_mut().quantize(quantization).map_err(crate::Error::from)?.0)
    }

    /// The graph with layers by name on their rungs.
    pub(super) fn on(&self, names: &[String], rungs: &[Rung]) -> Result<Graph, OptimizeError> {
        self.graph(&self.quantization(names, rungs))
    }
}

impl Measured {
    /// The layer as the search sees it.
    pub(super) fn to_search(&self) -> search::Layer {
        let work = self.shape[0] as f64 * self.shape[1] as f64;
        search::Layer::new(self.start, work, self.damage)
    }

    /// The layer as the receipt shows it.
    pub(super) fn to_report(&self, rung: Rung) -> report::Layer {
        report::Layer {
            name: self.name.clone(),
            shape: self.shape,
            rung,
            sqnr_db: self.sqnr_db,
            cosine: self.cosine,
            damage: self.damage,
            promoted_from: (rung != self.start).then_some(self.start),
        }
    }
}

/// Measures every layer at its first rung, on the first of the sequences.
pub(super) fn measure(
    bench: &Bench,
    quantizing: &Quantizing,
    sequences: &[Sequence],
) -> Result<Vec<Measured>, OptimizeError> {
    let graph = quantizing.plain;
    let names: Vec<String> = quantizable_layers(graph).into_iter().map(str::to_owned).collect();
    let mut left = TOKENS;
    let few = sequences.iter().take_while(|sequence| calibrate::fits(&mut left, sequence.len())).count();
    let sample: Vec<&Sequence> = sequences.iter().take(few.max(1)).collect();
    let baseline = bench.engine(graph, Precision::F32)?.run(&sample)?;
    bench.progress.begin("measuring layers", names.len());
    let mut measured = Vec::new();
    for name in &names {
        bench.check()?;
        // The layer by its default, all others in floats.
        let all = vec![Rung::Float; names.len()];
        let mut only = Quantization { tables: false, ..quantizing.quantization(&names, &all) };
        only.layers.remove(name);
        let with_one = quantizing.graph(&only)?;
        let Some((of_float, of_codes)) = find(graph, name).zip(find(&with_one, name)) else { continue };
        let Some(precision) = precision_of(&with_one.node(of_codes).op) else { continue };
        let Some(start) = Rung::ALL.into_iter().find(|&rung| quantizing.precision(rung) == precision) else {
            continue;
        };
        let (sqnr_db, cosine) = alone(bench, (graph, of_float), (&with_one, of_codes), &sample)?;
        let damage = judge::drift(&bench.engine(&with_one, Precision::F32)?.run(&sample)?, &baseline);
        let shape = with_one.constant_of(with_one.node(of_codes).inputs[1]).map_or([0, 0], |codes| {
            let shape = codes.shape();
            [shape[0], shape[1]]
        });
        measured.push(Measured { name: name.clone(), shape, start, sqnr_db, cosine, damage });
        bench.progress.advance();
    }
    Ok(measured)
}

/// The precision of a quantised layer; none of what isn't one.
fn precision_of(op: &Op) -> Option<LayerPrecision> {
    if let Op::QuantizedLinear { bits, .. } = op {
        Some(LayerPrecision::Bits(*bits))
    } else if let Op::GroupQuantizedLinear { group, .. } = op {
        Some(LayerPrecision::Groups(*group))
    } else {
        None
    }
}

fn find(graph: &Graph, name: &str) -> Option<NodeId> {
    graph.iter().find(|(_, node)| node.name == name).map(|(id, _)| id)
}

/// Signal to noise in decibels and mean cosine of a layer's result in integers beside that in floats, both on the same
/// inputs.
fn alone(
    bench: &Bench,
    (graph, layer): (&Graph, NodeId),
    (quantized, codes): (&Graph, NodeId),
    sample: &[&Sequence],
) -> Result<(Option<f64>, f64), OptimizeError> {
    let mut both = Graph::new();
    let failed = |error: centuple_graph::GraphError| crate::Error::from(error);
    // Everything up to the layer, then the layer once more on integers.
    for (_, node) in graph.iter().take(layer.index() + 1) {
        both.push(node.name.clone(), node.op.clone(), &node.inputs).map_err(failed)?;
    }
    let (float_node, codes_node) = (graph.node(layer), quantized.node(codes));
    let mut inputs = vec![float_node.inputs[0]];
    // Codes and what goes with them; a bias that makes good what rounding takes from the mean, so there may be one where
    // the other layer has none.
    let constants = if let Op::GroupQuantizedLinear { bias, .. } = codes_node.op {
        2 + usize::from(bias)
    } else if let Op::QuantizedLinear { bias, .. } = codes_node.op {
        3 + usize::from(bias)
    } else {
        0
    };
    for &constant in codes_node.inputs.iter().skip(1).take(constants) {
        let node = quantized.node(constant);
        inputs.push(both.push(format!("codes.{}", node.name), node.op.clone(), &[]).map_err(failed)?);
    }
    let biased = matches!(float_node.op, Op::Linear { bias: true, .. });
    let rest = &float_node.inputs[2 + usize::from(biased)..];
    inputs.extend(rest);
    let in_codes = both.push(format!("codes.{}", codes_node.name), codes_node.op.clone(), &inputs).map_err(failed)?;
    both.output("floats", layer);
    both.output("codes", in_codes);

    let ids: Vec<i64> = sample.iter().flat_map(|sequence| sequence.ids.iter().map(|&id| id.into())).collect();
    let types: Vec<i64> = sample.iter().flat_map(|sequence| sequence.type_ids.iter().map(|&id| id.into())).collect();
    let layout = layout(sample)?;
    let bindings = layout.bindings();
    let plan = Arc::new(lower(&both, bench.host.isa)?);
    let mut session = Session::new(plan, Arc::clone(&bench.host.pool), bindings)?;
    let inputs = [("input_ids", InputData::I64(&ids)), ("token_type_ids", InputData::I64(&types))];
    session.run(&Batch { inputs: &inputs, layout: &layout, bindings, cache: None })?;
    let outputs = session.output(0).zip(session.output(1));
    let (floats, codes) = outputs.ok_or_else(|| RuntimeError::Unbound("layer".to_owned()))?;
    let (mut signal, mut noise, mut cosines) = (0.0, 0.0, 0.0);
    for row in 0..floats.rows() {
        for (float, code) in floats.row(row).iter().zip(codes.row(row)) {
            let (float, code) = (f64::from(*float), f64::from(*code));
            signal += float * float;
            noise += (float - code) * (float - code);
        }
        cosines += centuple_receipt::metrics::cosine(floats.row(row), codes.row(row));
    }
    let sqnr_db = (noise > 0.0 && signal > 0.0).then(|| 10.0 * (signal / noise).log10());
    Ok((sqnr_db, cosines / floats.rows().max(1) as f64))
}
