//! Values as nodes of the graph, and the nodes that other files compose.

use centuple_graph::{Binary, NodeId, Op, Reduction, Unary};
use centuple_tensor::{Dim, Shape, shape_of};

use super::dims::{self, never_negative, to_integer};
use super::problem::{Problem, Result, problem};
use super::value::{Dims, Value};
use super::{Importer, fold};
use crate::file::{Constant, Element};

/// Most elements of a value that the file fixes the size of, sequences and their length counted once.
const LARGEST: u64 = 1 << 28;
/// Operations on constants alone that any file may ask for.
const WORK: u64 = 1 << 28;
/// Such operations for each byte of a file: a table of relative positions times every weight.
const WORK_PER_BYTE: u64 = 2048;
/// Dimensions of a value.
const RANK: usize = 16;

impl Importer<'_> {
    /// Appends a node under the name of the file's node at hand.
    pub(super) fn push(&mut self, op: Op, inputs: &[NodeId]) -> Result<NodeId> {
        let node = self.graph.push(self.name.clone(), op, inputs)?;
        self.weigh(node)?;
        let shape = &self.graph.node(node).fact.shape;
        let fixed = shape.iter().filter_map(Dim::constant).map(|dim| dim as u64);
        let volume = fixed.fold(1u64, |product, dim| product.saturating_mul(dim.max(1)));
        if volume > LARGEST || shape.len() > RANK {
            return Err(Problem(format!("its result of shape [{}] is too large", dims::shown(shape))));
        }
        if shape.iter().any(|dim| !never_negative(dim)) {
            return Err(Problem(format!("its result would have the shape [{}]", dims::shown(shape))));
        }
        Ok(node)
    }

    /// Counts what a node costs that depends on constants alone, since somebody will fold it.
    fn weigh(&mut self, node: NodeId) -> Result<()> {
        for index in self.varies.len()..=node.index() {
            let Some(new) = self.graph.nodes().get(index) else { break };
            let symbols = new.fact.shape.iter().any(|dim| dim.constant().is_none());
            let inputs = new.inputs.iter().any(|input| self.varies.get(input.index()) == Some(&true));
            self.varies.push(symbols || inputs || matches!(new.op, Op::Input { .. }));
        }
        if self.varies.get(node.index()) == Some(&true) {
            return Ok(());
        }
        let node = self.graph.node(node);
        let size = |shape: &[Dim]| {
            shape.iter().fold(1u64, |size, dim| size.saturating_mul(dim.constant().unwrap_or(0) as u64))
        };
        let depth = match (&node.op, node.inputs.first()) {
            (Op::MatMul | Op::Linear { .. } | Op::QuantizedLinear { .. }, Some(&x)) => {
                let shape = &self.graph.node(x).fact.shape;
                shape.last().and_then(Dim::constant).unwrap_or(1).max(1) as u64
            }
            _ => 1,
        };
        self.work = self.work.saturating_add(size(&node.fact.shape).saturating_mul(depth));
        let bytes = self.file.length() as u64;
        if self.work > WORK.saturating_add(bytes.saturating_mul(WORK_PER_BYTE)) {
            return Err(problem("constants are computed with more than the file's size allows for"));
        }
        Ok(())
    }

    /// The shape of a node.
    pub(super) fn shape_of(&self, node: NodeId) -> Shape {
        self.graph.node(node).fact.shape.clone()
    }

    /// The shape of a value.
    pub(super) fn shape(&self, value: &Value) -> Shape {
        match value {
            Value::Constant(constant) => shape_of(constant.shape()),
            Value::Transposed(constant) => shape_of(constant.shape()).into_iter().rev().collect(),
            Value::Dims(dims) => shape_of(&dims.shape),
            Value::Node(node, _) => self.shape_of(*node),
            Value::Quantized(quantized) => self.quantized_shape(quantized),
            Value::Marked(_) => Shape::new(),
        }
    }

    /// What a value's elements are.
    pub(super) fn element(&self, value: &Value) -> Element {
        match value {
            Value::Constant(constant) | Value::Transposed(constant) => constant.element,
            Value::Dims(dims) => dims.element,
            Value::Node(_, element) => *element,
            Value::Quantized(_) | Value::Marked(_) => Element::Float,
        }
    }

    /// A value as a node of f32 numbers.
    pub(super) fn node(&mut self, value: &Value) -> Result<NodeId> {
        match value {
            Value::Constant(constant) => self.constant(constant),
            Value::Transposed(constant) => {
                let constant = self.transposed(constant)?;
                self.constant(&constant)
            }
            Value::Dims(dims) => self.sizes(dims),
            Value::Node(node, _) => Ok(*node),
            Value::Quantized(quantized) => self.quantized_node(quantized),
            Value::Marked(_) => Err(problem("the places of an id, but for the last one's row of each sequence")),
        }
    }

    /// The node of a constant; equal memory is one node.
    fn constant(&mut self, constant: &Constant) -> Result<NodeId> {
        let key = (constant.tensor.identity(), constant.tensor.dtype(), constant.shape().to_vec());
        if let Some(&node) = self.constants.get(&key) {
            return Ok(node);
        }
        let name = constant.name.as_deref().map_or_else(|| format!("{}.constant", self.name), str::to_owned);
        if constant.element != Element::Float {
            self.reserve(constant.shape(), Element::Float)?;
        }
        let node = self.graph.constant(name, constant.to_float()?.tensor)?;
        // A tensor of integers is kept too, so that nothing else can come to lie in its memory.
        if constant.element == Element::Float {
            self.constants.insert(key, node);
        }
        Ok(node)
    }

    /// The matrix that a transposed constant stands for.
    pub(super) fn transposed(&mut self, constant: &Constant) -> Result<Constant> {
        self.reserve(constant.shape(), Element::Float)?;
        let (mut shape, mut strides) = (constant.shape().to_vec(), fold::strides(constant.shape()));
        shape.reverse();
        strides.reverse();
        fold::copy(constant, &fold::View { shape, strides, offset: 0 })
    }

    /// Sizes as numbers.
    fn sizes(&mut self, dims: &Dims) -> Result<NodeId> {
        let parts = dims.elements.iter().map(|dim| self.extent(dim)).collect::<Result<Vec<NodeId>>>()?;
        let vector = match parts.as_slice() {
            [] => return Err(problem("an empty list of sizes as numbers")),
            [one] => *one,
            _ => self.push(Op::Concat { axis: 0 }, &parts)?,
        };
        self.reshape_node(vector, &shape_of(&dims.shape))
    }

    /// A size as a number, `[1]`.
    pub(super) fn extent(&mut self, dim: &Dim) -> Result<NodeId> {
        if let Some(&node) = self.extents.get(dim) {
            return Ok(node);
        }
        let node = match to_integer(dim) {
            Some(value) => self.numbers(&[1], &[value as f32])?,
            None if never_negative(dim) => {
                let one = self.numbers(&[1], &[1.0])?;
                let ones = self.push(Op::Expand { shape: vec![dim.clone()] }, &[one])?;
                self.push(Op::Reduce { reduction: Reduction::Sum, axes: vec![0] }, &[ones])?
            }
            None => {
                let (added, taken) = dim.parts();
                let (added, taken) = (self.extent(&added)?, self.extent(&taken)?);
                self.binary(Binary::Sub, added, taken)?
            }
        };
        self.extents.insert(dim.clone(), node);
        Ok(node)
    }

    /// A new constant node.
    pub(super) fn numbers(&mut self, shape: &[usize], values: &[f32]) -> Result<NodeId> {
        let constant = Constant::of_floats(shape, values)?;
        Ok(self.graph.constant(format!("{}.constant", self.name), constant.tensor)?)
    }

    /// A new scalar constant.
    pub(super) fn scalar(&mut self, value: f32) -> Result<NodeId> {
        self.numbers(&[], &[value])
    }

    pub(super) fn unary(&mut self, unary: Unary, x: NodeId) -> Result<NodeId> {
        self.push(Op::Unary(unary), &[x])
    }

    pub(super) fn binary(&mut self, binary: Binary, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.push(Op::Binary(binary), &[a, b])
    }

    /// A function of a node and a number.
    pub(super) fn with_number(&mut self, binary: Binary, a: NodeId, b: f32) -> Result<NodeId> {
        let b = self.scalar(b)?;
        self.binary(binary, a, b)
    }

    /// 1 where `x` is 0, else 0.
    pub(super) fn not(&mut self, x: NodeId) -> Result<NodeId> {
        self.with_number(Binary::Equal, x, 0.0)
    }

    pub(super) fn transpose_node(&mut self, x: NodeId, perm: &[usize]) -> Result<NodeId> {
        if perm.iter().copied().eq(0..perm.len()) {
            return Ok(x);
        }
        self.push(Op::Transpose { perm: perm.to_vec() }, &[x])
    }

    pub(super) fn reshape_node(&mut self, x: NodeId, shape: &[Dim]) -> Result<NodeId> {
        if self.graph.node(x).fact.shape == shape {
            return Ok(x);
        }
        self.push(Op::Reshape { shape: shape.to_vec() }, &[x])
    }

    pub(super) fn expand_node(&mut self, x: NodeId, shape: &[Dim]) -> Result<NodeId> {
        if self.graph.node(x).fact.shape == shape {
            return Ok(x);
        }
        self.push(Op::Expand { shape: shape.to_vec() }, &[x])
    }

    /// A reduction; the dimensions stay unless `drop` is set.
    pub(super) fn reduce_node(
        &mut self,
        reduction: Reduction,
        x: NodeId,
        axes: &[usize],
        drop: bool,
    ) -> Result<NodeId> {
        let reduced = self.push(Op::Reduce { reduction, axes: axes.to_vec() }, &[x])?;
        if !drop {
            return Ok(reduced);
        }
        let shape = self.shape_of(reduced);
        let kept: Vec<Dim> =
            shape.into_iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim).collect();
        self.reshape_node(reduced, &kept)
    }

    /// Small whole numbers that are known but for sizes.
    pub(super) fn dims(&self, value: &Value) -> Option<Dims> {
        const MOST: usize = 4096;
        match value {
            Value::Dims(dims) => Some(dims.clone()),
            Value::Constant(constant) if constant.len() <= MOST => {
                let element = constant.element;
                let values = match element {
                    Element::Int | Element::Bool | Element::U8 | Element::I8 => constant.integers()?,
                    Element::Float => {
                        let whole = |&value: &f32| (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64);
                        constant.floats().iter().map(whole).collect::<Option<Vec<i64>>>()?
                    }
                };
                let elements = values.into_iter().map(dims::of_integer).collect();
                let element = if element == Element::Float { element } else { Element::Int };
                Some(Dims { shape: constant.shape().to_vec(), elements, element })
            }
            Value::Constant(_) | Value::Transposed(_) | Value::Node(..) | Value::Quantized(_) | Value::Marked(_) => {
                None
            }
        }
    }

    /// Sizes as a value: a constant where no symbol is left.
    pub(super) fn sized(&self, dims: Dims) -> Result<Value> {
        let Some(values) = dims.elements.iter().map(to_integer).collect::<Option<Vec<i64>>>() else {
            return Ok(Value::Dims(dims));
        };
        Ok(Value::Constant(match dims.element {
            Element::Float => {
                let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
                Constant::of_floats(&dims.shape, &values)?
            }
            Element::Int | Element::Bool | Element::U8 | Element::I8 => Constant::of_integers(&dims.shape, &values)?,
        }))
    }

    /// Whole numbers that must be known but for sizes: a shape, axes, places.
    pub(super) fn known(&self, value: &Value) -> Result<Vec<Dim>> {
        let dims = self.dims(value).ok_or_else(|| problem("a shape, axis or place that depends on the texts"))?;
        if dims.shape.len() > 1 {
            return Err(problem("a list of sizes with more than one dimension"));
        }
        Ok(dims.elements)
    }

    /// Whole numbers that must be known.
    pub(super) fn integers(&self, value: &Value) -> Result<Vec<i64>> {
        let dims = self.known(value)?;
        let integers = dims.iter().map(to_integer).collect::<Option<Vec<i64>>>();
        integers.ok_or_else(|| problem("a number that has to be fixed depends on the texts' lengths"))
    }
}
