//! Codes and their scales, on the way back to numbers.
//!
//! Activations stay numbers: what quantises them and what turns their codes back vanishes. Weights of one scale for each
//! output become [`Op::QuantizedLinear`](centuple_graph::Op::QuantizedLinear) where their activations have been quantised
//! in the file, too, within the range that it gives them if it does; all other codes become numbers here.

use std::sync::Arc;

use centuple_graph::{Binary, NodeId, Op, is_range};
use centuple_tensor::{DType, Dim, Shape, Tensor, shape_of};

use super::attributes::Call;
use super::elementwise::Arithmetic;
use super::ops::Table;
use super::problem::{Problem, Result, problem};
use super::value::Value;
use super::{Importer, dims};
use crate::file::{Constant, Element, filled};

pub(super) const OPS: Table = &[
    ("DynamicQuantizeLinear", dynamic_quantize),
    ("QuantizeLinear", quantize),
    ("DequantizeLinear", dequantize),
    ("MatMulInteger", matmul_integer),
    ("QLinearMatMul", qlinear_matmul),
];

/// Deepest layer whose sums of products surely fit 32 bits.
const DEEPEST: usize = 4096;

/// Codes, scales and zero points.
#[derive(Clone, Debug)]
pub(super) enum Quantized {
    /// The codes of `x`; `origin` is what was quantised, before its elements were moved about.
    Codes { x: NodeId, origin: NodeId },
    /// The product of the scales of these values, and of a factor.
    Scale { of: Vec<NodeId>, factor: Option<Constant> },
    /// The zero point of codes that were made here.
    Zero,
    /// The numbers of codes: `x` but for its rounding, within the range of all codes of a byte where the file fixes it.
    Rounded { x: NodeId, range: Option<[f32; 2]> },
    /// A product of codes that lacks the scales of `pending`.
    Product(Box<Product>),
    /// The numbers of constant codes.
    Weight(Box<Weight>),
    /// Codes looked up in a table.
    Rows { table: Constant, indices: NodeId, axis: usize },
}

/// A matrix product of codes.
#[derive(Clone, Debug)]
pub(super) struct Product {
    x: NodeId,
    other: Factor,
    pending: Vec<NodeId>,
    factor: Option<Constant>,
}

#[derive(Clone, Debug)]
enum Factor {
    Weight(Box<Weight>),
    Node(NodeId),
}

/// Constant codes with their scales: `(codes - zero) · scale`.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    pub(super) codes: Constant,
    pub(super) scale: Constant,
    pub(super) zero: Option<Constant>,
    /// The dimension of the codes that scales differ along; with blocks, the one that is cut into them.
    pub(super) axis: usize,
    /// Codes that share a scale along the axis; 0 without blocks.
    pub(super) block: usize,
    /// Whether the matrix that is meant is the transpose of the codes.
    pub(super) flipped: bool,
}

/// A linear layer of codes.
pub(super) struct Layer {
    /// `[outputs, inputs]` i8.
    pub(super) codes: Tensor,
    /// One for each output.
    pub(super) scales: Vec<f32>,
    pub(super) shape: [usize; 2],
    /// Name of the file's codes.
    pub(super) name: Option<Arc<str>>,
}

impl Quantized {
    pub(super) fn is_product(&self) -> bool {
        matches!(self, Quantized::Product(_))
    }
}

impl Layer {
    /// The scales times a number or one number for each output.
    pub(super) fn scaled(&self, factor: &Constant) -> Result<Vec<f32>> {
        let factors = factor.floats();
        match factors {
            [factor] => Ok(self.scales.iter().map(|scale| scale * factor).collect()),
            _ if factors.len() == self.scales.len() && factor.shape().last() == Some(&factors.len()) => {
                Ok(self.scales.iter().zip(factors).map(|(scale, factor)| scale * factor).collect())
            }
            _ => Err(problem("scales that are neither one nor one for each output")),
        }
    }
}

impl Weight {
    pub(super) fn transposed(&self) -> Box<Weight> {
        Box::new(Weight { flipped: !self.flipped, ..self.clone() })
    }

    pub(super) fn shape(&self) -> Vec<usize> {
        let mut shape = self.codes.shape().to_vec();
        if self.flipped {
            shape.reverse();
        }
        shape
    }

    /// The zero point of each scale.
    fn zeros(&self) -> Result<Vec<i64>> {
        match &self.zero {
            None => Ok(vec![0; self.scale.len()]),
            Some(zero) => {
                let zeros = zero.integers().ok_or_else(|| problem("zero points that are no integers"))?;
                match zeros.as_slice() {
                    [zero] => Ok(vec![*zero; self.scale.len()]),
                    _ if zeros.len() == self.scale.len() => Ok(zeros),
                    _ => Err(problem("another number of zero points than of scales")),
                }
            }
        }
    }

    /// The weight `[K, N]` as a linear layer; `None` where its codes or scales don't fit one.
    pub(super) fn layer(&self) -> Result<Option<Layer>> {
        let [rows, columns] = *self.codes.shape() else { return Ok(None) };
        let [inputs, outputs] = if self.flipped { [columns, rows] } else { [rows, columns] };
        let output_axis = usize::from(!self.flipped);
        let per_output = self.scale.len() == outputs && self.axis == output_axis;
        let fits = self.block == 0 && (self.scale.len() == 1 || per_output) && inputs <= DEEPEST;
        let narrow = matches!(self.codes.element, Element::U8 | Element::I8);
        if !fits || !narrow || inputs == 0 || outputs == 0 {
            return Ok(None);
        }
        let zeros = self.zeros()?;
        let zero = |output: usize| zeros.get(if zeros.len() == 1 { 0 } else { output }).copied().unwrap_or(0);
        let signed = self.codes.element == Element::I8;
        let source = self.codes.bytes();
        let mut wide = false;
        let codes = Tensor::from_i8_with(&[outputs, inputs], |out| {
            for (output, row) in out.chunks_exact_mut(inputs).enumerate() {
                let zero = zero(output);
                for (input, out) in row.iter_mut().enumerate() {
                    let place = if self.flipped { output * inputs + input } else { input * outputs + output };
                    let byte = source.get(place).copied().unwrap_or(0);
                    let code = if signed { i64::from(byte as i8) } else { i64::from(byte) };
                    match i8::try_from(code - zero) {
                        Ok(code) => *out = code,
                        Err(_) => wide = true,
                    }
                }
            }
        })?;
        if wide {
            return Ok(None);
        }
        let scales = self.scale.floats();
        let scales = if scales.len() == 1 { vec![scales[0]; outputs] } else { scales.to_vec() };
        Ok(Some(Layer { codes, scales, shape: [outputs, inputs], name: self.codes.name.clone() }))
    }

    /// The numbers in the codes' own order.
    fn numbers(&self) -> Result<Tensor> {
        let shape = self.codes.shape();
        let codes = self.codes.to_float()?;
        let zeros: Vec<f32> = self.zeros()?.iter().map(|&zero| zero as f32).collect();
        let scales = self.scale.floats();
        let (size, inner) = match shape.get(self.axis) {
            Some(&size) => (size, shape[self.axis + 1..].iter().product::<usize>()),
            None => (1, 1),
        };
        let blocks = if self.block > 0 { size.div_ceil(self.block) } else { 0 };
        let expected = match self.block {
            0 if scales.len() == 1 => 1,
            0 => size,
            _ => codes.len().checked_div(size).unwrap_or(0).saturating_mul(blocks),
        };
        if scales.len() != expected || size == 0 && !codes.tensor.is_empty() {
            return Err(problem("another number of scales than the codes need"));
        }
        Ok(filled(DType::F32, shape, |out: &mut [f32]| {
            for (row, (out, codes)) in out.chunks_mut(inner.max(1)).zip(codes.floats().chunks(inner.max(1))).enumerate()
            {
                let at = row % size.max(1);
                for (column, (out, code)) in out.iter_mut().zip(codes).enumerate() {
                    let place = match self.block {
                        0 if scales.len() == 1 => 0,
                        0 => at,
                        block => (row / size * blocks + at / block) * inner + column,
                    };
                    *out = (code - zeros[place]) * scales[place];
                }
            }
        })?)
    }
}

impl Importer<'_> {
    pub(super) fn quantized_shape(&self, quantized: &Quantized) -> Shape {
        match quantized {
            Quantized::Codes { x, .. } | Quantized::Rounded { x, .. } => self.shape_of(*x),
            Quantized::Scale { .. } | Quantized::Zero => Shape::new(),
            Quantized::Product(product) => {
                let mut shape = self.shape_of(product.x);
                let columns = match &product.other {
                    Factor::Weight(weight) => weight.shape().last().map(|&columns| Dim::from(columns)),
                    Factor::Node(node) => self.shape_of(*node).last().cloned(),
                };
                shape.pop();
                shape.extend(columns);
                shape
            }
            Quantized::Weight(weight) => shape_of(&weight.shape()),
            Quantized::Rows { table, indices, axis } => {
                let (before, behind) = table.shape().split_at(*axis);
                [shape_of(before), self.shape_of(*indices), shape_of(&behind[1..])].concat()
            }
        }
    }

    /// The numbers that quantised values stand for.
    pub(super) fn quantized_node(&mut self, quantized: &Quantized) -> Result<NodeId> {
        match quantized {
            Quantized::Rounded { x, .. } => Ok(*x),
            Quantized::Product(product) => self.finished(product),
            Quantized::Weight(weight) => {
                let constant = self.dequantized(weight)?;
                self.node(&Value::Constant(constant))
            }
            Quantized::Rows { table, indices, axis } => {
                let table = self.node(&Value::Constant(table.clone()))?;
                self.push(Op::Gather { axis: *axis }, &[table, *indices])
            }
            Quantized::Codes { .. } | Quantized::Scale { .. } | Quantized::Zero => {
                Err(problem("codes of activations are used for something else than a quantised layer"))
            }
        }
    }

    /// The numbers of constant codes.
    pub(super) fn dequantized(&mut self, weight: &Weight) -> Result<Constant> {
        self.reserve(weight.codes.shape(), Element::Float)?;
        let constant = Constant::new(Element::Float, weight.numbers()?).named(weight.codes.name.clone());
        if weight.flipped { self.transposed(&constant) } else { Ok(constant) }
    }

    /// A product of codes that has met all its scales.
    fn finished(&mut self, product: &Product) -> Result<NodeId> {
        if !product.pending.is_empty() {
            return Err(problem("a product of codes is used without the scales of its activations"));
        }
        let result = match &product.other {
            Factor::Weight(weight) => {
                if let Some(layer) = weight.layer()? {
                    return self.quantized_linear(product.x, &layer, None, product.factor.as_ref(), None);
                }
                let weight = self.dequantized(weight)?;
                let weight = self.node(&Value::Constant(weight))?;
                self.product(product.x, weight)?
            }
            Factor::Node(other) => self.product(product.x, *other)?,
        };
        match &product.factor {
            None => Ok(result),
            Some(factor) => {
                let factor = self.node(&Value::Constant(factor.clone()))?;
                self.binary(Binary::Mul, result, factor)
            }
        }
    }

    /// Products with scales stay what they are; `None` for everything else.
    pub(super) fn combine_codes(&mut self, function: Arithmetic, a: &Value, b: &Value) -> Result<Option<Value>> {
        if function != Arithmetic::Mul {
            return Ok(None);
        }
        let (quantized, other) = match (a, b) {
            (Value::Quantized(product @ Quantized::Product(_)), other)
            | (other, Value::Quantized(product @ Quantized::Product(_)))
            | (Value::Quantized(product @ Quantized::Scale { .. }), other)
            | (other, Value::Quantized(product @ Quantized::Scale { .. })) => (product, other),
            _ => return Ok(None),
        };
        let (of, more) = match other {
            Value::Quantized(Quantized::Scale { of, factor }) => (of.clone(), factor.clone()),
            Value::Constant(constant) => (Vec::new(), Some(constant.to_float()?)),
            Value::Transposed(_) | Value::Dims(_) | Value::Node(..) | Value::Quantized(_) | Value::Marked(_) => {
                return Ok(None);
            }
        };
        let joined = |this: &mut Self, factor: &Option<Constant>| -> Result<Option<Constant>> {
            let (Some(x), Some(y)) = (factor, &more) else { return Ok(factor.clone().or(more.clone())) };
            match this.combine(Arithmetic::Mul, &x.clone().into(), &y.clone().into())? {
                Value::Constant(product) => Ok(Some(product)),
                Value::Transposed(_) | Value::Dims(_) | Value::Node(..) | Value::Quantized(_) | Value::Marked(_) => {
                    Err(problem("scales that are not fixed"))
                }
            }
        };
        Ok(Some(Value::Quantized(match quantized {
            Quantized::Scale { of: own, factor } => {
                Quantized::Scale { of: [own.clone(), of].concat(), factor: joined(self, factor)? }
            }
            Quantized::Product(product) => {
                let mut pending = product.pending.clone();
                for scale in of {
                    let place = pending.iter().position(|&missing| missing == scale);
                    pending.remove(place.ok_or_else(|| problem("the scale of something that is no factor"))?);
                }
                let factor = joined(self, &product.factor)?;
                Quantized::Product(Box::new(Product { pending, factor, ..(**product).clone() }))
            }
            Quantized::Codes { .. }
            | Quantized::Zero
            | Quantized::Rounded { .. }
            | Quantized::Weight(_)
            | Quantized::Rows { .. } => return Ok(None),
        })))
    }

    /// The codes of a node.
    pub(super) fn codes_of(&self, x: NodeId) -> Value {
        Value::Quantized(Quantized::Codes { x, origin: x })
    }

    /// The numbers of codes: of activations those that they were made of, of constants lazily.
    pub(super) fn real(
        &mut self,
        codes: &Value,
        scale: &Value,
        zero: Option<&Value>,
        axis: i64,
        block: i64,
    ) -> Result<Value> {
        let fixed = |value: &Value| match value {
            Value::Constant(constant) => Ok(constant.clone()),
            Value::Transposed(_) | Value::Dims(_) | Value::Node(..) | Value::Quantized(_) | Value::Marked(_) => {
                Err(problem("a scale or zero point that is not fixed"))
            }
        };
        let rank = self.shape(codes).len();
        let axis = if rank == 0 { 0 } else { dims::axis(axis, rank).unwrap_or(0) };
        let block = usize::try_from(block).map_err(|_| problem("a negative block size"))?;
        let weight = |codes: &Constant, flipped: bool| -> Result<Weight> {
            let (scale, zero) = (fixed(scale)?.to_float()?, zero.map(fixed).transpose()?);
            Ok(Weight { codes: codes.clone(), scale, zero, axis, block, flipped })
        };
        Ok(match codes {
            Value::Quantized(Quantized::Codes { x, .. }) => {
                Value::Quantized(Quantized::Rounded { x: *x, range: zero.and_then(|zero| range(scale, zero)) })
            }
            Value::Constant(constant) if rank >= 2 => {
                Value::Quantized(Quantized::Weight(Box::new(weight(constant, false)?)))
            }
            Value::Constant(constant) => self.dequantized(&weight(constant, false)?)?.into(),
            Value::Transposed(constant) => {
                let axis = 1 - axis.min(1);
                Value::Quantized(Quantized::Weight(Box::new(Weight { axis, ..weight(constant, true)? })))
            }
            Value::Quantized(Quantized::Rows { table, indices, axis: looked_up }) => {
                let weight = Weight { axis: 0, block: 0, ..weight(table, false)? };
                if weight.scale.len() != 1 {
                    return Err(problem("rows of a table with several scales"));
                }
                let table = self.dequantized(&weight)?;
                let table = self.node(&table.into())?;
                Value::Node(self.push(Op::Gather { axis: *looked_up }, &[table, *indices])?, Element::Float)
            }
            Value::Node(node, _) => {
                let mut x = *node;
                if let Some(zero) = zero {
                    let zero = self.node(zero)?;
                    x = self.binary(Binary::Sub, x, zero)?;
                }
                let scale = self.node(scale)?;
                Value::Node(self.binary(Binary::Mul, x, scale)?, Element::Float)
            }
            Value::Dims(_) | Value::Quantized(_) | Value::Marked(_) => {
                return Err(problem("this is no tensor of codes"));
            }
        })
    }
}

/// The numbers that the least and the greatest code of a byte stand for, where one scale and one zero point are fixed.
fn range(scale: &Value, zero: &Value) -> Option<[f32; 2]> {
    let (Value::Constant(scale), Value::Constant(zero)) = (scale, zero) else { return None };
    let (&[scale], &[zero_point]) = (scale.to_float().ok()?.floats(), zero.integers()?.as_slice()) else { return None };
    let codes = match zero.element {
        Element::U8 => [0, 255],
        Element::I8 => [-128, 127],
        Element::Float | Element::Int | Element::Bool => return None,
    };
    Some(codes.map(|code| (code - zero_point) as f32 * scale)).filter(|range| is_range(*range))
}

fn dynamic_quantize(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let scale = Value::Quantized(Quantized::Scale { of: vec![x], factor: None });
    Ok(vec![importer.codes_of(x), scale, Value::Quantized(Quantized::Zero)])
}

pub(super) fn quantize(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    if let Value::Constant(constant) = call.operand(0)?
        && constant.element == Element::Float
    {
        return Ok(vec![quantize_constant(importer, call, constant)?.into()]);
    }
    let x = importer.node(call.operand(0)?)?;
    Ok(vec![importer.codes_of(x)])
}

/// The codes of a constant.
fn quantize_constant(importer: &mut Importer, call: &Call, x: &Constant) -> Result<Constant> {
    let Value::Constant(scale) = call.operand(1)? else { return Err(problem("a scale that is not fixed")) };
    let zero = match call.optional(2) {
        None => None,
        Some(Value::Constant(zero)) => Some(zero),
        Some(_) => return Err(problem("a zero point that is not fixed")),
    };
    let signed = zero.is_some_and(|zero| zero.element == Element::I8);
    if call.int("block_size", 0) != 0 || zero.is_some_and(|zero| zero.element == Element::Int) {
        return Err(problem("constants are quantised in blocks or to wide integers"));
    }
    importer.reserve(x.shape(), Element::I8)?;
    let scales = scale.to_float()?;
    let scales = scales.floats();
    let axis = if scales.len() == 1 { 0 } else { dims::axis(call.int("axis", 1), x.shape().len())? };
    let inner: usize = x.shape().get(axis + 1..).unwrap_or_default().iter().product();
    let size = x.shape().get(axis).copied().unwrap_or(1);
    if scales.len() != 1 && scales.len() != size || zero.is_some_and(|zero| zero.len() != scales.len()) {
        return Err(problem("another number of scales or zero points than the axis has"));
    }
    let (low, high) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
    let tensor = Tensor::from_i8_with(x.shape(), |out| {
        for (place, (out, value)) in out.iter_mut().zip(x.floats()).enumerate() {
            let at = if scales.len() == 1 { 0 } else { place / inner.max(1) % size.max(1) };
            let zero = zero.and_then(|zero| zero.integer(at)).unwrap_or(0) as f32;
            let code = ((value / scales[at]).round_ties_even() + zero).clamp(low, high);
            *out = if signed { code as i8 } else { code as u8 as i8 };
        }
    })?;
    Ok(Constant::new(if signed { Element::I8 } else { Element::U8 }, tensor).named(x.name.clone()))
}

pub(super) fn dequantize(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (axis, block) = (call.int("axis", 1), call.int("block_size", 0));
    let (codes, scale) = (call.operand(0)?.clone(), call.operand(1)?.clone());
    Ok(vec![importer.real(&codes, &scale, call.optional(2), axis, block)?])
}

fn matmul_integer(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let Value::Quantized(Quantized::Codes { x, origin }) = call.operand(0)? else {
        return Err(problem("its first operand was not quantised in the file"));
    };
    let mut pending = vec![*origin];
    let other = match call.operand(1)? {
        Value::Quantized(Quantized::Codes { x, origin }) => {
            pending.push(*origin);
            Factor::Node(*x)
        }
        codes @ (Value::Constant(_) | Value::Transposed(_)) => {
            let one = Constant::of_floats(&[], &[1.0])?;
            let zero = call.optional(3).cloned();
            let Value::Quantized(Quantized::Weight(mut weight)) = importer.real(codes, &one.into(), None, 1, 0)? else {
                return Err(problem("codes that are no matrix"));
            };
            if let Some(Value::Constant(zero)) = zero {
                // One zero point for each output, as its scales will be.
                let ones = vec![1.0; zero.len()];
                weight.scale = Constant::of_floats(zero.shape(), &ones)?;
                weight.axis = usize::from(!weight.flipped);
                weight.zero = Some(zero);
            } else if zero.is_some() {
                return Err(problem("a zero point that is not fixed"));
            }
            Factor::Weight(weight)
        }
        Value::Dims(_) | Value::Node(..) | Value::Quantized(_) | Value::Marked(_) => {
            return Err(problem("its second operand is neither fixed nor was it quantised in the file"));
        }
    };
    Ok(vec![Value::Quantized(Quantized::Product(Box::new(Product { x: *x, other, pending, factor: None })))])
}

fn qlinear_matmul(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let operands: Vec<Value> = call.all()?.into_iter().cloned().collect();
    let [a, a_scale, a_zero, b, b_scale, b_zero, ..] = operands.as_slice() else {
        return Err(Problem(format!("it has {} operands", operands.len())));
    };
    let a = importer.real(a, a_scale, Some(a_zero), 0, 0)?;
    let b = importer.real(b, b_scale, Some(b_zero), -1, 0)?;
    let product = importer.matmul(&a, &b)?;
    let product = importer.node(&product)?;
    Ok(vec![importer.codes_of(product)])
}
