//! Keys and values of earlier steps, in pages of fixed size.

use std::ops::Range;

use centuple_kernels::{self as kernels, KernelError, KvForm, KvPrecision, PagedKeys};
use centuple_tensor::{PAGE_TOKENS, Span};

use crate::error::{Result, RuntimeError};
use crate::session::OutputRows;
use crate::shared::{Region, SharedFloats};

const _: () = assert!(PAGE_TOKENS == KvForm::TOKENS);

/// The keys and values that an attention keeps of each token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSlot {
    /// Heads of keys and values.
    pub heads: usize,
    /// Elements of a key, and of a value.
    pub head_dim: usize,
}

impl CacheSlot {
    fn form(self, precision: KvPrecision) -> KvForm {
        KvForm { precision, heads: self.heads, head_dim: self.head_dim }
    }
}

/// Pages of keys and values for every cached attention of a plan.
///
/// A page holds [`PAGE_TOKENS`] consecutive positions of one sequence. Which page holds which positions is the
/// caller's bookkeeping: it stands in each [`Span`]. What is narrower than f32 is rounded as it is written, and so seen by
/// every reader, in the step that writes it as in later ones.
#[derive(Debug)]
pub struct KvCache {
    slots: Vec<CacheSlot>,
    precision: KvPrecision,
    starts: Vec<usize>,
    pages: usize,
    floats: SharedFloats,
}

impl KvCache {
    /// A cache of `pages` pages for attentions of the given slots ([`Plan::cache_slots`](crate::Plan)).
    ///
    /// # Errors
    /// The system does not grant the memory.
    pub fn new(slots: &[CacheSlot], precision: KvPrecision, pages: usize) -> Result<KvCache> {
        let mut starts = Vec::with_capacity(slots.len());
        let mut length = 0;
        for slot in slots {
            starts.push(length);
            length = pages.saturating_mul(slot.form(precision).page_words()).saturating_add(length);
        }
        Ok(KvCache { slots: slots.to_vec(), precision, starts, pages, floats: SharedFloats::zeroed(length)? })
    }

    /// Bytes of a page of such a cache.
    pub fn page_bytes(slots: &[CacheSlot], precision: KvPrecision) -> usize {
        let words = |slot: &CacheSlot| slot.form(precision).page_words();
        slots.iter().map(words).fold(0, usize::saturating_add).saturating_mul(size_of::<f32>())
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
        for slot in 0..self.slots.len() {
            let (source, target) = (self.page(slot, from), self.page(slot, to));
            let floats = self.floats.read_slice(source.start, source.len())?.to_vec();
            self.floats.write_slice(target.start, target.len())?.copy_from_slice(&floats);
        }
        Ok(())
    }

    /// Keeps what an encoder has made of a text for a decoder: the keys and values `[tokens, width]` that are packed rows from
    /// `span.start` on, in the pages of the span.
    ///
    /// # Errors
    /// There is no such slot or page, or the rows have another width.
    pub fn keep(&mut self, slot: usize, span: &Span, keys: OutputRows, values: OutputRows) -> Result<()> {
        let width = self.slots.get(slot).map_or(0, |slot| slot.heads * slot.head_dim);
        let fits = |rows: &OutputRows| rows.columns() == width && rows.rows() >= span.start + span.tokens;
        if !(fits(&keys) && fits(&values)) {
            let (rows, found) = (keys.rows(), keys.columns());
            return Err(RuntimeError::Cache(format!("with a slot {slot} for {rows} rows of {found}, not of {width}")));
        }
        if let Some(page) = span.pages.iter().find(|&&page| page as usize >= self.pages) {
            return Err(RuntimeError::Cache(format!("of more than {page} pages, not {}", self.pages)));
        }
        if span.pages.len().saturating_mul(PAGE_TOKENS) < span.tokens {
            return Err(RuntimeError::Cache(format!("with pages for the {} tokens of a text", span.tokens)));
        }
        for position in 0..span.tokens {
            let [key, value] = [keys, values].map(|rows| rows.row(span.start + position));
            self.store(slot, &span.pages, position, key, value)?;
        }
        Ok(())
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// The numbers that keys and values are kept as.
    pub fn precision(&self) -> KvPrecision {
        self.precision
    }

    /// Bytes of all pages.
    pub fn bytes(&self) -> usize {
        self.floats.len() * size_of::<f32>()
    }

    /// Whether every page of the span exists and the slots are those of the plan.
    pub(crate) fn check(&self, slots: &[CacheSlot], spans: &[Span]) -> Result<()> {
        if self.slots != slots {
            return Err(RuntimeError::Cache(format!("of the slots {slots:?}, not {:?}", self.slots)));
        }
        for span in spans {
            let of_source = span.source.iter().flat_map(|source| &source.pages);
            if let Some(page) = span.pages.iter().chain(of_source).find(|&&page| page as usize >= self.pages) {
                return Err(RuntimeError::Cache(format!("of more than {page} pages, not {}", self.pages)));
            }
            if span.pages.len() * PAGE_TOKENS < span.past + span.tokens {
                let held = span.past + span.tokens;
                return Err(RuntimeError::Cache(format!("with pages for {held} tokens in each sequence's span")));
            }
        }
        Ok(())
    }

    /// The floats of a page that are a slot's.
    fn page(&self, slot: usize, page: u32) -> Range<usize> {
        let words = self.slots[slot].form(self.precision).page_words();
        let start = self.starts[slot] + page as usize * words;
        start..start + words
    }

    /// Writes the key and value of one position of a sequence, `[heads · head_dim]` each.
    pub(crate) fn store(
        &self,
        slot: usize,
        pages: &[u32],
        position: usize,
        key: &[f32],
        value: &[f32],
    ) -> std::result::Result<(), KernelError> {
        let page = pages.get(position / PAGE_TOKENS).copied().unwrap_or(u32::MAX);
        let form = self.slots[slot].form(self.precision);
        let columns = form.head_words();
        let region = Region { start: self.page(slot, page).start, rows: form.heads, columns, stride: columns };
        form.store(&mut self.floats.write(region)?, position % PAGE_TOKENS, key, value)
    }

    /// Asks for the memory that [`KvCache::store`] is going to write for a position of a sequence: a line for every two
    /// elements of a key, none of which is in a cache.
    pub(crate) fn expect(&self, slot: usize, pages: &[u32], position: usize) {
        let Some(&page) = pages.get(position / PAGE_TOKENS) else { return };
        let form = self.slots[slot].form(self.precision);
        let words = self.page(slot, page);
        let Ok(words) = self.floats.read_slice(words.start, words.len()) else { return };
        for head in words.chunks_exact(form.head_words().max(1)) {
            let written = form.written(position % PAGE_TOKENS);
            written.filter_map(|word| head.get(word)).for_each(kernels::prefetch_to_write);
        }
    }

    /// Keys and values of one head of a sequence.
    pub(crate) fn keys<'a>(
        &'a self,
        slot: usize,
        head: usize,
        pages: &'a [u32],
        tokens: usize,
    ) -> std::result::Result<PagedKeys<'a>, KernelError> {
        let form = self.slots[slot].form(self.precision);
        let memory = self.floats.read_slice(self.starts[slot], self.pages * form.page_words())?;
        PagedKeys::new(memory, form, head, pages, tokens)
    }
}
