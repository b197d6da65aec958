//! A request with its sequences, and the pages they use.

use std::sync::Arc;

use super::{Finish, RequestId, Update};
use crate::{BeamSearch, Constraint, Decode, PagePool, Parameters, Processors, Sampler, Scope, TextStream};

/// How tokens of a request are chosen.
pub(super) enum Mode {
    /// Each sequence for itself.
    Sampled {
        /// Whether there are as many sequences as answers; before the first token there is one.
        begun: bool,
    },
    /// All sequences together; they are the open beams, in their order.
    Beams(Box<BeamSearch>),
}

/// A request with its sequences.
pub(super) struct Group {
    pub(super) id: RequestId,
    pub(super) scope: Scope,
    /// Tokens of the prompt.
    pub(super) prompt: usize,
    /// Most tokens of prompt and answer.
    pub(super) longest: usize,
    /// Most sequences that run at once.
    pub(super) width: usize,
    pub(super) parameters: Parameters,
    pub(super) processors: Processors,
    pub(super) sampler: Sampler,
    pub(super) mode: Mode,
    pub(super) decoder: Option<Arc<dyn Decode>>,
    pub(super) constraint: Option<Constraint>,
    /// The encoder's input; empty without an encoder.
    pub(super) source: Vec<u32>,
    pub(super) source_pages: Vec<u32>,
    /// Whether what the encoder gives is in its pages, or there is no encoder.
    pub(super) encoded: bool,
    /// Sequences that are still open.
    pub(super) sequences: Vec<Sequence>,
}

/// One sequence that is generated.
#[derive(Default)]
pub(super) struct Sequence {
    /// Which answer it is.
    pub(super) index: u32,
    /// Tokens of prompt and answer.
    pub(super) ids: Vec<u32>,
    /// How many of them are in the pages.
    pub(super) computed: usize,
    pub(super) pages: Vec<u32>,
    /// How many pages others may find.
    published: usize,
    /// The page of another sequence that the first one of its own must be copied from before the next step.
    pub(super) copy: Option<u32>,
    pub(super) text: Option<TextStream>,
    /// How far the answer has come in what it may be.
    pub(super) constraint: Option<Constraint>,
}

impl Sequence {
    pub(super) fn new(index: u32, ids: Vec<u32>) -> Self {
        Self { index, ids, ..Self::default() }
    }

    /// Tokens that must be computed before the next one can be chosen.
    pub(super) fn pending(&self) -> usize {
        self.ids.len() - self.computed
    }

    /// Takes what the pool holds of its beginning, leaving one token to compute. Gives the number of tokens found.
    pub(super) fn reuse(&mut self, scope: Scope, pool: &mut PagePool) -> usize {
        let begin = self.ids.split_last().map_or(&[][..], |(_, begin)| begin);
        self.pages = pool.reuse(scope, begin);
        self.published = self.pages.len();
        self.computed = self.published * pool.page_tokens();
        self.computed
    }

    /// Gets pages for so many tokens, all or none.
    pub(super) fn reserve(&mut self, tokens: usize, pool: &mut PagePool) -> bool {
        let missing = pool.pages_for(tokens).saturating_sub(self.pages.len());
        if missing > pool.available() {
            return false;
        }
        self.pages.extend((0..missing).map_while(|_| pool.allocate()));
        true
    }

    /// Gives all pages back.
    pub(super) fn release(&mut self, keep: bool, pool: &mut PagePool) {
        pool.release(&self.pages, keep);
        self.pages.clear();
        self.copy = None;
        (self.computed, self.published) = (0, 0);
    }

    /// Lets others find the pages that are full.
    pub(super) fn publish(&mut self, scope: Scope, pool: &mut PagePool) {
        let size = pool.page_tokens();
        while let Some(tokens) = self.ids.get(self.published * size..(self.published + 1) * size) {
            let before = self.published.checked_sub(1).and_then(|index| self.pages.get(index)).copied();
            let full = self.computed >= (self.published + 1) * size;
            let Some(page) = self.pages.get_mut(self.published).filter(|_| full) else { break };
            *page = pool.publish(scope, before, tokens, *page);
            self.published += 1;
        }
    }

    /// Another sequence with the same tokens in the cache: it shares full pages, and copies the last before it writes to it.
    fn sibling(&self, pool: &mut PagePool) -> Sequence {
        let full = self.computed / pool.page_tokens();
        let pages = self.pages.get(..full).unwrap_or(&self.pages).to_vec();
        pages.iter().for_each(|page| pool.share(*page));
        let copy = if self.computed.is_multiple_of(pool.page_tokens()) { None } else { self.pages.get(full).copied() };
        Sequence { computed: self.computed, published: self.published.min(full), copy, pages, ..Sequence::default() }
    }
}

impl Group {
    /// Whether each open sequence can have its next token in the next step.
    pub(super) fn is_generating(&self) -> bool {
        self.encoded && self.sequences.iter().all(|sequence| sequence.pending() == 1)
    }

    /// Tokens of a sequence to compute before all go on together: without the last, if there are several.
    pub(super) fn target(&self, sequence: &Sequence) -> usize {
        sequence.ids.len() - usize::from(self.sequences.len() > 1)
    }

    /// Pages that must be available for the group to begin, beside those that its first sequence has.
    pub(super) fn missing(&self, pool: &PagePool) -> usize {
        let shared = self.prompt / pool.page_tokens();
        let mut missing = pool.pages_for(self.source.len());
        for (place, sequence) in self.sequences.iter().enumerate() {
            let known = if place == 0 { sequence.pages.len() } else { shared };
            missing += pool.pages_for(sequence.ids.len()).saturating_sub(known);
        }
        missing
    }

    /// Gives all pages back for good.
    pub(super) fn release(&mut self, pool: &mut PagePool) {
        let keep = matches!(self.scope, Scope::Shared(_));
        self.give_back(keep, pool);
    }

    /// Gives all pages back; what they hold will be asked for again.
    pub(super) fn preempt(&mut self, pool: &mut PagePool) {
        self.give_back(true, pool);
    }

    fn give_back(&mut self, keep: bool, pool: &mut PagePool) {
        self.sequences.iter_mut().for_each(|sequence| sequence.release(keep, pool));
        pool.release(&self.source_pages, false);
        self.source_pages.clear();
        self.encoded = self.source.is_empty();
    }

    /// Replaces the sequences by continuations of them: each of these is the place of the one it goes on from, its answer and its tokens.
    pub(super) fn branch(&mut self, branches: Vec<(usize, u32, Vec<u32>)>, pool: &mut PagePool) {
        let mut parents: Vec<Option<Sequence>> = std::mem::take(&mut self.sequences).into_iter().map(Some).collect();
        for (place, parent) in parents.iter_mut().enumerate() {
            if !branches.iter().any(|(from, ..)| *from == place)
                && let Some(mut parent) = parent.take()
            {
                parent.release(true, pool);
            }
        }
        // The first continuation has the pages of its parent, the others share what is full.
        let mut heirs = vec![None; parents.len()];
        for (from, index, ids) in branches {
            let heir = heirs.get(from).copied().flatten().and_then(|heir: usize| self.sequences.get(heir));
            let continued = match heir {
                Some(heir) => Some(heir.sibling(pool)),
                None => parents.get_mut(from).and_then(Option::take),
            };
            let Some(continued) = continued else { continue };
            if let Some(place) = heirs.get_mut(from).filter(|place| place.is_none()) {
                *place = Some(self.sequences.len());
            }
            self.sequences.push(Sequence { index, ids, ..continued });
        }
    }

    /// A stream of the text of an answer.
    pub(super) fn text_stream(&self, prompt: &[u32]) -> Option<TextStream> {
        let decoder = self.decoder.clone()?;
        Some(TextStream::new(decoder, prompt, &self.parameters.stop_strings))
    }

    /// Tells that all open answers end with an error.
    pub(super) fn fail(&self, reason: &str, updates: &mut Vec<Update>) {
        let open: Vec<u32> = match self.mode {
            Mode::Sampled { begun: true } => self.sequences.iter().map(|sequence| sequence.index).collect(),
            Mode::Sampled { begun: false } | Mode::Beams(_) => {
                (0..self.parameters.num_return_sequences as u32).collect()
            }
        };
        updates.extend(open.into_iter().map(|sequence| Update {
            request: self.id,
            sequence,
            tokens: Vec::new(),
            text: String::new(),
            finish: Some(Finish::Failed(reason.to_owned())),
            score: None,
        }));
    }
}
