//! The primitive ops. Where the first dimension is the tokens, the file has two in its place.

use centuple_graph::{Binary, Node, Reduction, Unary};
use centuple_tensor::{DType, Dim, Shape, Symbol};

use super::emitter::{int, ints};
use super::lower::{Exporter, Result, counts_tokens};
use super::{BATCH, MASK, SEQUENCE};
use crate::proto::tensor_proto::DataType;

impl Exporter<'_> {
    pub(super) fn unary(&mut self, unary: Unary, x: &str) -> String {
        let op = match unary {
            Unary::Neg => "Neg",
            Unary::Abs => "Abs",
            Unary::Exp => "Exp",
            Unary::Log => "Log",
            Unary::Sqrt => "Sqrt",
            Unary::Reciprocal => "Reciprocal",
            Unary::Erf => "Erf",
            Unary::Log1p => {
                let one = self.emitter.float(1.0);
                let more = self.emitter.node("Add", &[x, &one]);
                return self.emitter.node("Log", &[&more]);
            }
            Unary::Floor => "Floor",
            Unary::Ceil => "Ceil",
            Unary::Round => "Round",
            Unary::Trunc => {
                let (size, sign) = (self.emitter.node("Abs", &[x]), self.emitter.node("Sign", &[x]));
                let size = self.emitter.node("Floor", &[&size]);
                return self.emitter.node("Mul", &[&size, &sign]);
            }
            Unary::Sin => "Sin",
            Unary::Cos => "Cos",
            Unary::Sign => "Sign",
            Unary::IsNan => {
                let is_nan = self.emitter.node("IsNaN", &[x]);
                return self.cast(&is_nan, DataType::Float);
            }
        };
        self.emitter.node(op, &[x])
    }

    pub(super) fn binary(&mut self, binary: Binary, a: &str, b: &str) -> String {
        let op = match binary {
            Binary::Add => "Add",
            Binary::Sub => "Sub",
            Binary::Mul => "Mul",
            Binary::Div => "Div",
            Binary::Pow => "Pow",
            Binary::Min => "Min",
            Binary::Max => "Max",
            Binary::Equal => "Equal",
            Binary::Less => "Less",
        };
        let value = self.emitter.node(op, &[a, b]);
        match binary {
            Binary::Equal | Binary::Less => self.cast(&value, DataType::Float),
            Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Pow | Binary::Min | Binary::Max => value,
        }
    }

    /// The dimension of the file's value that is dimension `axis` of an operand.
    fn axis(&self, node: &Node, operand: usize, axis: usize) -> Result<i64> {
        let by_token = node.inputs.get(operand).is_some_and(|&input| self.by_token(input));
        match (by_token, axis) {
            (true, 0) => Err(self.unsupported(node, "it works along the tokens of all sequences")),
            (true, axis) => Ok(axis as i64 + 1),
            (false, axis) => Ok(axis as i64),
        }
    }

    /// An operand with the whole batch.
    fn operand(&mut self, node: &Node, operand: usize) -> String {
        node.inputs.get(operand).map_or(String::new(), |&input| self.full(input))
    }

    pub(super) fn transpose(&mut self, node: &Node, perm: &[usize]) -> Result {
        let x = self.operand(node, 0);
        let mut order = Vec::with_capacity(perm.len() + 1);
        for (place, &from) in perm.iter().enumerate() {
            let by_token = node.inputs.first().is_some_and(|&input| self.by_token(input));
            match (by_token, place, from) {
                (true, 0, 0) => order.extend([0, 1]),
                (_, _, from) => order.push(self.axis(node, 0, from)?),
            }
        }
        Ok(self.permuted(&x, &order))
    }

    pub(super) fn reshape(&mut self, node: &Node, shape: &Shape) -> Result {
        let from = node.inputs.first().map(|&input| self.graph.node(input).fact.shape.clone()).unwrap_or_default();
        let by_token = [from.first(), shape.first()].map(|dim| dim.is_some_and(counts_tokens));
        let moves = by_token[0] != by_token[1] || (by_token[0] && from.first() != shape.first());
        if moves {
            return Err(self.unsupported(node, "it moves elements between tokens"));
        }
        let x = self.operand(node, 0);
        let shape = self.shape(node, shape)?;
        Ok(self.emitter.node("Reshape", &[&x, &shape]))
    }

    /// A shape as a value; as the dimensions of tokens it has 0, which keeps them.
    fn shape(&mut self, node: &Node, shape: &Shape) -> Result {
        let (mut parts, mut known) = (Vec::new(), Vec::new());
        for dim in shape {
            match dim.constant() {
                Some(value) => known.push(value as i64),
                None if counts_tokens(dim) => known.extend([0, 0]),
                None => {
                    if !known.is_empty() {
                        parts.push(self.emitter.ints(&std::mem::take(&mut known)));
                    }
                    parts.push(self.dimension(node, dim)?);
                }
            }
        }
        if !known.is_empty() || parts.is_empty() {
            parts.push(self.emitter.ints(&known));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(match parts.as_slice() {
            [one] => (*one).to_owned(),
            several => self.emitter.with("Concat", several, vec![int("axis", 0)]),
        })
    }

    /// A dimension as `[1]` i64.
    fn dimension(&mut self, node: &Node, dim: &Dim) -> Result {
        let mut sum: Option<String> = None;
        for (factor, symbols) in dim.terms() {
            let mut product = self.emitter.ints(&[factor]);
            for symbol in symbols {
                let extent = match symbol {
                    Symbol::Sequences | Symbol::Batch => self.extent(BATCH),
                    Symbol::Sequence => self.extent(SEQUENCE),
                    Symbol::Tokens | Symbol::Past | Symbol::Selected => {
                        return Err(self.unsupported(node, format!("a padded graph has no {dim}")));
                    }
                };
                product = self.emitter.node("Mul", &[&product, &extent]);
            }
            sum = Some(match sum {
                Some(sum) => self.emitter.node("Add", &[&sum, &product]),
                None => product,
            });
        }
        Ok(sum.unwrap_or_else(|| self.emitter.ints(&[0])))
    }

    pub(super) fn expand(&mut self, node: &Node, shape: &Shape) -> Result {
        let x = self.operand(node, 0);
        if shape.first().is_some_and(counts_tokens) {
            return Err(self.unsupported(node, "the tokens of all sequences have no number in a padded graph"));
        }
        let shape = self.shape(node, shape)?;
        Ok(self.emitter.node("Expand", &[&x, &shape]))
    }

    pub(super) fn iota(&mut self, node: &Node, size: &Dim) -> Result {
        let size = self.dimension(node, size)?;
        let size = self.squeeze(&size, &[0]);
        let [zero, one] = [0, 1].map(|value| self.emitter.int(value));
        let numbers = self.emitter.node("Range", &[&zero, &size, &one]);
        Ok(self.cast(&numbers, DataType::Float))
    }

    pub(super) fn cum_sum(&mut self, node: &Node, axis: usize) -> Result {
        let axis = self.axis(node, 0, axis)?;
        let x = self.operand(node, 0);
        let axis = self.emitter.int(axis);
        Ok(self.emitter.node("CumSum", &[&x, &axis]))
    }

    pub(super) fn gather_elements(&mut self, node: &Node, axis: usize) -> Result {
        let axis = self.axis(node, 0, axis)?;
        let (x, indices) = (self.operand(node, 0), self.operand(node, 1));
        let indices = self.cast(&indices, DataType::Int64);
        Ok(self.emitter.with("GatherElements", &[&x, &indices], vec![int("axis", axis)]))
    }

    /// Zeros in the rows of padding.
    pub(super) fn pad(&mut self, node: &Node) -> String {
        let x = self.operand(node, 0);
        let rank = node.fact.shape.len() as i64;
        let is_token = self.shared(&format!("is_token_{rank}"), |exporter| {
            let is_token = exporter.cast(MASK, DataType::Bool);
            let axes: Vec<i64> = (2..rank).collect();
            if axes.is_empty() { is_token } else { exporter.unsqueeze(&is_token, &axes) }
        });
        let is_float = node.fact.dtype == DType::F32;
        let zero = if is_float { self.emitter.float(0.0) } else { self.emitter.int(0) };
        self.emitter.node("Where", &[&is_token, &x, &zero])
    }

    pub(super) fn slice(&mut self, node: &Node, axis: usize, start: usize, end: usize) -> Result {
        let axis = self.axis(node, 0, axis)?;
        let x = node.inputs.first().map_or(String::new(), |&input| self.value(input));
        let [start, end, axes] = [start as i64, end as i64, axis].map(|value| self.emitter.ints(&[value]));
        Ok(self.emitter.node("Slice", &[&x, &start, &end, &axes]))
    }

    pub(super) fn concat(&mut self, node: &Node, axis: usize) -> Result {
        let axis = self.axis(node, 0, axis)?;
        let parts: Vec<String> = (0..node.inputs.len()).map(|operand| self.operand(node, operand)).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(self.emitter.with("Concat", &parts, vec![int("axis", axis)]))
    }

    pub(super) fn gather(&mut self, node: &Node, axis: usize) -> Result {
        let axis = self.axis(node, 0, axis)?;
        let both = node.inputs.iter().filter(|&&input| self.by_token(input)).count() > 1;
        if both || (axis != 0 && node.inputs.get(1).is_some_and(|&input| self.by_token(input))) {
            return Err(self.unsupported(node, "tokens would meet other tokens"));
        }
        let (x, mut indices) = (self.operand(node, 0), self.operand(node, 1));
        if node.inputs.get(1).is_some_and(|&input| self.graph.node(input).fact.dtype == DType::F32) {
            indices = self.cast(&indices, DataType::Int64);
        }
        Ok(self.emitter.with("Gather", &[&x, &indices], vec![int("axis", axis)]))
    }

    pub(super) fn reduce(&mut self, node: &Node, reduction: Reduction, axes: &[usize]) -> Result {
        let axes = axes.iter().map(|&axis| self.axis(node, 0, axis)).collect::<Result<Vec<i64>>>()?;
        let x = node.inputs.first().map_or(String::new(), |&input| self.value(input));
        let (op, keep) = match reduction {
            Reduction::Sum => return Ok(self.sum(&x, &axes, true)),
            Reduction::Mean => ("ReduceMean", int("keepdims", 1)),
            Reduction::Max => ("ReduceMax", int("keepdims", 1)),
        };
        Ok(self.emitter.with(op, &[&x], vec![ints("axes", &axes), keep]))
    }

    /// The sum along dimensions, which stay or go.
    pub(super) fn sum(&mut self, x: &str, axes: &[i64], keep: bool) -> String {
        let axes = self.emitter.ints(axes);
        self.emitter.with("ReduceSum", &[x, &axes], vec![int("keepdims", keep.into())])
    }

    /// The largest value along one dimension, which stays or goes.
    pub(super) fn largest(&mut self, x: &str, axis: i64, keep: bool) -> String {
        self.emitter.with("ReduceMax", &[x], vec![ints("axes", &[axis]), int("keepdims", keep.into())])
    }
}
