//! Elementwise operations.

use super::{Array, ArrayMut, broadcast, for_each_row, strides};
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
    /// An activation function.
    Activation(Activation),
}

/// `out = op(a, b)`, both operands broadcast to the shape of `out`.
pub fn binary(op: Binary, a: Array<'_>, b: Array<'_>, out: ArrayMut<'_>) -> Result<(), KernelError> {
    combine(a, b, out, op.function())
}

impl Binary {
    /// The operation on two numbers.
    pub(crate) fn function(self) -> fn(f32, f32) -> f32 {
        match self {
            Binary::Add => |a, b| a + b,
            Binary::Sub => |a, b| a - b,
            Binary::Mul => |a, b| a * b,
            Binary::Div => |a, b| a / b,
            Binary::Pow => f32::powf,
            Binary::Min => |a, b| if a < b || a.is_nan() { a } else { b },
            Binary::Max => |a, b| if a > b || a.is_nan() { a } else { b },
            Binary::Equal => |a, b| f32::from(a == b),
            Binary::Less => |a, b| f32::from(a < b),
        }
    }
}

fn combine(a: Array<'_>, b: Array<'_>, out: ArrayMut<'_>, op: impl Fn(f32, f32) -> f32) -> Result<(), KernelError> {
    let from_a = broadcast("binary", a.shape, out.shape)?;
    let from_b = broadcast("binary", b.shape, out.shape)?;
    for_each_row(out.shape, [&strides(out.shape), &from_a, &from_b], |row| {
        let [start, a_start, b_start] = row.starts;
        let [_, a_step, b_step] = row.steps;
        for (i, out) in out.data[start..start + row.length].iter_mut().enumerate() {
            *out = op(a.data[a_start + i * a_step], b.data[b_start + i * b_step]);
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
    let operands = [&strides(out.shape), &from_condition, &from_a, &from_b];
    for_each_row(out.shape, operands, |row| {
        let [start, condition_start, a_start, b_start] = row.starts;
        let [_, condition_step, a_step, b_step] = row.steps;
        for (i, out) in out.data[start..start + row.length].iter_mut().enumerate() {
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
            Unary::Activation(activation) => self.activate(activation, values),
        }
    }
}

fn apply(values: &mut [f32], op: impl Fn(f32) -> f32) {
    for value in values {
        *value = op(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn operands_are_broadcast() {
        let a = Array::new(&[1.0, 2.0, 3.0], &[3]).unwrap();
        let b = Array::new(&[10.0, 20.0], &[2, 1]).unwrap();
        let mut out = [0.0; 6];
        binary(Binary::Add, a, b, ArrayMut::new(&mut out, &[2, 3]).unwrap()).unwrap();
        assert_eq!(out, [11.0, 12.0, 13.0, 21.0, 22.0, 23.0]);
        let scalar = Array::new(&[2.0], &[]).unwrap();
        binary(Binary::Less, a, scalar, ArrayMut::new(&mut out[..3], &[3]).unwrap()).unwrap();
        assert_eq!(out[..3], [1.0, 0.0, 0.0]);
        binary(Binary::Pow, scalar, scalar, ArrayMut::new(&mut out[..1], &[]).unwrap()).unwrap();
        assert_eq!(out[0], 4.0);
        assert!(binary(Binary::Add, a, b, ArrayMut::new(&mut out[..3], &[3]).unwrap()).is_err());
    }

    #[test]
    fn every_binary_operation_gives_its_formula() {
        let (a, b) = ([6.0, f32::NAN, 3.0], [2.0, 1.0, 3.0]);
        let table = [
            (Binary::Add, 8.0, 6.0),
            (Binary::Sub, 4.0, 0.0),
            (Binary::Mul, 12.0, 9.0),
            (Binary::Div, 3.0, 1.0),
            (Binary::Pow, 36.0, 27.0),
            (Binary::Min, 2.0, 3.0),
            (Binary::Max, 6.0, 3.0),
            (Binary::Equal, 0.0, 1.0),
            (Binary::Less, 0.0, 0.0),
        ];
        for (op, first, last) in table {
            let (a, b) = (Array::new(&a, &[3]).unwrap(), Array::new(&b, &[3]).unwrap());
            let mut out = [0.0; 3];
            binary(op, a, b, ArrayMut::new(&mut out, &[3]).unwrap()).unwrap();
            assert_eq!((out[0], out[2]), (first, last), "{op:?}");
            let comparison = matches!(op, Binary::Equal | Binary::Less);
            assert_eq!(out[1].is_nan(), !comparison, "{op:?}");
        }
    }

    #[test]
    fn select_chooses_by_condition() {
        let condition = Array::new(&[1.0, 0.0], &[2]).unwrap();
        let a = Array::new(&[1.0, 2.0], &[2]).unwrap();
        let b = Array::new(&[7.0, 8.0], &[2, 1]).unwrap();
        let mut out = [0.0; 4];
        select(condition, a, b, ArrayMut::new(&mut out, &[2, 2]).unwrap()).unwrap();
        assert_eq!(out, [1.0, 7.0, 1.0, 8.0]);
    }

    #[test]
    fn every_unary_operation_gives_its_formula() {
        type Formula = fn(f32) -> f32;
        let table: [(Unary, Formula); 10] = [
            (Unary::Neg, |x| -x),
            (Unary::Abs, f32::abs),
            (Unary::Exp, f32::exp),
            (Unary::Log, f32::ln),
            (Unary::Log1p, f32::ln_1p),
            (Unary::Sqrt, f32::sqrt),
            (Unary::Reciprocal, |x| 1.0 / x),
            (Unary::Sin, f32::sin),
            (Unary::Cos, f32::cos),
            (Unary::Activation(Activation::Tanh), f32::tanh),
        ];
        for kernels in Isa::available().map(|isa| Kernels::new(isa).unwrap()) {
            for (op, formula) in table {
                let mut values = [0.3, 1.7, 2.5];
                kernels.unary(op, &mut values);
                for (value, x) in values.iter().zip([0.3, 1.7, 2.5]) {
                    let want = formula(x);
                    assert!((value - want).abs() <= 4e-7 * want.abs(), "{op:?}({x}) = {value}");
                }
            }
            let mut values = [0.5];
            kernels.unary(Unary::Erf, &mut values);
            assert!((values[0] - 0.520_499_9).abs() < 2e-7);
        }
    }
}
