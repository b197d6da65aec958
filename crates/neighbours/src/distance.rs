//! In how many bits two sketches differ.
#![allow(unsafe_code)]

use usearch::b1x8;

use crate::sketch::{SKETCH_BYTES, Sketch};

/// The distance of two sketches that an index keeps, by the fastest instructions of this CPU. The index has one of its own, which
/// takes ten times as long unless a library of several thousand kernels for other distances is built with it.
pub(crate) fn metric() -> Box<dyn Fn(*const b1x8, *const b1x8) -> f32 + Send + Sync> {
    // SAFETY: an index of as many dimensions as sketches have bits hands out pointers to whole sketches.
    let sketch = |bits: *const b1x8| unsafe { &*bits.cast::<Sketch>() };
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512vpopcntdq") && is_x86_feature_detected!("avx512vl") {
            // SAFETY: the CPU has the instructions.
            return Box::new(move |a, b| unsafe { by_vectors(sketch(a), sketch(b)) } as f32);
        }
        if is_x86_feature_detected!("popcnt") {
            // SAFETY: the CPU has the instruction.
            return Box::new(move |a, b| unsafe { by_words(sketch(a), sketch(b)) } as f32);
        }
    }
    Box::new(move |a, b| differing(sketch(a), sketch(b)) as f32)
}

#[inline(always)]
fn differing(a: &Sketch, b: &Sketch) -> u32 {
    const WORD: usize = size_of::<u64>();
    const { assert!(SKETCH_BYTES.is_multiple_of(WORD), "sketches are whole words") };
    let words = |sketch: &'_ Sketch| -> [u64; SKETCH_BYTES / WORD] { bytemuck::pod_read_unaligned(sketch) };
    words(a).into_iter().zip(words(b)).map(|(a, b)| (a ^ b).count_ones()).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512vpopcntdq,avx512vl")]
fn by_vectors(a: &Sketch, b: &Sketch) -> u32 {
    differing(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
fn by_words(a: &Sketch, b: &Sketch) -> u32 {
    differing(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_differ_are_counted() {
        let a: Sketch = std::array::from_fn(|at| (at * 37) as u8);
        let mut b = a;
        let metric = metric();
        let distance = |a: &Sketch, b: &Sketch| metric(a.as_ptr().cast(), b.as_ptr().cast());
        assert_eq!(distance(&a, &b), 0.0);
        b[0] ^= 0x81;
        b[SKETCH_BYTES - 1] ^= 0x07;
        assert_eq!((distance(&a, &b), differing(&a, &b)), (5.0, 5));
        assert_eq!(distance(&[0; SKETCH_BYTES], &[0xff; SKETCH_BYTES]), 8.0 * SKETCH_BYTES as f32);
    }
}
