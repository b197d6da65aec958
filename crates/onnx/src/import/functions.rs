//! Functions of one element, and activations.

use centuple_graph::{Activation, Binary, NodeId, Op, Unary};
use centuple_tensor::Dim;

use super::Importer;
use super::attributes::Call;
use super::cast::converted;
use super::elementwise::Arithmetic;
use super::fold;
use super::ops::Table;
use super::problem::{Problem, Result, problem};
use super::value::{Dims, Value};
use crate::file::{Constant, Element};

pub(super) const OPS: Table = &[
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
];

impl Importer<'_> {
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
