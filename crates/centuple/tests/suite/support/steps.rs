//! Generation step by step, over a plan and a cache of keys and values.

use std::sync::Arc;

use centuple::Compiled;
use centuple::kernels::ThreadPool;
use centuple_runtime::{Batch, InputData, KvCache, KvPrecision, Session};
use centuple_tensor::{Bindings, Layout, PAGE_TOKENS, Span};

/// A session and its cache.
pub(crate) struct Steps {
    session: Session,
    cache: KvCache,
}

/// New tokens of a sequence, and what came before them.
#[derive(Clone, Default)]
pub(crate) struct Part<'a> {
    pub(crate) ids: &'a [u32],
    pub(crate) past: usize,
    /// Which of the new tokens are to tell the next one.
    pub(crate) selected: Vec<u32>,
    /// Pages of the cache; none for a sequence that is computed from its beginning.
    pub(crate) pages: Vec<u32>,
}

impl Steps {
    /// Memory for so many tokens at once, and so many pages.
    pub(crate) fn new(compiled: &Compiled, threads: usize, tokens: usize, pages: usize) -> Steps {
        Steps::with_cache_of(KvPrecision::F32, compiled, threads, (tokens, pages))
    }

    /// The same with keys and values of a precision.
    pub(crate) fn with_cache_of(
        precision: KvPrecision,
        compiled: &Compiled,
        threads: usize,
        (tokens, pages): (usize, usize),
    ) -> Steps {
        let plan = Arc::clone(&compiled.plan);
        let cache = KvCache::new(plan.cache_slots(), precision, pages).expect("memory");
        let past = pages * PAGE_TOKENS;
        let capacity =
            Bindings { tokens, sequences: 16, sequence: tokens, selected: tokens, past, ..Bindings::default() };
        let pool = Arc::new(ThreadPool::new(threads).expect("threads start"));
        Steps { session: Session::new(plan, pool, capacity).expect("the session fits"), cache }
    }

    /// The logits of every selected token of a batch, in order.
    pub(crate) fn run(&mut self, parts: &[Part]) -> Vec<Vec<f32>> {
        let ids: Vec<i64> = parts.iter().flat_map(|part| part.ids).map(|&id| i64::from(id)).collect();
        let span = |part: &Part| Span {
            tokens: part.ids.len(),
            past: part.past,
            pages: part.pages.clone(),
            selected: part.selected.clone(),
            ..Span::default()
        };
        let layout = Layout::new(parts.iter().map(span).collect()).expect("a layout");
        let inputs = [("input_ids", InputData::I64(&ids))];
        let cache = parts.iter().any(|part| !part.pages.is_empty()).then_some(&self.cache);
        let bindings = layout.bindings();
        self.session.run(&Batch { inputs: &inputs, layout: &layout, bindings, cache }).expect("the batch runs");
        let rows = self.session.output(0).expect("one output");
        (0..rows.rows()).map(|row| rows.row(row).to_vec()).collect()
    }

    /// Goes on from each prompt for so many steps, all together, with the likeliest token each time. Yields tokens, and the
    /// logits that each came from.
    pub(crate) fn greedy(&mut self, prompts: &[&[u32]], steps: usize) -> Vec<Vec<(u32, Vec<f32>)>> {
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0) + steps;
        // Pages of the sequences lie between each other's, the last ones first.
        let count = longest.div_ceil(PAGE_TOKENS);
        let pages =
            |sequence: usize| (0..count).rev().map(|page| (page * prompts.len() + sequence) as u32).collect::<Vec<_>>();
        let mut found: Vec<Vec<(u32, Vec<f32>)>> = vec![Vec::new(); prompts.len()];
        for _ in 0..steps {
            let last: Vec<Vec<u32>> =
                found.iter().map(|found| found.last().map(|(token, _)| *token).into_iter().collect()).collect();
            let part = |sequence: usize| {
                let (prompt, found) = (prompts[sequence], &found[sequence]);
                let past = if found.is_empty() { 0 } else { prompt.len() + found.len() - 1 };
                let ids = if found.is_empty() { prompt } else { last[sequence].as_slice() };
                Part { ids, past, selected: vec![ids.len() as u32 - 1], pages: pages(sequence) }
            };
            let parts: Vec<Part> = (0..prompts.len()).map(part).collect();
            let logits = self.run(&parts);
            for (found, logits) in found.iter_mut().zip(logits) {
                found.push((likeliest(&logits), logits));
            }
        }
        found
    }
}

/// The first of the largest logits.
pub(crate) fn likeliest(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).fold(0, |best, token| if logits[token] > logits[best] { token } else { best });
    best as u32
}
