//! Vectors in plain Rust. On targets without fused multiply-add, products are rounded before the
//! addition.
#![allow(unsafe_code)]

use half::f16;

use super::{LANES, Simd};

/// Needs nothing of the CPU.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// Whether `f32::mul_add` is one instruction on this target.
const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

#[inline(always)]
fn mul_add(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Widens the bits of an f16, without branches.
///
/// The magnitude is shifted to where f32 has exponent and mantissa, and multiplied by the power of two that the
/// exponents' biases differ by, which takes care of subnormal numbers.
#[inline(always)]
fn widen(bits: u16) -> f32 {
    const INFINITY: u32 = 0x7C00;
    let magnitude = u32::from(bits & 0x7FFF);
    let value = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let special = if magnitude >= INFINITY { f32::INFINITY.to_bits() } else { 0 };
    f32::from_bits(value.to_bits() | special | u32::from(bits & 0x8000) << 16)
}

/// Applies an expression lane by lane. A macro, because a closure might not be inlined.
macro_rules! lanes {
    ($i:ident => $value:expr) => {{
        let mut out = [0.0f32; LANES];
        let mut $i = 0;
        while $i < LANES {
            out[$i] = $value;
            $i += 1;
        }
        out
    }};
}

impl Simd for Portable {
    type Vector = [f32; LANES];

    const TILE_ROWS: usize = if cfg!(target_arch = "aarch64") { 6 } else { 2 };
    const TILE_PANELS: usize = 1;
    const STREAM_ROWS: usize = 0;
    const STREAM_WIDE: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; LANES] {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [f32; LANES] {
        // SAFETY: the caller vouches for 16 elements; the read may be unaligned.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> [f32; LANES] {
        // SAFETY: the caller vouches for 16 elements; the read may be unaligned.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        lanes!(i => widen(halves[i]))
    }
    #[inline(always)]
    unsafe fn load_codes(self, from: *const i8) -> [f32; LANES] {
        // SAFETY: the caller vouches for 16 elements; bytes are always aligned.
        let codes = unsafe { from.cast::<[i8; LANES]>().read() };
        lanes!(i => f32::from(codes[i]))
    }
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> [f32; LANES] {
        let mut v = [0.0; LANES];
        // SAFETY: the caller vouches for `count` elements, and `v` holds that many.
        unsafe { std::ptr::copy_nonoverlapping(from, v.as_mut_ptr(), count.min(LANES)) };
        v
    }
    #[inline(always)]
    unsafe fn store(self, v: [f32; LANES], to: *mut f32) {
        // SAFETY: the caller vouches for 16 elements; the write may be unaligned.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_first(self, v: [f32; LANES], to: *mut f32, count: usize) {
        // SAFETY: the caller vouches for `count` elements, and `v` holds that many.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), to, count.min(LANES)) };
    }
    #[inline(always)]
    unsafe fn store_bytes(self, v: [f32; LANES], to: *mut u8) {
        // Adding 2²³ leaves the integer in the low bits.
        let mut bytes = [0u8; LANES];
        for (byte, v) in bytes.iter_mut().zip(v) {
            *byte = (v + 8_388_608.0).to_bits() as u8;
        }
        // SAFETY: the caller vouches for 16 bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, LANES) };
    }
    #[inline(always)]
    fn prefetch(self, _address: *const f32) {}
    #[inline(always)]
    fn prefetch_near(self, _address: *const f32) {}
    #[inline(always)]
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => a[i] / b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => mul_add(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => mul_add(-a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn select_less(self, a: [f32; LANES], b: [f32; LANES], yes: [f32; LANES], no: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn abs(self, v: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => v[i].abs())
    }
    #[inline(always)]
    fn with_sign_of(self, v: [f32; LANES], sign: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => v[i].copysign(sign[i]))
    }
    #[inline(always)]
    fn shift_into_exponent(self, v: [f32; LANES]) -> [f32; LANES] {
        lanes!(i => f32::from_bits(v[i].to_bits() << 23))
    }
    #[inline(always)]
    fn sum(self, mut v: [f32; LANES]) -> f32 {
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                v[i] += v[i + half];
            }
            half /= 2;
        }
        v[0]
    }
    #[inline(always)]
    fn maximum(self, mut v: [f32; LANES]) -> f32 {
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                v[i] = if v[i] > v[i + half] { v[i] } else { v[i + half] };
            }
            half /= 2;
        }
        v[0]
    }
    #[inline(always)]
    fn transpose(self, rows: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
        let mut out = [[0.0; LANES]; LANES];
        for (i, row) in rows.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                out[j][i] = *value;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_halves_are_widened() {
        for bits in 0..=u16::MAX {
            let (got, want) = (widen(bits), f16::from_bits(bits).to_f32());
            assert!(
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                "{bits:#06x}: {got}, want {want}"
            );
        }
    }
}
