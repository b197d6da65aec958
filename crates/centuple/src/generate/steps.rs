//! The step engine: packs the sequences of a step, runs the plan over pages of keys and values, hands out rows of logits.

use std::sync::Arc;

use centuple_generate::{Step, StepEngine, StepError, StepLimits};
use centuple_runtime::{Batch, InputData, KvCache, Memory, Plan, RuntimeError, Session};
use centuple_tensor::{Bindings, Layout, PAGE_TOKENS, Span};

use super::{GenerationOptions, memory};
use crate::error::Error;
use crate::host::Host;
use crate::runs::{ARENA_BYTES, fits};

/// Tokens of a step that are never less, however wide the vocabulary is.
const LEAST_TOKENS: usize = 16;

/// Runs steps of a generating plan over a cache of its own.
pub struct PlanSteps {
    session: Session,
    cache: KvCache,
    limits: StepLimits,
    ids: Vec<i64>,
}

impl PlanSteps {
    /// An engine over the plan of a decoder that takes so many `positions` and gives a logit for each token of the `vocabulary`.
    ///
    /// # Errors
    /// The memory isn't enough for one page, or isn't granted.
    pub(crate) fn new(
        host: &Host,
        plan: &Arc<Plan>,
        positions: usize,
        vocabulary: usize,
        options: &GenerationOptions,
    ) -> Result<PlanSteps, Error> {
        let sequences = options.sequences_per_step.max(1);
        let capacity = |tokens: usize| Bindings {
            tokens,
            sequences: sequences.min(tokens),
            sequence: tokens,
            selected: tokens,
            past: positions,
            ..Bindings::default()
        };
        let mut tokens = options.tokens_per_step.max(LEAST_TOKENS);
        while tokens > LEAST_TOKENS && !fits(plan, &capacity(tokens), ARENA_BYTES) {
            tokens = LEAST_TOKENS.max(tokens / 2);
        }
        let page = KvCache::page_bytes(plan.cache_widths()).max(1);
        let longest = positions.div_ceil(PAGE_TOKENS).saturating_mul(page);
        let bytes = options.kv_memory.unwrap_or_else(|| memory::share(longest.saturating_mul(sequences)));
        let pages = (bytes / page).min(u32::MAX as usize);
        if pages == 0 {
            return Err(Error::CacheMemory { bytes, page });
        }
        let cache = KvCache::new(plan.cache_widths(), pages)?;
        let session = Session::new(Arc::clone(plan), Arc::clone(&host.pool), capacity(tokens))?;
        let limits = StepLimits {
            page_tokens: PAGE_TOKENS,
            pages,
            positions,
            source_positions: 0,
            tokens_per_step: tokens,
            sequences_per_step: sequences.min(tokens),
            vocabulary,
        };
        Ok(PlanSteps { session, cache, limits, ids: Vec::new() })
    }

    /// Bytes that the engine takes besides the keys and values.
    pub fn memory(&self) -> Memory {
        self.session.memory()
    }

    /// Bytes of the keys and values of all pages.
    pub fn cache_bytes(&self) -> usize {
        KvCache::page_bytes(self.session.plan().cache_widths()).saturating_mul(self.cache.pages())
    }

    fn run_spans(&mut self, step: &Step, logits: &mut Vec<f32>) -> Result<(), RuntimeError> {
        self.ids.clear();
        self.ids.extend(step.spans.iter().flat_map(|span| &span.ids).map(|&id| i64::from(id)));
        let span = |span: &centuple_generate::StepSpan| Span {
            tokens: span.ids.len(),
            past: span.past,
            pages: span.pages.clone(),
            selected: span.selected.clone(),
            ..Span::default()
        };
        let layout = Layout::new(step.spans.iter().map(span).collect());
        let layout = layout.map_err(|error| RuntimeError::Cache(error.to_string()))?;
        let inputs = [("input_ids", InputData::I64(&self.ids))];
        let batch = Batch { inputs: &inputs, layout: &layout, bindings: layout.bindings(), cache: Some(&self.cache) };
        self.session.run(&batch)?;
        if let Some(rows) = self.session.output(0) {
            logits.reserve(rows.rows() * rows.columns());
            (0..rows.rows()).for_each(|row| logits.extend_from_slice(rows.row(row)));
        }
        Ok(())
    }
}

impl StepEngine for PlanSteps {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn run(&mut self, step: &Step, logits: &mut Vec<f32>) -> Result<(), StepError> {
        logits.clear();
        let failed = |error: RuntimeError| StepError(format!("the model could not be run: {error}"));
        if !step.encodings.is_empty() || step.spans.iter().any(|span| span.source.is_some()) {
            return Err(StepError("the model has no encoder".to_owned()));
        }
        for copy in &step.copies {
            self.cache.copy_page(copy.from, copy.to).map_err(failed)?;
        }
        if step.spans.is_empty() { Ok(()) } else { self.run_spans(step, logits).map_err(failed) }
    }
}
