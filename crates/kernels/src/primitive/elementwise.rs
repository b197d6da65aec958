//! Elementwise operations.

use super::{Array, ArrayMut, broadcast};
use crate::activation::{Activation, Function};
use crate::dispatch::Kernels;
use crate::error::KernelError;

/// An operation on two numbers. NaN in either operand gives NaN, but for comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binary {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// a to the power of b
    Pow,
    /// The smaller.
    Min,
    /// The larger.
    Max,
    /// 1 if a = b, else 0.
    Equal,
    /// 1 if a < b, else 0.
    Less,
}

/// An operation on one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    /// -x
    Neg,
    /// |x|
    Abs,
    /// e^x
    Exp,
    /// Natural logarithm.
    Log,
    /// Natural logarithm of 1 + x.
    Log1p,
    /// Square root.
    Sqrt,
    /// 1 / x
    Reciprocal,
    /// Error function.
    Erf,
    /// Sine of x radians.
    Sin,
    /// Cosine of x radians.
    Cos,
    /// The largest whole number that is not larger.
    Floor,
    /// The smallest whole number that is not smaller.
    Ceil,
    /// The nearest whole number, of two the even one.
    Round,
    /// The whole part.
    Trunc,
    /// -1, 0 or 1.
    Sign,
    /// 1 if x is not a number, else 0.
    IsNan,
    /// An activation function.
    Activation(Activation),
}

/// `out = op(a, b)`, both operands broadcast to the shape of `out`.
pub fn binary(op: Binary, a: Array<'_>, b: Array<'_>, out: ArrayMut<'_>) -> Result<(), KernelError> {
    // One loop for each operation.
    macro_rules! combine_by {
        ($($name:ident)*) => {
            match op {
                $(Binary::$name => combine(a, b, out, |a, b| Binary::$name.apply(a, b)),)*
            }
        };
    }
    combine_by!(Add Sub Mul Div Pow Min Max Equal Less)
}

impl Binary {
    /// The operation on two numbers.
    #[inline(always)]
    pub(crate) fn apply(self, a: f32, b: f32) -> f32 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Pow => a.powf(b),
            Binary::Min if a < b || a.is_nan() => a,
            Binary::Max if a > b || a.is_nan() => a,
            Binary::Min | Binary::Max => b,
            Binary::Equal => f32::from(a == b),
            Binary::Less => f32::from(a < b),
        }
    }
}

fn combine(a: Array<'_>, b: Array<'_>, out: ArrayMut<'_>, op: impl Fn(f32, f32) -> f32) -> Result<(), KernelError> {
    let from_a = broadcast("binary", a.shape, out.shape)?;
    let from_b = broadcast("binary", b.shape, out.shape)?;
    out.for_each_row([&from_a, &from_b], |out, row| {
        let [a, b] = [&a.data[row.starts[0]..], &b.data[row.starts[1]..]];
        match row.steps {
            [0, 0] => out.fill(op(a[0], b[0])),
            [0, _] => out.iter_mut().zip(b).for_each(|(out, &b)| *out = op(a[0], b)),
            [_, 0] => out.iter_mut().zip(a).for_each(|(out, &a)| *out = op(a, b[0])),
            [_, _] => out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (&a, &b))| *out = op(a, b)),
        }
    });
    Ok(())
}

/// `out = a` where `condition` is not 0, else `b`; all three broadcast to the shape of `out`.
pub fn select(condition: Array<'_>, a: Array<'_>, b: Array<'_>, out: ArrayMut<'_>) -> Result<(), KernelError> {
    const NAME: &str = "select";
    let from_condition = broadcast(NAME, condition.shape, out.shape)?;
    let from_a = broadcast(NAME, a.shape, out.shape)?;
    let from_b = broadcast(NAME, b.shape, out.shape)?;
    out.for_each_row([&from_condition, &from_a, &from_b], |out, row| {
        let [condition_start, a_start, b_start] = row.starts;
        let [condition_step, a_step, b_step] = row.steps;
        for (i, out) in out.iter_mut().enumerate() {
            *out = if condition.data[condition_start + i * condition_step] == 0.0 {
                b.data[b_start + i * b_step]
            } else {
                a.data[a_start + i * a_step]
            };
        }
    });
    Ok(())
}

impl Kernels {
    /// Applies `op` to every element of `values`.
    pub fn unary(self, op: Unary, values: &mut [f32]) {
        match op {
            Unary::Neg => apply(values, |x| -x),
            Unary::Abs => apply(values, f32::abs),
            Unary::Exp => self.map(Function::Exp, values),
            Unary::Log => apply(values, f32::ln),
            Unary::Log1p => apply(values, f32::ln_1p),
            Unary::Sqrt => apply(values, f32::sqrt),
            Unary::Reciprocal => apply(values, f32::recip),
            Unary::Erf => self.map(Function::Erf, values),
            Unary::Sin => apply(values, f32::sin),
            Unary::Cos => apply(values, f32::cos),
            Unary::Floor => apply(values, f32::floor),
            Unary::Ceil => apply(values, f32::ceil),
            Unary::Round => apply(values, f32::round_ties_even),
            Unary::Trunc => apply(values, f32::trunc),
            Unary::Sign => apply(values, |x| f32::from(x > 0.0) - f32::from(x < 0.0)),
            Unary::IsNan => apply(values, |x| f32::from(x.is_nan())),
            Unary::Activation(activation) => self.activate(activation, values),
        }
    }
}

fn apply(values: &mut [f32], op: impl Fn(f32) -> f32) {
    for value in values {
        *value = op(*value);
    }
}
