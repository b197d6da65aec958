//! Compute capabilities of GPUs.

use std::fmt;

/// A compute capability: which instructions a GPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Architecture {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
}

impl Architecture {
    /// Those that every kernel is compiled for in the tests and in a release's pack, ascending.
    pub const BUILT: [Architecture; 5] = [
        Architecture { major: 7, minor: 5 },
        Architecture { major: 8, minor: 0 },
        Architecture { major: 8, minor: 6 },
        Architecture { major: 8, minor: 9 },
        Architecture { major: 9, minor: 0 },
    ];

    /// The oldest one whose tensor cores have the instructions that the kernels use.
    pub const OLDEST: Architecture = Architecture::BUILT[0];

    /// Whether there are asynchronous copies, and matrix products of bf16.
    pub fn is_ampere(self) -> bool {
        self.major >= 8
    }

    /// Whether there are conversions to 8-bit floats, and matrix products of them.
    pub fn has_fp8(self) -> bool {
        self >= Architecture { major: 8, minor: 9 }
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
        self.major == other.major && self.minor <= other.minor
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_within_its_major_number() {
        let [turing, ampere, consumer, ada, hopper] = Architecture::BUILT;
        assert!(ampere.runs_on(consumer) && ampere.runs_on(ada) && consumer.runs_on(ada));
        assert!(!consumer.runs_on(ampere) && !ada.runs_on(hopper) && !turing.runs_on(ampere));
        assert_eq!(hopper.to_string(), "sm_90");
        let of = |major, minor| Architecture { major, minor }.target().to_string();
        assert_eq!([of(8, 6), of(8, 7), of(8, 0), of(9, 0), of(12, 0)], ["sm_86", "sm_86", "sm_80", "sm_90", "sm_120"]);
    }
}
