//! The ONNX graph under construction: nodes, initializers, and names that are taken once.

use std::collections::{HashMap, HashSet};

use centuple_tensor::{DType, Tensor};

use crate::proto::attribute_proto::AttributeType;
use crate::proto::tensor_proto::DataType;
use crate::proto::{AttributeProto, NodeProto};

/// The domain of ONNX Runtime's own operators.
pub(super) const MICROSOFT: &str = "com.microsoft";

/// A constant of the file.
pub(super) struct Initializer {
    pub(super) name: String,
    pub(super) content: Content,
}

/// What a constant holds. Weights stay where they are until the file is written.
pub(super) enum Content {
    /// A tensor as it lies.
    Tensor(Tensor),
    /// The transpose of a matrix.
    Transposed(Tensor),
    /// Matrices with equally many columns, below each other, transposed.
    Joined(Vec<Tensor>),
    /// Elements that the export has computed.
    Computed { data_type: DataType, dims: Vec<usize>, bytes: Vec<u8> },
}

/// What tells constants apart that are made more than once.
#[derive(PartialEq, Eq, Hash)]
enum Known {
    Small(i32, Vec<usize>, Vec<u8>),
    Stored((usize, usize), Vec<usize>, DType),
    Transposed((usize, usize), Vec<usize>),
    Joined(Vec<(usize, usize)>),
}

/// Nodes and initializers in the order in which they were asked for.
#[derive(Default)]
pub(super) struct Emitter {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: Vec<Initializer>,
    /// What names of new nodes begin with.
    pub(super) scope: String,
    taken: HashSet<String>,
    known: HashMap<Known, String>,
}

impl Emitter {
    /// The name itself where it is free, else with a number behind it.
    pub(super) fn unique(&mut self, name: &str) -> String {
        let numbered = (1usize..).map(|number| format!("{name}_{number}"));
        let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !self.taken.contains(name));
        let free = free.unwrap_or_default();
        self.taken.insert(free.clone());
        free
    }

    /// A node of ONNX's own domain with one output; yields its name.
    pub(super) fn node(&mut self, op: &str, inputs: &[&str]) -> String {
        self.with(op, inputs, Vec::new())
    }

    /// As [`Emitter::node`], with attributes.
    pub(super) fn with(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.several("", op, inputs, 1, attributes).swap_remove(0)
    }

    /// A node of ONNX Runtime's domain with one output.
    pub(super) fn fused(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        self.several(MICROSOFT, op, inputs, 1, attributes).swap_remove(0)
    }

    /// A node with `outputs` outputs; yields their names.
    pub(super) fn several(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&str],
        outputs: usize,
        attribute: Vec<AttributeProto>,
    ) -> Vec<String> {
        let name = self.unique(&format!("{}/{op}", self.scope));
        let output: Vec<String> = (0..outputs).map(|index| self.unique(&format!("{name}_output_{index}"))).collect();
        let mut input: Vec<String> = inputs.iter().map(|&input| input.to_owned()).collect();
        while input.last().is_some_and(String::is_empty) {
            input.pop();
        }
        let (op_type, domain) = (op.to_owned(), domain.to_owned());
        self.nodes.push(NodeProto {
            input,
            output: output.clone(),
            name,
            op_type,
            domain,
            attribute,
            ..NodeProto::default()
        });
        output
    }

    /// A weight as it lies.
    pub(super) fn tensor(&mut self, name: &str, tensor: &Tensor) -> String {
        let key = Known::Stored(tensor.identity(), tensor.shape().to_vec(), tensor.dtype());
        self.initializer(key, name, || Content::Tensor(tensor.clone()))
    }

    /// The transpose of a matrix.
    pub(super) fn transposed(&mut self, name: &str, tensor: &Tensor) -> String {
        let key = Known::Transposed(tensor.identity(), tensor.shape().to_vec());
        self.initializer(key, &format!("{name}_transposed"), || Content::Transposed(tensor.clone()))
    }

    /// The transpose of matrices, or vectors, below each other.
    pub(super) fn joined(&mut self, name: &str, tensors: Vec<Tensor>) -> String {
        let key = Known::Joined(tensors.iter().map(Tensor::identity).collect());
        self.initializer(key, name, || Content::Joined(tensors))
    }

    /// Computed elements; equal ones are written once.
    pub(super) fn computed(&mut self, name: &str, data_type: DataType, dims: &[usize], bytes: Vec<u8>) -> String {
        let key = Known::Small(data_type as i32, dims.to_vec(), bytes.clone());
        self.initializer(key, name, || Content::Computed { data_type, dims: dims.to_vec(), bytes })
    }

    /// One i64.
    pub(super) fn int(&mut self, value: i64) -> String {
        self.computed(&format!("constant/{value}"), DataType::Int64, &[], value.to_le_bytes().to_vec())
    }

    /// A list of i64.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let name: Vec<String> = values.iter().map(i64::to_string).collect();
        self.computed(&format!("constant/[{}]", name.join(",")), DataType::Int64, &[values.len()], bytes)
    }

    /// One f32.
    pub(super) fn float(&mut self, value: f32) -> String {
        self.computed(&format!("constant/{value:?}f"), DataType::Float, &[], value.to_le_bytes().to_vec())
    }

    /// A constant that nothing else is compared with.
    pub(super) fn fresh(&mut self, name: &str, content: Content) -> String {
        let name = self.unique(name);
        self.initializers.push(Initializer { name: name.clone(), content });
        name
    }

    fn initializer(&mut self, key: Known, name: &str, content: impl FnOnce() -> Content) -> String {
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let name = self.fresh(name, content());
        self.known.insert(key, name.clone());
        name
    }

    /// Takes a name, so that no node or constant gets it.
    pub(super) fn reserve(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    /// Calls a value `name`; where that can't be, since it is an input, a constant or an output already, a copy of it.
    pub(super) fn publish(&mut self, value: &str, name: &str, published: &[String]) {
        let made = self.nodes.iter().any(|node| node.output.iter().any(|output| output == value));
        if !made || published.iter().any(|output| output == value) {
            let output = self.node("Identity", &[value]);
            return self.publish(&output, name, &[]);
        }
        for node in &mut self.nodes {
            for place in node.input.iter_mut().chain(&mut node.output).filter(|place| *place == value) {
                name.clone_into(place);
            }
        }
    }

    /// Takes out what no output needs.
    pub(super) fn sweep(&mut self, outputs: &[String]) {
        let mut needed: HashSet<String> = outputs.iter().cloned().collect();
        let mut kept = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if !node.output.iter().any(|output| needed.contains(output)) {
                continue;
            }
            needed.extend(node.input.iter().cloned());
            kept.push(node);
        }
        kept.reverse();
        self.nodes = kept;
        self.initializers.retain(|initializer| needed.contains(&initializer.name));
    }
}

/// A whole number as an attribute.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    attribute(name, AttributeType::Int, |attribute| attribute.i = Some(value))
}

/// A list of whole numbers as an attribute.
pub(super) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    attribute(name, AttributeType::Ints, |attribute| attribute.ints = values.to_vec())
}

/// A number as an attribute.
pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    attribute(name, AttributeType::Float, |attribute| attribute.f = Some(value))
}

fn attribute(name: &str, kind: AttributeType, set: impl FnOnce(&mut AttributeProto)) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.to_owned(), r#type: kind.into(), ..AttributeProto::default() };
    set(&mut attribute);
    attribute
}
