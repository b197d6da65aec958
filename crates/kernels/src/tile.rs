//! The register tile under matrix multiplication and attention.
//!
//! A tile multiplies `rows` rows of A by one or two panels of B (16 columns each, `[depth][16]`) and
//! keeps every sum in a register. Each element of the result is one accumulator that takes its
//! products in the order of the depth, so it does not depend on the height or width of the tile that
//! computed it, nor on how the work was split. B is stored as f32 or narrower ([`Element`]) and widened,
//! exactly, as it is loaded.
#![allow(unsafe_code)]

use std::ops::Range;

use half::f16;

use crate::simd::{LANES, Simd};

/// Steps of depth between two bursts of prefetches.
pub(crate) const PREFETCH_STEPS: usize = 16;

/// Elements in a cache line of 64 bytes.
pub(crate) const fn line_elements<E>() -> usize {
    64 / size_of::<E>()
}

/// A number that B is made of.
pub(crate) trait Element: Copy {
    /// 16 of them, widened.
    ///
    /// # Safety
    /// 16 elements at `from` are readable.
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::Vector;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const f32) -> S::Vector {
        // SAFETY: as promised by the caller.
        unsafe { s.load(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const f16) -> S::Vector {
        // SAFETY: as promised by the caller.
        unsafe { s.load_halves(from) }
    }
}

impl Element for i8 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const i8) -> S::Vector {
        // SAFETY: as promised by the caller.
        unsafe { s.load_codes(from) }
    }
}

/// Operands of one tile.
#[derive(Clone, Copy)]
pub(crate) struct Tile<E> {
    /// Products per sum.
    pub(crate) depth: usize,
    /// First element of A.
    pub(crate) a: *const f32,
    /// Elements from one row of A to the next; of a column-major A, from one column to the next.
    pub(crate) a_stride: usize,
    /// First panel of B.
    pub(crate) b: *const E,
    /// Elements from one panel of B to the next.
    pub(crate) b_panel: usize,
    /// Where the sums go: 16 of each row and panel.
    pub(crate) c: *mut f32,
    /// Elements from one row of sums to the next.
    pub(crate) c_row: usize,
    /// Elements from one panel of sums to the next.
    pub(crate) c_panel: usize,
    /// What the tile after this one will read; see [`Tile::prefetch_lines`].
    pub(crate) prefetch: *const E,
    /// Cache lines to ask for during every [`PREFETCH_STEPS`] steps of depth.
    pub(crate) prefetch_lines: usize,
    /// Whether the sums continue those found at `c` (else they start at zero).
    pub(crate) resume: bool,
}

/// Computes a tile of `rows` rows and `panels` panels. A is row-major (a row's elements are adjacent) or
/// `COLUMN_MAJOR`.
///
/// # Safety
/// `1 <= rows <= S::TILE_ROWS`, `1 <= panels <= S::TILE_PANELS`, and all elements that the operands
/// describe are readable (A, B) or writable (C); C is initialised if `resume`.
#[inline(always)]
pub(crate) unsafe fn compute<S: Simd, E: Element, const COLUMN_MAJOR: bool>(
    s: S,
    tile: &Tile<E>,
    rows: usize,
    panels: usize,
) {
    macro_rules! heights {
        ($panels:literal: $($rows:literal)*) => {
            match rows {
                $($rows if $rows <= S::TILE_ROWS => {
                    // SAFETY: as promised by the caller.
                    unsafe { accumulate::<S, E, $rows, $panels, COLUMN_MAJOR>(s, tile) }
                })*
                _ => debug_assert!(false, "no tile of {rows} rows"),
            }
        };
    }
    if panels == 1 {
        heights!(1: 1 2 3 4 5 6 7 8 9 10 11 12);
    } else if S::TILE_PANELS == 2 {
        heights!(2: 1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

/// # Safety
/// As [`compute`].
#[inline(always)]
unsafe fn accumulate<S: Simd, E: Element, const ROWS: usize, const PANELS: usize, const COLUMN_MAJOR: bool>(
    s: S,
    tile: &Tile<E>,
) {
    let mut sums = [[s.splat(0.0); PANELS]; ROWS];
    // SAFETY: all addresses are of elements that the tile describes.
    unsafe {
        if tile.resume {
            for (i, row) in sums.iter_mut().enumerate() {
                for (p, sum) in row.iter_mut().enumerate() {
                    *sum = s.load(tile.c.add(i * tile.c_row + p * tile.c_panel));
                }
            }
        }
        let (row_step, depth_step) = if COLUMN_MAJOR { (1, tile.a_stride) } else { (tile.a_stride, 1) };
        let mut a = tile.a;
        let mut b = tile.b;
        let mut prefetch = tile.prefetch;
        let mut left = tile.depth;
        while left > 0 {
            for _ in 0..tile.prefetch_lines {
                s.prefetch(prefetch.cast());
                prefetch = prefetch.wrapping_add(line_elements::<E>());
            }
            let steps = left.min(PREFETCH_STEPS);
            left -= steps;
            for _ in 0..steps {
                let mut columns = [s.splat(0.0); PANELS];
                for (p, column) in columns.iter_mut().enumerate() {
                    *column = E::load(s, b.add(p * tile.b_panel));
                }
                for (i, row) in sums.iter_mut().enumerate() {
                    let x = s.splat(*a.add(i * row_step));
                    for (sum, column) in row.iter_mut().zip(columns) {
                        *sum = s.mul_add(x, column, *sum);
                    }
                }
                a = a.add(depth_step);
                b = b.add(LANES);
            }
        }
        for (i, row) in sums.iter().enumerate() {
            for (p, sum) in row.iter().enumerate() {
                s.store(*sum, tile.c.add(i * tile.c_row + p * tile.c_panel));
            }
        }
    }
}

/// Rows up to which a product takes no longer than its weights take to come from memory.
pub(crate) const FEW_ROWS: usize = 4;

/// Bytes ahead of one stream from memory that the next is asked for: the CPU's own prefetching starts anew with every
/// page and panel. (4096 was a tenth slower than 3072 and 6144 where it was measured.)
pub(crate) const AHEAD: usize = 3072;

/// The same for each panel of [`stream`], several of which stream side by side.
const AHEAD_EACH: usize = 1024;

/// Panels of the tile of [`stream`].
pub(crate) const STREAM_PANELS: usize = 2;

/// The same where elements are narrower and registers are many: as many bytes at a time.
pub(crate) const WIDE_PANELS: usize = 4;

/// Computes a tile of few rows and `PANELS` panels, whose B comes from memory: nothing but loads and
/// multiply-adds. The CPU's own prefetching keeps up with it where an element is as wide as what is computed with; for
/// narrower ones, what lies [`AHEAD_EACH`] is asked for meanwhile, line after line, and at last what lies at `prefetch`.
///
/// # Safety
/// As [`compute`], with `1 <= rows <= S::STREAM_ROWS`, A row-major, and nothing to resume.
#[inline(always)]
pub(crate) unsafe fn stream<S: Simd, E: Element, const PANELS: usize>(s: S, tile: &Tile<E>, rows: usize) {
    macro_rules! heights {
        ($($rows:literal)*) => {
            match rows {
                $($rows if $rows <= S::STREAM_ROWS => {
                    // SAFETY: as promised by the caller.
                    unsafe { stream_rows::<S, E, $rows, PANELS>(s, tile) }
                })*
                _ => debug_assert!(false, "no tile of {rows} rows"),
            }
        };
    }
    heights!(1 2 3 4);
}

/// # Safety
/// As [`stream`].
#[inline(always)]
unsafe fn stream_rows<S: Simd, E: Element, const ROWS: usize, const PANELS: usize>(s: S, tile: &Tile<E>) {
    /// Steps of depth at a time.
    const STEPS: usize = 2;
    let mut sums = [[s.splat(0.0); PANELS]; ROWS];
    let (mut a, mut b) = (tile.a, tile.b);
    // SAFETY: all addresses are of elements that the tile describes.
    unsafe {
        // Behind the end of these panels come the next tile's.
        let pairs = tile.depth / STEPS;
        let last = pairs.min(AHEAD_EACH / (STEPS * LANES * size_of::<E>()));
        for (pairs, mut near) in [(pairs - last, tile.b.wrapping_byte_add(AHEAD_EACH)), (last, tile.prefetch)] {
            for _ in 0..pairs {
                if size_of::<E>() < size_of::<f32>() {
                    for panel in 0..PANELS {
                        s.prefetch_near(near.wrapping_add(panel * tile.b_panel).cast());
                    }
                    near = near.wrapping_add(STEPS * LANES);
                }
                let mut step = 0;
                while step < STEPS {
                    sums = stream_step(s, tile, (a.add(step), b.add(step * LANES)), sums);
                    step += 1;
                }
                a = a.add(STEPS);
                b = b.add(STEPS * LANES);
            }
        }
        for step in 0..tile.depth % STEPS {
            sums = stream_step(s, tile, (a.add(step), b.add(step * LANES)), sums);
        }
        for (i, row) in sums.iter().enumerate() {
            for (p, sum) in row.iter().enumerate() {
                s.store(*sum, tile.c.add(i * tile.c_row + p * tile.c_panel));
            }
        }
    }
}

/// Adds the products of one step of depth. Sums come and go by value, or the compiler would keep them in memory.
///
/// # Safety
/// `a` and `b` are elements that the tile describes.
#[inline(always)]
unsafe fn stream_step<S: Simd, E: Element, const ROWS: usize, const PANELS: usize>(
    s: S,
    tile: &Tile<E>,
    (a, b): (*const f32, *const E),
    mut sums: [[S::Vector; PANELS]; ROWS],
) -> [[S::Vector; PANELS]; ROWS] {
    // SAFETY: as promised by the caller.
    unsafe {
        let mut columns = [s.splat(0.0); PANELS];
        for (panel, column) in columns.iter_mut().enumerate() {
            *column = E::load(s, b.add(panel * tile.b_panel));
        }
        for (i, row) in sums.iter_mut().enumerate() {
            let x = s.splat(*a.add(i * tile.a_stride));
            for (sum, column) in row.iter_mut().zip(columns) {
                *sum = s.mul_add(x, column, *sum);
            }
        }
    }
    sums
}

/// Cuts a range into as few pieces of at most `limit` as possible, of nearly equal length.
pub(crate) struct Pieces {
    rest: Range<usize>,
    pieces: usize,
}

impl Pieces {
    /// `limit` must not be 0.
    #[inline(always)]
    pub(crate) fn new(range: Range<usize>, limit: usize) -> Self {
        let pieces = range.len().div_ceil(limit);
        Self { rest: range, pieces }
    }
}

impl Iterator for Pieces {
    type Item = Range<usize>;

    #[inline(always)]
    fn next(&mut self) -> Option<Range<usize>> {
        if self.pieces == 0 {
            return None;
        }
        let start = self.rest.start;
        self.rest.start += self.rest.len().div_ceil(self.pieces);
        self.pieces -= 1;
        Some(start..self.rest.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range_evenly() {
        for length in 0..100 {
            for limit in 1..14 {
                let pieces: Vec<_> = Pieces::new(3..3 + length, limit).collect();
                assert_eq!(pieces.len(), length.div_ceil(limit));
                assert_eq!(pieces.iter().map(ExactSizeIterator::len).sum::<usize>(), length);
                assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
                let shortest = pieces.iter().map(ExactSizeIterator::len).min().unwrap_or(0);
                let longest = pieces.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
                assert!(longest <= limit && longest - shortest <= 1);
            }
        }
    }
}
