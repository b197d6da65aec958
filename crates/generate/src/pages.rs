//! Who owns which page of the key/value cache.
//!
//! A page holds the keys and values of a fixed number of tokens. It is free, used by one or more sequences, or idle: used by
//! nobody, but still holding tokens that a later prompt may begin with. Idle pages are given away when no free one is left, those
//! that were used longest ago first.

use std::collections::{BTreeMap, HashMap};

/// Who may reuse each other's pages.
///
/// The speed of an answer tells that its beginning was asked before, so pages are shared only within a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All requests that have this number: those of a client, say.
    Shared(u64),
    /// One request alone.
    Private(u64),
}

/// What a page holds: full tokens after what another page holds. Two pages hold the same if and only if this is equal, since
/// numbers of contents are never used twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Content {
    scope: Scope,
    /// Number of the content before it; 0 at the beginning.
    before: u64,
    tokens: Box<[u32]>,
}

#[derive(Clone, Debug, Default)]
struct Page {
    users: u32,
    /// What it holds for others to find, and the number of that.
    content: Option<(Content, u64)>,
    /// When it became idle.
    idle_since: u64,
}

/// All pages of a cache. Its memory is bounded by their number.
#[derive(Clone, Debug)]
pub struct PagePool {
    page_tokens: usize,
    pages: Vec<Page>,
    free: Vec<u32>,
    contents: HashMap<Content, u32>,
    idle: BTreeMap<u64, u32>,
    clock: u64,
}

impl PagePool {
    /// A pool of free pages of `page_tokens` tokens each.
    pub fn new(pages: usize, page_tokens: usize) -> Self {
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        Self {
            page_tokens: page_tokens.max(1),
            pages: vec![Page::default(); pages as usize],
            free: (0..pages).rev().collect(),
            contents: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Number of all pages.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Tokens per page.
    pub fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// Whether there is no page.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Pages that can be allocated: free and idle ones.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Pages that hold tokens which nobody uses now.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Pages that some sequence uses.
    pub fn used(&self) -> usize {
        self.len() - self.available()
    }

    /// Pages for so many tokens.
    pub fn pages_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_tokens)
    }

    /// A page for one user, or `None` if all are used.
    pub fn allocate(&mut self) -> Option<u32> {
        let page = self.free.pop().or_else(|| self.evict())?;
        self.pages.get_mut(page as usize)?.users = 1;
        Some(page)
    }

    /// Takes the page that is idle for longest. Pages go idle last page first, so none is taken that others go on from.
    fn evict(&mut self) -> Option<u32> {
        let (_, page) = self.idle.pop_first()?;
        self.forget(page);
        Some(page)
    }

    /// Makes that nobody finds what a page holds.
    fn forget(&mut self, page: u32) {
        if let Some((content, _)) = self.pages.get_mut(page as usize).and_then(|page| page.content.take()) {
            self.contents.remove(&content);
        }
    }

    /// Adds a user to a page.
    pub fn share(&mut self, page: u32) {
        let Some(state) = self.pages.get_mut(page as usize) else { return };
        if state.users == 0 {
            self.idle.remove(&state.idle_since);
        }
        state.users += 1;
    }

    /// Takes a user from each page; they are those of a sequence, in its order. Pages that nobody uses any more go idle if they
    /// hold something that can be found and `keep` says so.
    pub fn release(&mut self, pages: &[u32], keep: bool) {
        for &page in pages.iter().rev() {
            let Some(state) = self.pages.get_mut(page as usize) else { continue };
            debug_assert!(state.users > 0, "page {page} is released by somebody who doesn't use it");
            state.users = state.users.saturating_sub(1);
            if state.users > 0 {
                continue;
            }
            if keep && state.content.is_some() {
                self.clock += 1;
                state.idle_since = self.clock;
                self.idle.insert(self.clock, page);
            } else {
                self.forget(page);
                self.free.push(page);
            }
        }
    }

    /// Pages that hold the first of these tokens, as many full ones as there are, each with a new user.
    pub fn reuse(&mut self, scope: Scope, tokens: &[u32]) -> Vec<u32> {
        let mut found = Vec::new();
        let mut before = 0;
        for tokens in tokens.chunks_exact(self.page_tokens) {
            let content = Content { scope, before, tokens: tokens.into() };
            let Some(&page) = self.contents.get(&content) else { break };
            let Some((_, number)) = self.pages.get(page as usize).and_then(|page| page.content.as_ref()) else { break };
            before = *number;
            self.share(page);
            found.push(page);
        }
        found
    }

    /// Lets others find a full page with these tokens, behind the page `before` (`None` at the beginning). If there is a page with the
    /// same content already, the user gets that in its place: what is computed of the same tokens has the same bits.
    pub fn publish(&mut self, scope: Scope, before: Option<u32>, tokens: &[u32], page: u32) -> u32 {
        let before = match before.map(|page| self.pages.get(page as usize).and_then(|page| page.content.as_ref())) {
            None => 0,
            Some(Some((_, number))) => *number,
            Some(None) => return page,
        };
        let content = Content { scope, before, tokens: tokens.into() };
        if let Some(&other) = self.contents.get(&content) {
            if other != page {
                self.share(other);
                self.release(&[page], false);
            }
            return other;
        }
        self.clock += 1;
        if let Some(state) = self.pages.get_mut(page as usize).filter(|state| state.content.is_none()) {
            state.content = Some((content.clone(), self.clock));
            self.contents.insert(content, page);
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKENS: usize = 4;

    /// What a sequence may do next.
    #[derive(Clone, Debug)]
    enum Action {
        Begin(u64, Vec<u32>),
        Grow(usize, u32),
        Fork(usize),
        End(usize, bool),
    }

    fn action() -> impl Strategy<Value = Action> {
        let tokens = || proptest::collection::vec(0..2_u32, 0..20);
        prop_oneof![
            (0..2_u64, tokens()).prop_map(|(scope, tokens)| Action::Begin(scope, tokens)),
            (any::<usize>(), 0..2_u32).prop_map(|(at, token)| Action::Grow(at, token)),
            any::<usize>().prop_map(Action::Fork),
            (any::<usize>(), any::<bool>()).prop_map(|(at, keep)| Action::End(at, keep)),
        ]
    }

    #[derive(Clone)]
    struct Sequence {
        scope: Scope,
        ids: Vec<u32>,
        pages: Vec<u32>,
        published: usize,
    }

    /// A cache that remembers what was written to each place.
    struct Model {
        pool: PagePool,
        written: Vec<[u32; TOKENS]>,
        sequences: Vec<Sequence>,
    }

    impl Model {
        fn push(&mut self, at: usize, token: u32) -> bool {
            let sequence = &mut self.sequences[at];
            if sequence.ids.len() == sequence.pages.len() * TOKENS {
                let Some(page) = self.pool.allocate() else { return false };
                sequence.pages.push(page);
            }
            let last = sequence.pages[sequence.pages.len() - 1];
            self.written[last as usize][sequence.ids.len() % TOKENS] = token;
            sequence.ids.push(token);
            if sequence.ids.len().is_multiple_of(TOKENS) {
                let index = sequence.published;
                let before = index.checked_sub(1).map(|before| sequence.pages[before]);
                let tokens = &sequence.ids[index * TOKENS..];
                sequence.pages[index] = self.pool.publish(sequence.scope, before, tokens, last);
                sequence.published += 1;
            }
            true
        }

        fn act(&mut self, action: Action) {
            let count = self.sequences.len();
            match action {
                Action::Begin(scope, tokens) => {
                    let scope = Scope::Shared(scope);
                    let pages = self.pool.reuse(scope, &tokens);
                    let known = pages.len() * TOKENS;
                    let ids = tokens[..known].to_vec();
                    self.sequences.push(Sequence { scope, ids, published: pages.len(), pages });
                    for &token in &tokens[known..] {
                        self.push(count, token);
                    }
                }
                Action::Grow(at, token) if count > 0 => {
                    self.push(at % count, token);
                }
                Action::Fork(at) if count > 0 => {
                    let mut fork = self.sequences[at % count].clone();
                    fork.ids.truncate(fork.published * TOKENS);
                    fork.pages.truncate(fork.published);
                    fork.pages.iter().for_each(|page| self.pool.share(*page));
                    self.sequences.push(fork);
                }
                Action::End(at, keep) if count > 0 => {
                    let sequence = self.sequences.swap_remove(at % count);
                    self.pool.release(&sequence.pages, keep);
                }
                Action::Grow(..) | Action::Fork(_) | Action::End(..) => {}
            }
        }

        fn check(&self) {
            let mut users = vec![0; self.pool.len()];
            for sequence in &self.sequences {
                for (index, &page) in sequence.pages.iter().enumerate() {
                    users[page as usize] += 1;
                    let tokens = sequence.ids.iter().skip(index * TOKENS).take(TOKENS).copied();
                    let written = self.written[page as usize];
                    assert!(tokens.eq(written.into_iter().take(sequence.ids.len() - index * TOKENS)), "overwritten");
                }
            }
            let counted: Vec<u32> = self.pool.pages.iter().map(|page| page.users).collect();
            assert_eq!(counted, users);
            assert_eq!(self.pool.used(), users.iter().filter(|users| **users > 0).count());
        }
    }

    proptest! {
        #[test]
        fn no_page_is_overwritten_and_all_come_back(actions in proptest::collection::vec(action(), 0..120)) {
            let mut model = Model { pool: PagePool::new(9, TOKENS), written: vec![[9; TOKENS]; 9], sequences: Vec::new() };
            for action in actions {
                model.act(action);
                model.check();
            }
            while let Some(sequence) = model.sequences.pop() {
                model.pool.release(&sequence.pages, true);
            }
            prop_assert_eq!(model.pool.available(), 9);
            let all: Vec<u32> = std::iter::from_fn(|| model.pool.allocate()).collect();
            prop_assert_eq!(all.len(), 9);
            prop_assert!(model.pool.contents.is_empty() && model.pool.idle.is_empty());
        }
    }

    #[test]
    fn scopes_share_nothing() {
        let mut pool = PagePool::new(4, TOKENS);
        let page = pool.allocate().unwrap_or_default();
        pool.publish(Scope::Shared(1), None, &[1; 4], page);
        pool.release(&[page], true);
        assert!(pool.reuse(Scope::Shared(2), &[1; 4]).is_empty());
        assert!(pool.reuse(Scope::Private(1), &[1; 4]).is_empty());
        assert!(pool.reuse(Scope::Shared(1), &[1, 1, 1]).is_empty());
        assert_eq!(pool.reuse(Scope::Shared(1), &[1; 9]), [page]);
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut pool = PagePool::new(3, TOKENS);
        let scope = Scope::Shared(0);
        let mut pages = Vec::new();
        for token in 0..3 {
            let page = pool.allocate().unwrap_or_default();
            pages.push(pool.publish(scope, pages.last().copied(), &[token; 4], page));
        }
        pool.release(&pages, true);
        assert_eq!(pool.reuse(scope, &[0, 0, 0, 0]), &pages[..1]);
        pool.release(&pages[..1], true);
        assert_eq!(pool.allocate(), Some(pages[2]));
        assert_eq!(pool.allocate(), Some(pages[1]));
        assert_eq!(pool.reuse(scope, &[0, 0, 0, 0]), &pages[..1]);
        assert_eq!(pool.allocate(), None);
    }
}
