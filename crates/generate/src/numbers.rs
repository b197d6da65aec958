//! Passes over a whole vocabulary, written so that the compiler makes vector code of them.

use crate::SampleError;

/// Lanes of the passes.
const LANES: usize = 16;

/// The largest value.
///
/// # Errors
/// A value that is no number.
pub(crate) fn maximum(values: &[f32]) -> Result<f32, SampleError> {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut invalid = [0_u32; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            let value = chunk[lane];
            invalid[lane] |= u32::from(value.is_nan());
            largest[lane] = if value > largest[lane] { value } else { largest[lane] };
        }
    }
    let invalid = invalid.iter().any(|lane| *lane > 0) || rest.iter().any(|value| value.is_nan());
    if invalid {
        return Err(SampleError::NotANumber);
    }
    Ok(largest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max))
}

/// The first index of the largest value, and that value; as `torch.argmax`.
///
/// # Errors
/// A value that is no number, or none that is larger than minus infinity.
pub(crate) fn argmax(values: &[f32]) -> Result<(usize, f32), SampleError> {
    let largest = maximum(values)?;
    if largest == f32::NEG_INFINITY {
        return Err(SampleError::NoToken);
    }
    let index = values.iter().position(|value| *value == largest).ok_or(SampleError::NoToken)?;
    Ok((index, largest))
}

/// `exp(value)` for values up to 88, within 2 units in the last place; 0 below -87. Without a branch.
pub(crate) fn exp(value: f32) -> f32 {
    // Adding this leaves the nearest whole number in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: products of the first with whole numbers up to 128 are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if value > -87.0 { value } else { -87.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = clamped - whole * LN_2_HIGH - whole * LN_2_LOW;
    let mut series = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * rest + coefficient;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    let result = series * power;
    if value > -87.0 { result } else { 0.0 }
}

/// The sum of `exp(value - largest)`.
pub(crate) fn sum_of_exps(values: &[f32], largest: f32) -> f64 {
    // Sums of a few thousand are exact enough in f32.
    values.chunks(4096).map(|part| f64::from(part_of_exps(part, largest))).sum()
}

fn part_of_exps(values: &[f32], largest: f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += exp(chunk[lane] - largest);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|value| exp(value - largest)).sum::<f32>()
}

/// What is taken from a logit to get its log-probability: the logarithm of the sum of all exponentials.
///
/// # Errors
/// A value that is no number, or none that is larger than minus infinity.
pub(crate) fn log_sum_exp(values: &[f32]) -> Result<f64, SampleError> {
    let largest = maximum(values)?;
    if largest == f32::NEG_INFINITY {
        return Err(SampleError::NoToken);
    }
    Ok(f64::from(largest) + sum_of_exps(values, largest).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_close() {
        for step in 0..200_000 {
            let value = -86.9 + step as f32 * 87.4e-5;
            let exact = f64::from(value).exp();
            let error = (f64::from(exp(value)) - exact).abs() / exact;
            assert!(error < 3e-7, "{value}: {error}");
        }
        assert_eq!([exp(f32::NEG_INFINITY), exp(-1e9), exp(0.0)], [0.0, 0.0, 1.0]);
    }

    #[test]
    fn the_first_of_equals_is_the_largest() {
        let mut values = vec![-1.0; 100];
        values[70] = 3.0;
        values[33] = 3.0;
        assert_eq!(argmax(&values), Ok((33, 3.0)));
        assert_eq!(argmax(&[f32::NEG_INFINITY; 20]), Err(SampleError::NoToken));
        values[99] = f32::NAN;
        assert_eq!(argmax(&values), Err(SampleError::NotANumber));
        assert_eq!(argmax(&[]), Err(SampleError::NoToken));
    }

    #[test]
    fn probabilities_add_up() -> Result<(), SampleError> {
        let values: Vec<f32> = (0..10_007).map(|index| (index % 97) as f32 / 10.0).collect();
        let whole = log_sum_exp(&values)?;
        let total: f64 = values.iter().map(|value| (f64::from(*value) - whole).exp()).sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
        Ok(())
    }
}
