//! The encoder in front of a decoder: it reads texts, and leaves in pages of the cache what the decoder's layers look at.

use std::sync::Arc;

use centuple_generate::Encoding;
use centuple_runtime::{Batch, InputData, KvCache, Memory, Plan, RuntimeError, Session};
use centuple_tensor::{Bindings, Layout, Span};

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
        let mut rest = texts;
        while !rest.is_empty() {
            let mut left = self.tokens;
            let fits = |text: &&Encoding| {
                let enough = text.ids.len() <= left;
                left = left.saturating_sub(text.ids.len());
                enough
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (batch, others) = rest.split_at(count);
            rest = others;
            self.run(batch, cache)?;
        }
        Ok(())
    }

    fn run(&mut self, texts: &[Encoding], cache: &mut KvCache) -> Result<(), RuntimeError> {
        self.ids.clear();
        self.ids.extend(texts.iter().flat_map(|text| &text.ids).map(|&id| i64::from(id)));
        let span = |text: &Encoding| Span { tokens: text.ids.len(), pages: text.pages.clone(), ..Span::default() };
        let layout = Layout::new(texts.iter().map(span).collect());
        let layout = layout.map_err(|error| RuntimeError::Cache(error.to_string()))?;
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
