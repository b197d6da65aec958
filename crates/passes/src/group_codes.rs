//! Weights as codes of 4 bits in groups along the depth, each group with the scale that leaves the smallest square error of
//! its products with inputs as they were observed, or of the weights themselves where nothing was.

use centuple_kernels::vectorise;
use centuple_tensor::{Tensor, TensorError};

use crate::compensation::{Compensation, Rows};
use crate::quantize::Channels;
use crate::refinement::Rounded;

/// The least and the greatest code.
const LOWEST: f32 = -8.0;
const HIGHEST: f32 = 7.0;

/// What the largest magnitude becomes by the scales that are tried, of either sign; beyond the codes it is cut off.
const LEVELS: [f32; 10] = [8.0, 7.0, 7.5, 8.5, 9.0, 9.5, 10.0, 11.0, 12.0, 13.5];
/// How far beside the best of them is tried then, as a share of the scale.
const FINE: f32 = 0.025;

/// A weight in groups.
#[derive(Clone)]
pub(crate) struct GroupCodes {
    /// `[n, k]` i8, in -8..=7.
    pub(crate) codes: Tensor,
    /// `[n, ⌈k / group⌉]`
    pub(crate) scales: Tensor,
    /// What rounding takes from the mean of each output, where the means of the inputs are known.
    pub(crate) lost: Option<Tensor>,
}

impl GroupCodes {
    /// Codes of a weight `[n, k]`, whose input channels are as observed.
    pub(crate) fn of(weight: &Tensor, group: usize, channels: Option<&Channels>) -> Result<GroupCodes, TensorError> {
        let [n, k] = [weight.shape()[0], weight.shape()[1]];
        let importance = channels.map_or_else(|| vec![1.0; k], |channels| importance(&channels.square));
        let compensation = channels.and_then(|channels| Compensation::of(&channels.moments));
        let (data, width, group) = (weight.to_f32()?, k.max(1), group.max(1));
        let groups = width.div_ceil(group);
        let mut scales = vec![0.0; n * groups];
        let rounding = Rounding { group, importance: &importance, compensation: compensation.as_ref() };
        let codes = Tensor::from_i8_with(&[n, k], |codes| rounding.rows(&data, width, codes, &mut scales))?;
        let mut lost = Vec::new();
        // Where weights follow what inputs have become, their mean is among what they follow.
        let means = channels.filter(|channels| !channels.moments.have_drifted()).map(|channels| &channels.mean);
        if let Some(means) = means {
            let rows =
                data.chunks_exact(width).zip(codes.as_i8()?.chunks_exact(width)).zip(scales.chunks_exact(groups));
            lost.extend(rows.map(|((row, codes), scales)| lost_mean(row, codes, means, |at| scales[at / group])));
        }
        let scales = Tensor::from_f32(&[n, k.div_ceil(group)], &scales)?;
        let lost = means.map(|_| Tensor::from_f32(&[n], &lost)).transpose()?;
        Ok(GroupCodes { codes, scales, lost })
    }
}

/// How rows become codes.
struct Rounding<'a> {
    group: usize,
    importance: &'a [f32],
    compensation: Option<&'a Compensation>,
}

/// Rows that are rounded together.
const TOGETHER: usize = 8;

impl Rounding<'_> {
    /// Rounds rows of a width, shared among threads.
    fn rows(&self, data: &[f32], width: usize, codes: &mut [i8], scales: &mut [f32]) {
        let groups = width.div_ceil(self.group);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let share = (data.len() / width).div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let parts = data.chunks(share * width).zip(codes.chunks_mut(share * width));
            for ((data, codes), scales) in parts.zip(scales.chunks_mut(share * groups)) {
                scope.spawn(move || {
                    let rows = data.chunks(TOGETHER * width).zip(codes.chunks_mut(TOGETHER * width));
                    for ((rows, codes), scales) in rows.zip(scales.chunks_mut(TOGETHER * groups)) {
                        match self.compensation {
                            Some(compensation) => self.compensated(compensation, rows, width, codes, scales),
                            None => self.plain(rows, width, codes, scales),
                        }
                    }
                });
            }
        });
    }

    /// Each group for itself.
    fn plain(&self, rows: &[f32], width: usize, codes: &mut [i8], scales: &mut [f32]) {
        let rows = rows.chunks_exact(width).zip(codes.chunks_exact_mut(width));
        for ((row, codes), scales) in rows.zip(scales.chunks_exact_mut(width.div_ceil(self.group))) {
            let groups =
                row.chunks(self.group).zip(self.importance.chunks(self.group)).zip(codes.chunks_mut(self.group));
            for (((values, importance), codes), scale) in groups.zip(scales) {
                *scale = group_codes(values, importance, codes);
            }
        }
    }

    /// One weight after the other, and then again by what has become of all others.
    fn compensated(
        &self,
        compensation: &Compensation,
        rows: &[f32],
        width: usize,
        codes: &mut [i8],
        scales: &mut [f32],
    ) {
        let mut wanted = Rows::of(rows, width);
        compensation.correct(&mut wanted);
        let groups = width.div_ceil(self.group);
        let mut inverse = vec![0.0; wanted.count()];
        compensation.apply(&mut wanted.clone(), |number, at, row| {
            let scale = &mut scales[number * groups + at / self.group];
            if at % self.group == 0 {
                let end = row.len().min(at + self.group);
                *scale = Trial::best(&row[at..end], &self.importance[at..end]).map_or(0.0, |trial| trial.scale);
                inverse[number] = reciprocal(*scale);
            }
            let code = code(row[at] * inverse[number]);
            codes[number * width + at] = code as i8;
            code * *scale
        });
        let mut rounded = Rounded { compensation, group: self.group, wanted: &wanted, codes, scales };
        for _ in 0..2 {
            rounded.fit_scales();
            rounded.improve_codes();
        }
        rounded.fit_scales();
    }
}

/// One over a scale, or 0 where that has no meaning.
pub(crate) fn reciprocal(scale: f32) -> f32 {
    if scale.is_normal() && scale.recip().is_normal() { scale.recip() } else { 0.0 }
}

/// What the square error of each channel's weights counts, with a mean of 1. Texts other than those that were observed have
/// values where these have none, so no channel counts nothing.
fn importance(squares: &[f32]) -> Vec<f32> {
    /// The share that all channels have alike.
    const COMMON: f32 = 0.05;
    let mean = squares.iter().sum::<f32>() / squares.len().max(1) as f32;
    if !(mean.is_normal() && mean.recip().is_normal()) {
        return vec![1.0; squares.len()];
    }
    squares.iter().map(|square| COMMON + (1.0 - COMMON) * square / mean).collect()
}

/// What rounding takes from the mean of an output.
fn lost_mean(row: &[f32], codes: &[i8], means: &[f32], scale: impl Fn(usize) -> f32) -> f32 {
    let rounding = |(at, (weight, code)): (usize, (&f32, &i8))| weight - f32::from(*code) * scale(at);
    let rounding = row.iter().zip(codes).enumerate().map(rounding);
    rounding.zip(means).map(|(rounding, mean)| f64::from(rounding) * f64::from(*mean)).sum::<f64>() as f32
}

/// Writes the codes of a group and returns their scale, which may be negative: of 16 codes one more is below 0 than above,
/// so the largest magnitude is best at -8, or not, whatever its sign.
///
/// With channels of importance `h`, and for given codes `q`, the best scale is `Σhwq / Σhq²`, and the square error is
/// `Σhw² - (Σhwq)² / Σhq²`.
fn group_codes(values: &[f32], importance: &[f32], codes: &mut [i8]) -> f32 {
    let Some(best) = Trial::best(values, importance) else {
        codes.fill(0);
        return 0.0;
    };
    let inverse = best.unit.recip();
    codes.iter_mut().zip(values).for_each(|(to, value)| *to = code(value * inverse) as i8);
    best.scale
}

/// Codes by one scale, and what they are worth.
#[derive(Clone, Copy)]
struct Trial {
    /// The scale by which the codes were found.
    unit: f32,
    /// The best scale for these codes.
    scale: f32,
    /// What they explain of the sum of squares.
    explained: f32,
}

impl Trial {
    /// The best scale; none for values that have none.
    fn best(values: &[f32], importance: &[f32]) -> Option<Trial> {
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        if !(largest.is_normal() && largest.recip().is_normal()) {
            return None;
        }
        let mut best = Trial::of(values, importance, -largest / LEVELS[0]);
        for scale in [-largest, largest].into_iter().flat_map(|largest| LEVELS.map(|levels| largest / levels)) {
            best = best.or(Trial::of(values, importance, scale));
        }
        for share in [1.0 - FINE, 1.0 + FINE] {
            best = best.or(Trial::of(values, importance, best.unit * share));
        }
        Some(best)
    }

    fn of(values: &[f32], importance: &[f32], unit: f32) -> Trial {
        /// Independent sums, for the compiler to vectorise.
        const LANES: usize = 8;
        let inverse = unit.recip();
        let (mut products, mut squares) = ([0.0f32; LANES], [0.0f32; LANES]);
        let mut add = |values: &[f32; LANES], importance: &[f32; LANES]| {
            for lane in 0..LANES {
                let value = values[lane] * inverse;
                let code = code(value);
                // By multiples of the unit, so that no square overflows or vanishes.
                products[lane] += importance[lane] * value * code;
                squares[lane] += importance[lane] * code * code;
            }
        };
        let ((whole, rest), (important, others)) = (values.as_chunks::<LANES>(), importance.as_chunks::<LANES>());
        vectorise(|| whole.iter().zip(important).for_each(|(values, importance)| add(values, importance)));
        let mut last = [[0.0; LANES]; 2];
        for (last, rest) in last.iter_mut().zip([rest, others]) {
            last.iter_mut().zip(rest).for_each(|(last, value)| *last = *value);
        }
        add(&last[0], &last[1]);
        let (products, squares): (f32, f32) = (products.iter().sum(), squares.iter().sum());
        let ratio = if squares > 0.0 { products / squares } else { 0.0 };
        Trial { unit, scale: unit * ratio, explained: products * ratio * (unit * unit) }
    }

    /// The better one, of equal ones the first.
    fn or(self, other: Trial) -> Trial {
        if other.explained > self.explained { other } else { self }
    }
}

/// The code next to a value in units of the scale, of two the even one.
pub(crate) fn code(value: f32) -> f32 {
    // At this magnitude a float's last bit is 1, so adding it rounds. Unlike a call for each value, it vectorises.
    const ROUND: f32 = 12_582_912.0;
    (value.clamp(LOWEST, HIGHEST) + ROUND) - ROUND
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squared_error(values: &[f32], codes: &[i8], scale: f32) -> f32 {
        values.iter().zip(codes).map(|(value, code)| (value - f32::from(*code) * scale).powi(2)).sum()
    }

    #[test]
    fn weights_that_are_codes_stay_what_they_are() {
        for sign in [1.0f32, -1.0] {
            let values: Vec<f32> = (0..32).map(|at| sign * 0.37 * ((at * 5 % 16) as f32 - 8.0)).collect();
            let mut codes = [0; 32];
            let scale = group_codes(&values, &vec![1.0; values.len()], &mut codes);
            assert!(squared_error(&values, &codes, scale) < 1e-9, "{scale}: {codes:?}");
        }
    }

    #[test]
    fn no_plain_scale_is_better() {
        let values: Vec<f32> = (0..128).map(|at| ((at * 37 % 101) as f32 * 0.07).sin().powi(3)).collect();
        let mut codes = [0; 128];
        let scale = group_codes(&values, &vec![1.0; values.len()], &mut codes);
        let error = squared_error(&values, &codes, scale);
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        for levels in [7.0, 7.5, 8.0] {
            for sign in [1.0, -1.0] {
                let plain = sign * largest / levels;
                let codes: Vec<i8> = values.iter().map(|value| code(value / plain) as i8).collect();
                assert!(error <= squared_error(&values, &codes, plain) * 1.0001, "{levels}");
            }
        }
    }

    #[test]
    fn channels_that_matter_are_nearer() {
        let values: Vec<f32> = (0..64).map(|at| (at as f32 * 1.7).sin()).collect();
        let importance = importance(&(0..64).map(|at| if at % 8 == 0 { 40.0 } else { 0.1 }).collect::<Vec<_>>());
        let error = |by: &[f32]| {
            let mut codes = [0; 64];
            let scale = group_codes(&values, by, &mut codes);
            let square = |at: usize| importance[at] * (values[at] - f32::from(codes[at]) * scale).powi(2);
            (0..64).map(square).sum::<f32>()
        };
        assert!(error(&importance) < 0.99 * error(&[1.0; 64]), "{}", error(&importance));
        assert_eq!(super::importance(&[0.0; 3]), [1.0; 3]);
        assert_eq!(super::importance(&[f32::NAN; 3]), [1.0; 3]);
    }

    #[test]
    fn what_has_no_scale_becomes_zeros() {
        for wrong in [0.0, 1e-42, f32::INFINITY, f32::NAN] {
            let mut codes = [1; 4];
            let scale = group_codes(&[wrong; 4], &[1.0; 4], &mut codes);
            assert_eq!((codes, scale), ([0; 4], 0.0), "{wrong}");
        }
    }

    #[test]
    fn a_row_ends_with_a_shorter_group() -> Result<(), TensorError> {
        let values: Vec<f32> = (0..2 * 20).map(|at| (at as f32).cos()).collect();
        let weight = Tensor::from_f32(&[2, 20], &values)?;
        let channels =
            Channels { largest: vec![1.0; 20], mean: vec![0.5; 20], square: vec![0.5; 20], ..Channels::default() };
        let groups = GroupCodes::of(&weight, 16, Some(&channels))?;
        assert_eq!((groups.codes.shape(), groups.scales.shape()), (&[2, 20][..], &[2, 2][..]));
        let (codes, scales) = (groups.codes.as_i8()?, groups.scales.as_f32()?);
        let lost = groups.lost.expect("means are given");
        for row in 0..2 {
            let meant = |at: usize| f32::from(codes[20 * row + at]) * scales[2 * row + at / 16];
            let lost_of: f32 = (0..20).map(|at| (values[20 * row + at] - meant(at)) * 0.5).sum();
            assert!((lost.as_f32()?[row] - lost_of).abs() < 1e-5);
            assert!((0..20).all(|at| (values[20 * row + at] - meant(at)).abs() < 0.1));
        }
        Ok(())
    }
}
