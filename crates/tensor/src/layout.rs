//! How the sequences of one batch lie in the packed `[Tokens, ...]` activations.

use crate::Bindings;

/// Tokens per page of a key/value cache.
pub const PAGE_TOKENS: usize = 16;

/// What is wrong with a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A sequence has no tokens.
    #[error("sequence {0} of the batch has no tokens")]
    Empty(usize),
    /// A sequence's pages do not hold its past and its new tokens.
    #[error("sequence {sequence} has {pages} cache pages of {PAGE_TOKENS} tokens for {tokens} tokens")]
    Pages {
        /// Index of the sequence.
        sequence: usize,
        /// Pages given.
        pages: usize,
        /// Tokens to hold: past and new ones.
        tokens: usize,
    },
}

/// One sequence of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Index of its first token among the packed rows. Set by [`Layout::new`].
    pub start: usize,
    /// Number of its new tokens (the queries).
    pub tokens: usize,
    /// Number of tokens that came before and lie in the cache pages.
    pub past: usize,
    /// Cache pages in order of position; empty for graphs without a cache.
    pub pages: Vec<u32>,
    /// Tokens before this index are left out of pooling.
    pub pool_from: usize,
}

/// The packed batch: sequences stand behind each other without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    spans: Vec<Span>,
    tokens: usize,
}

impl Layout {
    /// A layout of the given sequences, in their order.
    ///
    /// # Errors
    /// An empty sequence, or pages that are too few for past and new tokens.
    pub fn new(mut spans: Vec<Span>) -> Result<Layout, LayoutError> {
        let mut tokens = 0;
        for (sequence, span) in spans.iter_mut().enumerate() {
            if span.tokens == 0 {
                return Err(LayoutError::Empty(sequence));
            }
            let held = span.past.saturating_add(span.tokens);
            if (span.past > 0 || !span.pages.is_empty()) && span.pages.len().saturating_mul(PAGE_TOKENS) < held {
                return Err(LayoutError::Pages { sequence, pages: span.pages.len(), tokens: held });
            }
            span.start = tokens;
            tokens += span.tokens;
        }
        Ok(Layout { spans, tokens })
    }

    /// A layout of sequences without past, from their lengths in tokens.
    ///
    /// # Errors
    /// A length of 0.
    pub fn of_lengths(lengths: &[usize]) -> Result<Layout, LayoutError> {
        Layout::new(lengths.iter().map(|&tokens| Span { tokens, ..Span::default() }).collect())
    }

    /// The sequences in order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Tokens of all sequences together.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The symbols of a packed graph for this batch.
    pub fn bindings(&self) -> Bindings {
        Bindings { tokens: self.tokens, sequences: self.spans.len(), ..Bindings::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_behind_each_other() -> Result<(), LayoutError> {
        let layout = Layout::of_lengths(&[3, 1, 5])?;
        assert_eq!(layout.spans().iter().map(|span| span.start).collect::<Vec<_>>(), [0, 3, 4]);
        assert_eq!(layout.tokens(), 9);
        assert!(Layout::of_lengths(&[2, 0]).is_err());
        let past = Span { tokens: 1, past: 16, pages: vec![7], ..Span::default() };
        assert!(Layout::new(vec![past]).is_err());
        Ok(())
    }
}
