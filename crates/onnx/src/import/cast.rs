//! Other types of elements, and choosing between elements.

use centuple_graph::{Op, Unary};
use centuple_tensor::{DType, Dim, Tensor};

use super::Importer;
use super::attributes::Call;
use super::dims::broadcast;
use super::ops::Table;
use super::problem::{Problem, Result, problem};
use super::value::{Dims, Value};
use crate::file::{Constant, Element, filled};
use crate::proto::tensor_proto::DataType;

pub(super) const OPS: Table = &[("Where", select), ("Cast", cast), ("CastLike", cast_like)];

impl Importer<'_> {
    /// A value as other elements.
    pub(super) fn convert(&mut self, x: &Value, to: Element) -> Result<Value> {
        // A product of codes stays one until it has met its scales.
        if let Value::Quantized(quantized) = x
            && to == Element::Float
            && quantized.is_product()
        {
            return Ok(x.clone());
        }
        let x = self.settled(x)?;
        let from = self.element(&x);
        if from == to {
            return Ok(x);
        }
        match x {
            Value::Constant(constant) => {
                self.reserve(constant.shape(), to)?;
                Ok(converted(&constant, to)?.into())
            }
            Value::Dims(dims) if to != Element::Bool => {
                let element = if to == Element::Float { Element::Float } else { Element::Int };
                Ok(Value::Dims(Dims { element, ..dims }))
            }
            x @ (Value::Transposed(_) | Value::Dims(_) | Value::Node(..) | Value::Quantized(_) | Value::Marked(_)) => {
                let node = self.node(&x)?;
                match to {
                    Element::Bool => {
                        let zero = self.not(node)?;
                        Ok(Value::Node(self.not(zero)?, Element::Bool))
                    }
                    Element::Int | Element::U8 | Element::I8 if from == Element::Float => {
                        Ok(Value::Node(self.unary(Unary::Trunc, node)?, Element::Int))
                    }
                    Element::Int | Element::U8 | Element::I8 => Ok(Value::Node(node, Element::Int)),
                    Element::Float => Ok(Value::Node(node, Element::Float)),
                }
            }
        }
    }
}

/// A constant as other elements.
pub(super) fn converted(x: &Constant, to: Element) -> Result<Constant> {
    if x.element == to {
        return Ok(x.clone());
    }
    let shape = x.shape();
    Ok(match to {
        Element::Float => x.to_float()?,
        Element::Bool => {
            let x = x.to_float()?;
            let values: Vec<bool> = x.floats().iter().map(|&value| value != 0.0).collect();
            Constant::of_bools(shape, &values)?
        }
        Element::Int => {
            let tensor = match x.integers() {
                Some(values) => Tensor::from_i64(shape, &values)?,
                None => filled(DType::I64, shape, |out: &mut [i64]| {
                    out.iter_mut().zip(x.floats()).for_each(|(out, &value)| *out = value as i64);
                })?,
            };
            Constant::new(to, tensor)
        }
        Element::U8 | Element::I8 => {
            let whole = converted(x, Element::Int)?;
            let values = whole.tensor.as_i64()?;
            let tensor = Tensor::from_i8_with(shape, |out| {
                out.iter_mut().zip(values).for_each(|(out, &value)| *out = value as i8);
            })?;
            Constant::new(to, tensor)
        }
    })
}

/// The elements of a type of the format.
fn element_of(kind: i64) -> Result<Element> {
    let kind = i32::try_from(kind).ok().and_then(|kind| DataType::try_from(kind).ok());
    match kind.ok_or_else(|| problem("a cast to an unknown type"))? {
        DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double => Ok(Element::Float),
        DataType::Bool => Ok(Element::Bool),
        DataType::Int64
        | DataType::Int32
        | DataType::Int16
        | DataType::Uint16
        | DataType::Uint32
        | DataType::Uint64 => Ok(Element::Int),
        DataType::Uint8 => Ok(Element::U8),
        DataType::Int8 => Ok(Element::I8),
        kind @ (DataType::Undefined
        | DataType::String
        | DataType::Complex64
        | DataType::Complex128
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz
        | DataType::Uint4
        | DataType::Int4
        | DataType::Float4e2m1
        | DataType::Float8e8m0
        | DataType::Uint2
        | DataType::Int2) => Err(Problem(format!("a cast to {}", kind.as_str_name()))),
    }
}

fn cast(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let to = element_of(call.int("to", 0))?;
    Ok(vec![importer.convert(call.operand(0)?, to)?])
}

fn cast_like(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let to = importer.element(call.operand(1)?);
    Ok(vec![importer.convert(call.operand(0)?, to)?])
}

fn select(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let condition = importer.settled(call.operand(0)?)?;
    let (a, b) = (importer.settled(call.operand(1)?)?, importer.settled(call.operand(2)?)?);
    let element = importer.element(&a);
    let shape = broadcast(&broadcast(&importer.shape(&condition), &importer.shape(&a))?, &importer.shape(&b))?;
    if let Value::Constant(condition) = &condition {
        let values = condition.integers().unwrap_or_default();
        let all = |wanted: bool| values.iter().all(|&value| (value != 0) == wanted);
        if all(true) || all(false) {
            return Ok(vec![importer.expand(if all(true) { &a } else { &b }, &shape)?]);
        }
        if let Some(result) = select_dims(importer, &values, condition, [&a, &b])? {
            return Ok(vec![result]);
        }
    }
    let nodes = [importer.node(&condition)?, importer.node(&a)?, importer.node(&b)?];
    Ok(vec![Value::Node(importer.push(Op::Where, &nodes)?, element)])
}

/// Chooses among sizes by a known condition.
fn select_dims(
    importer: &mut Importer,
    values: &[i64],
    condition: &Constant,
    [a, b]: [&Value; 2],
) -> Result<Option<Value>> {
    if matches!((a, b), (Value::Node(..), _) | (_, Value::Node(..))) {
        return Ok(None);
    }
    let (Some(x), Some(y)) = (importer.dims(a), importer.dims(b)) else { return Ok(None) };
    let single = |dims: &Dims| dims.elements.len() == 1 && dims.shape.len() <= condition.shape().len();
    let fits = |dims: &Dims| dims.shape == condition.shape() || single(dims);
    if !fits(&x) || !fits(&y) {
        return Ok(None);
    }
    let pick = |(place, &value): (usize, &i64)| {
        let dims = if value != 0 { &x } else { &y };
        dims.elements.get(if dims.elements.len() == 1 { 0 } else { place }).cloned().unwrap_or_default()
    };
    let elements: Vec<Dim> = values.iter().enumerate().map(pick).collect();
    importer.sized(Dims { shape: condition.shape().to_vec(), elements, element: x.element }).map(Some)
}
