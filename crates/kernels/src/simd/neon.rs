//! Vectors of four NEON registers.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::dot::Dot;
use super::{LANES, Simd};
use crate::int8::SPLIT;

/// The CPU has NEON, and the byte dot product if so marked.
#[derive(Clone, Copy)]
pub(crate) struct Neon<const DOT: bool = false>(());

impl<const DOT: bool> Neon<DOT> {
    /// # Safety
    /// The CPU has NEON, and FEAT_DotProd if `DOT`.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// The same operation on all quarters.
macro_rules! quarters {
    ($operation:ident $(::<$constant:literal>)? ($($v:ident),*)) => {
        // SAFETY: holding a `Neon` means that the CPU has the instructions.
        unsafe {
            [
                $operation$(::<$constant>)?($($v[0]),*),
                $operation$(::<$constant>)?($($v[1]),*),
                $operation$(::<$constant>)?($($v[2]),*),
                $operation$(::<$constant>)?($($v[3]),*),
            ]
        }
    };
}

/// Four rows of 4, transposed.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn transpose_4x4(rows: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: as promised by the caller.
    unsafe {
        let [a, b, c, d] = rows;
        let even = [vtrn1q_f32(a, b), vtrn1q_f32(c, d)].map(|v| vreinterpretq_f64_f32(v));
        let odd = [vtrn2q_f32(a, b), vtrn2q_f32(c, d)].map(|v| vreinterpretq_f64_f32(v));
        [
            vreinterpretq_f32_f64(vzip1q_f64(even[0], even[1])),
            vreinterpretq_f32_f64(vzip1q_f64(odd[0], odd[1])),
            vreinterpretq_f32_f64(vzip2q_f64(even[0], even[1])),
            vreinterpretq_f32_f64(vzip2q_f64(odd[0], odd[1])),
        ]
    }
}

impl<const DOT: bool> Simd for Neon<DOT> {
    type Vector = [float32x4_t; 4];

    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;
    const STREAM_ROWS: usize = 2;
    const STREAM_WIDE: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> [float32x4_t; 4] {
        // SAFETY: the token vouches for NEON.
        [unsafe { vdupq_n_f32(value) }; 4]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [float32x4_t; 4] {
        // SAFETY: the token vouches for NEON, the caller for 16 elements.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))] }
    }
    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> [float32x4_t; 4] {
        // SAFETY: the token vouches for NEON, the caller for 16 elements.
        unsafe {
            let quarter = |from: *const f16| vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.cast())));
            [quarter(from), quarter(from.add(4)), quarter(from.add(8)), quarter(from.add(12))]
        }
    }
    #[inline(always)]
    unsafe fn load_codes(self, from: *const i8) -> [float32x4_t; 4] {
        // SAFETY: the token vouches for NEON, the caller for 16 elements.
        unsafe {
            let codes = vld1q_s8(from);
            let (low, high) = (vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, count: usize) -> [float32x4_t; 4] {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the caller vouches for `count` elements, and `lanes` holds that many.
        unsafe {
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count.min(LANES));
            self.load(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store(self, v: [float32x4_t; 4], to: *mut f32) {
        // SAFETY: the token vouches for NEON, the caller for 16 elements.
        unsafe {
            vst1q_f32(to, v[0]);
            vst1q_f32(to.add(4), v[1]);
            vst1q_f32(to.add(8), v[2]);
            vst1q_f32(to.add(12), v[3]);
        }
    }
    #[inline(always)]
    unsafe fn store_first(self, v: [float32x4_t; 4], to: *mut f32, count: usize) {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: the caller vouches for `count` elements, and `lanes` holds that many.
        unsafe {
            self.store(v, lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count.min(LANES));
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, v: [float32x4_t; 4], to: *mut u8) {
        let words = quarters!(vcvtq_u32_f32(v));
        // SAFETY: the token vouches for NEON, the caller for 16 bytes.
        unsafe {
            let low = vcombine_u16(vmovn_u32(words[0]), vmovn_u32(words[1]));
            let high = vcombine_u16(vmovn_u32(words[2]), vmovn_u32(words[3]));
            vst1q_u8(to, vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
        }
    }
    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        // SAFETY: a prefetch never faults, and changes nothing that a program can see.
        unsafe { asm!("prfm pldl2keep, [{}]", in(reg) address.addr(), options(nomem, nostack, preserves_flags)) }
    }
    #[inline(always)]
    fn prefetch_near(self, address: *const f32) {
        // SAFETY: a prefetch never faults, and changes nothing that a program can see.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) address.addr(), options(nomem, nostack, preserves_flags)) }
    }
    #[inline(always)]
    fn add(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: [float32x4_t; 4], b: [float32x4_t; 4], c: [float32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(vfmaq_f32(c, a, b))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: [float32x4_t; 4], b: [float32x4_t; 4], c: [float32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(vfmsq_f32(c, a, b))
    }
    // FMAX and FMIN treat NaN and the signs of zeros in a way of their own.
    #[inline(always)]
    fn max(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        self.select_less(b, a, a, b)
    }
    #[inline(always)]
    fn min(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        self.select_less(a, b, a, b)
    }
    #[inline(always)]
    fn select_less(
        self,
        a: [float32x4_t; 4],
        b: [float32x4_t; 4],
        yes: [float32x4_t; 4],
        no: [float32x4_t; 4],
    ) -> [float32x4_t; 4] {
        let less = quarters!(vcltq_f32(a, b));
        quarters!(vbslq_f32(less, yes, no))
    }
    #[inline(always)]
    fn abs(self, v: [float32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(vabsq_f32(v))
    }
    #[inline(always)]
    fn with_sign_of(self, v: [float32x4_t; 4], sign: [float32x4_t; 4]) -> [float32x4_t; 4] {
        let bit = self.splat(-0.0);
        let (v, sign, bit) = (
            quarters!(vreinterpretq_u32_f32(v)),
            quarters!(vreinterpretq_u32_f32(sign)),
            quarters!(vreinterpretq_u32_f32(bit)),
        );
        let sign = quarters!(vandq_u32(sign, bit));
        let joined = quarters!(vorrq_u32(v, sign));
        quarters!(vreinterpretq_f32_u32(joined))
    }
    #[inline(always)]
    fn shift_into_exponent(self, v: [float32x4_t; 4]) -> [float32x4_t; 4] {
        let integers = quarters!(vreinterpretq_u32_f32(v));
        let shifted = quarters!(vshlq_n_u32::<23>(integers));
        quarters!(vreinterpretq_f32_u32(shifted))
    }
    #[inline(always)]
    fn sum(self, v: [float32x4_t; 4]) -> f32 {
        // SAFETY: the token vouches for NEON.
        unsafe {
            let four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
    }
    #[inline(always)]
    fn maximum(self, v: [float32x4_t; 4]) -> f32 {
        // SAFETY: the token vouches for NEON.
        unsafe {
            let larger = |a, b| vbslq_f32(vcgtq_f32(a, b), a, b);
            let four = larger(larger(v[0], v[2]), larger(v[1], v[3]));
            let two = larger(four, vextq_f32::<2>(four, four));
            vgetq_lane_f32::<0>(larger(two, vdupq_laneq_f32::<1>(two)))
        }
    }
    #[inline(always)]
    fn transpose(self, rows: [[float32x4_t; 4]; LANES]) -> [[float32x4_t; 4]; LANES] {
        // A 4x4 matrix of 4x4 blocks.
        let mut out = rows;
        let mut block = 0;
        while block < LANES {
            let (row, column) = (block / 4 * 4, block % 4);
            let from = [rows[row][column], rows[row + 1][column], rows[row + 2][column], rows[row + 3][column]];
            // SAFETY: the token vouches for NEON.
            let turned = unsafe { transpose_4x4(from) };
            let mut i = 0;
            while i < 4 {
                out[column * 4 + i][row / 4] = turned[i];
                i += 1;
            }
            block += 1;
        }
        out
    }
}

/// `sums + a·b`, by fours of bytes of `a` and the first four of `b`.
///
/// # Safety
/// The CPU has FEAT_DotProd.
#[inline(always)]
unsafe fn dot_fours(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: as promised by the caller; only registers are touched.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[0]",
            inout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Products are signed by signed, so 128 is taken from activations of eight bits, and given back with the
/// zero point.
///
/// Without the byte dot product, products of eight bits are chained by twos in 16 bits: with weights of each
/// sign summing to 128 at most and activations in -128..128, no sum leaves ±255·128. Those of seven bits are
/// chained by fours, those that AVX2 chains; so are bytes of six bits.
impl<const DOT: bool> Dot for Neon<DOT> {
    type Sums = [int32x4_t; 4];
    type Line = [int8x16_t; 4];
    /// Repeated four times where there is no byte dot product, which takes them once.
    type Word = int8x16_t;

    const DOT_ROWS: usize = if DOT { 4 } else { 3 };
    const DOT_PANELS: usize = 1;
    const BITS_DIFFER: bool = true;
    const OFFSET: i32 = 128;

    #[inline(always)]
    fn no_sums(self) -> [int32x4_t; 4] {
        // SAFETY: the token vouches for NEON.
        [unsafe { vdupq_n_s32(0) }; 4]
    }
    #[inline(always)]
    unsafe fn load_line(self, from: *const f32) -> [int8x16_t; 4] {
        let from: *const i8 = from.cast();
        // SAFETY: the token vouches for NEON, the caller for 64 bytes.
        unsafe { [vld1q_s8(from), vld1q_s8(from.add(16)), vld1q_s8(from.add(32)), vld1q_s8(from.add(48))] }
    }
    #[inline(always)]
    unsafe fn load_word(self, from: *const f32) -> int8x16_t {
        // SAFETY: the token vouches for NEON, the caller for 4 bytes.
        unsafe {
            let word = if DOT { vld1q_lane_f32::<0>(from, vdupq_n_f32(0.0)) } else { vld1q_dup_f32(from) };
            vreinterpretq_s8_f32(word)
        }
    }
    #[inline(always)]
    fn dot<const CHAINED: bool>(
        self,
        sums: [int32x4_t; 4],
        x: [int8x16_t; 2],
        w: [[int8x16_t; 4]; 2],
    ) -> [int32x4_t; 4] {
        let mut out = sums;
        let mut quarter = 0;
        // SAFETY: the token vouches for NEON, and for FEAT_DotProd if `DOT`.
        unsafe {
            let x = if CHAINED { x } else { x.map(|x| veorq_s8(x, vdupq_n_s8(i8::MIN))) };
            while quarter < 4 {
                let [first, second] = [w[0][quarter], w[1][quarter]];
                let sums = &mut out[quarter];
                *sums = if DOT {
                    dot_fours(dot_fours(*sums, first, x[0]), second, x[1])
                } else {
                    let mut low = vmull_s8(vget_low_s8(first), vget_low_s8(x[0]));
                    let mut high = vmull_high_s8(first, x[0]);
                    if CHAINED {
                        low = vmlal_s8(low, vget_low_s8(second), vget_low_s8(x[1]));
                        high = vmlal_high_s8(high, second, x[1]);
                        vpadalq_s16(*sums, vpaddq_s16(low, high))
                    } else {
                        *sums = vpadalq_s16(*sums, vpaddq_s16(low, high));
                        low = vmull_s8(vget_low_s8(second), vget_low_s8(x[1]));
                        high = vmull_high_s8(second, x[1]);
                        vpadalq_s16(*sums, vpaddq_s16(low, high))
                    }
                };
                quarter += 1;
            }
        }
        out
    }
    #[inline(always)]
    fn join_sums(self, high: [int32x4_t; 4], low: [int32x4_t; 4]) -> [int32x4_t; 4] {
        std::array::from_fn(|quarter| {
            // SAFETY: the token vouches for NEON.
            unsafe { vaddq_s32(vshlq_n_s32::<{ SPLIT as i32 }>(high[quarter]), low[quarter]) }
        })
    }
    #[inline(always)]
    unsafe fn dequantize(
        self,
        sums: [int32x4_t; 4],
        zero_point: i32,
        column_sums: *const i32,
        scale: [float32x4_t; 4],
    ) -> [float32x4_t; 4] {
        // SAFETY: the token vouches for NEON, the caller for 16 integers.
        let differences = unsafe {
            let zero_point = vdupq_n_s32(zero_point);
            let quarter = |i: usize| vmlsq_s32(sums[i], zero_point, vld1q_s32(column_sums.add(4 * i)));
            [quarter(0), quarter(1), quarter(2), quarter(3)]
        };
        let values = quarters!(vcvtq_f32_s32(differences));
        self.mul(values, scale)
    }
    #[inline(always)]
    fn split_line(self, line: [int8x16_t; 4]) -> [[int8x16_t; 4]; 2] {
        // SAFETY: the token vouches for NEON.
        unsafe {
            let low = vdupq_n_s8(15);
            let upper = |part| vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(part)));
            [line.map(|part| vandq_s8(part, low)), line.map(upper)]
        }
    }
    #[inline(always)]
    fn dot_signed(self, sums: [int32x4_t; 4], x: [int8x16_t; 2], w: [[int8x16_t; 4]; 2]) -> [int32x4_t; 4] {
        self.dot::<true>(sums, x, w)
    }
    #[inline(always)]
    fn as_line(self, sums: [int32x4_t; 4]) -> [int8x16_t; 4] {
        quarters!(vreinterpretq_s8_s32(sums))
    }
}
