//! A batch as the kernels read it: one buffer, written with one copy.

use centuple_tensor::{Layout, PAGE_TOKENS, Span};

use super::{IdSource, Ids, Mark, Plan};
use crate::error::{CudaError, Result};
use crate::launch::{BatchPointers, CachePointers, Capacity, Pointer, attention_blocks};

/// Queries of the smallest attention block: what the list of blocks has room for.
const FEWEST_QUERIES: usize = 16;
/// Parts begin at multiples of so many words.
const ALIGNMENT: usize = 4;

/// Room for keys and values, where a model has attention with a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheRoom {
    /// Pages of all sequences together, of 16 tokens each.
    pub pages: usize,
    /// The most tokens of a sequence.
    pub positions: usize,
}

impl CacheRoom {
    /// Whether so many tokens have room in pages that there are.
    pub(crate) fn check(self, tokens: usize, pages: &[u32]) -> Result<()> {
        let (held, room) = (pages.len(), self.positions.div_ceil(PAGE_TOKENS));
        if held * PAGE_TOKENS < tokens || held > room {
            let reason = format!("{tokens} tokens in {held} pages, where a sequence has at most {room}");
            return Err(CudaError::Batch(reason));
        }
        pages.iter().try_for_each(|&page| self.check_page(page))
    }

    pub(crate) fn check_page(self, page: u32) -> Result<()> {
        if (page as usize) < self.pages {
            return Ok(());
        }
        Err(CudaError::Batch(format!("page {page} of a cache that has {}", self.pages)))
    }
}

/// Where the parts of a batch lie, in words of 4 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchLayout {
    offsets: usize,
    pool_from: usize,
    ids: Vec<usize>,
    marks: Vec<usize>,
    blocks: usize,
    selected: usize,
    pasts: usize,
    first_pages: usize,
    places: usize,
    source_pasts: usize,
    source_first_pages: usize,
    /// The last part, of which a batch has as much as it needs.
    pages: usize,
    words: usize,
}

impl BatchLayout {
    /// Room for batches of that size.
    pub(crate) fn new(plan: &Plan, capacity: Capacity, cache: CacheRoom) -> BatchLayout {
        let mut words = 4;
        let mut part = |length: usize| {
            let start = words;
            words += length.next_multiple_of(ALIGNMENT);
            start
        };
        let (offsets, pool_from) = (part(capacity.sequences + 1), part(capacity.sequences));
        let ids = plan.ids.iter().map(|_| part(capacity.tokens)).collect();
        let marks = plan.marks.iter().map(|_| part(capacity.sequences)).collect();
        let blocks = part(2 * capacity.attention_blocks(FEWEST_QUERIES));
        let selected = part(capacity.tokens);
        let cached = if plan.slots.is_empty() { Capacity { tokens: 0, sequences: 0 } } else { capacity };
        let (pasts, first_pages) = (part(cached.sequences), part(cached.sequences));
        let places = part(cached.tokens);
        let sources = if plan.has_sources() { capacity.sequences } else { 0 };
        let (source_pasts, source_first_pages) = (part(sources), part(sources));
        let pages = part((cached.sequences + sources) * cache.positions.div_ceil(PAGE_TOKENS));
        BatchLayout {
            offsets,
            pool_from,
            ids,
            marks,
            blocks,
            selected,
            pasts,
            first_pages,
            places,
            source_pasts,
            source_first_pages,
            pages,
            words,
        }
    }

    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> usize {
        self.words * 4
    }

    /// Addresses of what all kernels share.
    pub(crate) fn pointers(&self, buffer: Pointer) -> BatchPointers {
        let parts = [self.offsets, self.blocks, self.pool_from, self.selected];
        let [offsets, blocks, pool_from, selected] = parts.map(|word| buffer.at(word * 4));
        let [pasts, first_pages, places, pages] =
            [self.pasts, self.first_pages, self.places, self.pages].map(|word| buffer.at(word * 4));
        let cache = CachePointers { pasts, first_pages, pages, places };
        let [pasts, first_pages] = [self.source_pasts, self.source_first_pages].map(|word| buffer.at(word * 4));
        let sources = CachePointers { pasts, first_pages, pages, places: Pointer::NULL };
        BatchPointers { header: buffer, offsets, blocks, pool_from, selected, cache, sources }
    }

    /// Address of ids.
    pub(crate) fn ids(&self, buffer: Pointer, ids: usize) -> Pointer {
        buffer.at(self.ids[ids] * 4)
    }

    /// Address of marked tokens.
    pub(crate) fn mark(&self, buffer: Pointer, mark: usize) -> Pointer {
        buffer.at(self.marks[mark] * 4)
    }

    /// The words of a batch that fits the capacity, whose attention blocks have `queries` queries.
    pub(crate) fn words(
        &self,
        plan: &Plan,
        layout: &Layout,
        inputs: &[(&str, &[i64])],
        queries: usize,
    ) -> Result<Vec<i32>> {
        let lengths: Vec<usize> = layout.spans().iter().map(|span| span.tokens).collect();
        let blocks = attention_blocks(&lengths, queries);
        let spans = layout.spans();
        let sources = || spans.iter().filter_map(|span| span.source.as_ref());
        // Those of the sequences, then those of their sources.
        let lists: Vec<&[u32]> = if plan.slots.is_empty() {
            Vec::new()
        } else {
            spans.iter().map(|span| &span.pages[..]).chain(sources().map(|source| &source.pages[..])).collect()
        };
        let before = |number: usize| lists[..number].iter().map(|pages| pages.len()).sum();
        let mut words = vec![0i32; self.pages + before(lists.len())];
        for (place, span) in spans.iter().enumerate() {
            if let Some(source) = &span.source {
                words[self.source_pasts + place] = source.tokens as i32 - span.tokens as i32;
            }
        }
        let mut put = |start: usize, values: &mut dyn Iterator<Item = usize>| {
            for (word, value) in words[start..].iter_mut().zip(values) {
                // Counts of a batch that fits the capacity.
                *word = i32::try_from(value).unwrap_or(i32::MAX);
            }
        };
        put(0, &mut [layout.tokens(), lengths.len(), blocks.len(), layout.selected().count()].into_iter());
        put(self.selected, &mut layout.selected());
        put(self.offsets, &mut layout.spans().iter().map(|span| span.start).chain([layout.tokens()]));
        put(self.pool_from, &mut layout.spans().iter().map(|span| span.pool_from.min(span.tokens)));
        put(self.blocks, &mut blocks.into_iter().flatten());
        if !plan.slots.is_empty() {
            put(self.pasts, &mut spans.iter().map(|span| span.past));
            put(self.first_pages, &mut (0..spans.len()).map(before));
            put(self.places, &mut spans.iter().flat_map(places));
            put(self.source_first_pages, &mut (spans.len()..lists.len()).map(before));
            put(self.pages, &mut lists.iter().flat_map(|pages| pages.iter().map(|&page| page as usize)));
        }
        for (&start, ids) in self.ids.iter().zip(&plan.ids) {
            let rows = ids.rows(layout, inputs)?;
            put(start, &mut rows.into_iter());
        }
        for (&start, mark) in self.marks.iter().zip(&plan.marks) {
            let ids = input(&mark.input, layout, inputs)?;
            put(start, &mut spans.iter().map(|span| mark.token(&ids[span.start..span.start + span.tokens])));
        }
        Ok(words)
    }
}

impl Ids {
    /// The rows of the tables for all tokens, each of which is one that the tables have.
    fn rows(&self, layout: &Layout, inputs: &[(&str, &[i64])]) -> Result<Vec<usize>> {
        let values = match &self.source {
            IdSource::Input(name) => input(name, layout, inputs)?.to_vec(),
            IdSource::Positions { offset, padding: None } => {
                let of = |span: &Span| span.past..span.past + span.tokens;
                let positions = layout.spans().iter().flat_map(of);
                positions.map(|at| i64::try_from(at).unwrap_or(i64::MAX).saturating_add(*offset)).collect()
            }
            IdSource::ShiftRight { first, input: name } => {
                let ids = input(name, layout, inputs)?;
                let shifted = |span: &Span| {
                    let own = &ids[span.start..span.start + span.tokens];
                    first.or(own.last().copied()).into_iter().chain(own.iter().copied()).take(own.len())
                };
                layout.spans().iter().flat_map(shifted).collect()
            }
            IdSource::Positions { offset, padding: Some((padding, name)) } => {
                let ids = input(name, layout, inputs)?;
                let counted = |span: &Span| {
                    let mut next = *offset;
                    let mut positions = Vec::with_capacity(span.tokens);
                    for id in &ids[span.start..span.start + span.tokens] {
                        positions.push(if id == padding { offset - 1 } else { next });
                        next += i64::from(id != padding);
                    }
                    positions
                };
                layout.spans().iter().flat_map(counted).collect()
            }
        };
        let row = |(token, &id): (usize, &i64)| {
            let row = usize::try_from(id).ok().filter(|&row| row < self.limit);
            row.ok_or_else(|| {
                CudaError::Batch(format!("token {token} has id {id}, but its table has {} rows", self.limit))
            })
        };
        values.iter().enumerate().map(row).collect()
    }
}

impl Mark {
    /// The token of a sequence, which has at least one.
    fn token(&self, ids: &[i64]) -> usize {
        ids.iter().rposition(|&id| id == self.id).unwrap_or(ids.len().saturating_sub(1))
    }
}

/// Rows in keys and values of a sequence's new tokens. There are pages for all of them, as the session has checked.
fn places(span: &Span) -> impl Iterator<Item = usize> {
    let place = |position: usize| {
        span.pages.get(position / PAGE_TOKENS).map_or(0, |&page| page as usize * PAGE_TOKENS + position % PAGE_TOKENS)
    };
    (span.past..span.past + span.tokens).map(place)
}

fn input<'a>(name: &str, layout: &Layout, inputs: &[(&str, &'a [i64])]) -> Result<&'a [i64]> {
    let Some((_, values)) = inputs.iter().find(|(given, _)| *given == name) else {
        return Err(CudaError::Batch(format!("the input `{name}` is missing")));
    };
    if values.len() == layout.tokens() {
        return Ok(values);
    }
    Err(CudaError::Batch(format!("the input `{name}` has {} ids for {} tokens", values.len(), layout.tokens())))
}
