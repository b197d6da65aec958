//! Better codes for rows that are rounded: scales by least squares, then each code once more by what has become of all others
//! (coordinate descent; Behdin et al. 2023, arXiv:2309.01885).

use crate::compensation::{Compensation, Rows, add_times, dot};
use crate::group_codes::{code, reciprocal};

/// Rows of codes in groups, and what they are to stand for. The error of a row is `(w - q) H (w - q)ᵀ` with the products `H`
/// of the channels.
pub(crate) struct Rounded<'a> {
    pub(crate) compensation: &'a Compensation,
    /// Elements of a group.
    pub(crate) group: usize,
    /// `[rows, width]`
    pub(crate) wanted: &'a Rows,
    /// The same of codes.
    pub(crate) codes: &'a mut [i8],
    /// `[rows, groups]`
    pub(crate) scales: &'a mut [f32],
}

impl Rounded<'_> {
    fn width(&self) -> usize {
        self.codes.len() / self.wanted.count().max(1)
    }

    fn groups(&self) -> usize {
        self.width().div_ceil(self.group)
    }

    /// Gives each row the scales with the least error for its codes: with the codes `c` of a group, and zeros for those of
    /// others, they solve `Σ (c H c'ᵀ) s' = c H wᵀ`.
    pub(crate) fn fit_scales(&mut self) {
        let (width, groups) = (self.width(), self.groups());
        let mut products: Vec<Rows> = (0..self.wanted.count()).map(|_| Rows::new(groups, width)).collect();
        for (at, first, row) in self.compensation.products() {
            for (number, products) in products.iter_mut().enumerate() {
                let code = f32::from(self.codes[number * width + at]);
                if code != 0.0 {
                    add_times(&mut products.row_mut(at / self.group)[first..], code, row);
                }
            }
        }
        let mut values = vec![0.0; width];
        for (number, products) in products.iter().enumerate() {
            let codes = &self.codes[number * width..(number + 1) * width];
            values.iter_mut().zip(codes).for_each(|(value, code)| *value = f32::from(*code));
            let entry = |row: usize, column: usize| {
                let own = column * self.group..width.min((column + 1) * self.group);
                f64::from(dot(&products.row(row)[own.clone()], &values[own]))
            };
            let mut matrix: Vec<f64> = (0..groups * groups).map(|at| entry(at / groups, at % groups)).collect();
            let mut right: Vec<f64> =
                (0..groups).map(|row| f64::from(dot(products.row(row), self.wanted.row(number)))).collect();
            if solve(&mut matrix, &mut right) {
                let scales = &mut self.scales[number * groups..(number + 1) * groups];
                let fitted = scales.iter_mut().zip(&right).filter(|(_, fitted)| fitted.is_finite());
                fitted.for_each(|(scale, fitted)| *scale = *fitted as f32);
            }
        }
    }

    /// Gives each weight in turn the code with the least error for the codes of all others.
    pub(crate) fn improve_codes(&mut self) {
        let (width, groups) = (self.width(), self.groups());
        // What is left of each row times the products.
        let mut left = Rows::new(self.wanted.count(), width);
        for (at, first, row) in self.compensation.products() {
            left.each(|number, left| {
                let value = f32::from(self.codes[number * width + at]) * self.scales[number * groups + at / self.group];
                add_times(&mut left[first..], self.wanted.row(number)[at] - value, row);
            });
        }
        for (at, first, row) in self.compensation.products() {
            left.each(|number, left| {
                let scale = self.scales[number * groups + at / self.group];
                let old = &mut self.codes[number * width + at];
                let value = f32::from(*old) * scale;
                let better = code((value + left[at] / row[at - first]) * reciprocal(scale));
                let change = better * scale - value;
                if better as i8 != *old && change.is_finite() {
                    *old = better as i8;
                    add_times(&mut left[first..], -change, row);
                }
            });
        }
    }
}

/// Solves for a positive definite matrix, by elimination; the answer takes the right side's place. Whether there is one.
fn solve(matrix: &mut [f64], right: &mut [f64]) -> bool {
    /// Share of the mean that is added to the diagonal, for groups whose codes are all 0.
    const RIDGE: f64 = 1e-7;
    let n = right.len();
    let mean = (0..n).map(|at| matrix[at * n + at]).sum::<f64>() / n.max(1) as f64;
    (0..n).for_each(|at| matrix[at * n + at] += RIDGE * mean);
    for column in 0..n {
        let (above, below) = matrix.split_at_mut((column + 1) * n);
        let pivot = &above[column * n..];
        if !(pivot[column].is_normal() && pivot[column] > 0.0) {
            return false;
        }
        for (row, at) in below.chunks_exact_mut(n).zip(column + 1..) {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(pivot).skip(column).for_each(|(to, value)| *to -= factor * value);
            right[at] -= factor * right[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|at| matrix[row * n + at] * right[at]).sum();
        right[row] = (right[row] - known) / matrix[row * n + row];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compensation::Moments;

    #[test]
    fn equations_are_solved() {
        let matrix = [4.0, 1.0, 0.5, 1.0, 3.0, 0.2, 0.5, 0.2, 2.0];
        let mut right = [1.0, 2.0, 3.0];
        assert!(solve(&mut matrix.clone(), &mut right));
        for row in 0..3 {
            let sum: f64 = (0..3).map(|at| matrix[row * 3 + at] * right[at]).sum();
            assert!((sum - (row + 1) as f64).abs() < 1e-5, "{row}: {sum}");
        }
        assert!(!solve(&mut [0.0], &mut [1.0]));
    }

    #[test]
    fn every_turn_brings_rows_nearer() {
        const WIDTH: usize = 70;
        let noise = |at: usize| (((at * 7919 + 13) % 1009) as f32 / 504.5 - 1.0) * 1.7;
        let mut moments = Moments::new(WIDTH);
        for row in 0..300 {
            let channels: Vec<f32> = (0..WIDTH).map(|at| noise(row * WIDTH + at) + 0.7 * noise(row * WIDTH)).collect();
            moments.add(&channels);
        }
        let compensation = Compensation::of(&moments).expect("positive definite");
        let weights: Vec<f32> = (0..3 * WIDTH).map(|at| ((at * 37 % 101) as f32 * 0.07).sin()).collect();
        let wanted = Rows::of(&weights, WIDTH);
        let mut codes: Vec<i8> = weights.iter().map(|weight| code(weight * 4.0) as i8).collect();
        let mut scales = vec![0.25; 3 * WIDTH.div_ceil(32)];
        let error = |codes: &[i8], scales: &[f32]| {
            let left = |number: usize, at: usize| {
                let scale = scales[number * WIDTH.div_ceil(32) + at / 32];
                weights[number * WIDTH + at] - f32::from(codes[number * WIDTH + at]) * scale
            };
            let of = |number: usize| {
                let sums = compensation.products().map(|(at, first, row)| {
                    let other = row.iter().enumerate().map(|(column, product)| product * left(number, first + column));
                    left(number, at) * other.sum::<f32>()
                });
                sums.sum::<f32>()
            };
            (0..3).map(of).sum::<f32>()
        };
        let first = error(&codes, &scales);
        let mut last = first;
        for turn in 0..4 {
            let mut rounded = Rounded {
                compensation: &compensation,
                group: 32,
                wanted: &wanted,
                codes: &mut codes,
                scales: &mut scales,
            };
            if turn % 2 == 0 {
                rounded.fit_scales()
            } else {
                rounded.improve_codes()
            }
            let now = error(&codes, &scales);
            assert!(now <= last, "{turn}: {now} {last}");
            last = now;
        }
        assert!(last < 0.7 * first, "{last} {first}");
    }
}
