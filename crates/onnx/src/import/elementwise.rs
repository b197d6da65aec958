//! Functions of two elements.

use std::cell::Cell;

use centuple_graph::{Binary, Unary};
use centuple_tensor::{DType, Dim, Symbol, shape_of};

use super::Importer;
use super::attributes::Call;
use super::cast::converted;
use super::dims::{bounded, broadcast, constants, equal, less, multiply, to_integer};
use super::fold::Pair;
use super::ops::Table;
use super::problem::{Result, problem};
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
