//! Activation functions, elementwise in place or in the epilogue of a matrix multiplication.
#![allow(unsafe_code)]

use crate::dispatch::Kernels;
use crate::simd::{LANES, Simd, math};

/// An activation function. Similar ones differ by far more than rounding and are never exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x Φ(x), by the error function (`gelu`).
    Gelu,
    /// GELU with its inner tanh (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// x sigmoid(1.702 x).
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// x sigmoid(x) (`silu`, `swish`).
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^-x).
    Sigmoid,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Gelu, Self::GeluTanh, Self::QuickGelu, Self::Relu, Self::Silu, Self::Tanh, Self::Sigmoid];
}

/// What [`map`] can compute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Function {
    Activation(Activation),
    Exp,
    Erf,
}

impl Kernels {
    /// Applies `activation` to every element of `values`.
    pub fn activate(self, activation: Activation, values: &mut [f32]) {
        self.map(Function::Activation(activation), values);
    }

    /// Applies `function` to every element of `values`.
    pub(crate) fn map(self, function: Function, values: &mut [f32]) {
        // SAFETY: the kernel only touches `values`.
        unsafe { (self.table.map)(function, values) }
    }
}

/// An elementwise function as a type, so that loops are compiled for each.
pub(crate) trait Elementwise {
    /// The function, lane by lane.
    fn apply<S: Simd>(s: S, x: S::Vector) -> S::Vector;
}

macro_rules! elementwise {
    ($($name:ident: |$s:ident, $x:ident| $value:expr;)*) => {
        $(
            pub(crate) struct $name;
            impl Elementwise for $name {
                #[inline(always)]
                fn apply<S: Simd>($s: S, $x: S::Vector) -> S::Vector {
                    $value
                }
            }
        )*
    };
}

elementwise! {
    Identity: |_s, x| x;
    Gelu: |s, x| math::gelu(s, x);
    CoarseGelu: |s, x| math::coarse_gelu(s, x);
    GeluTanh: |s, x| math::gelu_tanh(s, x);
    QuickGelu: |s, x| s.mul(x, math::sigmoid(s, s.mul(x, s.splat(1.702))));
    Relu: |s, x| s.max(s.splat(0.0), x);
    Silu: |s, x| s.mul(x, math::sigmoid(s, x));
    Tanh: |s, x| math::tanh(s, x);
    Sigmoid: |s, x| math::sigmoid(s, x);
    Exp: |s, x| math::exp(s, x);
    Erf: |s, x| math::erf(s, x);
}

/// Calls `$call::<F>` with the [`Elementwise`] type of an `Option<Activation>`.
macro_rules! with_activation {
    ($activation:expr, $F:ident => $call:expr) => {{
        macro_rules! case {
            ($name:ident) => {{
                type $F = $crate::activation::$name;
                $call
            }};
        }
        match $activation {
            None => case!(Identity),
            Some($crate::activation::Activation::Gelu) => case!(Gelu),
            Some($crate::activation::Activation::GeluTanh) => case!(GeluTanh),
            Some($crate::activation::Activation::QuickGelu) => case!(QuickGelu),
            Some($crate::activation::Activation::Relu) => case!(Relu),
            Some($crate::activation::Activation::Silu) => case!(Silu),
            Some($crate::activation::Activation::Tanh) => case!(Tanh),
            Some($crate::activation::Activation::Sigmoid) => case!(Sigmoid),
        }
    }};
}
pub(crate) use with_activation;

/// Applies a function to all values.
///
/// # Safety
/// None beyond holding the token `s`.
#[inline(always)]
pub(crate) unsafe fn map<S: Simd>(s: S, function: Function, values: &mut [f32]) {
    match function {
        Function::Activation(activation) => {
            with_activation!(Some(activation), F => apply::<S, F>(s, values));
        }
        Function::Exp => apply::<S, Exp>(s, values),
        Function::Erf => apply::<S, Erf>(s, values),
    }
}

#[inline(always)]
fn apply<S: Simd, F: Elementwise>(s: S, values: &mut [f32]) {
    let mut vectors = values.chunks_exact_mut(LANES);
    for vector in &mut vectors {
        // SAFETY: the chunk has 16 elements.
        unsafe { s.store(F::apply(s, s.load(vector.as_ptr())), vector.as_mut_ptr()) };
    }
    let rest = vectors.into_remainder();
    // SAFETY: the remainder has that many elements, fewer than 16.
    unsafe {
        let value = F::apply(s, s.load_first(rest.as_ptr(), rest.len()));
        s.store_first(value, rest.as_mut_ptr(), rest.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    fn erf(x: f64) -> f64 {
        // Taylor series near 0, continued fraction of erfc beyond.
        if x.abs() < 3.0 {
            let (mut term, mut sum, mut n) = (x, x, 0.0);
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= -x * x / n;
                sum += term / (2.0 * n + 1.0);
            }
            return sum * std::f64::consts::FRAC_2_SQRT_PI;
        }
        let mut fraction = 0.0;
        for i in (1..60).rev() {
            fraction = f64::from(i) / 2.0 / (x.abs() + fraction);
        }
        let tail = (-x * x).exp() / ((x.abs() + fraction) * std::f64::consts::PI.sqrt());
        (1.0 - tail).copysign(x)
    }

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    fn expected(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Activation::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Activation::QuickGelu => x * sigmoid(1.702 * x),
            Activation::Relu => x.max(0.0),
            Activation::Silu => x * sigmoid(x),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => sigmoid(x),
        }
    }

    /// Many values in [-limit, limit], dense near 0 and 1.
    fn samples(limit: f32) -> Vec<f32> {
        let grid = (-40_003..=40_003i32).map(|i| i as f32 / 40_003.0);
        grid.clone().map(|x| x * limit).chain(grid.map(|x| x * x * x)).collect()
    }

    #[test]
    fn activations_match_f64() {
        for isa in Isa::available() {
            let kernels = Kernels::new(isa).unwrap();
            for activation in Activation::ALL {
                let xs = samples(12.0);
                let mut ys = xs.clone();
                kernels.activate(activation, &mut ys);
                for (x, y) in xs.iter().zip(&ys) {
                    let want = expected(activation, f64::from(*x));
                    let bound = 2.6e-7 + 3e-7 * want.abs();
                    let error = (f64::from(*y) - want).abs();
                    assert!(error <= bound, "{isa} {activation:?}({x}) = {y}, want {want}");
                }
            }
        }
    }

    #[test]
    fn exp_and_erf_match_f64() {
        for isa in Isa::available() {
            let kernels = Kernels::new(isa).unwrap();
            let xs = samples(86.9);
            let mut ys = xs.clone();
            kernels.map(Function::Exp, &mut ys);
            for (x, y) in xs.iter().zip(&ys) {
                let ratio = f64::from(*y) / f64::from(*x).exp();
                assert!((ratio - 1.0).abs() <= 1.6e-7, "{isa} exp({x}) = {y}, ratio {ratio}");
            }
            let xs = samples(6.0);
            let mut ys = xs.clone();
            kernels.map(Function::Erf, &mut ys);
            for (x, y) in xs.iter().zip(&ys) {
                let error = (f64::from(*y) - erf(f64::from(*x))).abs();
                assert!(error <= 3e-7 * f64::from(x.abs()).min(1.0), "{isa} erf({x}) = {y}");
            }
        }
    }

    #[test]
    fn extremes_stay_sound() {
        for isa in Isa::available() {
            let kernels = Kernels::new(isa).unwrap();
            for activation in Activation::ALL {
                let mut values = [f32::NAN, 1e30, -1e30, 0.0, f32::INFINITY];
                kernels.activate(activation, &mut values);
                assert!(values[0].is_nan(), "{isa} {activation:?}");
                assert!(values[1] == 1e30 || values[1] == 1.0, "{isa} {activation:?}");
                assert!(values[2].abs() < 2e-7 || values[2] == -1.0, "{isa} {activation:?}");
                assert!(values[3] == 0.0 || values[3] == 0.5, "{isa} {activation:?}");
                assert!(values[4] == f32::INFINITY || values[4] == 1.0, "{isa} {activation:?}");
            }
            let mut values = [f32::NEG_INFINITY, -88.0, 0.0, f32::INFINITY, 88.6, f32::NAN];
            kernels.map(Function::Exp, &mut values);
            assert_eq!(values[..4], [0.0, 0.0, 1.0, f32::INFINITY], "{isa}");
            assert!(values[4].is_finite() && values[5].is_nan(), "{isa}");
        }
    }
}
