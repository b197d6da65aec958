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
