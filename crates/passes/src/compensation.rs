//! Rounding weights one after the other, what rounding takes from a layer's result being made good by those that follow
//! (Frantar et al. 2022, arXiv:2210.17323), as far as they belong to the same block of channels. Where inputs have drifted
//! since layers before are rounded, weights are first moved to what gives the old results for the new inputs (Li et al. 2025,
//! arXiv:2504.02692).

use std::iter::Sum;
use std::ops::{Add, Mul, Range};

use centuple_kernels::vectorise;

/// Most channels of a block: of 1,500 times as many, a second of one processor's time goes into a layer.
const BLOCK: usize = 2048;
/// Share of the mean square that is added to each square, since other texts correlate less than those that were observed.
const DAMPING: f64 = 0.15;

/// Sums or means of the products of channels, within blocks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    channels: usize,
    /// Of each block a square matrix, of which the upper triangle counts, one after the other.
    products: Vec<f32>,
    /// The same, whole, of the channels as they were before layers ahead of them were rounded (rows) with the channels
    /// (columns), less `products`; or nothing.
    drift: Vec<f32>,
}

impl Moments {
    /// Nothing observed of so many channels.
    pub fn new(channels: usize) -> Moments {
        let products = Moments::blocks(channels).map(|block| block.len() * block.len()).sum();
        Moments { channels, products: vec![0.0; products], drift: Vec::new() }
    }

    /// The blocks that `channels` are cut into.
    pub fn blocks(channels: usize) -> impl Iterator<Item = Range<usize>> {
        (0..channels).step_by(BLOCK).map(move |start| start..channels.min(start + BLOCK))
    }

    /// Of so many channels: for each of their [`blocks`](Self::blocks), one after the other, the products of the channels
    /// (`[n, n]`), and of the channels as they were before they drifted (rows) with the channels (columns).
    pub fn of_drifted(channels: usize, products: Vec<f32>, mut crossed: Vec<f32>) -> Moments {
        crossed.iter_mut().zip(&products).for_each(|(crossed, product)| *crossed -= product);
        Moments { channels, products, drift: crossed }
    }

    /// Adds one row of values, one per channel.
    pub fn add(&mut self, row: &[f32]) {
        let mut rest = self.products.as_mut_slice();
        for block in Moments::blocks(self.channels.min(row.len())) {
            let values = &row[block];
            let (matrix, others) = rest.split_at_mut(values.len() * values.len());
            rest = others;
            for (at, (value, products)) in values.iter().zip(matrix.chunks_exact_mut(values.len())).enumerate() {
                add_times(&mut products[at..], *value, &values[at..]);
            }
        }
    }

    /// Whether they are of channels that have drifted.
    pub(crate) fn have_drifted(&self) -> bool {
        !self.drift.is_empty()
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
    blocks: Vec<Block>,
}

/// What is known of a block of channels; all matrices are `[n, n]`, by rows, for products `H` of which the mean square is 1.
struct Block {
    channels: Range<usize>,
    /// `H`, damped.
    products: Vec<f32>,
    /// The rows of `U`, each divided by its diagonal, where `U` is upper triangular and `Uᵀ U = H⁻¹`: what weights after the
    /// `j`-th take of its error is in row `j`.
    shares: Vec<f32>,
    /// The squares of the diagonal of `U`.
    squares: Vec<f32>,
    /// By how much the products have drifted, or nothing.
    drift: Vec<f32>,
}

impl Compensation {
    /// Nothing where nothing was observed, or nothing that has a meaning.
    pub(crate) fn of(moments: &Moments) -> Option<Compensation> {
        let (mut products, mut drift) = (moments.products.as_slice(), moments.drift.as_slice());
        let block = |channels: Range<usize>| {
            let len = channels.len() * channels.len();
            let (matrix, others) = products.split_at_checked(len)?;
            products = others;
            let (drifted, others) = drift.split_at_checked(len).unwrap_or_default();
            drift = others;
            Block::of(channels, matrix, drifted)
        };
        let blocks: Vec<_> = Moments::blocks(moments.channels).map(block).collect::<Option<_>>()?;
        (!blocks.is_empty()).then_some(Compensation { blocks })
    }

    /// Moves rows of weights to those that give for the channels as they are what these gave before they drifted:
    /// `W + W D H⁻¹`.
    pub(crate) fn correct(&self, rows: &mut Rows) {
        for block in self.blocks.iter().filter(|block| !block.drift.is_empty()) {
            let mut moved = Rows::new(rows.count(), block.channels.len());
            for (at, drift) in block.rows(&block.drift).enumerate() {
                moved.each(|row, to| add_times(to, rows.row(row)[block.channels.start + at], drift));
            }
            let mut spread = Rows::new(rows.count(), block.channels.len());
            for (at, (shares, square)) in block.rows(&block.shares).zip(&block.squares).enumerate() {
                spread.each(|row, to| to[at] = square * dot(&moved.row(row)[at..], &shares[at..]));
            }
            for (at, shares) in block.rows(&block.shares).enumerate() {
                rows.each(|row, to| {
                    add_times(&mut to[block.channels.clone()][at..], spread.row(row)[at], &shares[at..])
                });
            }
        }
    }

    /// Rounds rows of weights in order: `round` is given the number of a row, a place and all weights as they are by then, of
    /// which those after that place are not rounded yet, and returns what becomes of the one at that place.
    pub(crate) fn apply(&self, rows: &mut Rows, mut round: impl FnMut(usize, usize, &[f32]) -> f32) {
        for block in &self.blocks {
            for (at, shares) in block.channels.clone().zip(block.rows(&block.shares)) {
                let shares = &shares[at + 1 - block.channels.start..];
                rows.each(|number, row| {
                    let error = row[at] - round(number, at, row);
                    add_times(&mut row[at + 1..block.channels.end], -error, shares);
                });
            }
        }
    }

    /// Each channel with the products of it and the channels of its block, and the first of these.
    pub(crate) fn products(&self) -> impl Iterator<Item = (usize, usize, &[f32])> {
        self.blocks.iter().flat_map(|block| {
            let rows = block.channels.clone().zip(block.rows(&block.products));
            rows.map(|(at, products)| (at, block.channels.start, products))
        })
    }
}

impl Block {
    fn of(channels: Range<usize>, products: &[f32], drift: &[f32]) -> Option<Block> {
        let n = channels.len();
        let mean = (0..n).map(|at| f64::from(products[at * n + at])).sum::<f64>() / n.max(1) as f64;
        if !(mean.is_normal() && mean > 0.0) {
            return None;
        }
        let mut matrix: Vec<f64> = products.iter().map(|product| f64::from(*product) / mean).collect();
        (0..n).for_each(|at| matrix[at * n + at] += DAMPING);
        let mut products: Vec<f32> = matrix.iter().map(|product| *product as f32).collect();
        (0..n).for_each(|row| (0..row).for_each(|column| products[row * n + column] = products[column * n + row]));
        factor(&mut matrix, n)?;
        invert(&mut matrix, n);
        let (mut shares, mut squares) = (vec![0.0; n * n], vec![0.0; n]);
        let rows = shares.chunks_exact_mut(n.max(1)).zip(matrix.chunks_exact(n.max(1)));
        for (at, ((to, row), square)) in rows.zip(&mut squares).enumerate() {
            to[at..].iter_mut().zip(&row[at..]).for_each(|(to, value)| *to = (value / row[at]) as f32);
            *square = (row[at] * row[at]) as f32;
        }
        let drift = drift.iter().map(|product| (f64::from(*product) / mean) as f32).collect();
        Some(Block { channels, products, shares, squares, drift })
    }

    fn rows<'a>(&self, matrix: &'a [f32]) -> std::slice::ChunksExact<'a, f32> {
        matrix.chunks_exact(self.channels.len().max(1))
    }
}

/// Rows of equal length that are treated together, so that what they have in common is read once.
#[derive(Clone)]
pub(crate) struct Rows {
    data: Vec<f32>,
    width: usize,
}

impl Rows {
    /// Zeros.
    pub(crate) fn new(count: usize, width: usize) -> Rows {
        Rows { data: vec![0.0; count * width], width: width.max(1) }
    }

    /// A copy of rows.
    pub(crate) fn of(data: &[f32], width: usize) -> Rows {
        Rows { data: data.to_vec(), width: width.max(1) }
    }

    /// Number of rows.
    pub(crate) fn count(&self) -> usize {
        self.data.len() / self.width
    }

    /// One row.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.width..(row + 1) * self.width]
    }

    /// One row, to be changed.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.width..(row + 1) * self.width]
    }

    /// Does something with each row and its number.
    pub(crate) fn each(&mut self, work: impl FnMut(usize, &mut [f32])) {
        let mut work = work;
        self.data.chunks_exact_mut(self.width).enumerate().for_each(|(number, row)| work(number, row));
    }
}

/// Adds `factor` times `values` to as many.
pub(crate) fn add_times(to: &mut [f32], factor: f32, values: &[f32]) {
    vectorise(|| to.iter_mut().zip(values).for_each(|(to, value)| *to += factor * value));
}

/// The sum of products.
pub(crate) fn dot<T>(a: &[T], b: &[T]) -> T
where
    T: Copy + Default + Add<Output = T> + Mul<Output = T> + Sum,
{
    /// Independent sums, for the compiler to vectorise.
    const LANES: usize = 16;
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let sums = vectorise(|| {
        let mut sums = [T::default(); LANES];
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                sums[lane] = sums[lane] + a[lane] * b[lane];
            }
        }
        sums
    });
    sums.into_iter().sum::<T>() + a_rest.iter().zip(b_rest).map(|(a, b)| *a * *b).sum()
}

/// Columns that are factored together: what they need of others is computed for all rows by all threads.
const PANEL: usize = 48;

/// Replaces the upper triangle of a positive definite `H` by an upper triangular `V` with `V Vᵀ = H`.
fn factor(matrix: &mut [f64], n: usize) -> Option<()> {
    let mut end = n;
    while end > 0 {
        let start = end.saturating_sub(PANEL);
        // The panel's rows behind the panel, which rows above are multiplied by.
        let behind: Vec<f64> =
            (start..end).flat_map(|row| matrix[row * n + end..(row + 1) * n].iter().copied()).collect();
        let width = n - end;
        in_parallel(&mut matrix[..end * n], n, |number, row| {
            let (left, right) = row.split_at_mut(end);
            for column in start.max(number)..end {
                let other = &behind[(column - start) * width..][..width];
                left[column] -= dot(right, other);
            }
        });
        let (above, panel) = matrix[..end * n].split_at_mut(start * n);
        for j in (start..end).rev() {
            let (before, rest) = panel.split_at_mut((j - start) * n);
            let row = &mut rest[..end];
            let square = row[j] - dot(&row[j + 1..], &row[j + 1..]);
            if !(square.is_normal() && square > 0.0) {
                return None;
            }
            row[j] = square.sqrt();
            for other in before.chunks_exact_mut(n) {
                other[j] = (other[j] - dot(&other[j + 1..end], &row[j + 1..])) / row[j];
            }
        }
        in_parallel(above, n, |_, row| {
            for j in (start..end).rev() {
                let own = &panel[(j - start) * n..][..end];
                row[j] = (row[j] - dot(&row[j + 1..end], &own[j + 1..])) / own[j];
            }
        });
        end = start;
    }
    Some(())
}

/// Replaces an upper triangular matrix by its inverse.
fn invert(matrix: &mut [f64], n: usize) {
    let factors = matrix.to_vec();
    let mut columns: Vec<Vec<f64>> = (0..n).map(|column| vec![0.0; column + 1]).collect();
    // Each column of the inverse solves `V x = e`, from its last row on; some together, so that rows are read once.
    in_parallel(&mut columns, TOGETHER, |group, columns| {
        let first = group * TOGETHER;
        for i in (0..first + columns.len()).rev() {
            let row = &factors[i * n..(i + 1) * n];
            for (column, x) in (first..).zip(columns.iter_mut()).filter(|(column, _)| *column >= i) {
                let unit = if i == column { 1.0 } else { 0.0 };
                x[i] = (unit - dot(&row[i + 1..=column], &x[i + 1..])) / row[i];
            }
        }
    });
    for (column, inverse) in columns.iter().enumerate() {
        inverse.iter().enumerate().for_each(|(row, value)| matrix[row * n + column] = *value);
    }
}

/// Columns that are solved for together.
const TOGETHER: usize = 8;

/// Does something with each row of a matrix and its number, on all threads.
fn in_parallel<T: Send>(matrix: &mut [T], width: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let mut parts: Vec<Vec<(usize, &mut [T])>> = (0..threads).map(|_| Vec::new()).collect();
        // In turns, since later rows have less to do, or more.
        let rows = matrix.chunks_mut(width.max(1)).enumerate();
        rows.for_each(|(number, row)| parts[number / 4 % threads].push((number, row)));
        for part in parts {
            scope.spawn(|| part.into_iter().for_each(|(number, row)| work(number, row)));
        }
    });
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
        let shares = Block::of(0..n, &moments.products, &[]).expect("positive definite").shares;
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
        let channels = 5 * PANEL + 40;
        let rows = rows(channels, 200);
        let mut moments = Moments::new(channels);
        rows.iter().for_each(|row| moments.add(row));
        let compensation = Compensation::of(&moments).expect("positive definite");
        let weights: Vec<f32> = (0..channels).map(|at| ((at * 37 % 101) as f32 * 0.07).sin()).collect();
        let round = |value: f32| (value * 4.0).round() / 4.0;
        let plain: Vec<f32> = weights.iter().map(|weight| round(*weight)).collect();
        let mut compensated = vec![0.0; channels];
        compensation.apply(&mut Rows::of(&weights, channels), |_, at, row| {
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
    fn weights_follow_channels_that_drift() {
        let channels = 2 * PANEL + 9;
        let before = rows(channels, 400);
        let drifted = |row: &Vec<f32>| (0..channels).map(|at| 0.9 * row[at] + 0.1 * row[(at + 7) % channels]).collect();
        let after: Vec<Vec<f32>> = before.iter().map(drifted).collect();
        let product = |a: &[Vec<f32>], b: &[Vec<f32>]| -> Vec<f32> {
            let mut sums = vec![0.0; channels * channels];
            for (a, b) in a.iter().zip(b) {
                sums.chunks_exact_mut(channels).zip(a).for_each(|(sums, a)| add_times(sums, *a, b));
            }
            sums
        };
        let moments = Moments::of_drifted(channels, product(&after, &after), product(&before, &after));
        let weights: Vec<f32> = (0..channels).map(|at| ((at * 37 % 101) as f32 * 0.07).sin()).collect();
        let mut moved = Rows::of(&weights, channels);
        Compensation::of(&moments).expect("positive definite").correct(&mut moved);
        let error = |weights_after: &[f32]| {
            let of =
                |(before, after): (&Vec<f32>, &Vec<f32>)| (dot(before, &weights) - dot(after, weights_after)).powi(2);
            before.iter().zip(&after).map(of).sum::<f32>()
        };
        assert!(error(moved.row(0)) < 0.5 * error(&weights), "{} {}", error(moved.row(0)), error(&weights));
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
