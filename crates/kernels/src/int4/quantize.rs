//! Quantisation of rows in groups, each by its own largest magnitude.
#![allow(unsafe_code)]

use crate::int8::quantize::{ROUND, scaled};
use crate::int8::rows::code_words;
use crate::simd::{LANES, Simd};

/// Largest code of an activation.
const LEVELS: f32 = 127.0;

/// Quantises the row `x · factor` of `columns` elements.
///
/// # Safety
/// `x` and `factor` have `columns` elements, `out` has the words of the row's codes and two more for each group.
#[inline(always)]
pub(crate) unsafe fn row<S: Simd>(
    s: S,
    (x, factor): (*const f32, Option<*const f32>),
    columns: usize,
    group: usize,
    out: *mut f32,
) {
    let groups = columns.div_ceil(group);
    // SAFETY: as promised by the caller; every group begins before `columns`.
    unsafe {
        let scales = out.add(code_words(columns));
        for number in 0..groups {
            let start = number * group;
            let count = group.min(columns - start);
            let place = (x.add(start), factor.map(|factor| factor.add(start)));
            let (scale, sum) = group_codes(s, place, count, out.cast::<u8>().add(start));
            scales.add(number).write(scale);
            scales.add(groups + number).write(f32::from_bits((sum as i32).cast_unsigned()));
        }
    }
}

/// Writes the codes of a group, and zeros up to a multiple of 8; returns its scale and the sum of its codes.
///
/// # Safety
/// `x` and `factor` have `count` elements, `out` has room for the bytes of the codes and of the padding.
#[inline(always)]
unsafe fn group_codes<S: Simd>(
    s: S,
    (x, factor): (*const f32, Option<*const f32>),
    count: usize,
    out: *mut u8,
) -> (f32, f32) {
    let zero = s.splat(0.0);
    let (mut largest, mut invalid) = (zero, zero);
    // SAFETY: all elements are before `count`.
    unsafe {
        for start in (0..count).step_by(LANES) {
            let v = scaled(s, x, factor, start, LANES.min(count - start));
            largest = s.max(s.abs(v), largest);
            // 0 times a finite number is 0, times any other it is NaN; and NaN stays.
            invalid = s.mul_add(v, zero, invalid);
        }
        let scale = (s.maximum(largest) + s.sum(invalid)) / LEVELS;
        let inverse = 1.0 / scale;
        if !(scale.is_finite() && inverse.is_finite()) {
            out.write_bytes(0, 4 * code_words(count));
            return (if scale.is_finite() { 0.0 } else { f32::NAN }, 0.0);
        }
        let (inverse, round, sign) = (s.splat(inverse), s.splat(ROUND), s.splat(256.0));
        let mut sum = zero;
        for start in (0..count).step_by(LANES) {
            let width = LANES.min(count - start);
            let v = s.mul(scaled(s, x, factor, start, width), inverse);
            let code = s.sub(s.add(v, round), round);
            sum = s.add(sum, code);
            let byte = s.select_less(code, zero, s.add(code, sign), code);
            if width == LANES {
                s.store_bytes(byte, out.add(start));
            } else {
                let mut bytes = [0u8; LANES];
                s.store_bytes(byte, bytes.as_mut_ptr());
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.add(start), 4 * code_words(width));
            }
        }
        (scale, s.sum(sum))
    }
}
