//! The file's inputs, made of packed ids.

use centuple_graph::{NodeId, Op};
use centuple_tensor::{DType, Dim, Symbol, Tensor};

use super::run::Scope;
use super::value::Value;
use super::{Importer, Problem, Result};
use crate::OnnxError;
use crate::error::shown;
use crate::file::Element;
use crate::proto::tensor_proto::DataType;
use crate::proto::{GraphProto, ValueInfoProto, tensor_shape_proto, type_proto};

/// The graph's input of token ids.
const IDS: &str = "input_ids";

/// What an input of a transformer encoder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ids,
    Mask,
    Types,
    Positions,
}

/// Names that exporters give, the parts between dots, slashes and colons apart.
const NAMES: [(&str, Role); 20] = [
    ("input_ids", Role::Ids),
    ("inputids", Role::Ids),
    ("ids", Role::Ids),
    ("tokens", Role::Ids),
    ("token_ids", Role::Ids),
    ("input", Role::Ids),
    ("inputs", Role::Ids),
    ("input_word_ids", Role::Ids),
    ("l_input_ids_", Role::Ids),
    ("attention_mask", Role::Mask),
    ("input_mask", Role::Mask),
    ("mask", Role::Mask),
    ("l_attention_mask_", Role::Mask),
    ("token_type_ids", Role::Types),
    ("segment_ids", Role::Types),
    ("input_type_ids", Role::Types),
    ("type_ids", Role::Types),
    ("l_token_type_ids_", Role::Types),
    ("position_ids", Role::Positions),
    ("positions", Role::Positions),
];

impl Role {
    fn of(name: &str) -> Option<Role> {
        let name = name.to_ascii_lowercase();
        let known = |name: &str| NAMES.iter().find(|(known, _)| *known == name).map(|(_, role)| *role);
        known(&name).or_else(|| name.split([':', '/']).find_map(known))
    }
}

impl<'f> Importer<'f> {
    /// A scope with the graph's constants and inputs.
    pub(super) fn scope(&mut self, graph: &'f GraphProto) -> std::result::Result<Scope<'f, 'f>, OnnxError> {
        let mut scope = Scope::new(None);
        self.initializers(graph, &mut scope)?;
        let constants: std::collections::HashSet<&str> =
            graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        // Files of old versions list constants among the inputs, too.
        let inputs: Vec<_> = graph.input.iter().filter(|input| !constants.contains(input.name.as_str())).collect();
        let mut roles: Vec<Option<Role>> = inputs.iter().map(|input| Role::of(&input.name)).collect();
        if roles.iter().all(Option::is_none) && inputs.len() <= 3 {
            // Where names say nothing (`input.1`, `onnx::...`), the order is that of transformers' forward.
            roles = [Role::Ids, Role::Mask, Role::Types].into_iter().take(inputs.len()).map(Some).collect();
        }
        for (input, role) in inputs.iter().zip(&roles) {
            let problem = |problem: String| self.file.problem(format!("the input `{}` {problem}", shown(&input.name)));
            let role = role.ok_or_else(|| problem("is none that a transformer encoder has".to_owned()))?;
            if roles.iter().filter(|other| **other == Some(role)).count() > 1 {
                return Err(problem("looks like another input".to_owned()));
            }
            check(input).map_err(problem)?;
            self.name.clone_from(&input.name);
            let value = self.role(role);
            let value = value.map_err(|Problem(text)| self.file.problem(text))?;
            if !scope.insert(&input.name, value) {
                return Err(self.file.problem(format!("two inputs are called `{}`", shown(&input.name))));
            }
        }
        Ok(scope)
    }

    fn role(&mut self, role: Role) -> Result<Value> {
        let rows = [Dim::from(Symbol::Sequences), Dim::from(Symbol::Sequence)];
        let node = match role {
            Role::Ids => {
                let node = self.padded_ids(IDS)?;
                self.tables.ids = Some(node);
                node
            }
            Role::Types => {
                let node = self.padded_ids("token_type_ids")?;
                self.tables.types = Some(node);
                node
            }
            Role::Mask => {
                let one = self.graph.constant("one", Tensor::from_f32(&[1], &[1.0])?)?;
                let ones = self.push(Op::Expand { shape: vec![Symbol::Tokens.into()] }, &[one])?;
                self.push(Op::Pad, &[ones])?
            }
            Role::Positions => {
                let places = self.push(Op::Iota { size: Symbol::Sequence.into() }, &[])?;
                self.push(Op::Expand { shape: rows.to_vec() }, &[places])?
            }
        };
        Ok(Value::Node(node, Element::Int))
    }

    fn padded_ids(&mut self, name: &str) -> Result<NodeId> {
        let ids = self.graph.input(name, DType::I64, vec![Symbol::Tokens.into()])?;
        if name == IDS {
            self.tables.packed_ids = Some(ids);
        }
        let numbers = self.push(Op::ToFloat, &[ids])?;
        self.push(Op::Pad, &[numbers])
    }
}

/// Checks that an input is `[batch, sequence]` of integers, neither size fixed.
fn check(input: &ValueInfoProto) -> std::result::Result<(), String> {
    let Some(type_proto::Value::TensorType(kind)) = input.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return Err("is no tensor".to_owned());
    };
    let whole = [DataType::Int64, DataType::Int32, DataType::Bool, DataType::Float];
    if !whole.iter().any(|&whole| whole as i32 == kind.elem_type) {
        return Err("has elements of a type that ids don't have".to_owned());
    }
    let Some(shape) = &kind.shape else { return Ok(()) };
    if shape.dim.len() != 2 {
        return Err(format!("has {} dimensions instead of [batch, sequence]", shape.dim.len()));
    }
    for (dim, name) in shape.dim.iter().zip(["batch", "sequence"]) {
        if let Some(tensor_shape_proto::dimension::Value::DimValue(size)) = dim.value
            && size > 0
        {
            return Err(format!("has the fixed {name} size {size}; export the model with dynamic axes"));
        }
    }
    Ok(())
}
