//! What each kernel computes, executed on a CPU: the same layouts, the same order of every sum, the same roundings.
//!
//! It is the oracle of the kernels' tests, in the emulator as on a GPU. Only functions that a GPU approximates (`2^x`, `erf`,
//! `tanh`, `exp`) and the sums within one instruction of a tensor core may differ, in their last bits.

mod attention;
mod fp8;
mod gemm;
mod norm;
mod pool;
mod rows;

pub use attention::{Attention, ContentScores, Heads};
pub use fp8::{Epilogue, Matmul, Scaling, from_e4m3, to_e4m3};
pub use gemm::{Dense, Gemm, Weight, grouped_gemm};
pub use norm::{Affine, Codes, Coding, Norm, quantise, wide_norm};
pub use pool::{Pool, pool};
pub use rows::{HeadNorm, Rotary, gate, select};

pub(crate) use fp8::LARGEST;
use half::{bf16, f16};

use crate::specialisation::{Activation, Format};

impl Format {
    /// A stored number as f32.
    pub fn widen(self, bits: u16) -> f32 {
        match self {
            Format::F16 => f16::from_bits(bits).to_f32(),
            Format::Bf16 => bf16::from_bits(bits).to_f32(),
        }
    }

    /// The nearest number that can be stored, halves to even.
    pub fn narrow(self, value: f32) -> u16 {
        match self {
            Format::F16 => f16::from_f32(value).to_bits(),
            Format::Bf16 => bf16::from_f32(value).to_bits(),
        }
    }

    /// Stored numbers as f32.
    pub fn widened(self, bits: &[u16]) -> Vec<f32> {
        bits.iter().map(|&bits| self.widen(bits)).collect()
    }

    /// Numbers as they are stored.
    pub fn narrowed(self, values: &[f32]) -> Vec<u16> {
        values.iter().map(|&value| self.narrow(value)).collect()
    }
}

impl Activation {
    /// The function of one number.
    pub fn of(self, x: f32) -> f32 {
        match self {
            Activation::Identity => x,
            Activation::Gelu => {
                (0.5 * f64::from(x) * (1.0 + erf(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2))) as f32
            }
            Activation::GeluTanh => {
                let inner = 0.797_884_6 * (0.044_715 * x * x).mul_add(x, x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Activation::Relu => x.max(0.0),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        }
    }
}

/// The Gauss error function: its Maclaurin series (Abramowitz & Stegun 7.1.5), and beyond 3 the continued fraction of its
/// complement (7.1.14).
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a > 6.0 {
        return x.signum();
    }
    if a > 3.0 {
        let fraction = (1..=100).rev().fold(0.0, |fraction, k| 0.5 * f64::from(k) / (a + fraction));
        return x.signum() * (1.0 - (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt()));
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    std::f64::consts::FRAC_2_SQRT_PI * sum
}

/// The sum over a warp's lanes, in the order of a butterfly.
fn warp_sum(mut lanes: [f32; 32]) -> f32 {
    for mask in [16, 8, 4, 2, 1] {
        lanes = std::array::from_fn(|lane| lanes[lane] + lanes[lane ^ mask]);
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_has_known_values() {
        // A&S table 7.1, and 1 - erfc(3.5).
        for (x, expected) in
            [(0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0), (3.5, 0.999_999_256_9)]
        {
            assert!((erf(x) - expected).abs() < 1e-9, "{x}");
            assert!((erf(-x) + expected).abs() < 1e-9, "{x}");
        }
    }
}
