//! What the next step computes.

use super::group::Mode;
use super::{RequestId, Scheduler};
use crate::{Encoding, PageCopy, Source, Step, StepSpan, lookup};

/// What a request gets in a step.
pub(super) struct Planned {
    pub(super) request: RequestId,
    /// Whether its source is encoded.
    pub(super) encodes: bool,
    /// Whether the next tokens can be chosen afterwards.
    pub(super) ready: bool,
    pub(super) parts: Vec<Part>,
}

/// What a sequence gets in a step.
pub(super) struct Part {
    /// Place of the sequence in its group.
    pub(super) place: usize,
    /// How many of its tokens are computed.
    pub(super) tokens: usize,
    /// Tokens that are guessed to follow.
    pub(super) drafts: Vec<u32>,
}

impl Planned {
    /// Rows of logits for the request.
    pub(super) fn rows(&self) -> usize {
        if self.ready { self.parts.iter().map(|part| 1 + part.drafts.len()).sum() } else { 0 }
    }

    fn tokens(&self) -> usize {
        self.parts.iter().map(|part| part.tokens + part.drafts.len()).sum()
    }
}

impl Scheduler {
    /// What to compute next; `None` if there is nothing to do. A plan that is never completed is as if it hadn't been made.
    pub fn plan(&mut self) -> Option<Step> {
        self.planned.clear();
        self.admit();
        let running: Vec<RequestId> = self.running.keys().copied().collect();
        for &request in &running {
            self.look_up(request);
            self.plan_tokens(request);
        }
        for &request in &running {
            self.plan_prompt(request);
        }
        self.plan_drafts();
        // A step's logits come in the order of requests.
        self.planned.sort_by_key(|planned| planned.request);
        let step = self.build();
        if step.spans.is_empty() && step.encodings.is_empty() {
            return None;
        }
        self.statistics.steps += 1;
        self.statistics.computed_tokens += step.tokens() as u64;
        Some(step)
    }

    /// Lets requests begin that have room, in the order in which they came.
    fn admit(&mut self) {
        while let Some((&request, group)) = self.waiting.first_key_value() {
            let width: usize = self.running.values().map(|group| group.width).sum();
            if width + group.width > self.limits.sequences_per_step {
                break;
            }
            let Some(mut group) = self.waiting.remove(&request) else { break };
            let scope = group.scope;
            let reused = group.sequences.first_mut().map_or(0, |first| first.reuse(scope, &mut self.pool));
            // A page for each that runs, lest it lose its own at once.
            let room = self.pool.available().checked_sub(group.missing(&self.pool));
            if room.is_none_or(|room| room < self.running.len()) {
                group.preempt(&mut self.pool);
                self.waiting.insert(request, group);
                break;
            }
            self.statistics.reused_tokens += reused as u64;
            let source_pages = self.pool.pages_for(group.source.len());
            group.source_pages = (0..source_pages).map_while(|_| self.pool.allocate()).collect();
            if let Some(first) = group.sequences.first_mut() {
                first.reserve(first.ids.len(), &mut self.pool);
            }
            self.running.insert(request, group);
        }
    }

    /// Takes from the cache what the sequences of a request that lost its pages have in common: each looks once those before it are
    /// computed.
    fn look_up(&mut self, request: RequestId) {
        let Some(group) = self.running.get_mut(&request).filter(|group| group.sequences.len() > 1) else { return };
        for place in 0..group.sequences.len() {
            let Some(sequence) = group.sequences.get_mut(place) else { return };
            if sequence.pages.is_empty() {
                self.statistics.reused_tokens += sequence.reuse(group.scope, &mut self.pool) as u64;
            }
            if sequence.pending() > 1 {
                return;
            }
        }
    }

    /// Plans the next token of each sequence of a request that generates.
    fn plan_tokens(&mut self, request: RequestId) {
        let Some(group) = self.running.get(&request).filter(|group| group.is_generating()) else { return };
        let lengths: Vec<usize> = group.sequences.iter().map(|sequence| sequence.ids.len()).collect();
        for (place, &tokens) in lengths.iter().enumerate() {
            if !self.reserve(request, place, tokens) {
                return;
            }
        }
        let parts = (0..lengths.len()).map(|place| Part { place, tokens: 1, drafts: Vec::new() }).collect();
        self.planned.push(Planned { request, encodes: false, ready: true, parts });
    }

    /// Plans a chunk of a prompt, or of what a request must compute again, with the tokens that are left.
    fn plan_prompt(&mut self, request: RequestId) {
        let left = self.left();
        let Some(group) = self.running.get(&request).filter(|group| !group.is_generating()) else { return };
        let mut planned = Planned { request, encodes: false, ready: false, parts: Vec::new() };
        let mut left = left;
        if !group.encoded {
            let first = self.planned.iter().all(|planned| !planned.encodes && planned.ready);
            if left == 0 || group.source.len() > left && !first {
                return;
            }
            left = left.saturating_sub(group.source.len());
            planned.encodes = true;
        }
        let due = group.sequences.iter().position(|sequence| sequence.computed < group.target(sequence));
        if let Some(place) = due.filter(|_| left > 0) {
            let Some(sequence) = group.sequences.get(place) else { return };
            let (computed, target) = (sequence.computed, group.target(sequence));
            let tokens = left.min(target.saturating_sub(computed));
            planned.ready = group.sequences.len() == 1 && computed + tokens == target;
            if !self.reserve(request, place, computed + tokens) {
                return;
            }
            planned.parts.push(Part { place, tokens, drafts: Vec::new() });
        }
        if planned.encodes || !planned.parts.is_empty() {
            self.planned.push(planned);
        }
    }

    /// Plans guesses with the tokens and pages that nobody needs.
    fn plan_drafts(&mut self) {
        let mut left = self.left();
        for planned in &mut self.planned {
            let Some(group) = self.running.get_mut(&planned.request) else { continue };
            let Some(most) = group.parameters.prompt_lookup_num_tokens else { continue };
            let sampled = matches!(group.mode, Mode::Sampled { .. }) && group.width == 1;
            let ([part], [sequence]) = (planned.parts.as_mut_slice(), group.sequences.as_mut_slice()) else { continue };
            if !sampled || !planned.ready || part.tokens != 1 {
                continue;
            }
            let length = sequence.ids.len();
            let places = (sequence.pages.len() + self.pool.available()).saturating_mul(self.pool.page_tokens());
            let longest = group.longest.min(places + 1);
            let most = most.min(left).min(longest.saturating_sub(length + 1));
            let size = group.parameters.max_matching_ngram_size.unwrap_or(2);
            part.drafts = lookup::draft(&sequence.ids, size, most).to_vec();
            if !sequence.reserve(length + part.drafts.len(), &mut self.pool) {
                part.drafts.clear();
            }
            left -= part.drafts.len();
            self.statistics.drafted_tokens += part.drafts.len() as u64;
        }
    }

    /// Tokens of the step that nothing is planned for.
    fn left(&self) -> usize {
        let encoded = |planned: &Planned| {
            let group = self.running.get(&planned.request).filter(|_| planned.encodes);
            group.map_or(0, |group| group.source.len())
        };
        let taken: usize = self.planned.iter().map(|planned| planned.tokens() + encoded(planned)).sum();
        self.limits.tokens_per_step.saturating_sub(taken)
    }

    /// Gets a sequence pages for so many tokens, if need be from the youngest requests. Whether its own request still runs.
    fn reserve(&mut self, request: RequestId, place: usize, tokens: usize) -> bool {
        loop {
            let sequence = self.running.get_mut(&request).and_then(|group| group.sequences.get_mut(place));
            let Some(sequence) = sequence else { return false };
            if sequence.reserve(tokens, &mut self.pool) {
                return true;
            }
            let Some((youngest, mut group)) = self.running.pop_last() else { return false };
            group.preempt(&mut self.pool);
            self.waiting.insert(youngest, group);
            self.planned.retain(|planned| planned.request != youngest);
            self.statistics.preemptions += 1;
        }
    }

    /// The step that is planned.
    fn build(&self) -> Step {
        let mut step = Step::default();
        for planned in &self.planned {
            let Some(group) = self.running.get(&planned.request) else { continue };
            if planned.encodes {
                step.encodings.push(Encoding { ids: group.source.clone(), pages: group.source_pages.clone() });
            }
            for part in &planned.parts {
                let Some(sequence) = group.sequences.get(part.place) else { continue };
                let past = sequence.computed;
                let own = sequence.pages.get(past / self.pool.page_tokens()).copied();
                step.copies.extend(sequence.copy.zip(own).map(|(from, to)| PageCopy { from, to }));
                let new = sequence.ids.get(past..past + part.tokens).unwrap_or_default();
                let ids = [new, &part.drafts].concat();
                let first = if planned.ready { part.tokens.saturating_sub(1) } else { ids.len() };
                let source = (!group.source.is_empty())
                    .then(|| Source { tokens: group.source.len(), pages: group.source_pages.clone() });
                let selected = (first as u32..ids.len() as u32).collect();
                step.spans.push(StepSpan { past, pages: sequence.pages.clone(), selected, source, ids });
            }
        }
        step
    }
}
