//! Instruction sets that the kernels are compiled for.

use std::fmt;
use std::str::FromStr;

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;

use crate::error::KernelError;
#[cfg(target_arch = "x86_64")]
use crate::simd::amx;

/// An instruction set. Kernels give bit-identical results on all but [`Isa::Portable`], which rounds f32
/// differently where the target has no fused multiply-add. The sums of int8 products are the same on all.
/// (NaNs are NaNs on all, but their other bits are those that the CPU makes.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust, compiled for the baseline of the target.
    Portable,
    /// NEON, which every aarch64 CPU has.
    Neon,
    /// As NEON, and FEAT_DotProd: int8 dot products in one instruction.
    NeonDot,
    /// AVX2, FMA and F16C.
    Avx2,
    /// As AVX2, and AVX-VNNI: int8 dot products in one instruction.
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 as above, and its VNNI.
    Avx512Vnni,
    /// As AVX-512 with VNNI, and AMX-INT8: int8 products of whole tiles in one instruction.
    Amx,
}

impl Isa {
    /// All instruction sets, slowest first.
    pub const ALL: [Self; 8] = [
        Self::Portable,
        Self::Neon,
        Self::NeonDot,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Amx,
    ];

    /// What it is called where people choose one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::NeonDot => "neondot",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Amx => "amx",
        }
    }

    /// Whether [`Isa::best`] may choose it. [`Isa::Amx`] must be asked for by name: it only ever ran in an
    /// emulator, and every CPU that has it also has [`Isa::Avx512Vnni`], which is tested on hardware. (NEON
    /// is tested under emulation only, too, but the choice there is between it and portable code.)
    #[must_use]
    pub fn is_proven(self) -> bool {
        match self {
            Self::Portable
            | Self::Neon
            | Self::NeonDot
            | Self::Avx2
            | Self::AvxVnni
            | Self::Avx512
            | Self::Avx512Vnni => true,
            Self::Amx => false,
        }
    }

    /// Whether this CPU and operating system can execute it. For [`Isa::Amx`], Linux is asked for the permission,
    /// once for this process.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512Vnni.is_available() && amx::is_usable(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::AvxVnni | Self::Avx512 | Self::Avx512Vnni | Self::Amx => false,
            // The kernels take words of bytes from memory, in the order of little endian.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => cfg!(target_endian = "little") && is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => Self::Neon.is_available() && is_aarch64_feature_detected!("dotprod"),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon | Self::NeonDot => false,
        }
    }

    /// Those that this CPU can execute, slowest first; never empty.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The fastest that this CPU can execute, of those that are proven.
    #[must_use]
    pub fn best() -> Self {
        Self::available().filter(|isa| isa.is_proven()).last().unwrap_or(Self::Portable)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        Self::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| KernelError::UnknownIsa(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>().unwrap(), isa);
        }
        let error = "avx9".parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains("avx9") && Isa::ALL.iter().all(|isa| error.contains(&isa.to_string())), "{error}");
    }

    #[test]
    fn the_documents_list_all() {
        let text = include_str!("../../../ARCHITECTURE.md");
        let (_, section) = text.split_once("## Instruction sets").unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
        let names: Vec<&str> = rows.map(|(name, _)| name).skip_while(|name| *name == "name").collect();
        assert_eq!(names, Isa::ALL.map(Isa::name));
    }

    #[test]
    fn best_is_available() {
        assert!(Isa::best().is_available() && Isa::best().is_proven());
        assert!(Isa::available().any(|isa| isa == Isa::Portable));
    }
}
