//! Dot products of bytes: unsigned activations by signed weights, summed in 32 bits.
//!
//! A line is 64 bytes of weights, 16 columns × 4 of depth; a word is 4 bytes of activations, which every
//! column of a line is multiplied by. Lines and words come in pairs, 8 of depth, because instruction
//! sets without a byte dot product chain the two in 16 bits before they widen. All instruction sets give
//! the same sums as long as nothing overflows 16 bits, which [`crate::check_overflow`] proves of weights.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
use super::portable::Portable;
use super::{LANES, Simd};
use crate::int8::SPLIT;

/// Pairs of bytes that the portable kernel takes at once.
const HALF: usize = LANES / 2;

/// The byte dot product of an instruction set.
pub(crate) trait Dot: Simd {
    /// Sums of 16 columns.
    type Sums: Copy;
    /// 64 weights.
    type Line: Copy;
    /// 4 activations, repeated as needed.
    type Word: Copy;

    /// Rows of the largest int8 tile that fits the registers.
    const DOT_ROWS: usize;
    /// Panels of 16 columns that a tile is wide.
    const DOT_PANELS: usize;
    /// Whether activations of eight bits need the products that are not chained.
    const BITS_DIFFER: bool;
    /// What unchained products take from each activation, so that eight bits with a sign hold it. The zero point
    /// has to be less by as much.
    const OFFSET: i32 = 0;

    /// Sums of nothing.
    fn no_sums(self) -> Self::Sums;
    /// # Safety
    /// 64 bytes at `from` are readable.
    unsafe fn load_line(self, from: *const f32) -> Self::Line;
    /// # Safety
    /// 4 bytes at `from` are readable.
    unsafe fn load_word(self, from: *const f32) -> Self::Word;
    /// `sums + x[0]·w[0] + x[1]·w[1]`; `CHAINED` adds the two products in 16 bits where 16 bits are used. Otherwise
    /// [`Dot::OFFSET`] is taken from each activation.
    fn dot<const CHAINED: bool>(self, sums: Self::Sums, x: [Self::Word; 2], w: [Self::Line; 2]) -> Self::Sums;
    /// `high · 64 + low`: the sums of codes that take two bytes.
    fn join_sums(self, high: Self::Sums, low: Self::Sums) -> Self::Sums;
    /// `(sums - zero_point · column_sums) · scale`, the difference wrapping in 32 bits and rounded to f32.
    ///
    /// # Safety
    /// 16 integers at `column_sums` are readable.
    unsafe fn dequantize(
        self,
        sums: Self::Sums,
        zero_point: i32,
        column_sums: *const i32,
        scale: Self::Vector,
    ) -> Self::Vector;
    /// 4 activations with a sign.
    ///
    /// # Safety
    /// 4 bytes at `from` are readable.
    #[inline(always)]
    unsafe fn load_signed_word(self, from: *const f32) -> Self::Word {
        // SAFETY: as promised by the caller.
        unsafe { self.load_word(from) }
    }
    /// The lower halves of 64 bytes, and the upper ones: weights in 0..=15.
    fn split_line(self, line: Self::Line) -> [Self::Line; 2];
    /// [`Dot::dot`] of activations with a sign and weights in 0..=15; 16 bits hold any chain of such products.
    fn dot_signed(self, sums: Self::Sums, x: [Self::Word; 2], w: [Self::Line; 2]) -> Self::Sums;
    /// The sums taken for weights, so that a measurement can make every product depend on the last.
    fn as_line(self, sums: Self::Sums) -> Self::Line;
}

#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool> Dot for Avx2<VNNI> {
    type Sums = [__m256i; 2];
    type Line = [__m256i; 2];
    type Word = __m256i;

    const DOT_ROWS: usize = if VNNI { 6 } else { 4 };
    const DOT_PANELS: usize = 1;
    const BITS_DIFFER: bool = !VNNI;

    #[inline(always)]
    fn no_sums(self) -> [__m256i; 2] {
        // SAFETY: the token vouches for AVX.
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    unsafe fn load_line(self, from: *const f32) -> [__m256i; 2] {
        // SAFETY: the token vouches for AVX, the caller for 64 bytes.
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())] }
    }
    #[inline(always)]
    unsafe fn load_word(self, from: *const f32) -> __m256i {
        // SAFETY: the token vouches for AVX, the caller for 4 bytes.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    fn dot<const CHAINED: bool>(self, sums: [__m256i; 2], x: [__m256i; 2], w: [[__m256i; 2]; 2]) -> [__m256i; 2] {
        let mut out = sums;
        let mut half = 0;
        while half < 2 {
            // SAFETY: the token vouches for AVX2, and for AVX-VNNI if `VNNI`.
            out[half] = unsafe {
                if VNNI {
                    _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(sums[half], x[0], w[0][half]), x[1], w[1][half])
                } else {
                    let ones = _mm256_set1_epi16(1);
                    let products = [_mm256_maddubs_epi16(x[0], w[0][half]), _mm256_maddubs_epi16(x[1], w[1][half])];
                    if CHAINED {
                        let pairs = _mm256_add_epi16(products[0], products[1]);
                        _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, ones))
                    } else {
                        let first = _mm256_add_epi32(sums[half], _mm256_madd_epi16(products[0], ones));
                        _mm256_add_epi32(first, _mm256_madd_epi16(products[1], ones))
                    }
                }
            };
            half += 1;
        }
        out
    }
    #[inline(always)]
    fn join_sums(self, high: [__m256i; 2], low: [__m256i; 2]) -> [__m256i; 2] {
        let shifted = high.map(|half| {
            // SAFETY: the token vouches for AVX2.
            unsafe { _mm256_slli_epi32::<{ SPLIT as i32 }>(half) }
        });
        // SAFETY: the token vouches for AVX2.
        unsafe { [_mm256_add_epi32(shifted[0], low[0]), _mm256_add_epi32(shifted[1], low[1])] }
    }
    #[inline(always)]
    unsafe fn dequantize(
        self,
        sums: [__m256i; 2],
        zero_point: i32,
        column_sums: *const i32,
        scale: [__m256; 2],
    ) -> [__m256; 2] {
        // SAFETY: the token vouches for AVX2, the caller for 16 integers.
        unsafe {
            let zero_point = _mm256_set1_epi32(zero_point);
            let half = |sums, column_sums: *const i32| {
                let shift = _mm256_mullo_epi32(zero_point, _mm256_loadu_si256(column_sums.cast()));
                _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, shift))
            };
            self.mul([half(sums[0], column_sums), half(sums[1], column_sums.add(8))], scale)
        }
    }
    #[inline(always)]
    fn split_line(self, line: [__m256i; 2]) -> [[__m256i; 2]; 2] {
        // SAFETY: the token vouches for AVX2.
        unsafe {
            let low = _mm256_set1_epi8(15);
            let lower = |half| _mm256_and_si256(half, low);
            let upper = |half| _mm256_and_si256(_mm256_srli_epi16::<4>(half), low);
            [[lower(line[0]), lower(line[1])], [upper(line[0]), upper(line[1])]]
        }
    }
    #[inline(always)]
    fn dot_signed(self, sums: [__m256i; 2], x: [__m256i; 2], w: [[__m256i; 2]; 2]) -> [__m256i; 2] {
        let mut out = sums;
        let mut half = 0;
        while half < 2 {
            // SAFETY: the token vouches for AVX2, and for AVX-VNNI if `VNNI`.
            out[half] = unsafe {
                if VNNI {
                    _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(sums[half], w[0][half], x[0]), w[1][half], x[1])
                } else {
                    let products = [_mm256_maddubs_epi16(w[0][half], x[0]), _mm256_maddubs_epi16(w[1][half], x[1])];
                    let pairs = _mm256_add_epi16(products[0], products[1]);
                    _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
                }
            };
            half += 1;
        }
        out
    }
    #[inline(always)]
    fn as_line(self, sums: [__m256i; 2]) -> [__m256i; 2] {
        sums
    }
}

#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool> Dot for Avx512<VNNI> {
    type Sums = __m512i;
    type Line = __m512i;
    type Word = __m512i;

    const DOT_ROWS: usize = if VNNI { 12 } else { 8 };
    const DOT_PANELS: usize = 2;
    const BITS_DIFFER: bool = !VNNI;

    #[inline(always)]
    fn no_sums(self) -> __m512i {
        // SAFETY: the token vouches for AVX-512.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load_line(self, from: *const f32) -> __m512i {
        // SAFETY: the token vouches for AVX-512, the caller for 64 bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_word(self, from: *const f32) -> __m512i {
        // SAFETY: the token vouches for AVX-512, the caller for 4 bytes.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    fn dot<const CHAINED: bool>(self, sums: __m512i, x: [__m512i; 2], w: [__m512i; 2]) -> __m512i {
        // SAFETY: the token vouches for AVX-512 BW, and for AVX-512 VNNI if `VNNI`.
        unsafe {
            if VNNI {
                return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sums, x[0], w[0]), x[1], w[1]);
            }
            let ones = _mm512_set1_epi16(1);
            let products = [_mm512_maddubs_epi16(x[0], w[0]), _mm512_maddubs_epi16(x[1], w[1])];
            if CHAINED {
                let pairs = _mm512_add_epi16(products[0], products[1]);
                return _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, ones));
            }
            let first = _mm512_add_epi32(sums, _mm512_madd_epi16(products[0], ones));
            _mm512_add_epi32(first, _mm512_madd_epi16(products[1], ones))
        }
    }
    #[inline(always)]
    fn join_sums(self, high: __m512i, low: __m512i) -> __m512i {
        // SAFETY: the token vouches for AVX-512.
        unsafe { _mm512_add_epi32(_mm512_slli_epi32::<SPLIT>(high), low) }
    }
    #[inline(always)]
    unsafe fn dequantize(self, sums: __m512i, zero_point: i32, column_sums: *const i32, scale: __m512) -> __m512 {
        // SAFETY: the token vouches for AVX-512, the caller for 16 integers.
        unsafe {
            let shift = _mm512_mullo_epi32(_mm512_set1_epi32(zero_point), _mm512_loadu_si512(column_sums.cast()));
            self.mul(_mm512_cvtepi32_ps(_mm512_sub_epi32(sums, shift)), scale)
        }
    }
    #[inline(always)]
    fn split_line(self, line: __m512i) -> [__m512i; 2] {
        // SAFETY: the token vouches for AVX-512 BW.
        unsafe {
            let low = _mm512_set1_epi8(15);
            [_mm512_and_si512(line, low), _mm512_and_si512(_mm512_srli_epi16::<4>(line), low)]
        }
    }
    #[inline(always)]
    fn dot_signed(self, sums: __m512i, x: [__m512i; 2], w: [__m512i; 2]) -> __m512i {
        // SAFETY: the token vouches for AVX-512 BW, and for AVX-512 VNNI if `VNNI`.
        unsafe {
            if VNNI {
                return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sums, w[0], x[0]), w[1], x[1]);
            }
            let products = [_mm512_maddubs_epi16(w[0], x[0]), _mm512_maddubs_epi16(w[1], x[1])];
            let pairs = _mm512_add_epi16(products[0], products[1]);
            _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }
    #[inline(always)]
    fn as_line(self, sums: __m512i) -> __m512i {
        sums
    }
}

/// Eight lanes computed one by one, for the compiler to join. A macro, because a closure might not be
/// inlined.
macro_rules! eight {
    ($i:ident => $value:expr) => {{
        let mut out = [0; HALF];
        let mut $i = 0;
        while $i < HALF {
            out[$i] = $value;
            $i += 1;
        }
        out
    }};
}

/// Products of pairs of weights and pairs of activations, exact by the proof of the weights.
///
/// Kept apart, because inlined into a tile the compiler joins lanes of different vectors and shuffles more
/// than it multiplies.
#[inline(never)]
fn products(x: [[i16; HALF]; 2], pairs: [i16; HALF]) -> [i16; HALF] {
    let first = eight!(i => ((pairs[i] << 8) >> 8).wrapping_mul(x[0][i]));
    let second = eight!(i => (pairs[i] >> 8).wrapping_mul(x[1][i]));
    eight!(i => first[i].wrapping_add(second[i]))
}

impl Dot for Portable {
    /// Two sums for each column.
    type Sums = [[i32; HALF]; 4];
    /// Pairs of bytes.
    type Line = [[i16; HALF]; 4];
    /// The first and the third byte alternating, and the second and the fourth.
    type Word = [[i16; HALF]; 2];

    const DOT_ROWS: usize = 1;
    const DOT_PANELS: usize = 1;
    const BITS_DIFFER: bool = true;

    #[inline(always)]
    fn no_sums(self) -> [[i32; HALF]; 4] {
        [[0; HALF]; 4]
    }
    #[inline(always)]
    unsafe fn load_line(self, from: *const f32) -> [[i16; HALF]; 4] {
        // SAFETY: the caller vouches for 64 bytes.
        let line = unsafe { from.cast::<[[i16; HALF]; 4]>().read_unaligned() };
        if cfg!(target_endian = "big") { line.map(|pairs| eight!(i => pairs[i].swap_bytes())) } else { line }
    }
    #[inline(always)]
    unsafe fn load_word(self, from: *const f32) -> [[i16; HALF]; 2] {
        // SAFETY: the caller vouches for 4 bytes.
        let [a, b, c, d] = unsafe { from.cast::<[u8; 4]>().read() }.map(i16::from);
        [[a, c, a, c, a, c, a, c], [b, d, b, d, b, d, b, d]]
    }
    #[inline(always)]
    fn dot<const CHAINED: bool>(
        self,
        sums: [[i32; HALF]; 4],
        x: [[[i16; HALF]; 2]; 2],
        w: [[[i16; HALF]; 4]; 2],
    ) -> [[i32; HALF]; 4] {
        let mut out = sums;
        let mut quarter = 0;
        while quarter < 4 {
            let (first, second) = (products(x[0], w[0][quarter]), products(x[1], w[1][quarter]));
            let old = sums[quarter];
            out[quarter] = if CHAINED {
                let both = eight!(i => first[i].wrapping_add(second[i]));
                eight!(i => old[i].wrapping_add(i32::from(both[i])))
            } else {
                eight!(i => old[i].wrapping_add(i32::from(first[i]) + i32::from(second[i])))
            };
            quarter += 1;
        }
        out
    }
    #[inline(always)]
    fn join_sums(self, high: [[i32; HALF]; 4], low: [[i32; HALF]; 4]) -> [[i32; HALF]; 4] {
        std::array::from_fn(|eight| eight!(i => (high[eight][i] << SPLIT).wrapping_add(low[eight][i])))
    }
    #[inline(always)]
    unsafe fn dequantize(
        self,
        sums: [[i32; HALF]; 4],
        zero_point: i32,
        column_sums: *const i32,
        scale: [f32; LANES],
    ) -> [f32; LANES] {
        // SAFETY: the caller vouches for 16 integers.
        let column_sums = unsafe { column_sums.cast::<[i32; LANES]>().read_unaligned() };
        let sums = sums.as_flattened();
        let mut out = scale;
        for (i, out) in out.iter_mut().enumerate() {
            let sum = sums[2 * i].wrapping_add(sums[2 * i + 1]);
            *out *= sum.wrapping_sub(zero_point.wrapping_mul(column_sums[i])) as f32;
        }
        out
    }
    #[inline(always)]
    unsafe fn load_signed_word(self, from: *const f32) -> [[i16; HALF]; 2] {
        // SAFETY: the caller vouches for 4 bytes.
        let [a, b, c, d] = unsafe { from.cast::<[i8; 4]>().read() }.map(i16::from);
        [[a, c, a, c, a, c, a, c], [b, d, b, d, b, d, b, d]]
    }
    #[inline(always)]
    fn split_line(self, line: [[i16; HALF]; 4]) -> [[[i16; HALF]; 4]; 2] {
        let lower = line.map(|pairs| eight!(i => pairs[i] & 0x0F0F));
        [lower, line.map(|pairs| eight!(i => (pairs[i] >> 4) & 0x0F0F))]
    }
    #[inline(always)]
    fn dot_signed(
        self,
        sums: [[i32; HALF]; 4],
        x: [[[i16; HALF]; 2]; 2],
        w: [[[i16; HALF]; 4]; 2],
    ) -> [[i32; HALF]; 4] {
        self.dot::<true>(sums, x, w)
    }
    #[inline(always)]
    fn as_line(self, sums: [[i32; HALF]; 4]) -> [[i16; HALF]; 4] {
        sums.map(|eight| eight!(i => eight[i] as i16))
    }
}
