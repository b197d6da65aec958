//! Memory that is wanted soon.
#![allow(unsafe_code)]

/// Floats of a cache line.
const LINE: usize = 64 / size_of::<f32>();

/// Asks for some floats to be brought into the second-level cache. The CPU may take no notice of it.
#[inline]
pub fn prefetch(words: &[f32]) {
    for line in words.chunks(LINE) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch never faults, and every CPU of this architecture has it.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: a prefetch never faults, and changes nothing that a program can see.
        unsafe {
            std::arch::asm!("prfm pldl2keep, [{}]", in(reg) line.as_ptr(), options(readonly, nostack, preserves_flags));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = line;
    }
}

/// Asks for what a reference leads to, so that it can be written without waiting for other cores. The CPU may take no notice of it.
#[inline]
pub fn prefetch_to_write<T>(target: &T) {
    let address: *const T = target;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults and changes nothing that a program can see; where a CPU doesn't know it, it does nothing.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
