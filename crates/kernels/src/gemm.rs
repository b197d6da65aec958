//! Matrix multiplication with packed weights: `out = activation(a · weightᵀ + bias) + residual`.
//!
//! Weights are stored as f32, or as f16 and widened as they are loaded: the arithmetic is the same.
//! A stays where it is, row-major: its elements are broadcast straight into the multiply-adds. The
//! whole depth is summed in one pass in registers; see [`crate::tile`] for why every element of the
//! result is bit-identical however rows and panels are split.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::activation::{Activation, CoarseGelu, Elementwise, with_activation};
use crate::dispatch::Kernels;
use crate::error::{KernelError, expect_dimension, expect_length};
use crate::matrix::{Matrix, MatrixMut};
use crate::pack::{PANEL, PackedHalf, PackedMatrix};
use crate::simd::Simd;
use crate::tile::{self, Element, PREFETCH_STEPS, Pieces, STREAM_PANELS, Tile, WIDE_PANELS, line_elements};

/// What happens to the sums before they are stored: `activation(sum + bias) + residual`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added to each row; `n` elements.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Option<Activation>,
    /// Added last; the shape of `out`, and it may be the same memory.
    pub residual: Option<Matrix<'a>>,
}

/// Where the result of a product goes, checked.
pub(crate) struct Target<'a> {
    epilogue: Epilogue<'a>,
    out: MatrixMut<'a>,
}

/// Checked operands of [`multiply`].
pub(crate) struct Job<'a, E> {
    a: Matrix<'a>,
    b: PackedMatrix<'a, E>,
    panels: Range<usize>,
    target: Target<'a>,
}

impl<'a, E> Job<'a, E> {
    /// Errors unless all shapes agree and the panels exist.
    fn new(
        kernel: &'static str,
        a: Matrix<'a>,
        b: PackedMatrix<'a, E>,
        panels: Range<usize>,
        epilogue: &Epilogue<'a>,
        out: &'a mut MatrixMut<'_>,
    ) -> Result<Self, KernelError> {
        expect_dimension(kernel, "columns of a", a.columns(), b.k())?;
        expect_length(kernel, "range of panels", b.panels(), panels.end)?;
        let target = Target::new(kernel, (a.rows(), b.n()), epilogue, out)?;
        Ok(Self { a, b, panels, target })
    }
}

impl<'a> Target<'a> {
    /// Errors unless `out` and everything in the epilogue fit a product of shape `[m, n]`.
    pub(crate) fn new(
        kernel: &'static str,
        (m, n): (usize, usize),
        epilogue: &Epilogue<'a>,
        out: &'a mut MatrixMut<'_>,
    ) -> Result<Self, KernelError> {
        expect_dimension(kernel, "rows of out", out.rows(), m)?;
        expect_dimension(kernel, "columns of out", out.columns(), n)?;
        if let Some(bias) = epilogue.bias {
            expect_dimension(kernel, "length of bias", bias.len(), n)?;
        }
        if let Some(residual) = epilogue.residual {
            expect_dimension(kernel, "rows of residual", residual.rows(), m)?;
            expect_dimension(kernel, "columns of residual", residual.columns(), n)?;
        }
        Ok(Self { epilogue: *epilogue, out: out.reborrow() })
    }

    /// Takes the bias out of the epilogue, for a kernel that adds it on its own.
    pub(crate) fn take_bias(&mut self) -> Option<&'a [f32]> {
        self.epilogue.bias.take()
    }

    /// Whether anything is left to be done to the sums.
    pub(crate) fn has_epilogue(&self) -> bool {
        self.epilogue.bias.is_some() || self.epilogue.activation.is_some() || self.epilogue.residual.is_some()
    }

    /// The result.
    #[inline(always)]
    pub(crate) fn out(&self) -> &MatrixMut<'a> {
        &self.out
    }
}

impl Kernels {
    /// Multiplies all rows of `a`, `[m, k]`, by the columns of `b` in `panels` (16 columns each) and
    /// writes those columns of `out`, `[m, n]`.
    ///
    /// Threads split the work by giving each its own rows of `a` and `out`, or its own panels. The
    /// result does not depend on the split, bit for bit.
    pub fn gemm(
        self,
        a: Matrix<'_>,
        b: PackedMatrix<'_>,
        panels: Range<usize>,
        epilogue: &Epilogue<'_>,
        out: &mut MatrixMut<'_>,
    ) -> Result<(), KernelError> {
        let job = Job::new("gemm", a, b, panels, epilogue, out)?;
        // SAFETY: all shapes agree and the views vouch for their elements.
        unsafe { (self.table.gemm)(&job) };
        Ok(())
    }

    /// [`Kernels::gemm`] with weights stored as f16. The result is that of the same weights stored as f32,
    /// bit for bit; it takes less time where weights come from memory.
    pub fn gemm_half(
        self,
        a: Matrix<'_>,
        b: PackedHalf<'_>,
        panels: Range<usize>,
        epilogue: &Epilogue<'_>,
        out: &mut MatrixMut<'_>,
    ) -> Result<(), KernelError> {
        let job = Job::new("gemm_half", a, b, panels, epilogue, out)?;
        // SAFETY: all shapes agree and the views vouch for their elements.
        unsafe { (self.table.gemm_half)(&job) };
        Ok(())
    }
}

/// Bytes of A that are kept in the second-level cache while the panels of B pass by.
const ROW_BLOCK_BYTES: usize = 384 * 1024;

/// # Safety
/// The shapes of the job agree: `a` is `[m, k]`, `out` and `residual` are `[m, n]`, `bias` has `n`
/// elements, and the panels exist.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd, E: Element>(s: S, job: &Job<'_, E>) {
    let k = job.b.k();
    if job.a.rows() <= S::STREAM_ROWS {
        // SAFETY: as promised by the caller.
        return unsafe { stream(s, job) };
    }
    let block = (ROW_BLOCK_BYTES / (size_of::<f32>() * k.max(1))).max(S::TILE_ROWS);
    for rows in Pieces::new(0..job.a.rows(), block) {
        let mut panel = job.panels.start;
        while panel < job.panels.end {
            let panels = panel..job.panels.end.min(panel + S::TILE_PANELS);
            // The tiles of these panels share the work of fetching the next panels from afar. With very few
            // rows there is no time for that, and the CPU's own prefetching does better.
            let tiles = rows.len().div_ceil(S::TILE_ROWS);
            let more = panels.end < job.panels.end && rows.len() >= S::TILE_ROWS / 2;
            let lines = PREFETCH_STEPS * S::TILE_PANELS * PANEL / line_elements::<E>();
            let prefetch_lines = if more { lines.div_ceil(tiles) } else { 0 };
            let fetched = k.div_ceil(PREFETCH_STEPS) * prefetch_lines * line_elements::<E>();
            let mut prefetch = job.b.panel_pointer(panels.end);
            for rows in Pieces::new(rows.clone(), S::TILE_ROWS) {
                let mut sums = Sums::new();
                let tile = Tile {
                    depth: k,
                    a: job.a.row_pointer(rows.start),
                    a_stride: job.a.stride(),
                    b: job.b.panel_pointer(panel),
                    b_panel: PANEL * k,
                    c: sums.as_mut_ptr(),
                    c_row: PANEL * S::TILE_PANELS,
                    c_panel: PANEL,
                    prefetch,
                    prefetch_lines,
                    resume: false,
                };
                prefetch = prefetch.wrapping_add(fetched);
                // SAFETY: the rows and panels exist, and `sums` has room for the largest tile.
                unsafe {
                    tile::compute::<S, E, false>(s, &tile, rows.len(), panels.len());
                    finish::<S, false>(s, &job.target, rows, panels.clone(), &sums, S::TILE_PANELS);
                }
            }
            panel = panels.end;
        }
    }
}

/// [`multiply`] for so few rows that the weights come from memory.
///
/// # Safety
/// As [`multiply`], with at most `S::STREAM_ROWS` rows.
#[inline(always)]
unsafe fn stream<S: Simd, E: Element>(s: S, job: &Job<'_, E>) {
    let (k, rows) = (job.b.k(), 0..job.a.rows());
    if rows.is_empty() {
        return;
    }
    let wide = S::STREAM_WIDE && size_of::<E>() < size_of::<f32>();
    let mut panel = job.panels.start;
    while panel < job.panels.end {
        let count = if wide && job.panels.end - panel >= WIDE_PANELS { WIDE_PANELS } else { STREAM_PANELS };
        let panels = panel..job.panels.end.min(panel + count);
        let mut sums = Sums::new();
        let tile = Tile {
            depth: k,
            a: job.a.row_pointer(0),
            a_stride: job.a.stride(),
            b: job.b.panel_pointer(panel),
            b_panel: PANEL * k,
            c: sums.as_mut_ptr(),
            c_row: PANEL * count,
            c_panel: PANEL,
            prefetch: job.b.panel_pointer(panel).wrapping_add(PANEL * k * count),
            prefetch_lines: 0,
            resume: false,
        };
        // SAFETY: the rows and panels exist, and `sums` has room for the largest tile.
        unsafe {
            match panels.len() {
                WIDE_PANELS if wide => tile::stream::<S, E, WIDE_PANELS>(s, &tile, rows.len()),
                STREAM_PANELS => tile::stream::<S, E, STREAM_PANELS>(s, &tile, rows.len()),
                _ => tile::compute::<S, E, false>(s, &tile, rows.len(), panels.len()),
            }
            finish::<S, false>(s, &job.target, rows.clone(), panels.clone(), &sums, count);
        }
        panel = panels.end;
    }
}

/// Rows of the largest tile of any instruction set.
pub(crate) const SUM_ROWS: usize = 12;

/// Elements of that tile.
const MAX_TILE: usize = SUM_ROWS * 2 * PANEL;

/// Sums of one tile, between the registers and the epilogue; uninitialised until the tile stores them.
#[repr(align(64))]
pub(crate) struct Sums(MaybeUninit<[f32; MAX_TILE]>);

impl Sums {
    /// Room for the largest tile.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Address of the first sum.
    #[inline(always)]
    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }

    /// Address of the first sum; to be read only where the tile has stored.
    #[inline(always)]
    fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }
}

/// Runs the epilogue on the sums of a tile, whose rows are `stride` panels apart, and stores them. `COARSE`
/// allows [`CoarseGelu`].
///
/// # Safety
/// Rows and panels exist in the target, and the tile has stored all its sums.
#[inline(always)]
pub(crate) unsafe fn finish<S: Simd, const COARSE: bool>(
    s: S,
    target: &Target<'_>,
    rows: Range<usize>,
    panels: Range<usize>,
    sums: &Sums,
    stride: usize,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        if COARSE && target.epilogue.activation == Some(Activation::Gelu) {
            return finish_with::<S, CoarseGelu>(s, target, rows, panels, sums, stride);
        }
        with_activation!(target.epilogue.activation, F =>
            finish_with::<S, F>(s, target, rows, panels, sums, stride));
    }
}

/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn finish_with<S: Simd, F: Elementwise>(
    s: S,
    target: &Target<'_>,
    rows: Range<usize>,
    panels: Range<usize>,
    sums: &Sums,
    stride: usize,
) {
    for p in 0..panels.len() {
        let column = (panels.start + p) * PANEL;
        let width = PANEL.min(target.out.columns() - column);
        // SAFETY: `width` columns from `column` on exist in the rows of `out` and `residual` and in
        // `bias`; `sums` holds the tile.
        unsafe {
            let bias = match target.epilogue.bias {
                Some(bias) => s.load_up_to(bias.as_ptr().add(column), width),
                None => s.splat(0.0),
            };
            let sums = sums.as_ptr().add(p * PANEL);
            // Whole panels have a loop of their own, without a choice in it.
            if width == PANEL && target.epilogue.residual.is_none() {
                for (i, row) in rows.clone().enumerate() {
                    let value = F::apply(s, s.add(s.load(sums.add(i * stride * PANEL)), bias));
                    s.store(value, target.out.row_pointer(row).add(column));
                }
                continue;
            }
            for (i, row) in rows.clone().enumerate() {
                let mut value = F::apply(s, s.add(s.load(sums.add(i * stride * PANEL)), bias));
                if let Some(residual) = target.epilogue.residual {
                    let residual = residual.row_pointer(row).add(column);
                    value = s.add(value, s.load_up_to(residual, width));
                }
                s.store_up_to(value, target.out.row_pointer(row).add(column), width);
            }
        }
    }
}
