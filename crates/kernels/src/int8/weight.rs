//! Quantised weights, and the proof that sums of their products never overflow.

use super::{ActivationBits, GROUP};
use crate::error::{KernelError, expect_dimension};

/// Weights of a linear layer, `[n, k]`, quantised symmetrically per output: `weight ≈ code · scale`.
#[derive(Debug, Clone, Copy)]
pub struct Int8Weight<'a> {
    /// `[n, k]`
    pub codes: &'a [i8],
    /// One for each output.
    pub scales: &'a [f32],
    /// Number of outputs.
    pub n: usize,
    /// Number of inputs.
    pub k: usize,
    /// Bits of the activations that the codes were made for.
    pub bits: ActivationBits,
}

impl Int8Weight<'_> {
    /// Errors unless lengths fit the shape and no sum of products can overflow.
    pub(super) fn check(&self) -> Result<(), KernelError> {
        const NAME: &str = "int8 weight";
        expect_dimension(NAME, "number of codes", self.codes.len(), self.n.saturating_mul(self.k))?;
        expect_dimension(NAME, "number of scales", self.scales.len(), self.n)?;
        check_depth(NAME, self.k, self.bits)?;
        check_overflow(self.codes, self.k, self.bits)
    }
}

/// Errors if 32-bit sums of that many products could overflow.
pub(super) fn check_depth(kernel: &'static str, k: usize, bits: ActivationBits) -> Result<(), KernelError> {
    let what = match bits {
        ActivationBits::Seven => "k with 7-bit activations",
        ActivationBits::Eight => "k with 8-bit activations",
        ActivationBits::Twelve => "k with 12-bit activations",
    };
    let limit = bits.max_depth();
    if k > limit { Err(KernelError::TooLarge { kernel, what, found: k, limit }) } else { Ok(()) }
}

/// The largest sum of magnitudes of codes of one sign that a 16-bit sum can take, every byte of an activation
/// being at its largest. No four codes reach that of 12 bits.
fn limit(bits: ActivationBits) -> u32 {
    i16::MAX.unsigned_abs() as u32 / u32::from(bits.largest_byte())
}

/// The largest of the 16-bit sums that a group of 8 weights goes into, each given by its magnitude.
fn largest_sum(group: [u16; GROUP], bits: ActivationBits) -> u32 {
    let pairs = [group[0] + group[1], group[2] + group[3], group[4] + group[5], group[6] + group[7]];
    let sums = match bits {
        ActivationBits::Seven | ActivationBits::Twelve => [pairs[0] + pairs[2], pairs[1] + pairs[3], 0, 0],
        ActivationBits::Eight => pairs,
    };
    sums.into_iter().fold(0, u16::max).into()
}

/// The largest sum in one row of codes, and the depth of its group.
fn worst(row: &[i8], bits: ActivationBits) -> (u32, usize) {
    let sum_of = |group: &[i8; GROUP]| {
        let positive = group.map(|code| u16::from(code.max(0).unsigned_abs()));
        let negative = group.map(|code| u16::from(code.min(0).unsigned_abs()));
        largest_sum(positive, bits).max(largest_sum(negative, bits))
    };
    let (groups, rest) = row.as_chunks();
    let mut last = [0; GROUP];
    last[..rest.len()].copy_from_slice(rest);
    let mut worst = (0, 0);
    for (number, group) in groups.iter().chain([&last]).enumerate() {
        let sum = sum_of(group);
        if sum > worst.0 {
            worst = (sum, number * GROUP);
        }
    }
    worst
}

/// Proves that no kernel overflows on `codes`, `[n, k]`, whatever the activations are: in no 16-bit sum
/// can the products of one sign exceed 32767, with every activation at its largest. (Partial sums lie
/// between the sum of the negative and the sum of the positive products.)
pub fn check_overflow(codes: &[i8], k: usize, bits: ActivationBits) -> Result<(), KernelError> {
    for (column, row) in codes.chunks(k.max(1)).enumerate() {
        let (sum, depth) = worst(row, bits);
        if sum > limit(bits) {
            return Err(KernelError::Overflow { column, depth, sum, bits: bits.count(), limit: limit(bits) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::SPLIT;

    #[test]
    fn the_limits_are_those_of_16_bits() {
        assert_eq!(limit(ActivationBits::Seven), 258);
        assert_eq!(limit(ActivationBits::Eight), 128);
        assert_eq!(limit(ActivationBits::Twelve), 520);
    }

    #[test]
    fn two_bytes_hold_the_largest_code() {
        for bits in ActivationBits::ALL {
            let byte = u16::from(bits.largest_byte());
            let largest = (1..bits.bytes()).fold(byte, |code, _| (code << SPLIT) + byte);
            assert_eq!(largest, bits.levels(), "{bits:?}");
        }
    }

    #[test]
    fn no_sum_of_the_largest_depth_overflows_32_bits() {
        for bits in ActivationBits::ALL {
            let largest = i64::from(bits.levels()) * i64::from(i8::MIN.unsigned_abs()) * bits.max_depth() as i64;
            assert!(largest <= i64::from(i32::MAX), "{bits:?}: {largest}");
            assert!(check_depth("test", bits.max_depth(), bits).is_ok());
            let error = check_depth("test", bits.max_depth() + 1, bits).unwrap_err().to_string();
            assert!(error.contains(&format!("{}-bit", bits.count())), "{error}");
        }
    }

    #[test]
    fn no_weights_are_too_large_for_12_bits() {
        check_overflow(&[i8::MIN; 24], 24, ActivationBits::Twelve).unwrap();
        check_overflow(&[i8::MAX; 24], 24, ActivationBits::Twelve).unwrap();
    }

    #[test]
    fn only_what_meets_in_a_lane_counts() {
        // Positions 0, 1, 4, 5 meet in a 7-bit lane; 2 and 3 are in another.
        assert_eq!(worst(&[100, 100, 90, 90, 58, 0, 0, 0], ActivationBits::Seven), (258, 0));
        assert_eq!(worst(&[100, -100, 0, 0, 100, -100, 0, 0], ActivationBits::Seven), (200, 0));
        assert_eq!(worst(&[1, 0, 0, 0, 0, 0, 0, 0, 3, 4], ActivationBits::Eight), (7, 8));
        assert_eq!(worst(&[-128, -1], ActivationBits::Eight), (129, 0));
    }

    #[test]
    fn violations_are_named() {
        let error = check_overflow(&[0, 0, 127, 127], 2, ActivationBits::Eight).unwrap_err().to_string();
        assert!(error.contains("column 1") && error.contains("254") && error.contains("128"), "{error}");
    }
}
