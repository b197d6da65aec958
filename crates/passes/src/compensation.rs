//! Rounding weights one after the other, what rounding takes from a layer's result being made good by those that follow
//! (Frantar et al. 2022, arXiv:2210.17323), as far as they belong to the same block of channels.

use std::ops::Range;

/// Channels of a block.
const BLOCK: usize = 512;
/// Share of the mean square that is added to each square, since other texts correlate less than those that were observed.
const DAMPING: f64 = 0.05;

/// The blocks that `channels` are cut into.
fn blocks(channels: usize) -> impl Iterator<Item = Range<usize>> {
    (0..channels).step_by(BLOCK).map(move |start| start..channels.min(start + BLOCK))
}

/// Sums of the products of channels, within blocks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    channels: usize,
    /// Of each block a square matrix, of which the upper triangle is filled, one after the other.
    products: Vec<f32>,
}

impl Moments {
    /// Nothing observed of so many channels.
    pub fn new(channels: usize) -> Moments {
        let products = blocks(channels).map(|block| block.len() * block.len()).sum();
        Moments { channels, products: vec![0.0; products] }
    }

    /// Adds one row of values, one per channel.
    pub fn add(&mut self, row: &[f32]) {
        let mut rest = self.products.as_mut_slice();
        for block in blocks(self.channels.min(row.len())) {
            let values = &row[block];
            let (matrix, others) = rest.split_at_mut(values.len() * values.len());
            rest = others;
            for (at, (value, products)) in values.iter().zip(matrix.chunks_exact_mut(values.len())).enumerate() {
                let pairs = products[at..].iter_mut().zip(&values[at..]);
                pairs.for_each(|(product, other)| *product += value * other);
            }
        }
    }

    /// Adds what others have shown of the same channels.
    pub(crate) fn merge(&mut self, other: &Moments) {
        if self.channels == 0 {
            self.clone_from(other);
        } else if self.channels == other.channels {
            self.products.iter_mut().zip(&other.products).for_each(|(all, one)| *all += one);
        }
    }
}

/// How the error of a weight is spread over those after it.
pub(crate) struct Compensation {
    /// Of each block a square matrix: of row `j`, what weights after the `j`-th take of its error.
    blocks: Vec<(Range<usize>, Vec<f32>)>,
}

impl Compensation {
    /// Nothing where nothing was observed, or nothing that has a meaning.
    pub(crate) fn of(moments: &Moments) -> Option<Compensation> {
        let mut rest = moments.products.as_slice();
        let block = |block: Range<usize>| {
            let (matrix, others) = rest.split_at_checked(block.len() * block.len())?;
            rest = others;
            Some((block.clone(), shares(matrix, block.len())?))
        };
        let blocks: Vec<_> = blocks(moments.channels).map(block).collect::<Option<_>>()?;
        (!blocks.is_empty()).then_some(Compensation { blocks })
    }

    /// Rounds a row of weights in order: `round` is given a place and all weights as they are by then, of which those after
    /// that place are not rounded yet, and returns what becomes of the one at that place.
    pub(crate) fn apply(&self, row: &mut [f32], mut round: impl FnMut(usize, &[f32]) -> f32) {
        for (block, shares) in &self.blocks {
            for (at, shares) in block.clone().zip(shares.chunks_exact(block.len())) {
                let error = row[at] - round(at, row);
                let after = row[at + 1..block.end].iter_mut().zip(&shares[at + 1 - block.start..]);
                after.for_each(|(weight, share)| *weight -= error * share);
            }
        }
    }
}

/// For products `H`: the rows of `U`, each divided by its diagonal, where `U` is upper triangular and `Uᵀ U = H⁻¹`.
fn shares(products: &[f32], n: usize) -> Option<Vec<f32>> {
    let mean = (0..n).map(|at| f64::from(products[at * n + at])).sum::<f64>() / n.max(1) as f64;
    if !(mean.is_normal() && mean > 0.0) {
        return None;
    }
    let mut matrix: Vec<f64> = products.iter().map(|product| f64::from(*product) / mean).collect();
    (0..n).for_each(|at| matrix[at * n + at] += DAMPING);
    factor(&mut matrix, n)?;
    invert(&mut matrix, n);
    let mut shares = vec![0.0; n * n];
    for (at, (to, row)) in shares.chunks_exact_mut(n.max(1)).zip(matrix.chunks_exact(n.max(1))).enumerate() {
        to[at..].iter_mut().zip(&row[at..]).for_each(|(to, value)| *to = (value / row[at]) as f32);
    }
    Some(shares)
}

/// Replaces the upper triangle of a positive definite `H` by an upper triangular `V` with `V Vᵀ = H`.
fn factor(matrix: &mut [f64], n: usize) -> Option<()> {
    for j in (0..n).rev() {
        let (above, rest) = matrix.split_at_mut(j * n);
        let row = &mut rest[..n];
        let square = row[j] - dot(&row[j + 1..], &row[j + 1..]);
        if !(square.is_normal() && square > 0.0) {
            return None;
        }
        let diagonal = square.sqrt();
        row[j] = diagonal;
        for other in above.chunks_exact_mut(n) {
            other[j] = (other[j] - dot(&other[j + 1..], &row[j + 1..])) / diagonal;
        }
    }
    Some(())
}

/// Replaces an upper triangular matrix by its inverse.
fn invert(matrix: &mut [f64], n: usize) {
    let mut sums = vec![0.0; n];
    for i in (0..n).rev() {
        let (above, below) = matrix.split_at_mut((i + 1) * n);
        let row = &mut above[i * n..];
        sums.fill(0.0);
        for (s, inverse) in (i + 1..n).zip(below.chunks_exact(n)) {
            let factor = row[s];
            sums[s..].iter_mut().zip(&inverse[s..]).for_each(|(sum, value)| *sum += factor * value);
        }
        let diagonal = row[i].recip();
        row[i] = diagonal;
        row[i + 1..].iter_mut().zip(&sums[i + 1..]).for_each(|(to, sum)| *to = -sum * diagonal);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    /// Independent sums, for the compiler to vectorise.
    const LANES: usize = 8;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of channels of which each is much like the one before.
    fn rows(channels: usize, count: usize) -> Vec<Vec<f32>> {
        let noise = |at: usize| (((at * 7919 + 13) % 1009) as f32 / 504.5 - 1.0) * 1.7;
        let row = |row: usize| {
            let mut last = 0.0;
            let next = |channel: usize| {
                last = 0.9 * last + noise(row * channels + channel);
                last
            };
            (0..channels).map(next).collect()
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn shares_come_from_the_inverse() {
        let n = 5;
        let mut moments = Moments::new(n);
        rows(n, 40).iter().for_each(|row| moments.add(row));
        let shares = shares(&moments.products, n).expect("positive definite");
        // What the later weights take is their regression on the channel: H of the later ones times the shares is minus
        // their products with the channel.
        let mean = (0..n).map(|at| f64::from(moments.products[at * n + at])).sum::<f64>() / n as f64;
        let product = |i: usize, j: usize| {
            let damped = if i == j { DAMPING * mean } else { 0.0 };
            f64::from(moments.products[i.min(j) * n + i.max(j)]) + damped
        };
        for j in 0..n {
            for i in j + 1..n {
                let sum: f64 = (j + 1..n).map(|t| product(i, t) * f64::from(shares[j * n + t])).sum();
                assert!((sum + product(i, j)).abs() < 1e-4 * mean, "{i} {j}: {sum} {}", product(i, j));
            }
        }
    }

    #[test]
    fn results_are_nearer_than_by_plain_rounding() {
        let channels = BLOCK + 40;
        let rows = rows(channels, 200);
        let mut moments = Moments::new(channels);
        rows.iter().for_each(|row| moments.add(row));
        let compensation = Compensation::of(&moments).expect("positive definite");
        let weights: Vec<f32> = (0..channels).map(|at| ((at * 37 % 101) as f32 * 0.07).sin()).collect();
        let round = |value: f32| (value * 4.0).round() / 4.0;
        let plain: Vec<f32> = weights.iter().map(|weight| round(*weight)).collect();
        let mut compensated = vec![0.0; channels];
        let mut left = weights.clone();
        compensation.apply(&mut left, |at, row| {
            compensated[at] = round(row[at]);
            compensated[at]
        });
        let error = |rounded: &[f32]| {
            let of = |row: &Vec<f32>| {
                let products =
                    row.iter().zip(&weights).zip(rounded).map(|((x, weight), rounded)| x * (weight - rounded));
                products.sum::<f32>().powi(2)
            };
            rows.iter().map(of).sum::<f32>()
        };
        assert!(error(&compensated) < 0.5 * error(&plain), "{} {}", error(&compensated), error(&plain));
    }

    #[test]
    fn what_has_no_meaning_is_none() {
        assert!(Compensation::of(&Moments::default()).is_none());
        assert!(Compensation::of(&Moments::new(9)).is_none());
        let mut moments = Moments::new(9);
        moments.add(&[f32::NAN; 9]);
        assert!(Compensation::of(&moments).is_none());
    }
}
