//! One vector type for every instruction set: always 16 f32 lanes.
//!
//! A kernel is written once, generically over [`Simd`], marked `#[inline(always)]`, and compiled per
//! instruction set inside the `#[target_feature]` entry points of [`crate::dispatch`]. Because lane
//! count, lane order and the order of every reduction are the same everywhere, AVX2, AVX-512 and NEON give
//! bit-identical results.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod dot;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;
#[cfg(any(target_arch = "x86_64", test))]
pub(crate) mod tiles;

use half::f16;

/// Lanes of a vector, on every instruction set.
pub(crate) const LANES: usize = 16;

/// The number of each lane.
pub(crate) const LANE_NUMBERS: [f32; LANES] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// Proof that the CPU has an instruction set, and its vector operations.
///
/// Implementors are tokens whose constructor is `unsafe`: who makes one vouches for the CPU, and so
/// the register-only operations are safe.
pub(crate) trait Simd: Copy {
    /// 16 f32 lanes.
    type Vector: Copy;

    /// Rows of the largest matrix tile that fits the registers.
    const TILE_ROWS: usize;
    /// Panels of [`LANES`] columns that a tile is wide.
    const TILE_PANELS: usize;
    /// Rows up to which products stream their weights, two panels side by side; at most 4.
    const STREAM_ROWS: usize;
    /// Whether there are registers for twice as many panels of narrow elements.
    const STREAM_WIDE: bool;

    /// All lanes equal to `value`.
    fn splat(self, value: f32) -> Self::Vector;
    /// # Safety
    /// 16 elements at `from` are readable.
    unsafe fn load(self, from: *const f32) -> Self::Vector;
    /// 16 numbers widened to f32, which is exact.
    ///
    /// # Safety
    /// 16 elements at `from` are readable.
    unsafe fn load_halves(self, from: *const f16) -> Self::Vector;
    /// 16 whole numbers as f32.
    ///
    /// # Safety
    /// 16 elements at `from` are readable.
    unsafe fn load_codes(self, from: *const i8) -> Self::Vector;
    /// The first `count < 16` elements, then zeros.
    ///
    /// # Safety
    /// `count` elements at `from` are readable.
    unsafe fn load_first(self, from: *const f32, count: usize) -> Self::Vector;
    /// # Safety
    /// 16 elements at `to` are writable.
    unsafe fn store(self, v: Self::Vector, to: *mut f32);
    /// Stores the first `count < 16` lanes.
    ///
    /// # Safety
    /// `count` elements at `to` are writable.
    unsafe fn store_first(self, v: Self::Vector, to: *mut f32, count: usize);

    /// Stores 16 bytes; every lane is an integer in 0..=255.
    ///
    /// # Safety
    /// 16 bytes at `to` are writable.
    unsafe fn store_bytes(self, v: Self::Vector, to: *mut u8);

    /// Asks for a cache line to be brought into the second-level cache. Any address will do.
    fn prefetch(self, address: *const f32);

    /// The same for the first-level cache.
    fn prefetch_near(self, address: *const f32);

    /// `a + b`
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b`
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a / b`
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once where the instruction set can.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `c - a * b`, rounded like [`Simd::mul_add`].
    fn neg_mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `if a > b { a } else { b }`: a NaN in `b` stays, one in `a` gives `b`.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `if a < b { a } else { b }`: a NaN in `b` stays, one in `a` gives `b`.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `if a < b { yes } else { no }`
    fn select_less(self, a: Self::Vector, b: Self::Vector, yes: Self::Vector, no: Self::Vector) -> Self::Vector;
    /// The value without its sign.
    fn abs(self, v: Self::Vector) -> Self::Vector;
    /// The magnitude of a non-negative `v` with the sign of `sign`.
    fn with_sign_of(self, v: Self::Vector, sign: Self::Vector) -> Self::Vector;
    /// The bits of each lane shifted left by 23: an integer in the low bits becomes an exponent.
    fn shift_into_exponent(self, v: Self::Vector) -> Self::Vector;
    /// `0 + 8`, `1 + 9`, ... then `0 + 4`, ... down to one: the same tree everywhere.
    fn sum(self, v: Self::Vector) -> f32;
    /// The largest lane, by the same tree.
    fn maximum(self, v: Self::Vector) -> f32;
    /// Lane `i` of vector `j` becomes lane `j` of vector `i`.
    fn transpose(self, rows: [Self::Vector; LANES]) -> [Self::Vector; LANES];

    /// The first `count` lanes of `v`, zeros after them.
    #[inline(always)]
    fn keep_first(self, v: Self::Vector, count: usize) -> Self::Vector {
        // SAFETY: the array has 16 elements.
        let lanes = unsafe { self.load(LANE_NUMBERS.as_ptr()) };
        self.select_less(lanes, self.splat(count.min(LANES) as f32), v, self.splat(0.0))
    }

    /// [`Simd::load`] or [`Simd::load_first`].
    ///
    /// # Safety
    /// `count.min(16)` elements at `from` are readable.
    #[inline(always)]
    unsafe fn load_up_to(self, from: *const f32, count: usize) -> Self::Vector {
        // SAFETY: as promised by the caller.
        unsafe { if count >= LANES { self.load(from) } else { self.load_first(from, count) } }
    }

    /// [`Simd::store`] or [`Simd::store_first`].
    ///
    /// # Safety
    /// `count.min(16)` elements at `to` are writable.
    #[inline(always)]
    unsafe fn store_up_to(self, v: Self::Vector, to: *mut f32, count: usize) {
        // SAFETY: as promised by the caller.
        unsafe { if count >= LANES { self.store(v, to) } else { self.store_first(v, to, count) } }
    }
}
