//! The encoder in front of a decoder: it reads texts, and leaves in pages of the cache what the decoder's layers look at.

use std::sync::Arc;

use centuple_generate::Encoding;
use centuple_runtime::{Batch, InputData, KvCache, Memory, Plan, RuntimeError, Session};
use centuple_tensor::{Bindings, Layout, LayoutError, Span};

use crate::host::Host;

/// Runs the plan of an encoder.
pub(crate) struct SourceEncoder {
    session: Session,
    /// Most tokens that are encoded together.
    tokens: usize,
    ids: Vec<i64>,
}

impl SourceEncoder {
    /// An encoder of texts of at most so many tokens.
    pub(crate) fn new(host: &Host, plan: &Arc<Plan>, tokens: usize) -> Result<SourceEncoder, RuntimeError> {
        let capacity = Bindings { tokens, sequences: tokens, sequence: tokens, ..Bindings::default() };
        let session = Session::new(Arc::clone(plan), Arc::clone(&host.pool), capacity)?;
        Ok(SourceEncoder { session, tokens, ids: Vec::new() })
    }

    /// Bytes that the encoder takes.
    pub(crate) fn memory(&self) -> Memory {
        self.session.memory()
    }

    /// Reads texts, as many together as fit, and fills the pages of each.
    pub(crate) fn encode(&mut self, texts: &[Encoding], cache: &mut KvCache) -> Result<(), RuntimeError> {
        batches(texts, self.tokens, self.tokens).try_for_each(|texts| self.run(texts, cache))
    }

    fn run(&mut self, texts: &[Encoding], cache: &mut KvCache) -> Result<(), RuntimeError> {
        self.ids.clear();
        self.ids.extend(ids(texts));
        let layout = layout(texts).map_err(|error| RuntimeError::Cache(error.to_string()))?;
        let inputs = [("input_ids", InputData::I64(&self.ids))];
        self.session.run(&Batch { inputs: &inputs, layout: &layout, bindings: layout.bindings(), cache: None })?;
        let outputs = self.session.output_names().count();
        for slot in 0..outputs / 2 {
            let missing = || RuntimeError::Cache(format!("for slot {slot}, which the encoder doesn't fill"));
            let [keys, values] = [0, 1].map(|side| self.session.output(2 * slot + side));
            let (keys, values) = (keys.ok_or_else(missing)?, values.ok_or_else(missing)?);
            for span in layout.spans() {
                cache.keep(slot, span, keys, values)?;
            }
        }
        Ok(())
    }
}

/// Texts that are read together: at most so many tokens of at most so many texts, but always one.
pub(crate) fn batches(texts: &[Encoding], tokens: usize, most: usize) -> impl Iterator<Item = &[Encoding]> {
    let mut rest = texts;
    std::iter::from_fn(move || {
        let mut left = tokens;
        let fits = |text: &&Encoding| {
            let enough = text.ids.len() <= left;
            left = left.saturating_sub(text.ids.len());
            enough
        };
        let count = rest.iter().take(most).take_while(fits).count().max(1);
        let (batch, others) = rest.split_at_checked(count)?;
        rest = others;
        Some(batch)
    })
}

/// Texts as one packed batch, each with its pages.
pub(crate) fn layout(texts: &[Encoding]) -> Result<Layout, LayoutError> {
    let span = |text: &Encoding| Span { tokens: text.ids.len(), pages: text.pages.clone(), ..Span::default() };
    Layout::new(texts.iter().map(span).collect())
}

/// The tokens of that batch.
pub(crate) fn ids(texts: &[Encoding]) -> impl Iterator<Item = i64> {
    texts.iter().flat_map(|text| &text.ids).map(|&id| i64::from(id))
}
