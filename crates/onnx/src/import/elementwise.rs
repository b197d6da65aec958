//! Functions of one, two or three elements.

use std::cell::Cell;

use centuple_graph::{Activation, Binary, NodeId, Op, Unary};
use centuple_tensor::{DType, Dim, Symbol, shape_of};

use super::Importer;
use super::attributes::Call;
use super::dims::{bounded, broadcast, constants, equal, less, multiply, to_integer};
use super::fold::{self, Pair};
use super::ops::Table;
use super::problem::{Problem, Result, problem};
use super::value::{Dims, Value};
use crate::file::{Constant, Element, filled};

pub(super) const OPS: Table = &[
    ("Add", |i, c| i.arithmetic(c, Arithmetic::Add)),
    ("Sub", |i, c| i.arithmetic(c, Arithmetic::Sub)),
    ("Mul", |i, c| i.arithmetic(c, Arithmetic::Mul)),
    ("Div", |i, c| i.arithmetic(c, Arithmetic::Div)),
    ("Mod", modulo),
    ("Pow", |i, c| i.arithmetic(c, Arithmetic::Pow)),
    ("Min", |i, c| i.arithmetic(c, Arithmetic::Min)),
    ("Max", |i, c| i.arithmetic(c, Arithmetic::Max)),
    ("Sum", |i, c| i.arithmetic(c, Arithmetic::Add)),
    ("Equal", |i, c| i.comparison(c, Comparison::Equal)),
    ("Less", |i, c| i.comparison(c, Comparison::Less)),
    ("Greater", |i, c| i.comparison(c, Comparison::Greater)),
    ("LessOrEqual", |i, c| i.comparison(c, Comparison::LessOrEqual)),
    ("GreaterOrEqual", |i, c| i.comparison(c, Comparison::GreaterOrEqual)),
    ("And", |i, c| i.arithmetic(c, Arithmetic::And)),
    ("Or", |i, c| i.arithmetic(c, Arithmetic::Or)),
    ("Xor", |i, c| i.arithmetic(c, Arithmetic::Xor)),
    ("Not", not),
    ("Neg", |i, c| i.signed(c, Unary::Neg)),
    ("Abs", |i, c| i.signed(c, Unary::Abs)),
    ("Sign", |i, c| i.signed(c, Unary::Sign)),
    ("Sqrt", |i, c| i.of_floats(c, Unary::Sqrt)),
    ("Exp", |i, c| i.of_floats(c, Unary::Exp)),
    ("Log", |i, c| i.of_floats(c, Unary::Log)),
    ("Erf", |i, c| i.of_floats(c, Unary::Erf)),
    ("Reciprocal", |i, c| i.of_floats(c, Unary::Reciprocal)),
    ("Sin", |i, c| i.of_floats(c, Unary::Sin)),
    ("Cos", |i, c| i.of_floats(c, Unary::Cos)),
    ("Floor", |i, c| i.rounded(c, Unary::Floor)),
    ("Ceil", |i, c| i.rounded(c, Unary::Ceil)),
    ("Round", |i, c| i.rounded(c, Unary::Round)),
    ("IsNaN", is_nan),
    ("IsInf", is_infinite),
    ("Tanh", |i, c| i.activation(c, Activation::Tanh)),
    ("Sigmoid", |i, c| i.activation(c, Activation::Sigmoid)),
    ("Relu", |i, c| i.activation(c, Activation::Relu)),
    ("Gelu", gelu),
    ("Swish", swish),
    ("HardSigmoid", hard_sigmoid),
    ("LeakyRelu", leaky_relu),
    ("Elu", elu),
    ("Softplus", softplus),
    ("Softsign", softsign),
    ("Clip", clip),
    ("Where", select),
    ("Cast", cast),
    ("CastLike", cast_like),
];

/// Functions of two numbers that yield numbers, or truth values of truth values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Min,
    Max,
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
}

impl Importer<'_> {
    fn arithmetic(&mut self, call: &Call, function: Arithmetic) -> Result<Vec<Value>> {
        let operands = call.all()?;
        let [first, rest @ ..] = operands.as_slice() else { return Err(problem("it has no operands")) };
        let mut result = (*first).clone();
        for operand in rest {
            result = self.combine(function, &result, operand)?;
        }
        Ok(vec![result])
    }

    /// `function(a, b)` with broadcasting.
    pub(super) fn combine(&mut self, function: Arithmetic, a: &Value, b: &Value) -> Result<Value> {
        if let Some(product) = self.combine_codes(function, a, b)? {
            return Ok(product);
        }
        let (a, b) = (self.settled(a)?, self.settled(b)?);
        if let (Value::Constant(x), Value::Constant(y)) = (&a, &b) {
            return self.fold(function, x, y);
        }
        if !matches!((&a, &b), (Value::Node(..), _) | (_, Value::Node(..)))
            && let (Some(x), Some(y)) = (self.dims(&a), self.dims(&b))
            && let Some(dims) = self.combine_dims(function, &x, &y)?
        {
            return Ok(dims);
        }
        let element = match (self.element(&a), self.element(&b)) {
            (Element::Float, _) | (_, Element::Float) => Element::Float,
            (Element::Bool, Element::Bool) => Element::Bool,
            _ => Element::Int,
        };
        let (x, y) = (self.node(&a)?, self.node(&b)?);
        let node = match function {
            Arithmetic::Add => self.binary(Binary::Add, x, y)?,
            Arithmetic::Sub => self.binary(Binary::Sub, x, y)?,
            Arithmetic::Mul | Arithmetic::And => self.binary(Binary::Mul, x, y)?,
            Arithmetic::Div => {
                let quotient = self.binary(Binary::Div, x, y)?;
                if element == Element::Float { quotient } else { self.unary(Unary::Trunc, quotient)? }
            }
            Arithmetic::Pow => self.binary(Binary::Pow, x, y)?,
            Arithmetic::Min => self.binary(Binary::Min, x, y)?,
            Arithmetic::Max | Arithmetic::Or => self.binary(Binary::Max, x, y)?,
            Arithmetic::Xor => {
                let same = self.binary(Binary::Equal, x, y)?;
                self.not(same)?
            }
        };
        // The base of a power says what the result is.
        let element = if function == Arithmetic::Pow { self.element(&a) } else { element };
        Ok(Value::Node(node, element))
    }

    /// Two constants.
    fn fold(&mut self, function: Arithmetic, a: &Constant, b: &Constant) -> Result<Value> {
        let shape = broadcast(&shape_of(a.shape()), &shape_of(b.shape()))?;
        let shape = constants(&shape).unwrap_or_default();
        let misfit = || problem("constants that don't broadcast");
        if a.element == Element::Float || b.element == Element::Float {
            self.reserve(&shape, Element::Float)?;
            let (x, y) = (a.to_float()?, b.to_float()?);
            let pair = Pair::new(&shape, [(x.floats(), x.shape()), (y.floats(), y.shape())]).ok_or_else(misfit)?;
            let tensor = filled(DType::F32, &shape, |out: &mut [f32]| fold_floats(function, &pair, out))?;
            let folded = Constant::new(Element::Float, tensor).named(a.name.clone()).named(b.name.clone());
            let whole = function == Arithmetic::Pow && a.element != Element::Float;
            return Ok(if whole { converted(&folded, a.element)? } else { folded }.into());
        }
        self.reserve(&shape, Element::Int)?;
        let (x, y) = (a.integers().unwrap_or_default(), b.integers().unwrap_or_default());
        let pair = Pair::new(&shape, [(&x, a.shape()), (&y, b.shape())]).ok_or_else(misfit)?;
        let undefined = Cell::new(false);
        let of_integers = |x: i64, y: i64| {
            let value = match function {
                Arithmetic::Add => Some(x.wrapping_add(y)),
                Arithmetic::Sub => Some(x.wrapping_sub(y)),
                Arithmetic::Mul | Arithmetic::And => Some(x.wrapping_mul(y)),
                Arithmetic::Div => x.checked_div(y),
                Arithmetic::Pow => u32::try_from(y).ok().map(|y| x.saturating_pow(y)),
                Arithmetic::Min => Some(x.min(y)),
                Arithmetic::Max | Arithmetic::Or => Some(x.max(y)),
                Arithmetic::Xor => Some(i64::from(x != y)),
            };
            undefined.set(undefined.get() || value.is_none());
            value.unwrap_or(0)
        };
        let tensor = filled(DType::I64, &shape, |out: &mut [i64]| pair.map(out, &of_integers))?;
        if undefined.get() {
            return Err(problem("a division by zero or a negative power of integers"));
        }
        let result = Constant::new(Element::Int, tensor);
        let logical = a.element == Element::Bool && b.element == Element::Bool;
        Ok(if logical { converted(&result, Element::Bool)? } else { result }.into())
    }

    /// Arithmetic on sizes; `None` where the result is no polynomial.
    fn combine_dims(&mut self, function: Arithmetic, a: &Dims, b: &Dims) -> Result<Option<Value>> {
        let floats = a.element == Element::Float || b.element == Element::Float;
        let mut of = |x: &Dim, y: &Dim| -> Result<Option<Dim>> {
            Ok(match function {
                Arithmetic::Add => Some(bounded(x.clone() + y.clone())?),
                Arithmetic::Sub => Some(bounded(x.clone() - y.clone())?),
                Arithmetic::Mul => Some(multiply(x, y)?),
                Arithmetic::Div => x.divide_exact(y),
                Arithmetic::Min => match less(x, y) {
                    Some(less) => Some(if less { x.clone() } else { y.clone() }),
                    None => self.within(x, y).or_else(|| self.within(y, x)),
                },
                Arithmetic::Max => less(x, y).map(|less| if less { y.clone() } else { x.clone() }),
                Arithmetic::Pow => match to_integer(y) {
                    Some(1) => Some(x.clone()),
                    Some(2) => Some(multiply(x, x)?),
                    Some(_) | None => None,
                },
                Arithmetic::And | Arithmetic::Or | Arithmetic::Xor => None,
            })
        };
        let Some((shape, pairs)) = paired(a, b) else { return Ok(None) };
        let mut elements = Vec::with_capacity(pairs.len());
        for (x, y) in pairs {
            let Some(dim) = of(x, y)? else { return Ok(None) };
            elements.push(dim);
        }
        let element = if floats { Element::Float } else { Element::Int };
        self.sized(Dims { shape, elements, element }).map(Some)
    }

    /// The smaller one of a sequence's length and the number of a table's rows: sequences that are longer are refused.
    fn within(&mut self, length: &Dim, rows: &Dim) -> Option<Dim> {
        const FEWEST: usize = 8;
        let rows = rows.constant().filter(|&rows| rows >= FEWEST && *length == Dim::from(Symbol::Sequence))?;
        self.limit(rows);
        Some(length.clone())
    }

    fn comparison(&mut self, call: &Call, comparison: Comparison) -> Result<Vec<Value>> {
        let (a, b) = (self.settled(call.operand(0)?)?, self.settled(call.operand(1)?)?);
        if let (Value::Constant(x), Value::Constant(y)) = (&a, &b) {
            return Ok(vec![self.fold_comparison(comparison, x, y)?]);
        }
        if let (Some(x), Some(y)) = (self.dims(&a), self.dims(&b))
            && let Some((shape, pairs)) = paired(&x, &y)
        {
            let decide = |(x, y): (&Dim, &Dim)| match comparison {
                Comparison::Equal => Some(equal(x, y)),
                Comparison::Less => less(x, y),
                Comparison::Greater => less(y, x),
                Comparison::LessOrEqual => less(y, x).map(|greater| !greater),
                Comparison::GreaterOrEqual => less(x, y).map(|less| !less),
            };
            if let Some(values) = pairs.into_iter().map(decide).collect::<Option<Vec<bool>>>() {
                return Ok(vec![Constant::of_bools(&shape, &values)?.into()]);
            }
        }
        let (x, y) = (self.node(&a)?, self.node(&b)?);
        let node = match comparison {
            Comparison::Equal => self.binary(Binary::Equal, x, y)?,
            Comparison::Less => self.binary(Binary::Less, x, y)?,
            Comparison::Greater => self.binary(Binary::Less, y, x)?,
            Comparison::LessOrEqual => {
                let greater = self.binary(Binary::Less, y, x)?;
                self.not(greater)?
            }
            Comparison::GreaterOrEqual => {
                let less = self.binary(Binary::Less, x, y)?;
                self.not(less)?
            }
        };
        Ok(vec![Value::Node(node, Element::Bool)])
    }

    fn fold_comparison(&mut self, comparison: Comparison, a: &Constant, b: &Constant) -> Result<Value> {
        let shape = broadcast(&shape_of(a.shape()), &shape_of(b.shape()))?;
        let shape = constants(&shape).unwrap_or_default();
        let misfit = || problem("constants that don't broadcast");
        self.reserve(&shape, Element::Int)?;
        let tensor = match (a.integers(), b.integers()) {
            (Some(x), Some(y)) => {
                let pair = Pair::new(&shape, [(&x, a.shape()), (&y, b.shape())]).ok_or_else(misfit)?;
                let holds = |x: i64, y: i64| i8::from(compare(comparison, x, y));
                filled(DType::I8, &shape, |out: &mut [i8]| pair.map(out, &holds))?
            }
            _ => {
                let (x, y) = (a.to_float()?, b.to_float()?);
                let pair = Pair::new(&shape, [(x.floats(), x.shape()), (y.floats(), y.shape())]).ok_or_else(misfit)?;
                let holds = |x: f32, y: f32| i8::from(compare(comparison, x, y));
                filled(DType::I8, &shape, |out: &mut [i8]| pair.map(out, &holds))?
            }
        };
        Ok(Value::Constant(Constant::new(Element::Bool, tensor)))
    }

    /// A function of floating point numbers.
    pub(super) fn apply(&mut self, unary: Unary, x: &Value) -> Result<Value> {
        let x = self.settled(x)?;
        if let Value::Constant(constant) = &x
            && let Some(function) = folding(unary)
        {
            self.reserve(constant.shape(), Element::Float)?;
            return Ok(fold::map(constant, function)?.into());
        }
        let node = self.node(&x)?;
        Ok(Value::Node(self.unary(unary, node)?, Element::Float))
    }

    fn of_floats(&mut self, call: &Call, unary: Unary) -> Result<Vec<Value>> {
        Ok(vec![self.apply(unary, call.operand(0)?)?])
    }

    /// A function that keeps integers integers.
    fn signed(&mut self, call: &Call, unary: Unary) -> Result<Vec<Value>> {
        let x = self.settled(call.operand(0)?)?;
        let element = self.element(&x);
        if let (Unary::Neg, Some(dims)) = (unary, self.dims(&x)) {
            let elements = dims.elements.iter().map(|dim| Dim::default() - dim.clone()).collect();
            return Ok(vec![self.sized(Dims { elements, ..dims })?]);
        }
        let result = match self.apply(unary, &x)? {
            Value::Constant(constant) => converted(&constant, element)?.into(),
            Value::Node(node, _) => Value::Node(node, element),
            other @ (Value::Transposed(_) | Value::Dims(_) | Value::Quantized(_) | Value::Marked(_)) => other,
        };
        Ok(vec![result])
    }

    /// Rounding; sizes are whole.
    fn rounded(&mut self, call: &Call, unary: Unary) -> Result<Vec<Value>> {
        match call.operand(0)? {
            sizes @ Value::Dims(_) => Ok(vec![sizes.clone()]),
            x @ (Value::Constant(_)
            | Value::Transposed(_)
            | Value::Node(..)
            | Value::Quantized(_)
            | Value::Marked(_)) => Ok(vec![self.apply(unary, x)?]),
        }
    }

    pub(super) fn activate(&mut self, activation: Activation, x: NodeId) -> Result<NodeId> {
        self.push(Op::Activation(activation), &[x])
    }

    fn activation(&mut self, call: &Call, activation: Activation) -> Result<Vec<Value>> {
        let x = self.node(call.operand(0)?)?;
        Ok(vec![Value::Node(self.activate(activation, x)?, Element::Float)])
    }

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

/// The function of two lists of floats, each in a loop of its own.
fn fold_floats(function: Arithmetic, pair: &Pair<f32>, out: &mut [f32]) {
    match function {
        Arithmetic::Add => pair.map(out, &|x, y| x + y),
        Arithmetic::Sub => pair.map(out, &|x, y| x - y),
        Arithmetic::Mul | Arithmetic::And => pair.map(out, &|x, y| x * y),
        Arithmetic::Div => pair.map(out, &|x, y| x / y),
        Arithmetic::Pow => pair.map(out, &f32::powf),
        Arithmetic::Min => pair.map(out, &f32::min),
        Arithmetic::Max | Arithmetic::Or => pair.map(out, &f32::max),
        Arithmetic::Xor => pair.map(out, &|x, y| f32::from(u8::from(x != y))),
    }
}

fn compare<T: PartialOrd>(comparison: Comparison, x: T, y: T) -> bool {
    match comparison {
        Comparison::Equal => x == y,
        Comparison::Less => x < y,
        Comparison::Greater => x > y,
        Comparison::LessOrEqual => x <= y,
        Comparison::GreaterOrEqual => x >= y,
    }
}

/// A shape, and the pairs of sizes at each of its places.
type Paired<'a> = (Vec<usize>, Vec<(&'a Dim, &'a Dim)>);

/// The elements of two lists of sizes that meet; only equal shapes and single elements do.
fn paired<'a>(a: &'a Dims, b: &'a Dims) -> Option<Paired<'a>> {
    let single = |dims: &'a Dims| if dims.elements.len() == 1 { dims.elements.first() } else { None };
    if a.shape == b.shape {
        return Some((a.shape.clone(), a.elements.iter().zip(&b.elements).collect()));
    }
    if let Some(y) = single(b).filter(|_| b.shape.len() <= a.shape.len()) {
        return Some((a.shape.clone(), a.elements.iter().map(|x| (x, y)).collect()));
    }
    let x = single(a).filter(|_| a.shape.len() <= b.shape.len())?;
    Some((b.shape.clone(), b.elements.iter().map(|y| (x, y)).collect()))
}

/// The function on constants; `None` where the evaluator's is better.
fn folding(unary: Unary) -> Option<fn(f32) -> f32> {
    Some(match unary {
        Unary::Neg => |x| -x,
        Unary::Abs => f32::abs,
        Unary::Exp => f32::exp,
        Unary::Log => f32::ln,
        Unary::Log1p => f32::ln_1p,
        Unary::Sqrt => f32::sqrt,
        Unary::Reciprocal => f32::recip,
        Unary::Floor => f32::floor,
        Unary::Ceil => f32::ceil,
        Unary::Round => f32::round_ties_even,
        Unary::Trunc => f32::trunc,
        Unary::Sin => f32::sin,
        Unary::Cos => f32::cos,
        Unary::Sign => |x| if x == 0.0 || x.is_nan() { x } else { x.signum() },
        Unary::IsNan => |x| f32::from(u8::from(x.is_nan())),
        Unary::Erf => return None,
    })
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
                Some(values) => centuple_tensor::Tensor::from_i64(shape, &values)?,
                None => filled(DType::I64, shape, |out: &mut [i64]| {
                    out.iter_mut().zip(x.floats()).for_each(|(out, &value)| *out = value as i64);
                })?,
            };
            Constant::new(to, tensor)
        }
        Element::U8 | Element::I8 => {
            let whole = converted(x, Element::Int)?;
            let values = whole.tensor.as_i64()?;
            let tensor = centuple_tensor::Tensor::from_i8_with(shape, |out| {
                out.iter_mut().zip(values).for_each(|(out, &value)| *out = value as i8);
            })?;
            Constant::new(to, tensor)
        }
    })
}

/// The elements of a type of the format.
fn element_of(kind: i64) -> Result<Element> {
    use crate::proto::tensor_proto::DataType;
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

fn modulo(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (a, b) = (importer.settled(call.operand(0)?)?, importer.settled(call.operand(1)?)?);
    let as_c = call.int("fmod", 0) != 0;
    if let (Some(x), Some(y)) = (importer.dims(&a), importer.dims(&b))
        && let Some((shape, pairs)) = paired(&x, &y)
    {
        let rest = |(x, y): (&Dim, &Dim)| match (to_integer(x), to_integer(y)) {
            (Some(x), Some(y)) if as_c => x.checked_rem(y).map(super::dims::of_integer),
            (Some(x), Some(y)) if y > 0 => Some(super::dims::of_integer(x.rem_euclid(y))),
            _ => x.divide_exact(y).map(|_| Dim::default()),
        };
        if let Some(elements) = pairs.into_iter().map(rest).collect::<Option<Vec<Dim>>>() {
            let element = x.element;
            return Ok(vec![importer.sized(Dims { shape, elements, element })?]);
        }
    }
    let element = importer.element(&a);
    let (x, y) = (importer.node(&a)?, importer.node(&b)?);
    let quotient = importer.binary(Binary::Div, x, y)?;
    let whole = importer.unary(if as_c { Unary::Trunc } else { Unary::Floor }, quotient)?;
    let product = importer.binary(Binary::Mul, whole, y)?;
    Ok(vec![Value::Node(importer.binary(Binary::Sub, x, product)?, element)])
}

fn not(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    if let Value::Constant(constant) = call.operand(0)? {
        let values: Vec<bool> = constant.integers().unwrap_or_default().iter().map(|&value| value == 0).collect();
        return Ok(vec![Constant::of_bools(constant.shape(), &values)?.into()]);
    }
    let node = importer.node(call.operand(0)?)?;
    Ok(vec![Value::Node(importer.not(node)?, Element::Bool)])
}

fn is_nan(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let result = importer.apply(Unary::IsNan, call.operand(0)?)?;
    if let Value::Constant(constant) = result {
        return Ok(vec![converted(&constant, Element::Bool)?.into()]);
    }
    let node = importer.node(&result)?;
    Ok(vec![Value::Node(node, Element::Bool)])
}

fn is_infinite(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let (positive, negative) = (call.int("detect_positive", 1) != 0, call.int("detect_negative", 1) != 0);
    let x = match (positive, negative) {
        (true, true) => importer.unary(Unary::Abs, x)?,
        (true, false) => x,
        (false, true) => importer.unary(Unary::Neg, x)?,
        (false, false) => return Err(problem("neither infinity is looked for")),
    };
    Ok(vec![Value::Node(importer.with_number(Binary::Equal, x, f32::INFINITY)?, Element::Bool)])
}

fn gelu(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let activation = match call.text("approximate").as_deref() {
        None | Some("none") => Activation::Gelu,
        Some("tanh") => Activation::GeluTanh,
        Some(other) => return Err(Problem(format!("the approximation `{}`", crate::error::shown(other)))),
    };
    importer.activation(call, activation)
}

fn swish(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let alpha = call.float("alpha", 1.0);
    if alpha == 1.0 {
        return Ok(vec![Value::Node(importer.activate(Activation::Silu, x)?, Element::Float)]);
    }
    let scaled = importer.with_number(Binary::Mul, x, alpha)?;
    let gate = importer.activate(Activation::Sigmoid, scaled)?;
    Ok(vec![Value::Node(importer.binary(Binary::Mul, x, gate)?, Element::Float)])
}

fn hard_sigmoid(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let scaled = importer.with_number(Binary::Mul, x, call.float("alpha", 0.2))?;
    let moved = importer.with_number(Binary::Add, scaled, call.float("beta", 0.5))?;
    let low = importer.with_number(Binary::Max, moved, 0.0)?;
    Ok(vec![Value::Node(importer.with_number(Binary::Min, low, 1.0)?, Element::Float)])
}

fn leaky_relu(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let low = importer.with_number(Binary::Min, x, 0.0)?;
    let low = importer.with_number(Binary::Mul, low, call.float("alpha", 0.01))?;
    let high = importer.activate(Activation::Relu, x)?;
    Ok(vec![Value::Node(importer.binary(Binary::Add, high, low)?, Element::Float)])
}

fn elu(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let low = importer.with_number(Binary::Min, x, 0.0)?;
    let power = importer.unary(Unary::Exp, low)?;
    let low = importer.with_number(Binary::Sub, power, 1.0)?;
    let low = importer.with_number(Binary::Mul, low, call.float("alpha", 1.0))?;
    let high = importer.activate(Activation::Relu, x)?;
    Ok(vec![Value::Node(importer.binary(Binary::Add, high, low)?, Element::Float)])
}

/// `log(1 + exp(x))`, as `max(x, 0) + log(1 + exp(-|x|))`, which never overflows.
fn softplus(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let size = importer.unary(Unary::Abs, x)?;
    let size = importer.unary(Unary::Neg, size)?;
    let power = importer.unary(Unary::Exp, size)?;
    let rest = importer.unary(Unary::Log1p, power)?;
    let high = importer.activate(Activation::Relu, x)?;
    Ok(vec![Value::Node(importer.binary(Binary::Add, high, rest)?, Element::Float)])
}

fn softsign(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let size = importer.unary(Unary::Abs, x)?;
    let divisor = importer.with_number(Binary::Add, size, 1.0)?;
    Ok(vec![Value::Node(importer.binary(Binary::Div, x, divisor)?, Element::Float)])
}

fn clip(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let mut x = call.operand(0)?.clone();
    for (index, function) in [(1, Arithmetic::Max), (2, Arithmetic::Min)] {
        if let Some(bound) = call.optional(index) {
            x = importer.combine(function, &x, bound)?;
        }
    }
    Ok(vec![x])
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
