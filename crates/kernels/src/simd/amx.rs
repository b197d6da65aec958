//! The tiles of AMX, beside AVX-512 with VNNI. The assembler knows their instructions, the stable compiler
//! does not: it never touches a tile register, so what one block of assembly leaves there the next one finds.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::avx512::Avx512;
use super::tiles::{TILE_BYTES, TILE_ROWS, TILES, TileConfig, TileUnit};

/// The CPU has AMX-TILE, AMX-INT8 and what [`Avx512`] with VNNI needs, and the system lets this process use
/// the tiles.
#[derive(Clone, Copy)]
pub(crate) struct Amx(());

impl Amx {
    /// # Safety
    /// The CPU has what this token says, and [`is_usable`] is true.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// Whether CPU and system have the tiles; asks the system for the permission to use them, once.
pub(crate) fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has_tiles() && saves_tiles() && may_use_tiles())
}

/// Whether the CPU has AMX-TILE and AMX-INT8, and tiles of the size that the kernels are written for.
fn has_tiles() -> bool {
    const FEATURES: u32 = 1 << 24 | 1 << 25;
    const FEATURE_LEAF: u32 = 7;
    const TILE_LEAF: u32 = 0x1D;
    if __cpuid(0).eax < TILE_LEAF || __cpuid_count(FEATURE_LEAF, 0).edx & FEATURES != FEATURES {
        return false;
    }
    let palette = __cpuid_count(TILE_LEAF, 1);
    let (row_bytes, tiles, rows) = (palette.ebx & 0xFFFF, palette.ebx >> 16, palette.ecx & 0xFFFF);
    (tiles, rows, row_bytes) == (TILES as u32, TILE_ROWS as u32, TILE_BYTES as u32)
}

/// Whether the system saves the tiles when it switches threads.
fn saves_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILE_STATES: u64 = 1 << 17 | 1 << 18;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: XGETBV is there where the system has switched XSAVE on.
    unsafe { _xgetbv(0) & TILE_STATES == TILE_STATES }
}

/// Asks Linux for the permission, which all threads of the process then have.
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

/// Other systems are not known to this crate.
#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}

impl TileUnit for Amx {
    type Vectors = Avx512<true>;

    #[inline(always)]
    fn vectors(self) -> Avx512<true> {
        // SAFETY: the token vouches for AVX-512 with VNNI.
        unsafe { Avx512::assume() }
    }
    #[inline(always)]
    unsafe fn add_sums(self, sums: __m512i, from: *const i32) -> __m512i {
        // SAFETY: the token vouches for AVX-512, the caller for 16 integers.
        unsafe { _mm512_add_epi32(sums, _mm512_loadu_si512(from.cast())) }
    }
    #[inline(always)]
    unsafe fn configure(self, config: &TileConfig) {
        // SAFETY: the token vouches for the instruction; the 64 bytes of the configuration are valid.
        unsafe { asm!("ldtilecfg [{}]", in(reg) config, options(readonly, nostack, preserves_flags)) }
    }
    #[inline(always)]
    fn release(self) {
        // SAFETY: the token vouches for the instruction.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
    #[inline(always)]
    unsafe fn zero<const TILE: usize>(self) {
        // SAFETY: the token vouches for the instruction, the caller for the tile.
        unsafe { asm!("tilezero tmm{}", const TILE, options(nomem, nostack, preserves_flags)) }
    }
    #[inline(always)]
    unsafe fn load<const TILE: usize>(self, from: *const u8, stride: usize) {
        // SAFETY: the token vouches for the instruction, the caller for tile and memory.
        unsafe {
            asm!(
                "tileloadd tmm{tile}, [{from} + {stride}*1]",
                tile = const TILE, from = in(reg) from, stride = in(reg) stride,
                options(readonly, nostack, preserves_flags)
            );
        }
    }
    #[inline(always)]
    unsafe fn store<const TILE: usize>(self, to: *mut u8, stride: usize) {
        // SAFETY: the token vouches for the instruction, the caller for tile and memory.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}*1], tmm{tile}",
                tile = const TILE, to = in(reg) to, stride = in(reg) stride,
                options(nostack, preserves_flags)
            );
        }
    }
    #[inline(always)]
    unsafe fn multiply<const SUMS: usize, const A: usize, const B: usize>(self) {
        // SAFETY: the token vouches for the instruction, the caller for the tiles.
        unsafe {
            asm!(
                "tdpbusd tmm{sums}, tmm{a}, tmm{b}",
                sums = const SUMS, a = const A, b = const B,
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}
