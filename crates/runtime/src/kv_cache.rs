//! Keys and values of earlier steps, in pages of fixed size.

use centuple_kernels::{KernelError, Matrix, MatrixMut};
use centuple_tensor::{PAGE_TOKENS, Span};

use crate::error::{Result, RuntimeError};
use crate::shared::{Region, SharedFloats};

/// Pages of keys and values for every cached attention of a plan.
///
/// A page holds [`PAGE_TOKENS`] consecutive positions of one sequence. Which page holds which positions is the
/// caller's bookkeeping: it stands in each [`Span`].
#[derive(Debug)]
pub struct KvCache {
    widths: Vec<usize>,
    starts: Vec<usize>,
    pages: usize,
    floats: SharedFloats,
}

/// Keys, or values.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Keys,
    Values,
}

impl KvCache {
    /// A cache of `pages` pages for attentions of the given key widths ([`Plan::cache_widths`](crate::Plan)).
    ///
    /// # Errors
    /// The system does not grant the memory.
    pub fn new(widths: &[usize], pages: usize) -> Result<KvCache> {
        let mut starts = Vec::with_capacity(widths.len());
        let mut length = 0;
        for width in widths {
            starts.push(length);
            length = pages.saturating_mul(2 * PAGE_TOKENS).saturating_mul(*width).saturating_add(length);
        }
        Ok(KvCache { widths: widths.to_vec(), starts, pages, floats: SharedFloats::zeroed(length)? })
    }

    /// Bytes of a page of such a cache.
    pub fn page_bytes(widths: &[usize]) -> usize {
        let floats = widths.iter().fold(0_usize, |sum, width| sum.saturating_add(*width));
        floats.saturating_mul(2 * PAGE_TOKENS * size_of::<f32>())
    }

    /// Copies the keys and values of a whole page to another.
    ///
    /// # Errors
    /// There is no such page.
    pub fn copy_page(&mut self, from: u32, to: u32) -> Result<()> {
        let beyond = |page: &&u32| **page as usize >= self.pages;
        if let Some(page) = [from, to].iter().find(beyond) {
            return Err(RuntimeError::Cache(format!("of more than {page} pages, not {}", self.pages)));
        }
        for slot in 0..self.widths.len() {
            for side in [Side::Keys, Side::Values] {
                let region = |page| self.region(slot, side, page, PAGE_TOKENS);
                let (source, target) = (region(from), region(to));
                let length = source.rows * source.columns;
                let floats = self.floats.read_slice(source.start, length)?.to_vec();
                self.floats.write_slice(target.start, length)?.copy_from_slice(&floats);
            }
        }
        Ok(())
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Whether every page of the span exists and the widths are those of the plan.
    pub(crate) fn check(&self, widths: &[usize], spans: &[Span]) -> Result<()> {
        if self.widths != widths {
            return Err(RuntimeError::Cache(format!("of the widths {widths:?}, not {:?}", self.widths)));
        }
        for span in spans {
            if let Some(page) = span.pages.iter().find(|&&page| page as usize >= self.pages) {
                return Err(RuntimeError::Cache(format!("of more than {page} pages, not {}", self.pages)));
            }
            if span.pages.len() * PAGE_TOKENS < span.past + span.tokens {
                let held = span.past + span.tokens;
                return Err(RuntimeError::Cache(format!("with pages for {held} tokens in each sequence's span")));
            }
        }
        Ok(())
    }

    fn region(&self, slot: usize, side: Side, page: u32, tokens: usize) -> Region {
        let width = self.widths[slot];
        let half = match side {
            Side::Keys => 0,
            Side::Values => self.pages,
        };
        let start = self.starts[slot] + (half + page as usize) * PAGE_TOKENS * width;
        Region { start, rows: tokens, columns: width, stride: width }
    }

    /// The first `tokens` rows of a page.
    pub(crate) fn page(
        &self,
        slot: usize,
        side: Side,
        page: u32,
        tokens: usize,
    ) -> std::result::Result<Matrix<'_>, KernelError> {
        self.floats.read(self.region(slot, side, page, tokens))
    }

    /// The row of one position of a sequence.
    pub(crate) fn row(
        &self,
        slot: usize,
        side: Side,
        span: &Span,
        position: usize,
    ) -> std::result::Result<MatrixMut<'_>, KernelError> {
        let page = span.pages.get(position / PAGE_TOKENS).copied().unwrap_or(u32::MAX);
        let mut region = self.region(slot, side, page, 1);
        region.start += position % PAGE_TOKENS * region.stride;
        self.floats.write(region)
    }
}
