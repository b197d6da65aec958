//! A model that is a formula, the same as in `scripts/goldens/decoding.py`, behind a cache that notices every mistake.

use std::collections::HashMap;

use centuple_generate::{Logits, Step, StepEngine, StepError, StepLimits, StepSpan};

/// Tokens of the model.
pub(crate) const VOCABULARY: usize = 40;

/// Numbers from -4 to 4 that depend on the last two tokens.
pub(crate) fn logits(ids: &[u32], salt: u64) -> Vec<f32> {
    let last = ids.last().copied().map_or(0, u64::from);
    let before = ids.iter().rev().nth(1).copied().map_or(0, u64::from);
    let number = |token: u64| mixed(last * 7919 + before * 104_729 + token * 1_299_709 + salt * 15_485_863);
    (0..VOCABULARY as u64).map(|token| number(token) as f32 / 1_048_576.0 - 4.0).collect()
}

fn mixed(number: u64) -> u32 {
    let number = (number as u32).wrapping_mul(2_654_435_761);
    let number = (number ^ number >> 15).wrapping_mul(2_246_822_519);
    let number = (number ^ number >> 13).wrapping_mul(3_266_489_917);
    (number ^ number >> 16) >> 9
}

/// What the cache has of a token: the token, and a hash of all tokens up to it.
type Slot = Option<(u32, u64)>;

fn hash(before: u64, token: u32) -> u64 {
    (before ^ u64::from(token)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23)
}

/// An engine whose cache is written and read through pages like a real one, and that refuses whatever makes no sense.
pub(crate) struct TableEngine {
    pub(crate) limits: StepLimits,
    pub(crate) salt: u64,
    slots: Vec<Vec<Slot>>,
    /// Tokens and spans of all steps so far.
    pub(crate) steps: Vec<(usize, usize)>,
    /// Steps after which every step fails.
    pub(crate) fails_after: Option<usize>,
}

impl TableEngine {
    pub(crate) fn new(limits: StepLimits, salt: u64) -> Self {
        let slots = vec![vec![None; limits.page_tokens]; limits.pages];
        Self { limits, salt, slots, steps: Vec::new(), fails_after: None }
    }

    fn slot(&mut self, pages: &[u32], position: usize) -> &mut Slot {
        let page = pages[position / self.limits.page_tokens] as usize;
        &mut self.slots[page][position % self.limits.page_tokens]
    }

    /// Runs a span and gives one row of logits for each selected token.
    fn span(&mut self, span: &StepSpan) -> Vec<f32> {
        assert!(!span.ids.is_empty() && span.ids.iter().all(|id| (*id as usize) < VOCABULARY));
        assert!(span.past + span.ids.len() <= self.limits.positions);
        let mut state = 1;
        if let Some(source) = &span.source {
            for position in 0..source.tokens {
                let (token, held) = self.slot(&source.pages, position).expect("the source was encoded");
                assert_eq!(held, u64::MAX, "a page of the source was overwritten");
                state = hash(state, token);
            }
        }
        let salt = if span.source.is_some() { self.salt + state % 1000 } else { self.salt };
        let mut ids = Vec::new();
        for position in 0..span.past {
            let (token, held) = self.slot(&span.pages, position).expect("past tokens are in the cache");
            state = hash(state, token);
            assert_eq!(held, state, "position {position} belongs to another sequence");
            ids.push(token);
        }
        let mut rows = Vec::new();
        for (index, &token) in span.ids.iter().enumerate() {
            state = hash(state, token);
            *self.slot(&span.pages, span.past + index) = Some((token, state));
            ids.push(token);
            if span.selected.contains(&(index as u32)) {
                rows.extend(logits(&ids, salt));
            }
        }
        rows
    }

    /// No span writes where another reads or writes.
    fn check_places(&self, step: &Step) {
        let mut places: HashMap<(u32, usize), (usize, bool)> = HashMap::new();
        for (index, span) in step.spans.iter().enumerate() {
            for position in 0..span.past + span.ids.len() {
                let page = span.pages[position / self.limits.page_tokens];
                let written = position >= span.past;
                let earlier = places.insert((page, position % self.limits.page_tokens), (index, written));
                assert!(earlier.is_none_or(|(other, other_written)| other == index || !written && !other_written));
            }
        }
    }
}

impl StepEngine for TableEngine {
    fn limits(&self) -> StepLimits {
        self.limits
    }

    fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError> {
        if self.fails_after.is_some_and(|steps| self.steps.len() >= steps) {
            return Err(StepError("the engine is broken".to_owned()));
        }
        let encoded: usize = step.encodings.iter().map(|encoding| encoding.ids.len()).sum();
        let tokens = step.tokens() + encoded;
        assert!(tokens <= self.limits.tokens_per_step || step.encodings.len() == 1, "{tokens} tokens");
        self.steps.push((tokens, step.spans.len()));
        for copy in &step.copies {
            self.slots[copy.to as usize] = self.slots[copy.from as usize].clone();
        }
        for encoding in &step.encodings {
            for (position, &id) in encoding.ids.iter().enumerate() {
                *self.slot(&encoding.pages, position) = Some((id, u64::MAX));
            }
        }
        self.check_places(step);
        logits.clear();
        for span in &step.spans {
            logits.values.extend(self.span(span));
        }
        assert_eq!(logits.values.len(), step.rows() * VOCABULARY);
        Ok(())
    }
}
