//! The step engine: packs the sequences of a step, runs the plan over pages of keys and values, hands out rows of logits.

use std::sync::{Arc, Mutex};

use centuple_generate::{Logits, Peak, Step, StepEngine, StepError, StepLimits, StepSpan};
use centuple_kernels::{Kernels, ThreadPool};
use centuple_runtime::{Batch, InputData, KvCache, Memory, OutputRows, Plan, RuntimeError, Session};
use centuple_tensor::{Bindings, Layout, LayoutError, PAGE_TOKENS, Source, Span};

use super::encoder::SourceEncoder;
use super::{GenerationOptions, memory};
use crate::error::Error;
use crate::host::Host;
use crate::runs::{ARENA_BYTES, fits};

/// Tokens of a step that are never less, however wide the vocabulary is.
const LEAST_TOKENS: usize = 16;

/// Runs steps of a generating plan over a cache of its own.
pub struct PlanSteps {
    session: Session,
    pool: Arc<ThreadPool>,
    kernels: Kernels,
    /// What reads texts, where the model is a decoder behind an encoder.
    encoder: Option<SourceEncoder>,
    cache: KvCache,
    limits: StepLimits,
    ids: Vec<i64>,
}

impl PlanSteps {
    /// An engine over the plan of a decoder that takes so many `positions`, as its encoder does where it has one, and gives a
    /// logit for each token of the `vocabulary`.
    ///
    /// # Errors
    /// The memory isn't enough for one page, or isn't granted.
    pub(crate) fn new(
        host: &Host,
        plan: &Arc<Plan>,
        encoder: Option<&Arc<Plan>>,
        [positions, vocabulary]: [usize; 2],
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
        let kv_precision = options.kv_precision.unwrap_or_default();
        let page = KvCache::page_bytes(plan.cache_slots(), kv_precision).max(1);
        let texts = if encoder.is_some() { 2 } else { 1 };
        let longest = positions.div_ceil(PAGE_TOKENS).saturating_mul(page).saturating_mul(texts);
        let bytes = options.kv_memory.unwrap_or_else(|| memory::share(longest.saturating_mul(sequences)));
        let pages = (bytes / page).min(u32::MAX as usize);
        if pages == 0 {
            return Err(Error::CacheMemory { bytes, page });
        }
        let cache = KvCache::new(plan.cache_slots(), kv_precision, pages)?;
        let session = Session::new(Arc::clone(plan), Arc::clone(&host.pool), capacity(tokens))?;
        // A text can't be cut.
        let encoder = encoder.map(|plan| SourceEncoder::new(host, plan, positions.max(tokens))).transpose()?;
        let limits = StepLimits {
            page_tokens: PAGE_TOKENS,
            pages,
            positions,
            source_positions: if encoder.is_some() { positions } else { 0 },
            tokens_per_step: tokens,
            sequences_per_step: sequences.min(tokens),
            vocabulary,
        };
        let (pool, kernels) = (Arc::clone(&host.pool), Kernels::new(host.isa).map_err(RuntimeError::Kernel)?);
        Ok(PlanSteps { session, pool, kernels, encoder, cache, limits, ids: Vec::new() })
    }

    /// Bytes that the engine takes besides the keys and values.
    pub fn memory(&self) -> Memory {
        let own = self.session.memory();
        let Some(encoder) = self.encoder.as_ref().map(SourceEncoder::memory) else { return own };
        Memory {
            weights: own.weights + encoder.weights,
            shared_weights: own.shared_weights + encoder.shared_weights,
            arena: own.arena + encoder.arena,
            workers: own.workers + encoder.workers,
        }
    }

    /// Bytes of the keys and values of all pages.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    fn run_spans(&mut self, step: &Step, logits: &mut Logits) -> Result<(), RuntimeError> {
        self.ids.clear();
        self.ids.extend(ids(step));
        let layout = layout(step).map_err(|error| RuntimeError::Cache(error.to_string()))?;
        let inputs = [("input_ids", InputData::I64(&self.ids))];
        let batch = Batch { inputs: &inputs, layout: &layout, bindings: layout.bindings(), cache: Some(&self.cache) };
        self.session.run(&batch)?;
        match self.session.output(0) {
            Some(rows) => hand_out(&self.pool, self.kernels, &rows, logits),
            None => {
                logits.clear();
                Ok(())
            }
        }
    }
}

/// The sequences of a step as one packed batch, each with its pages and those of what it answers.
pub(crate) fn layout(step: &Step) -> Result<Layout, LayoutError> {
    let span = |span: &StepSpan| Span {
        tokens: span.ids.len(),
        past: span.past,
        pages: span.pages.clone(),
        selected: span.selected.clone(),
        source: span.source.as_ref().map(|source| Source { tokens: source.tokens, pages: source.pages.clone() }),
        ..Span::default()
    };
    Layout::new(step.spans.iter().map(span).collect())
}

/// The tokens of that batch.
pub(crate) fn ids(step: &Step) -> impl Iterator<Item = i64> {
    step.spans.iter().flat_map(|span| &span.ids).map(|&id| i64::from(id))
}

/// Copies rows over what was there and finds their peaks, each worker those of some.
fn hand_out(
    pool: &ThreadPool,
    kernels: Kernels,
    rows: &OutputRows<'_>,
    logits: &mut Logits,
) -> Result<(), RuntimeError> {
    logits.values.resize(rows.rows() * rows.columns(), 0.0);
    logits.peaks.resize(rows.rows(), None);
    let places = logits.values.chunks_exact_mut(rows.columns().max(1)).zip(&mut logits.peaks);
    let places: Vec<_> = places.map(Mutex::new).collect();
    pool.run(&|worker| {
        for row in worker.share(rows.rows()) {
            let Some(Ok(mut place)) = places.get(row).map(Mutex::lock) else { continue };
            let (values, found) = &mut *place;
            values.copy_from_slice(rows.row(row));
            let peak = kernels.peak(values);
            **found = peak.map(|peak| Peak { token: peak.index as u32, log_sum: peak.log_sum });
        }
    })?;
    Ok(())
}

impl StepEngine for PlanSteps {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError> {
        let failed = |error: RuntimeError| StepError(format!("the model could not be run: {error}"));
        let reads = self.encoder.is_some();
        if step.spans.iter().any(|span| span.source.is_some() != reads) || !(step.encodings.is_empty() || reads) {
            let reason =
                if reads { "the model answers a text, and none was given" } else { "the model has no encoder" };
            return Err(StepError(reason.to_owned()));
        }
        for copy in &step.copies {
            self.cache.copy_page(copy.from, copy.to).map_err(failed)?;
        }
        if let Some(encoder) = &mut self.encoder {
            encoder.encode(&step.encodings, &mut self.cache).map_err(failed)?;
        }
        if step.spans.is_empty() {
            logits.clear();
            return Ok(());
        }
        self.run_spans(step, logits).map_err(failed)
    }
}
