//! Linear layers, in floats and in integers.

use centuple_graph::{Activation, Node, NodeId};
use centuple_tensor::DType;

use super::emitter::int;
use super::lower::{Exporter, Result};
use super::normal::fused_with_bias;
use super::{Dialect, Weights};
use crate::proto::tensor_proto::DataType;

impl Exporter<'_> {
    pub(super) fn linear(
        &mut self,
        id: NodeId,
        node: &Node,
        bias: bool,
        activation: Option<Activation>,
        residual: bool,
    ) -> Result {
        let &[x, weight, ref rest @ ..] = node.inputs.as_slice() else {
            return Err(self.unsupported(node, "it lacks an operand"));
        };
        let product = self.product(x, weight)?;
        Ok(self.finish(id, product, rest, [bias, residual], activation))
    }

    /// What follows the product: bias, activation and residual of `rest`.
    fn finish(
        &mut self,
        id: NodeId,
        product: String,
        rest: &[NodeId],
        [bias, residual]: [bool; 2],
        activation: Option<Activation>,
    ) -> String {
        let operand = |place: usize| rest.get(place).map(|&id| self.value(id));
        let residual = operand(usize::from(bias)).filter(|_| residual);
        let bias = operand(0).filter(|_| bias);
        let mut value = product;
        let mut activation = activation;
        if let Some(bias) = &bias {
            let fused = activation.and_then(fused_with_bias).filter(|_| self.fuses());
            if let Some(op) = fused {
                activation = None;
                value = self.emitter.fused(op, &[&value, bias], Vec::new());
            } else {
                let sum = self.emitter.node("Add", &[&value, bias]);
                if activation.is_none() && residual.is_none() {
                    self.unbiased.insert(id, [value, bias.clone()]);
                }
                value = sum;
            }
        }
        if let Some(activation) = activation {
            value = self.activate(activation, &value);
        }
        match residual {
            Some(residual) => self.emitter.node("Add", &[&value, &residual]),
            None => value,
        }
    }

    /// `x · weightᵀ`
    fn product(&mut self, x: NodeId, weight: NodeId) -> Result {
        let tensor = self.graph.constant_of(weight).filter(|tensor| tensor.dtype() == DType::F32);
        match (&self.options.weights, tensor) {
            (Weights::Dynamic, Some(_)) if self.by_token(x) => {
                let [codes, scales] = self.quantized_matrix(weight)?;
                let x = self.value(x);
                Ok(self.dynamic_product(&x, &codes, &scales))
            }
            (Weights::Static(ranges), Some(_)) if self.by_token(x) && ranges.contains_key(&x) => {
                let largest = ranges.get(&x).copied().unwrap_or(0.0);
                let [codes, scales] = self.quantized_matrix(weight)?;
                let x = self.value(x);
                Ok(self.static_product(&x, largest, &codes, &scales))
            }
            (Weights::Float | Weights::Dynamic | Weights::Static(_), _) => {
                let weight = self.transposed(weight);
                let x = self.value(x);
                Ok(self.emitter.node("MatMul", &[&x, &weight]))
            }
        }
    }

    /// The transpose of a matrix.
    fn transposed(&mut self, matrix: NodeId) -> String {
        let name = self.value(matrix);
        match self.graph.constant_of(matrix) {
            Some(tensor) if !self.tables.contains(&tensor.identity()) => {
                let stored = self.emitter.transposed(&self.graph.node(matrix).name, tensor);
                match tensor.dtype() {
                    DType::F32 | DType::I64 | DType::I8 => stored,
                    DType::F16 | DType::BF16 => {
                        self.shared(&format!("{stored}.float"), |exporter| exporter.cast(&stored, DataType::Float))
                    }
                }
            }
            _ => self.shared(&format!("{name}.transposed"), |exporter| exporter.permuted(&name, &[1, 0])),
        }
    }

    /// The product with integers, of activations that are quantised as they come.
    fn dynamic_product(&mut self, x: &str, codes: &str, scales: &str) -> String {
        if self.options.dialect == Dialect::Fused {
            return self.emitter.fused("DynamicQuantizeMatMul", &[x, codes, scales], Vec::new());
        }
        let quantized = self.shared(&format!("{x}.quantized"), |exporter| {
            exporter.emitter.several("", "DynamicQuantizeLinear", &[x], 3, Vec::new()).join("\n")
        });
        let parts: Vec<String> = quantized.split('\n').map(str::to_owned).collect();
        let part = |place: usize| parts.get(place).map_or("", String::as_str);
        let sums = self.emitter.node("MatMulInteger", &[part(0), codes, part(2)]);
        let sums = self.cast(&sums, DataType::Float);
        let scale = self.emitter.node("Mul", &[part(1), scales]);
        self.emitter.node("Mul", &[&sums, &scale])
    }

    /// The product of what pairs of QuantizeLinear and DequantizeLinear leave of both operands.
    fn static_product(&mut self, x: &str, largest: f32, codes: &str, scales: &str) -> String {
        let x = self.shared(&format!("{x}.dequantized"), |exporter| {
            let scale = exporter.emitter.float(if largest > 0.0 { largest / 127.0 } else { 1.0 });
            let zero = exporter.emitter.computed("constant/zero_point", DataType::Int8, &[], vec![0]);
            let quantized = exporter.emitter.node("QuantizeLinear", &[x, &scale, &zero]);
            exporter.emitter.node("DequantizeLinear", &[&quantized, &scale, &zero])
        });
        let weight = self.shared(&format!("{codes}.dequantized"), |exporter| {
            exporter.emitter.with("DequantizeLinear", &[codes, scales], vec![int("axis", 1)])
        });
        self.emitter.node("MatMul", &[&x, &weight])
    }

    /// Codes that the graph has already: what smoothing took from the activations goes back, and they are quantised as they
    /// come, for all tokens of a batch together.
    pub(super) fn quantized_linear(
        &mut self,
        id: NodeId,
        node: &Node,
        range: Option<[f32; 2]>,
        [bias, residual]: [bool; 2],
        activation: Option<Activation>,
    ) -> Result {
        let &[x, codes, scales, factor, ref rest @ ..] = node.inputs.as_slice() else {
            return Err(self.unsupported(node, "it lacks an operand"));
        };
        let (x, scales, factor) = (self.value(x), self.value(scales), self.value(factor));
        let codes = self.transposed(codes);
        let x = self.shared(&format!("{x}.by.{factor}"), |exporter| exporter.emitter.node("Mul", &[&x, &factor]));
        let x = match range.map(|range| range.map(|bound| self.emitter.float(bound))) {
            Some([low, high]) => {
                let clipped = |exporter: &mut Self| exporter.emitter.node("Clip", &[&x, &low, &high]);
                self.shared(&format!("{x}.from.{low}.to.{high}"), clipped)
            }
            None => x,
        };
        let product = self.dynamic_product(&x, &codes, &scales);
        Ok(self.finish(id, product, rest, [bias, residual], activation))
    }

    pub(super) fn grouped_linear(&mut self, id: NodeId, node: &Node, groups: usize) -> Result {
        let &[x, weight] = node.inputs.as_slice() else {
            return Err(self.unsupported(node, "it lacks an operand"));
        };
        let fact = &self.graph.node(weight).fact;
        let [rows, columns] = [1, 2].map(|axis| fact.shape.get(axis).and_then(|dim| dim.constant()).unwrap_or(0));
        let (x, weight) = (self.full(x), self.value(weight));
        let by_head = self.reshaped(&x, &[0, 0, groups as i64, columns as i64]);
        let by_head = self.permuted(&by_head, &[0, 2, 1, 3]);
        let weight = self.permuted(&weight, &[0, 2, 1]);
        let product = self.emitter.node("MatMul", &[&by_head, &weight]);
        self.by_head.insert(id, product.clone());
        let flat = self.permuted(&product, &[0, 2, 1, 3]);
        Ok(self.reshaped(&flat, &[0, 0, (groups * rows) as i64]))
    }

    pub(super) fn dequantize(&mut self, node: &Node) -> String {
        let operand = |place: usize| node.inputs.get(place).map_or(String::new(), |&input| self.value(input));
        let (codes, scales) = (operand(0), operand(1));
        let codes = self.cast(&codes, DataType::Float);
        let scales = self.unsqueeze(&scales, &[1]);
        self.emitter.node("Mul", &[&codes, &scales])
    }
}
