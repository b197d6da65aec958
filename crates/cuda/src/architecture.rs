//! Compute capabilities of GPUs.

use std::fmt;

/// A compute capability: which instructions a GPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Architecture {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Whether code uses what only devices of exactly these numbers have to have (`sm_90a`); false of a device itself.
    pub specific: bool,
}

impl Architecture {
    /// Those that every kernel is compiled for in the tests and in a release's pack, ascending.
    pub const BUILT: [Architecture; 6] = [
        Architecture::of(7, 5),
        Architecture::of(8, 0),
        Architecture::of(8, 6),
        Architecture::of(8, 9),
        Architecture::of(9, 0),
        Architecture { specific: true, ..Architecture::of(9, 0) },
    ];

    /// The oldest one whose tensor cores have the instructions that the kernels use.
    pub const OLDEST: Architecture = Architecture::BUILT[0];

    /// The capability of these numbers.
    pub const fn of(major: u32, minor: u32) -> Architecture {
        Architecture { major, minor, specific: false }
    }

    /// Whether there are asynchronous copies, and matrix products of bf16.
    pub fn is_ampere(self) -> bool {
        self.major >= 8
    }

    /// Whether four warps multiply matrices together, out of shared memory.
    pub fn has_warpgroups(self) -> bool {
        self.specific && self.major == 9
    }

    /// Whether a kernel may begin while the one before it still runs.
    pub fn overlaps_kernels(self) -> bool {
        self.major >= 9
    }

    /// Whether there are conversions to 8-bit floats, and matrix products of them.
    pub fn has_fp8(self) -> bool {
        (self.major, self.minor) >= (8, 9)
    }

    /// Bytes of shared memory that one block may have.
    pub fn shared_bytes(self) -> usize {
        match (self.major, self.minor) {
            (..=7, _) => 64 << 10,
            (8, 0 | 7) => 163 << 10,
            (8 | 12, _) => 99 << 10,
            _ => 227 << 10,
        }
    }

    /// What kernels are compiled for to run on a device of this capability: the newest of [`Architecture::BUILT`] whose code
    /// runs on it, or the capability itself.
    pub fn target(self) -> Architecture {
        Architecture::BUILT.into_iter().rfind(|built| built.runs_on(self)).unwrap_or(self)
    }

    /// Whether code that was compiled for `self` runs on a device of `other`.
    pub fn runs_on(self, other: Architecture) -> bool {
        self.major == other.major && if self.specific { self.minor == other.minor } else { self.minor <= other.minor }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}{}", self.major, self.minor, if self.specific { "a" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_within_its_major_number() {
        let [turing, ampere, consumer, ada, hopper, specific] = Architecture::BUILT;
        assert!(ampere.runs_on(consumer) && ampere.runs_on(ada) && consumer.runs_on(ada));
        assert!(!consumer.runs_on(ampere) && !ada.runs_on(hopper) && !turing.runs_on(ampere));
        assert!(specific.runs_on(hopper) && !specific.runs_on(Architecture::of(9, 1)));
        assert_eq!([hopper, specific].map(|built| built.to_string()), ["sm_90", "sm_90a"]);
        let of = |major, minor| Architecture::of(major, minor).target().to_string();
        assert_eq!(
            [of(8, 6), of(8, 7), of(8, 0), of(9, 0), of(12, 0)],
            ["sm_86", "sm_86", "sm_80", "sm_90a", "sm_120"]
        );
    }
}
