//! Linear layers, and the codes that quantised ones read.

use centuple_graph::{self as graph, Node, NodeId, Op};

use super::operands::{codes, group_weight, quantised_weight, stored};
use super::{Lowered, Lowering, stored_whole, width};
use crate::error::Result;
use crate::plan::{Codes, Product, Quantisation, Step, Value, ValueId, View, WeightId, unsupported};
use crate::specialisation::{Activation, GEMM_ACTIVATIONS};

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
        let residual = if residual { node.inputs.last().copied() } else { None };
        self.gemm(id, product, bias, activation, residual, [n, k, 8])
    }

    pub(super) fn quantised(
        &mut self,
        id: NodeId,
        node: &Node,
        bits: u8,
        bias: bool,
        activation: Option<graph::Activation>,
        residual: bool,
    ) -> Result<Lowered> {
        if !matches!(bits, 7 | 8) {
            let weight = self.unpacked(node, quantised_weight(self.graph, node)?)?;
            return self.linear(id, node, weight, bias.then_some(4), activation, residual);
        }
        let ((_, n), (_, k)) = (width(node)?, width(self.graph.node(node.inputs[0]))?);
        let (x, factor) = (self.matrix(node.inputs[0])?, node.inputs[3]);
        let x = match self.codes.get(&(x, factor, bits)) {
            Some(codes) => *codes,
            None => {
                let quantisation = self.quantisation(x, factor, bits)?;
                self.plan.steps.push(Step::Quantise { x, quantisation });
                quantisation.to
            }
        };
        let [weight, sums] = codes(self.graph, node.inputs[1], k)?.map(|bytes| self.weight(bytes));
        let scales = self.wide_weight(node.inputs[2])?;
        let bias = if bias { Some(self.wide_weight(node.inputs[4])?) } else { None };
        let residual = if residual { node.inputs.last().copied() } else { None };
        let product = Product::Codes { x, weight, scales, sums };
        self.gemm(id, product, bias, activation_of(activation)?, residual, [n, k, 16])
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
        let bytes = stored(self.plan.format, &self.graph.node(node.inputs[1]).name, &weight)?;
        Ok(self.weight(bytes))
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
        let is_output = self.graph.outputs().iter().any(|(_, output)| *output == id);
        let wide = is_output && residual.is_none() && activation == Activation::Identity && self.uses[id.index()] == 1;
        if !(wide || n.is_multiple_of(8)) || !k.is_multiple_of(step) {
            return unsupported(format!("a linear layer of {k} by {n}: they have to be multiples of {step} and 8"));
        }
        // Others follow in a kernel of their own.
        let (ending, later) = match GEMM_ACTIVATIONS.contains(&activation) {
            true => (activation, None),
            false => (Activation::Identity, Some(activation)),
        };
        if later.is_some() && residual.is_some() {
            return unsupported(format!("{activation:?} after a linear layer with a residual"));
        }
        let residual = residual.map(|residual| self.matrix(residual)).transpose()?;
        let rows = match product {
            Product::Floats { x, .. } | Product::Codes { x: Codes { codes: x, .. }, .. } => self.plan.values[x].rows,
        };
        let y = self.value(rows, n, if wide { 4 } else { 2 });
        self.plan.steps.push(Step::Gemm { product, bias, activation: ending, residual, y, n, k, wide });
        if let Some(activation) = later {
            let a = View { value: y, first: 0, columns: n };
            let y = self.value(rows, n, 2);
            self.plan.steps.push(Step::Gate { a, b: None, activation, y });
            return Ok(stored_whole(y, n));
        }
        Ok(if wide { Lowered::Wide(y) } else { stored_whole(y, n) })
    }

    /// What the first quantised reader of a value multiplies it by, and its bits.
    pub(super) fn quantised_reader(&self, id: NodeId) -> Option<(NodeId, u8)> {
        self.graph.nodes().iter().find_map(|node| {
            let Op::QuantizedLinear { bits: bits @ (7 | 8), .. } = node.op else { return None };
            (node.inputs[0] == id).then_some((node.inputs[3], bits))
        })
    }

    /// Room for the codes of a value.
    pub(super) fn quantisation(&mut self, x: ValueId, factor: NodeId, bits: u8) -> Result<Quantisation> {
        let Value { rows, columns, .. } = self.plan.values[x];
        let to = Codes {
            codes: self.value(rows, columns, 1),
            scales: self.value(rows, 1, 4),
            zero_points: self.value(rows, 1, 4),
        };
        self.codes.insert((x, factor, bits), to);
        Ok(Quantisation { factor: self.wide_weight(factor)?, bits, to })
    }
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
