//! Elementary functions on vectors, by polynomials fitted for this crate.
//!
//! All coefficients are minimax fits (Lawson's reweighted least squares on Chebyshev nodes in f64,
//! then rounded to f32); errors stated are those of the f32 evaluation with fused multiply-add.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LN_2, LOG2_E, SQRT_2};

use super::Simd;

/// `c[0] + c[1] x + c[2] x² + ...` by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::Vector, c: &[f32; N]) -> S::Vector {
    let mut sum = s.splat(c[N - 1]);
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = s.mul_add(sum, x, s.splat(c[i]));
    }
    sum
}

/// e^x with a relative error of 1e-7.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2, so e^x = 2^n e^r with e^r by a polynomial. Adding a number of
/// magnitude 1.5·2²³ rounds to an integer and leaves `n + 126` in the low bits, ready to be shifted
/// into the exponent of 2^(n-1); the last factor 2 is applied first, so that the result overflows to
/// infinity only where e^x does. Below -87 the result is 0, NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    const ROUND: f32 = 12_582_912.0 + 126.0;
    // Few enough bits that n times it is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const E_R: [f32; 7] = [1.0, 1.0, 0.499_999_9, 0.166_664_2, 0.041_668_23, 0.008_374_857, 0.001_383_679_5];
    let x = s.min(s.splat(89.0), s.max(s.splat(-87.3), x));
    let shifted = s.mul_add(x, s.splat(LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    let r = s.neg_mul_add(n, s.splat(LN_2_LOW), s.neg_mul_add(n, s.splat(LN_2_HIGH), x));
    let e_r = polynomial(s, r, &E_R);
    s.mul(s.add(e_r, e_r), s.shift_into_exponent(shifted))
}

/// e^x for x ≤ 0, as the softmax needs it: relative error 2e-7 near 0 and 2e-6 at -87, where the result
/// is small. Below -88 the result is 0, NaN stays NaN.
///
/// x log₂e = n + r with |r| ≤ 1/2, so e^x = 2^n 2^r with 2^r by a polynomial. n is found as in [`exp`], but
/// as the result is at most 1, nothing can overflow on the way.
#[inline(always)]
pub(crate) fn exp_of_negative<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    const ROUND: f32 = 12_582_912.0 + 127.0;
    const TWO_TO_R: [f32; 6] = [1.0, LN_2, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_472_7];
    let x = s.max(s.splat(-88.0), x);
    let shifted = s.mul_add(x, s.splat(LOG2_E), s.splat(ROUND));
    let n = s.sub(s.splat(ROUND), shifted);
    let r = s.mul_add(x, s.splat(LOG2_E), n);
    s.mul(polynomial(s, r, &TWO_TO_R), s.shift_into_exponent(shifted))
}

/// Where [`upper_tail`] is cut off.
const TAIL_END: f32 = 5.4;

/// Q(t) = erfc(t / √2) / 2 for t ≥ 0: the probability that a normal variable exceeds t. Beyond 5.4
/// the value at 5.4, 3e-8, is returned. t·Q(t) has an absolute error of 9e-8.
#[inline(always)]
fn upper_tail<S: Simd>(s: S, t: S::Vector) -> S::Vector {
    const TAIL: [f32; 16] = [
        0.003_466_985_2,
        -0.028_137_07,
        0.102_556_41,
        -0.215_000_55,
        0.267_299_38,
        -0.154_992_52,
        -0.072_011_65,
        0.211_950_9,
        -0.135_039_42,
        -0.049_147_4,
        0.119_863_056,
        -0.034_433_34,
        -0.041_918_725,
        0.024_687_49,
        0.005_782_298,
        -0.004_925_824,
    ];
    let u = s.mul_add(t, s.splat(2.0 / TAIL_END), s.splat(-1.0));
    polynomial(s, u, &TAIL)
}

/// x Φ(x), the GELU by the error function (Hendrycks & Gimpel 2016), as max(x, 0) - |x| Q(|x|):
/// the correction is small, so the absolute error is at most 2.5e-7 beyond the rounding of the result.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    let t = s.min(s.splat(TAIL_END), s.abs(x));
    s.neg_mul_add(t, upper_tail(s, t), s.max(s.splat(0.0), x))
}

/// [`gelu`] with an absolute error of 1.4e-5, in two thirds of the time: for results that are rounded to
/// 8-bit codes, whose steps are a thousand times as large.
#[inline(always)]
pub(crate) fn coarse_gelu<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    const END: f32 = 4.4;
    /// t Q(t) around the middle of 0..END.
    const CORRECTION: [f32; 11] = [
        0.030_580_614,
        -0.064_100_556,
        0.050_475_456,
        -0.011_121_198,
        -0.009_778_667,
        0.007_957_021,
        -0.001_401_315,
        -0.000_702_785_5,
        0.000_273_669_98,
        0.000_020_431_024,
        -0.000_013_967_131,
    ];
    let t = s.sub(s.min(s.splat(END), s.abs(x)), s.splat(END / 2.0));
    s.sub(s.max(s.splat(0.0), x), polynomial(s, t, &CORRECTION))
}

/// The error function, absolute error 3e-7; relative error 2e-7 for |x| < 1.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    const NEAR_ZERO: [f32; 7] = [
        FRAC_2_SQRT_PI,
        -0.376_126_26,
        0.112_835_854,
        -0.026_853_811,
        0.005_188_327_3,
        -0.000_801_018_9,
        0.000_078_538_48,
    ];
    let magnitude = s.abs(x);
    let t = s.min(s.splat(TAIL_END), s.mul(magnitude, s.splat(SQRT_2)));
    let far = s.neg_mul_add(s.splat(2.0), upper_tail(s, t), s.splat(1.0));
    let near = s.mul(magnitude, polynomial(s, s.mul(x, x), &NEAR_ZERO));
    s.with_sign_of(s.select_less(magnitude, s.splat(1.0), near, far), x)
}

/// 1 / (1 + e^-x), relative error 3e-7.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// The hyperbolic tangent, relative error 3e-7: 1 - 2 / (e^2|x| + 1), and an odd polynomial near 0
/// where that would cancel.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    const NEAR_ZERO: [f32; 6] = [1.0, -0.333_332_6, 0.133_311_27, -0.053_721_063, 0.020_590_97, -0.005_659_972_3];
    let magnitude = s.abs(x);
    let one = s.splat(1.0);
    let growth = exp(s, s.add(magnitude, magnitude));
    let far = s.sub(one, s.div(s.splat(2.0), s.add(growth, one)));
    let near = s.mul(magnitude, polynomial(s, s.mul(x, x), &NEAR_ZERO));
    s.with_sign_of(s.select_less(magnitude, s.splat(0.625), near, far), x)
}

/// x sigmoid(1.595769 (x + 0.044715 x³)), which equals the tanh form of GELU,
/// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    const TWICE_ROOT_2_OVER_PI: f32 = 2.0 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI;
    let slope = s.mul_add(s.mul(x, x), s.splat(0.044_715 * TWICE_ROOT_2_OVER_PI), s.splat(TWICE_ROOT_2_OVER_PI));
    s.mul(x, sigmoid(s, s.mul(x, slope)))
}
