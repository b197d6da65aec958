//! Loops that the compiler vectorises, by the vectors of this CPU.
#![allow(unsafe_code)]

/// Runs a loop that the compiler turns into vector instructions, by the widest ones of this CPU that it can. The outcome has the same
/// bits on every CPU, since nothing is fused or reordered. The loop has to stand in the closure, or in what is inlined into it.
#[inline]
pub fn vectorise<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has the instructions.
        return unsafe { with_avx2(work) };
    }
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_have_the_same_bits() {
        let values: Vec<f32> = (0..1000).map(|at| (at as f32).sin()).collect();
        let work = |to: &mut [f32]| to.iter_mut().zip(&values).for_each(|(to, value)| *to = *to * 0.3 + value);
        let (mut plain, mut vectorised) = (values.clone(), values.clone());
        work(&mut plain);
        vectorise(|| work(&mut vectorised));
        assert_eq!(plain, vectorised);
    }
}
