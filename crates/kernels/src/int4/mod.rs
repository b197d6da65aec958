//! Products of 8-bit activations and 4-bit weights, both quantised in groups along the depth.
//!
//! For each group there is an exact integer sum, a scale of the row and one of the column; the scaled sums are added as
//! f32 in the order of the groups, each step rounded on its own. So every instruction set gives the same bits, whatever
//! the split. Weights are held as nibbles in 0..=15, activations with a sign; no chain of such products overflows 16 bits.

pub(crate) mod gemm;
mod pack;
pub(crate) mod quantize;

pub use pack::{Int4Weight, PackedInt4, UnpackedInt4, pack_int4, packed_int4_len, unpack_int4};

use crate::error::{KernelError, expect_dimension};

/// The longest group, whose sums are exact as f32.
const MAX_GROUP: usize = 8192;

/// Depth of a line of packed weights; groups are multiples of it.
const LINE_DEPTH: usize = 8;

/// Errors unless a group can have so many elements.
pub(crate) fn check_group(kernel: &'static str, group: usize) -> Result<(), KernelError> {
    if group > MAX_GROUP {
        return Err(KernelError::TooLarge { kernel, what: "group", found: group, limit: MAX_GROUP });
    }
    let multiple = group.next_multiple_of(LINE_DEPTH).max(LINE_DEPTH);
    expect_dimension(kernel, "group (a multiple of 8)", group, multiple)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_multiples_of_a_line() {
        for group in [8, 16, 32, 128, 8192] {
            check_group("test", group).unwrap();
        }
        for group in [0, 1, 7, 20, 8200, usize::MAX] {
            assert!(check_group("test", group).is_err(), "{group}");
        }
    }

    #[test]
    fn sums_of_the_longest_group_are_exact() {
        let largest = MAX_GROUP * 127 * 15;
        assert!(largest < 1 << 24, "{largest}");
    }
}
