//! A batch as the kernels read it: one buffer, written with one copy.

use centuple_tensor::Layout;

use super::{IdSource, Ids, Plan};
use crate::error::{CudaError, Result};
use crate::launch::{BatchPointers, Capacity, Pointer, attention_blocks};

/// Queries of the smallest attention block: what the list of blocks has room for.
const FEWEST_QUERIES: usize = 16;
/// Parts begin at multiples of so many words.
const ALIGNMENT: usize = 4;

/// Where the parts of a batch lie, in words of 4 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchLayout {
    offsets: usize,
    pool_from: usize,
    ids: Vec<usize>,
    blocks: usize,
    words: usize,
}

impl BatchLayout {
    /// Room for batches of that size.
    pub(crate) fn new(plan: &Plan, capacity: Capacity) -> BatchLayout {
        let mut words = 4;
        let mut part = |length: usize| {
            let start = words;
            words += length.next_multiple_of(ALIGNMENT);
            start
        };
        let (offsets, pool_from) = (part(capacity.sequences + 1), part(capacity.sequences));
        let ids = plan.ids.iter().map(|_| part(capacity.tokens)).collect();
        let blocks = part(2 * capacity.attention_blocks(FEWEST_QUERIES));
        BatchLayout { offsets, pool_from, ids, blocks, words }
    }

    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> usize {
        self.words * 4
    }

    /// Addresses of what all kernels share.
    pub(crate) fn pointers(&self, buffer: Pointer) -> BatchPointers {
        let [offsets, blocks, pool_from] = [self.offsets, self.blocks, self.pool_from].map(|word| buffer.at(word * 4));
        BatchPointers { header: buffer, offsets, blocks, pool_from }
    }

    /// Address of ids.
    pub(crate) fn ids(&self, buffer: Pointer, ids: usize) -> Pointer {
        buffer.at(self.ids[ids] * 4)
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
        let mut words = vec![0i32; self.words];
        let mut put = |start: usize, values: &mut dyn Iterator<Item = usize>| {
            for (word, value) in words[start..].iter_mut().zip(values) {
                // Counts of a batch that fits the capacity.
                *word = i32::try_from(value).unwrap_or(i32::MAX);
            }
        };
        put(0, &mut [layout.tokens(), lengths.len(), blocks.len()].into_iter());
        put(self.offsets, &mut layout.spans().iter().map(|span| span.start).chain([layout.tokens()]));
        put(self.pool_from, &mut layout.spans().iter().map(|span| span.pool_from.min(span.tokens)));
        put(self.blocks, &mut blocks.into_iter().flatten());
        for (&start, ids) in self.ids.iter().zip(&plan.ids) {
            let rows = ids.rows(layout, inputs)?;
            put(start, &mut rows.into_iter());
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
                let of = |tokens: usize| (0..tokens).map(|position| i64::try_from(position).unwrap_or(i64::MAX));
                layout.spans().iter().flat_map(|span| of(span.tokens)).map(|at| at.saturating_add(*offset)).collect()
            }
            IdSource::Positions { offset, padding: Some((padding, name)) } => {
                let ids = input(name, layout, inputs)?;
                let counted = |span: &centuple_tensor::Span| {
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

fn input<'a>(name: &str, layout: &Layout, inputs: &[(&str, &'a [i64])]) -> Result<&'a [i64]> {
    let Some((_, values)) = inputs.iter().find(|(given, _)| *given == name) else {
        return Err(CudaError::Batch(format!("the input `{name}` is missing")));
    };
    if values.len() == layout.tokens() {
        return Ok(values);
    }
    Err(CudaError::Batch(format!("the input `{name}` has {} ids for {} tokens", values.len(), layout.tokens())))
}
