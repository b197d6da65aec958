//! Continuous batching: which sequences run in which step, and on which pages.
//!
//! A pure state machine. [`Scheduler::plan`] says what to compute, [`Scheduler::complete`] takes the logits and says what each request
//! got. Requests come and go between any two steps:
//!
//! - Every sequence that generates gets its token in every step; what is left of the step's tokens goes to prompts, the
//!   oldest first, in chunks. So a long prompt stalls nobody.
//! - A request begins when its prompt fits the free pages. When pages run out later, the youngest request loses its own and is
//!   computed again when there is room; the oldest never loses any, so each request ends. Pages that it lost are often still there
//!   then, and are found as any known beginning of a prompt is.
//! - Beams and several answers share the pages of what they have in common.
//!
//! A request that the cache could never hold is refused when it comes.

mod complete;
mod group;
mod plan;
mod submit;

use std::collections::BTreeMap;
use std::sync::Arc;

use group::Group;
use plan::Planned;

use crate::{Constraint, Decode, Logits, PagePool, Parameters, Sampled, Step, StepEngine, StepError, StepLimits};

/// A request of one scheduler. Numbers ascend and never come back.
pub type RequestId = u64;

/// What is to be generated.
#[derive(Clone, Debug)]
pub struct Request {
    /// Tokens that the answer follows; for a model with an encoder, what its decoder begins with.
    pub prompt: Vec<u32>,
    /// Tokens for the encoder, for a model that has one.
    pub source: Option<Vec<u32>>,
    /// How.
    pub parameters: Parameters,
    /// Where draws come from if the parameters don't say.
    pub seed: u64,
    /// Requests with the same number reuse what the cache holds of each other's prompts; one without shares with nobody.
    pub client: Option<u64>,
    /// The tokenizer, if text is wanted. Stop strings need it.
    pub decoder: Option<Arc<dyn Decode>>,
    /// What answers may be, if not everything. Not for beams.
    pub constraint: Option<Constraint>,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It has as many tokens as it may have.
    Length,
    /// The model ended it, with this token.
    EndOfText(u32),
    /// This stop string came. It is not in the text.
    Stop(String),
    /// It could not be computed, for this reason.
    Failed(String),
}

/// What an answer got in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The request.
    pub request: RequestId,
    /// Which of its answers.
    pub sequence: u32,
    /// New tokens, the last one included that ends it. Beams give theirs all at the end.
    pub tokens: Vec<Sampled>,
    /// New text that is complete.
    pub text: String,
    /// Why it ended, if it did.
    pub finish: Option<Finish>,
    /// The score of a finished beam.
    pub score: Option<f32>,
}

/// What a scheduler holds now, and has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests that wait for room.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// Pages that running requests use.
    pub pages_used: usize,
    /// Pages that hold beginnings which may come again.
    pub pages_idle: usize,
    /// Pages of the cache.
    pub pages: usize,
    /// Steps planned so far.
    pub steps: u64,
    /// Tokens computed so far, guesses included.
    pub computed_tokens: u64,
    /// Tokens that needn't be computed since the cache held them.
    pub reused_tokens: u64,
    /// How often a request lost its pages.
    pub preemptions: u64,
    /// Tokens guessed ahead.
    pub drafted_tokens: u64,
    /// Guesses that were right.
    pub accepted_tokens: u64,
}

/// Requests, and the pages they use.
pub struct Scheduler {
    limits: StepLimits,
    pool: PagePool,
    waiting: BTreeMap<RequestId, Group>,
    running: BTreeMap<RequestId, Group>,
    planned: Vec<Planned>,
    last: RequestId,
    statistics: Statistics,
}

impl Scheduler {
    /// A scheduler for an engine of these limits.
    pub fn new(limits: StepLimits) -> Self {
        // Half of a step at least is left for prompts.
        let most = (limits.tokens_per_step / 2).max(1);
        let sequences_per_step = limits.sequences_per_step.clamp(1, most);
        let limits = StepLimits { sequences_per_step, tokens_per_step: limits.tokens_per_step.max(1), ..limits };
        Self {
            limits,
            pool: PagePool::new(limits.pages, limits.page_tokens),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            planned: Vec::new(),
            last: 0,
            statistics: Statistics::default(),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Whether a request waits or runs.
    pub fn contains(&self, request: RequestId) -> bool {
        self.waiting.contains_key(&request) || self.running.contains_key(&request)
    }

    /// What it holds and has done.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            waiting: self.waiting.len(),
            running: self.running.len(),
            pages_used: self.pool.used(),
            pages_idle: self.pool.idle(),
            pages: self.pool.len(),
            ..self.statistics
        }
    }

    /// Ends a request; its pages are free at once. Whether there was such a request.
    ///
    /// May be called while a step is computed: what the step gives for it is passed over.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        let group = self.waiting.remove(&request).or_else(|| self.running.remove(&request));
        let Some(mut group) = group else { return false };
        group.release(&mut self.pool);
        true
    }

    /// Plans a step, runs it and completes it. `None` if there is nothing to do.
    pub fn step(&mut self, engine: &mut dyn StepEngine, logits: &mut Logits) -> Option<Vec<Update>> {
        let step: Step = self.plan()?;
        Some(match engine.run(&step, logits) {
            Ok(()) => self.complete(logits),
            Err(error) => self.fail(&error),
        })
    }

    /// Ends all requests of the planned step with an error.
    pub fn fail(&mut self, error: &StepError) -> Vec<Update> {
        let mut updates = Vec::new();
        for planned in std::mem::take(&mut self.planned) {
            if let Some(mut group) = self.running.remove(&planned.request) {
                group.fail(&error.0, &mut updates);
                group.release(&mut self.pool);
            }
        }
        updates
    }
}
