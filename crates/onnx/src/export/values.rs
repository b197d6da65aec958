//! What values are called in the file, and nodes that many ops need.

use centuple_graph::{Node, NodeId};
use centuple_tensor::{DType, Tensor};

use super::emitter::{int, ints};
use super::lower::{Exporter, Result, counts_tokens};
use super::{BATCH, Dialect, ExportError, Output};
use crate::proto::tensor_proto::DataType;

impl Exporter<'_> {
    /// What is said of a node that can't be exported.
    pub(super) fn unsupported(&self, node: &Node, reason: impl Into<String>) -> ExportError {
        ExportError::Unsupported { name: node.name.clone(), op: node.op.name(), reason: reason.into() }
    }

    /// Whether operators of ONNX Runtime may be used.
    pub(super) fn fuses(&self) -> bool {
        self.options.dialect == Dialect::Fused
    }

    /// Whether the first dimension of a value is the tokens.
    pub(super) fn by_token(&self, id: NodeId) -> bool {
        self.graph.node(id).fact.shape.first().is_some_and(counts_tokens)
    }

    /// Name of a value; where it is the same for every sequence, it still has a batch of 1.
    pub(super) fn value(&self, id: NodeId) -> String {
        self.names[id.index()].clone()
    }

    /// Whether a value is the same for every sequence.
    pub(super) fn is_same(&self, id: NodeId) -> bool {
        self.same.contains(&id)
    }

    /// Says that a value is the same for every sequence.
    pub(super) fn set_same(&mut self, id: NodeId) {
        self.same.insert(id);
    }

    /// Name of a value with the whole batch.
    pub(super) fn full(&mut self, id: NodeId) -> String {
        let name = self.value(id);
        if !self.is_same(id) {
            return name;
        }
        let rank = self.graph.node(id).fact.shape.len() + 1;
        self.shared(&format!("{name}.batch"), |exporter| {
            let batch = exporter.extent(BATCH);
            let ones = exporter.emitter.ints(&vec![1; rank - 1]);
            let shape = exporter.emitter.with("Concat", &[&batch, &ones], vec![int("axis", 0)]);
            exporter.emitter.node("Expand", &[&name, &shape])
        })
    }

    /// A value that is made once, called by what it is.
    pub(super) fn shared(&mut self, what: &str, make: impl FnOnce(&mut Self) -> String) -> String {
        if let Some(known) = self.shared.get(what) {
            return known.clone();
        }
        let scope = std::mem::replace(&mut self.emitter.scope, what.to_owned());
        let name = make(self);
        self.emitter.scope = scope;
        self.shared.insert(what.to_owned(), name.clone());
        name
    }

    /// The number of sequences, or of tokens of the longest one, as `[1]` i64.
    pub(super) fn extent(&mut self, name: &str) -> String {
        let axis = i64::from(name != BATCH);
        self.shared(name, |exporter| {
            exporter.emitter.with("Shape", &["input_ids"], vec![int("start", axis), int("end", axis + 1)])
        })
    }

    /// An output of the file.
    pub(super) fn column(&mut self, output: &Output) -> Result {
        let value = self.full(output.value);
        let Some(column) = output.column else { return Ok(value) };
        self.emitter.scope.clone_from(&output.name);
        let index = self.emitter.int(column as i64);
        Ok(self.emitter.with("Gather", &[&value, &index], vec![int("axis", -1)]))
    }

    pub(super) fn constant(&mut self, name: &str, tensor: &Tensor) -> Result {
        let stored = self.emitter.tensor(name, tensor);
        Ok(match tensor.dtype() {
            DType::F32 | DType::I64 | DType::I8 => stored,
            DType::F16 | DType::BF16 => self.cast(&stored, DataType::Float),
        })
    }

    /// A value as another type.
    pub(super) fn cast(&mut self, x: &str, to: DataType) -> String {
        self.emitter.with("Cast", &[x], vec![int("to", to as i64)])
    }

    /// `x` with dimensions of 1 at these places of the result.
    pub(super) fn unsqueeze(&mut self, x: &str, axes: &[i64]) -> String {
        let axes = self.emitter.ints(axes);
        self.emitter.node("Unsqueeze", &[x, &axes])
    }

    /// `x` without the dimensions of 1 at these places.
    pub(super) fn squeeze(&mut self, x: &str, axes: &[i64]) -> String {
        let axes = self.emitter.ints(axes);
        self.emitter.node("Squeeze", &[x, &axes])
    }

    /// `x` under another shape; 0 keeps a dimension, -1 is what is left.
    pub(super) fn reshaped(&mut self, x: &str, shape: &[i64]) -> String {
        let shape = self.emitter.ints(shape);
        self.emitter.node("Reshape", &[x, &shape])
    }

    /// `x` with its dimensions in another order.
    pub(super) fn permuted(&mut self, x: &str, perm: &[i64]) -> String {
        self.emitter.with("Transpose", &[x], vec![ints("perm", perm)])
    }
}
