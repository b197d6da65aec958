//! Linear layers, and the codes that quantised ones read.

use centuple_graph::{self as graph, Node, NodeId, Op};

use super::operands::{codes, group_weight, quantised_weight};
use super::{Coding, Lowered, Lowering, Results, stored_whole, width};
use crate::error::Result;
use crate::plan::{Codes, Product, Quantisation, Step, Value, ValueId, View, WeightId, unsupported};
use crate::specialisation::{Activation, CodeType, GEMM_ACTIVATIONS};

impl Lowering<'_> {
    /// A layer whose weight is floats; its bias is an input of the node.
    pub(super) fn linear(
        &mut self,
        id: NodeId,
        node: &Node,
        weight: WeightId,
        bias: Option<usize>,
        activation: Option<graph::Activation>,
        residual: bool,
    ) -> Result<Lowered> {
        let ((_, n), (_, k)) = (width(node)?, width(self.graph.node(node.inputs[0]))?);
        let activation = activation_of(activation)?;
        let bias = bias.map(|bias| self.wide_weight(node.inputs[bias])).transpose()?;
        if let Lowered::Wide(x) = self.nodes[node.inputs[0].index()] {
            if residual || !k.is_multiple_of(8) {
                return unsupported(format!("a head of depth {k}, or with a residual"));
            }
            let y = self.value(self.plan.values[x].rows, n, 4);
            self.plan.steps.push(Step::Dense { x, weight, bias, y, n, k, activation });
            return Ok(Lowered::Wide(y));
        }
        let product = Product::Floats { x: self.matrix(node.inputs[0])?, weight };
        self.gemm(id, product, bias, activation, residual_of(node, residual), [n, k, 8])
    }

    pub(super) fn quantised(
        &mut self,
        id: NodeId,
        node: &Node,
        bias: bool,
        activation: Option<graph::Activation>,
        residual: bool,
    ) -> Result<Lowered> {
        let ((_, n), (_, k)) = (width(node)?, width(self.graph.node(node.inputs[0]))?);
        let Some(coding) = coding(node, k) else {
            let weight = self.unpacked(node, quantised_weight(self.graph, node)?)?;
            return self.linear(id, node, weight, bias.then_some(4), activation, residual);
        };
        let x = self.matrix(node.inputs[0])?;
        let x = self.coded(x, coding)?;
        let [weight, sums] = codes(self.graph, node.inputs[1], k)?.map(|bytes| self.weight(bytes));
        let scales = self.wide_weight(node.inputs[2])?;
        let bias = if bias { Some(self.wide_weight(node.inputs[4])?) } else { None };
        let product = Product::Codes { x, weight, scales, sums };
        self.gemm(id, product, bias, activation_of(activation)?, residual_of(node, residual), [n, k, 16])
    }

    /// A linear layer for each group of columns.
    pub(super) fn grouped(&mut self, node: &Node, groups: usize) -> Result<Lowered> {
        let ((rows, columns), x) = (width(node)?, self.aligned_view(node.inputs[0])?);
        let (n, k) = (columns / groups.max(1), x.columns / groups.max(1));
        if !n.is_multiple_of(2) || !k.is_multiple_of(8) {
            return unsupported(format!(
                "a linear layer of groups of {k} by {n}: they have to be multiples of 8 and 2"
            ));
        }
        let (weight, y) = (self.stored_weight(node.inputs[1])?, self.value(rows, columns, 2));
        self.plan.steps.push(Step::GroupedGemm { x, weight, y, groups, n, k });
        Ok(stored_whole(y, columns))
    }

    /// A layer with 4-bit weights, which are floats here.
    pub(super) fn group_quantised(
        &mut self,
        id: NodeId,
        node: &Node,
        group: usize,
        zero_points: bool,
        [bias, residual]: [bool; 2],
        activation: Option<graph::Activation>,
    ) -> Result<Lowered> {
        let weight = self.unpacked(node, group_weight(self.graph, node, group, zero_points)?)?;
        self.linear(id, node, weight, bias.then_some(3 + usize::from(zero_points)), activation, residual)
    }

    /// A weight of codes that becomes floats, since there is no kernel for the codes.
    fn unpacked(&mut self, node: &Node, weight: Vec<f32>) -> Result<WeightId> {
        self.stored(&self.graph.node(node.inputs[1]).name, &weight)
    }

    /// A linear layer whose depth has to be a multiple of the third number. Its results are f32 where they are the model's.
    fn gemm(
        &mut self,
        id: NodeId,
        product: Product,
        bias: Option<WeightId>,
        activation: Activation,
        residual: Option<NodeId>,
        [n, k, step]: [usize; 3],
    ) -> Result<Lowered> {
        let is_output =
            self.results == Results::Outputs && self.graph.outputs().iter().any(|(_, output)| *output == id);
        let wide = is_output && residual.is_none() && activation == Activation::Identity && self.uses[id.index()] == 1;
        if !(wide || n.is_multiple_of(8)) || !k.is_multiple_of(step) {
            return unsupported(format!("a linear layer of {k} by {n}: they have to be multiples of {step} and 8"));
        }
        let (ending, later) = ending(activation, residual.is_some())?;
        let residual = residual.map(|residual| self.matrix(residual)).transpose()?;
        let rows = match product {
            Product::Floats { x, .. } | Product::Codes { x: Codes { codes: x, .. }, .. } => self.plan.values[x].rows,
        };
        let y = self.value(rows, n, if wide { 4 } else { 2 });
        self.plan.steps.push(Step::Gemm { product, bias, activation: ending, residual, y, n, k, wide });
        Ok(if wide { Lowered::Wide(y) } else { self.followed(y, later) })
    }

    /// A 16-bit result, or what a function that follows makes of it.
    pub(super) fn followed(&mut self, y: ValueId, later: Option<Activation>) -> Lowered {
        let Value { rows, columns, .. } = self.plan.values[y];
        let Some(activation) = later else { return stored_whole(y, columns) };
        let a = View { value: y, first: 0, columns };
        let y = self.value(rows, columns, 2);
        self.plan.steps.push(Step::Gate { a, b: None, activation, y });
        stored_whole(y, columns)
    }

    /// The codes of a value, made here unless they are there.
    pub(super) fn coded(&mut self, x: ValueId, coding: Coding) -> Result<Codes> {
        if let Some(codes) = self.codes.get(&(x, coding)) {
            return Ok(*codes);
        }
        let quantisation = self.quantisation(x, coding)?;
        self.plan.steps.push(Step::Quantise { x, quantisation });
        Ok(quantisation.to)
    }

    /// The codes that the first reader of a value that wants some asks for.
    pub(super) fn coded_reader(&self, id: NodeId) -> Option<Coding> {
        let (_, k) = width(self.graph.node(id)).ok()?;
        self.graph
            .iter()
            .filter(|(_, node)| node.inputs.first() == Some(&id))
            .find_map(|(reader, node)| coding(node, k).or_else(|| self.is_fp8(reader, node).then_some(Coding::E4m3)))
    }

    /// Room for the codes of a value.
    pub(super) fn quantisation(&mut self, x: ValueId, coding: Coding) -> Result<Quantisation> {
        let Value { rows, columns, .. } = self.plan.values[x];
        let (codes, factor, range) = match coding {
            Coding::Integers { factor, bits, range } => {
                (CodeType::Integer { bits }, Some(self.wide_weight(factor)?), range)
            }
            Coding::E4m3 => (CodeType::E4m3, None, None),
        };
        let to = Codes {
            codes: self.value(rows, columns, 1),
            scales: self.value(rows, 1, 4),
            zero_points: factor.map(|_| self.value(rows, 1, 4)),
        };
        self.codes.insert((x, coding), to);
        Ok(Quantisation { factor, range: range.map(|range| range.map(f32::from_bits)), codes, to })
    }
}

/// What of an activation function a linear layer ends with, and what follows in a kernel of its own.
pub(super) fn ending(activation: Activation, residual: bool) -> Result<(Activation, Option<Activation>)> {
    if GEMM_ACTIVATIONS.contains(&activation) {
        return Ok((activation, None));
    }
    if residual {
        return unsupported(format!("{activation:?} after a linear layer with a residual"));
    }
    Ok((Activation::Identity, Some(activation)))
}

/// The codes that a quantised layer of such a depth multiplies; without them its weights become floats.
fn coding(node: &Node, k: usize) -> Option<Coding> {
    let Op::QuantizedLinear { bits: bits @ (7 | 8), range, .. } = node.op else { return None };
    let range = range.map(|range| range.map(f32::to_bits));
    k.is_multiple_of(16).then_some(Coding::Integers { factor: node.inputs[3], bits, range })
}

fn residual_of(node: &Node, residual: bool) -> Option<NodeId> {
    if residual { node.inputs.last().copied() } else { None }
}

pub(super) fn activation_of(activation: Option<graph::Activation>) -> Result<Activation> {
    Ok(match activation {
        None => Activation::Identity,
        Some(graph::Activation::Gelu) => Activation::Gelu,
        Some(graph::Activation::GeluTanh) => Activation::GeluTanh,
        Some(graph::Activation::Relu) => Activation::Relu,
        Some(graph::Activation::Tanh) => Activation::Tanh,
        Some(graph::Activation::Sigmoid) => Activation::Sigmoid,
        Some(graph::Activation::Silu) => Activation::Silu,
        Some(graph::Activation::QuickGelu) => Activation::QuickGelu,
    })
}
