//! Vectors of two AVX registers.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use half::f16;

use super::{LANES, Simd};

/// The CPU has AVX2, FMA and F16C, and AVX-VNNI if so marked.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool = false>(());

impl<const VNNI: bool> Avx2<VNNI> {
    /// # Safety
    /// The CPU has AVX2, FMA and F16C, and AVX-VNNI if `VNNI`.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// The same operation on both halves.
macro_rules! halves {
    ($operation:ident($($v:ident),*)) => {
        // SAFETY: holding an `Avx2` means that the CPU has the instructions.
        unsafe { [$operation($($v[0]),*), $operation($($v[1]),*)] }
    };
}

/// Four rows of 4 in each 128-bit half, transposed.
///
/// # Safety
/// The CPU has AVX.
#[inline(always)]
unsafe fn transpose_4x4(rows: [__m256; 4]) -> [__m256; 4] {
    // SAFETY: as promised by the caller.
    unsafe {
        let [a, b, c, d] = rows;
        let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        [
            _mm256_shuffle_ps::<0x44>(ab_low, cd_low),
            _mm256_shuffle_ps::<0xEE>(ab_low, cd_low),
            _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
            _mm256_shuffle_ps::<0xEE>(ab_high, cd_high),
        ]
    }
}

/// # Safety
/// The CPU has AVX.
#[inline(always)]
unsafe fn transpose_8x8(rows: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: as promised by the caller.
    unsafe {
        let top = transpose_4x4([rows[0], rows[1], rows[2], rows[3]]);
        let bottom = transpose_4x4([rows[4], rows[5], rows[6], rows[7]]);
        let mut out = rows;
        let mut i = 0;
        while i < 4 {
            out[i] = _mm256_permute2f128_ps::<0x20>(top[i], bottom[i]);
            out[i + 4] = _mm256_permute2f128_ps::<0x31>(top[i], bottom[i]);
            i += 1;
        }
        out
    }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type Vector = [__m256; 2];

    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;
    const STREAM_ROWS: usize = 2;
    const STREAM_WIDE: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> [__m256; 2] {
        // SAFETY: the token vouches for AVX.
        let half = unsafe { _mm256_set1_ps(value) };
        [half, half]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [__m256; 2] {
        // SAFETY: the token vouches for AVX, the caller for 16 elements.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> [__m256; 2] {
        // SAFETY: the token vouches for F16C, the caller for 16 elements.
        unsafe {
            let half = |from: *const f16| _mm256_cvtph_ps(_mm_loadu_si128(from.cast()));
            [half(from), half(from.add(8))]
        }
    }
    #[inline(always)]
    unsafe fn load_codes(self, from: *const i8) -> [__m256; 2] {
        // SAFETY: the token vouches for AVX2, the caller for 16 elements.
        unsafe {
            let half = |from: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())));
            [half(from), half(from.add(8))]
        }
    }
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> [__m256; 2] {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the caller vouches for `count` elements, and `lanes` holds that many.
        unsafe {
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count.min(LANES));
            self.load(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store(self, v: [__m256; 2], to: *mut f32) {
        // SAFETY: the token vouches for AVX, the caller for 16 elements.
        unsafe {
            _mm256_storeu_ps(to, v[0]);
            _mm256_storeu_ps(to.add(8), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn store_first(self, v: [__m256; 2], to: *mut f32, count: usize) {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the caller vouches for `count` elements, and `lanes` holds that many.
        unsafe {
            self.store(v, lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count.min(LANES));
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, v: [__m256; 2], to: *mut u8) {
        // SAFETY: the token vouches for AVX2, the caller for 16 bytes.
        unsafe {
            let [low, high] = [_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1])];
            let words = _mm256_packs_epi32(low, high);
            // Lanes 0-3, 8-11, 4-7, 12-15.
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.cast(), _mm_shuffle_epi32::<0b11_01_10_00>(bytes));
        }
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
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        halves!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        halves!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        halves!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        halves!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        halves!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        halves!(_mm256_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        halves!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        halves!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn select_less(self, a: [__m256; 2], b: [__m256; 2], yes: [__m256; 2], no: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the token vouches for AVX.
        let less = unsafe { [_mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])] };
        halves!(_mm256_blendv_ps(no, yes, less))
    }
    #[inline(always)]
    fn abs(self, v: [__m256; 2]) -> [__m256; 2] {
        let sign = self.splat(-0.0);
        halves!(_mm256_andnot_ps(sign, v))
    }
    #[inline(always)]
    fn with_sign_of(self, v: [__m256; 2], sign: [__m256; 2]) -> [__m256; 2] {
        let bit = self.splat(-0.0);
        let sign = halves!(_mm256_and_ps(sign, bit));
        halves!(_mm256_or_ps(v, sign))
    }
    #[inline(always)]
    fn shift_into_exponent(self, v: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the token vouches for AVX2.
        unsafe {
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(v[0]))),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(v[1]))),
            ]
        }
    }
    #[inline(always)]
    fn sum(self, v: [__m256; 2]) -> f32 {
        // SAFETY: the token vouches for AVX.
        unsafe {
            let eight = _mm256_add_ps(v[0], v[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn maximum(self, v: [__m256; 2]) -> f32 {
        // SAFETY: the token vouches for AVX.
        unsafe {
            let eight = _mm256_max_ps(v[0], v[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn transpose(self, rows: [[__m256; 2]; LANES]) -> [[__m256; 2]; LANES] {
        let mut out = rows;
        let mut side = 0;
        while side < 2 {
            let mut top = [rows[0][side]; 8];
            let mut bottom = top;
            let mut i = 0;
            while i < 8 {
                top[i] = rows[i][side];
                bottom[i] = rows[i + 8][side];
                i += 1;
            }
            // SAFETY: the token vouches for AVX.
            let (top, bottom) = unsafe { (transpose_8x8(top), transpose_8x8(bottom)) };
            i = 0;
            while i < 8 {
                out[side * 8 + i] = [top[i], bottom[i]];
                i += 1;
            }
            side += 1;
        }
        out
    }
}
