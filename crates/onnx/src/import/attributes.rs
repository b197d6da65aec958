//! A node with its operands and attributes.

use std::collections::HashMap;

use super::problem::{Problem, Result, problem};
use super::value::Value;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// The attributes of a function's call, which those of its nodes may refer to.
pub(super) type Arguments<'f> = HashMap<&'f str, &'f AttributeProto>;

/// A node to be imported.
pub(super) struct Call<'f> {
    /// Version of the operator's domain.
    pub(super) opset: i64,
    /// Operands; one that is left out is `None`.
    pub(super) operands: Vec<Option<Value>>,
    /// Number of results.
    pub(super) results: usize,
    attributes: HashMap<&'f str, &'f AttributeProto>,
}

impl<'f> Call<'f> {
    pub(super) fn new(
        node: &'f NodeProto,
        opset: i64,
        operands: Vec<Option<Value>>,
        arguments: &Arguments<'f>,
    ) -> Call<'f> {
        Call { opset, operands, results: node.output.len(), attributes: attributes(node, arguments) }
    }

    /// An operand that has to be there.
    pub(super) fn operand(&self, index: usize) -> Result<&Value> {
        self.optional(index).ok_or_else(|| Problem(format!("operand {index} is missing")))
    }

    /// An operand that may be left out.
    pub(super) fn optional(&self, index: usize) -> Option<&Value> {
        self.operands.get(index).and_then(Option::as_ref)
    }

    /// All operands, none of which may be left out.
    pub(super) fn all(&self) -> Result<Vec<&Value>> {
        (0..self.operands.len()).map(|index| self.operand(index)).collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attributes.get(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    /// A number that has to be there and positive.
    pub(super) fn count(&self, name: &str) -> Result<usize> {
        let value = self.attributes.get(name).and_then(|attribute| attribute.i);
        let count = value.and_then(|value| usize::try_from(value).ok()).filter(|&count| count > 0);
        count.ok_or_else(|| Problem(format!("the attribute {name} must be a positive number")))
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.attributes.get(name).and_then(|attribute| attribute.f).unwrap_or(default)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        let bytes = self.attributes.get(name)?.s.as_deref()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'f [i64]> {
        self.attributes.get(name).map(|attribute| attribute.ints.as_slice())
    }

    pub(super) fn floats(&self, name: &str) -> Option<&'f [f32]> {
        self.attributes.get(name).map(|attribute| attribute.floats.as_slice())
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&'f TensorProto> {
        self.attributes.get(name).and_then(|attribute| attribute.t.as_ref())
    }

    pub(super) fn graph(&self, name: &str) -> Result<&'f GraphProto> {
        let graph = self.attributes.get(name).and_then(|attribute| attribute.g.as_ref());
        graph.ok_or_else(|| problem("a branch is missing"))
    }

    /// The attributes for the nodes of a function that this node calls.
    pub(super) fn arguments(&self) -> Arguments<'f> {
        self.attributes.clone()
    }
}

/// The attributes of a node, references to those of a call resolved.
fn attributes<'f>(node: &'f NodeProto, arguments: &Arguments<'f>) -> HashMap<&'f str, &'f AttributeProto> {
    let meant = |attribute: &'f AttributeProto| {
        if attribute.ref_attr_name.is_empty() {
            return Some((attribute.name.as_str(), attribute));
        }
        arguments.get(attribute.ref_attr_name.as_str()).map(|&given| (attribute.name.as_str(), given))
    };
    node.attribute.iter().filter_map(meant).collect()
}
