//! Vectors of one AVX-512 register.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::f16;

use super::avx2::Avx2;
use super::{LANES, Simd};

/// The CPU has AVX-512 F, BW, DQ and VL, and AVX-512 VNNI if so marked.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool = false>(());

impl<const VNNI: bool> Avx512<VNNI> {
    /// # Safety
    /// The CPU has AVX-512 F, BW, DQ and VL (and so AVX2, FMA and F16C), and AVX-512 VNNI if `VNNI`.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }

    /// The lower and the upper eight lanes, for what AVX2 does as well.
    #[inline(always)]
    fn halves(self, v: __m512) -> (Avx2, [__m256; 2]) {
        // SAFETY: the token vouches for AVX-512 DQ, which implies AVX2.
        unsafe { (<Avx2>::assume(), [_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)]) }
    }
}

/// The mask of the first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    if count >= LANES { u16::MAX } else { (1u16 << count) - 1 }
}

/// One register operation.
macro_rules! operation {
    ($operation:ident($($v:expr),*)) => {
        // SAFETY: holding an `Avx512` means that the CPU has the instruction.
        unsafe { $operation($($v),*) }
    };
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    type Vector = __m512;

    const TILE_ROWS: usize = 12;
    const TILE_PANELS: usize = 2;
    const STREAM_ROWS: usize = 4;
    const STREAM_WIDE: bool = true;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        operation!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the token vouches for AVX-512, the caller for 16 elements.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> __m512 {
        // SAFETY: the token vouches for AVX-512, the caller for 16 elements.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_codes(self, from: *const i8) -> __m512 {
        // SAFETY: the token vouches for AVX-512, the caller for 16 elements.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> __m512 {
        // SAFETY: the caller vouches for `count` elements; masked lanes are not accessed.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }
    #[inline(always)]
    unsafe fn store(self, v: __m512, to: *mut f32) {
        // SAFETY: the token vouches for AVX-512, the caller for 16 elements.
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn store_first(self, v: __m512, to: *mut f32, count: usize) {
        // SAFETY: the caller vouches for `count` elements; masked lanes are not accessed.
        unsafe { _mm512_mask_storeu_ps(to, first(count), v) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, v: __m512, to: *mut u8) {
        // SAFETY: the token vouches for AVX-512, the caller for 16 bytes.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v))) }
    }
    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
    #[inline(always)]
    fn prefetch_near(self, address: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        operation!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        operation!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        operation!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        operation!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        operation!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        operation!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        operation!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        operation!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn select_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: the token vouches for AVX-512.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }
    #[inline(always)]
    fn abs(self, v: __m512) -> __m512 {
        operation!(_mm512_andnot_ps(self.splat(-0.0), v))
    }
    #[inline(always)]
    fn with_sign_of(self, v: __m512, sign: __m512) -> __m512 {
        let sign = operation!(_mm512_and_ps(sign, self.splat(-0.0)));
        operation!(_mm512_or_ps(v, sign))
    }
    #[inline(always)]
    fn shift_into_exponent(self, v: __m512) -> __m512 {
        // SAFETY: the token vouches for AVX-512.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(v))) }
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        let (avx2, halves) = self.halves(v);
        avx2.sum(halves)
    }
    #[inline(always)]
    fn maximum(self, v: __m512) -> f32 {
        let (avx2, halves) = self.halves(v);
        avx2.maximum(halves)
    }
    #[inline(always)]
    fn transpose(self, rows: [__m512; LANES]) -> [__m512; LANES] {
        // Within each group of four rows: 4x4 blocks transposed in every 128-bit quarter. Then the
        // quarters of four groups are a 4x4 block matrix to be transposed.
        let mut blocks = rows;
        let mut out = rows;
        let mut i = 0;
        // SAFETY: the token vouches for AVX-512.
        unsafe {
            while i < LANES {
                let (a, b, c, d) = (rows[i], rows[i + 1], rows[i + 2], rows[i + 3]);
                let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                blocks[i] = _mm512_shuffle_ps::<0x44>(ab_low, cd_low);
                blocks[i + 1] = _mm512_shuffle_ps::<0xEE>(ab_low, cd_low);
                blocks[i + 2] = _mm512_shuffle_ps::<0x44>(ab_high, cd_high);
                blocks[i + 3] = _mm512_shuffle_ps::<0xEE>(ab_high, cd_high);
                i += 4;
            }
            i = 0;
            while i < 4 {
                let (a, b, c, d) = (blocks[i], blocks[i + 4], blocks[i + 8], blocks[i + 12]);
                let (ab_even, ab_odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b));
                let (cd_even, cd_odd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xDD>(c, d));
                out[i] = _mm512_shuffle_f32x4::<0x88>(ab_even, cd_even);
                out[i + 4] = _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd);
                out[i + 8] = _mm512_shuffle_f32x4::<0xDD>(ab_even, cd_even);
                out[i + 12] = _mm512_shuffle_f32x4::<0xDD>(ab_odd, cd_odd);
                i += 1;
            }
        }
        out
    }
}
