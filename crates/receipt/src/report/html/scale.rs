//! From values to percentages of a plot, and round values for its ticks.

use super::super::figures::decimal;

/// A linear or logarithmic axis. Plots are laid out in percent, so that they fit any screen.
pub(super) struct Scale {
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    /// From the first value (0 %) to the second (100 %).
    pub(super) fn linear(from: f64, to: f64) -> Scale {
        Scale { from, to, logarithmic: false }
    }

    /// The same by the logarithm of positive values.
    pub(super) fn logarithmic(from: f64, to: f64) -> Scale {
        Scale { from, to, logarithmic: true }
    }

    /// Where a value lies, in percent; values outside lie on the edge.
    pub(super) fn percent(&self, value: f64) -> f64 {
        let position = |value: f64| if self.logarithmic { value.ln() } else { value };
        let (from, to) = (position(self.from), position(self.to));
        let share = (position(value) - from) / (to - from);
        if share.is_nan() { 0.0 } else { 100.0 * share.clamp(0.0, 1.0) }
    }
}

/// A percentage as an attribute; what is no number is at the beginning.
pub(super) fn percent(value: f64) -> String {
    decimal(if value.is_finite() { value } else { 0.0 }, 2) + "%"
}

/// Multiples of 1, 2 or 5 times a power of ten from `low` to `high`, about `count` of them; none if there is no range.
pub(super) fn linear_ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let range = high - low;
    if !(range.is_finite() && range > 0.0 && range > 1e-9 * low.abs().max(high.abs())) {
        return Vec::new();
    }
    let step = round_step(range / count as f64);
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    (0..=(last - first).max(0.0) as usize).map(|place| (first + place as f64) * step).collect()
}

/// The least of 1, 2, 5 times a power of ten that is not below `value`.
fn round_step(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= value * (1.0 - 1e-9));
    factors.unwrap_or(10.0) * power
}

/// 1, 2 and 5 times powers of ten that span the positive range from `low` to `high`; only powers where those are many.
pub(super) fn logarithmic_ticks(low: f64, high: f64) -> Vec<f64> {
    if !(low > 0.0 && high >= low && high.is_finite() && high / low < 1e12) {
        return Vec::new();
    }
    let factors: &[f64] = if high / low > 60.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = low.log10().floor() as i32..=high.log10().floor() as i32 + 1;
    let all: Vec<f64> = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power))).collect();
    let first = all.iter().rposition(|tick| *tick <= low * (1.0 + 1e-9)).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high * (1.0 - 1e-9)).unwrap_or(all.len() - 1);
    all[first..=last.max(first)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(linear_ticks(0.0, 47.0, 5), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(linear_ticks(-1.3, 0.2, 4), [-1.0, -0.5, 0.0]);
        assert_eq!(logarithmic_ticks(0.36, 6.0), [0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
        assert_eq!(logarithmic_ticks(0.36, 600.0), [0.1, 1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(logarithmic_ticks(10.0, 10.0), [10.0]);
    }

    #[test]
    fn what_is_no_range_has_no_ticks() {
        for (low, high) in [(0.0, 0.0), (1.0, f64::INFINITY), (f64::NAN, 1.0), (2.0, 1.0), (1e300, 1e300)] {
            assert!(linear_ticks(low, high, 5).is_empty(), "{low} {high}");
        }
        for (low, high) in [(0.0, 1.0), (-1.0, 1.0), (1.0, f64::INFINITY), (f64::NAN, 1.0), (2.0, 1.0)] {
            assert!(logarithmic_ticks(low, high).is_empty(), "{low} {high}");
        }
    }

    #[test]
    fn values_outside_lie_on_the_edge() {
        let scale = Scale::linear(10.0, 20.0);
        assert_eq!(
            [0.0, 10.0, 12.5, 20.0, 99.0, f64::NAN].map(|v| scale.percent(v)),
            [0.0, 0.0, 25.0, 100.0, 100.0, 0.0]
        );
        let scale = Scale::logarithmic(1.0, 100.0);
        assert_eq!([0.0, 10.0, 1000.0].map(|value| scale.percent(value)), [0.0, 50.0, 100.0]);
    }
}
