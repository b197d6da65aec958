//! What the positions of queries and keys add to their scores.
//!
//! For each block of queries a table of distances is written out once, from the last key on backwards: lanes are
//! consecutive queries, so what they add for one key lies side by side in it.
#![allow(unsafe_code)]

use super::{AttentionBlock, Lanes, MAX_PANELS};
use crate::error::{KernelError, expect_dimension};
use crate::matrix::Matrix;
use crate::simd::{LANES, Simd};

/// What the distance `i - j` of a query at position `i` and a key at position `j` adds to the score. Tables are for the
/// distances `-D..=D`; what is beyond counts as the first or the last.
#[derive(Debug, Clone, Copy)]
pub enum PositionScores<'a> {
    /// Nothing.
    None,
    /// Added to the scaled score: `2D + 1` numbers.
    Bias(&'a [f32]),
    /// The score is `scale · (q · k + content_to_position[i][b] + position_to_content[j][b])`, where `b` is the bucket of
    /// the distance.
    Disentangled {
        /// Bucket of each distance, below the columns of the matrices: `2D + 1` numbers.
        buckets: &'a [u32],
        /// `[queries, buckets]`
        content_to_position: Option<Matrix<'a>>,
        /// `[keys, buckets]`
        position_to_content: Option<Matrix<'a>>,
    },
}

impl PositionScores<'_> {
    /// Errors unless the tables fit that many queries and keys.
    pub(super) fn check(&self, kernel: &'static str, queries: usize, keys: usize) -> Result<(), KernelError> {
        let odd = |length: usize| expect_dimension(kernel, "length of the table of distances", length, length | 1);
        match *self {
            Self::None => Ok(()),
            Self::Bias(table) => odd(table.len()),
            Self::Disentangled { buckets, content_to_position, position_to_content } => {
                odd(buckets.len())?;
                let largest = buckets.iter().copied().max().unwrap_or(0);
                for (matrix, rows) in [(content_to_position, queries), (position_to_content, keys)] {
                    let Some(matrix) = matrix else { continue };
                    expect_dimension(kernel, "rows of position scores", matrix.rows(), rows)?;
                    if largest as usize >= matrix.columns() {
                        return Err(KernelError::IndexOutOfRange {
                            kernel,
                            what: "bucket",
                            position: buckets.iter().position(|bucket| *bucket == largest).unwrap_or(0),
                            index: i64::from(largest),
                            limit: matrix.columns(),
                        });
                    }
                }
                Ok(())
            }
        }
    }
}

/// Elements of scratch memory that a table written out for that many keys takes.
pub(super) fn table_length(keys: usize) -> usize {
    keys.saturating_add(MAX_PANELS * LANES)
}

/// Writes a table out for the distances `first..`.
fn write_out<T: Copy>(table: &[T], first: isize, out: &mut [T]) {
    let (Some(&lowest), Some(&highest)) = (table.first(), table.last()) else { return };
    let offset = first.saturating_add_unsigned(table.len() / 2);
    let before = if offset < 0 { offset.unsigned_abs().min(out.len()) } else { 0 };
    let (low, rest) = out.split_at_mut(before);
    low.fill(lowest);
    let start = usize::try_from(offset).unwrap_or(0).min(table.len());
    let count = rest.len().min(table.len() - start);
    let (inside, high) = rest.split_at_mut(count);
    inside.copy_from_slice(&table[start..start + count]);
    high.fill(highest);
}

/// Writes out the tables for a block of queries: the distance of its query `q` to the key `k` before the last one in reach
/// is at `q + k`. Behind buckets stands for each how many of those after it are greater by one each.
///
/// # Safety
/// The tables of `lanes` have [`table_length`] elements for the keys in reach.
pub(super) unsafe fn prepare(block: &AttentionBlock<'_>, lanes: &Lanes) {
    let signed = |position: usize| isize::try_from(position).unwrap_or(isize::MAX);
    let first = signed(block.first_position.saturating_add(lanes.queries.start));
    let first = first.saturating_sub(signed(lanes.keys.end)).saturating_add(1);
    let length = table_length(lanes.keys.len());
    // SAFETY: as promised by the caller; any bits are an f32 and a u32.
    unsafe {
        match block.position {
            PositionScores::None => {}
            PositionScores::Bias(table) => {
                write_out(table, first, std::slice::from_raw_parts_mut(lanes.distances, length));
            }
            PositionScores::Disentangled { buckets, .. } => {
                let out = std::slice::from_raw_parts_mut(lanes.distances.cast::<u32>(), length);
                write_out(buckets, first, out);
                let ascents = std::slice::from_raw_parts_mut(lanes.ascents.cast::<u32>(), length);
                let (mut steps, mut next) = (0, 0);
                for (bucket, ascent) in out.iter().zip(ascents).rev() {
                    steps = if bucket.wrapping_add(1) == next { steps + 1 } else { 0 };
                    (*ascent, next) = (steps, *bucket);
                }
            }
        }
    }
}

/// Adds the positions' part to the scores of one panel.
///
/// # Safety
/// `scores` holds the scores of the panel; the tables were checked and [`prepare`]d for these lanes.
#[inline(always)]
pub(super) unsafe fn add<S: Simd>(s: S, block: &AttentionBlock<'_>, lanes: &Lanes, panel: usize, scores: *mut f32) {
    // SAFETY: as promised by the caller.
    unsafe {
        match block.position {
            PositionScores::None => {}
            PositionScores::Bias(_) => {
                let keys = lanes.keys.len();
                for key in 0..keys {
                    let (at, from) = (scores.add(key * LANES), lanes.distances.add(panel * LANES + keys - 1 - key));
                    s.store(s.add(s.load(at), s.load(from)), at);
                }
            }
            PositionScores::Disentangled { buckets: _, content_to_position, position_to_content } => {
                add_disentangled(s, block, lanes, panel, [content_to_position, position_to_content], scores);
            }
        }
    }
}

/// # Safety
/// As [`add`].
#[inline(always)]
unsafe fn add_disentangled<S: Simd>(
    s: S,
    block: &AttentionBlock<'_>,
    lanes: &Lanes,
    panel: usize,
    [content_to_position, position_to_content]: [Option<Matrix<'_>>; 2],
    scores: *mut f32,
) {
    let keys = lanes.keys.len();
    let first = lanes.queries.start + panel * LANES;
    let present = LANES.min(lanes.queries.end - first);
    let (buckets, ascents) = (lanes.distances.cast::<u32>(), lanes.ascents.cast::<u32>());
    let scale = s.splat(block.scale);
    let mut sums = [[0.0f32; LANES]; LANES];
    let mut start = 0;
    while start < keys {
        let size = LANES.min(keys - start);
        // Distance of the panel's first query to the last key of this group.
        let distance = panel * LANES + keys - start - size;
        // SAFETY: `distance` plus a lane plus a key of the group is below the length of the tables. Buckets are below the
        // columns of the matrices; rows are those of queries and keys that exist.
        unsafe {
            if let Some(matrix) = content_to_position {
                if size == LANES && *ascents.add(distance) as usize >= 2 * LANES - 2 {
                    // The columns of one query for all keys lie side by side, from the last key on.
                    let mut rows = [s.splat(0.0); LANES];
                    for (lane, row) in rows.iter_mut().enumerate().take(present) {
                        let column = *buckets.add(distance + lane) as usize;
                        *row = s.load(matrix.row_pointer(first + lane).add(column));
                    }
                    for (key, column) in s.transpose(rows).iter().enumerate() {
                        s.store(*column, sums[LANES - 1 - key].as_mut_ptr());
                    }
                } else {
                    for lane in 0..present {
                        let row = matrix.row_pointer(first + lane);
                        for (key, sum) in sums.iter_mut().enumerate().take(size) {
                            sum[lane] = *row.add(*buckets.add(distance + lane + size - 1 - key) as usize);
                        }
                    }
                }
            }
            for (key, sum) in sums.iter().enumerate().take(size) {
                let mut sum = s.load(sum.as_ptr());
                if let Some(matrix) = position_to_content {
                    let row = matrix.row_pointer(lanes.keys.start + start + key);
                    let at = distance + size - 1 - key;
                    if *ascents.add(at) as usize >= LANES - 1 {
                        sum = s.add(sum, s.load(row.add(*buckets.add(at) as usize)));
                    } else {
                        let mut values = [0.0f32; LANES];
                        for (lane, value) in values.iter_mut().enumerate() {
                            *value = *row.add(*buckets.add(at + lane) as usize);
                        }
                        sum = s.add(sum, s.load(values.as_ptr()));
                    }
                }
                let at = scores.add((start + key) * LANES);
                s.store(s.mul_add(sum, scale, s.load(at)), at);
            }
        }
        start += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_beyond_the_table_are_its_ends() {
        let table = [-2, -1, 0, 1, 2];
        for first in -9..9 {
            let mut out = [99; 7];
            write_out(&table, first, &mut out);
            for (index, found) in out.iter().enumerate() {
                assert_eq!(*found, (first + index as isize).clamp(-2, 2), "{first} {index}");
            }
        }
        let mut out = [99; 3];
        write_out(&table, isize::MAX, &mut out);
        assert_eq!(out, [2; 3]);
        write_out(&table, isize::MIN, &mut out);
        assert_eq!(out, [-2; 3]);
    }
}
