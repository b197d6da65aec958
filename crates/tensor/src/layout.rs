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
    /// A token is selected that the sequence doesn't have, or out of order.
    #[error("sequence {sequence} selects token {token} of its {tokens}; selected tokens must exist and ascend")]
    Selected {
        /// Index of the sequence.
        sequence: usize,
        /// The selected token.
        token: u32,
        /// Tokens of the sequence.
        tokens: usize,
    },
}

/// What a sequence's cross-attention sees: the keys and values that an encoder has left in pages of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Number of tokens of the encoder's input.
    pub tokens: usize,
    /// Cache pages in order of position. No sequence of the batch writes to them.
    pub pages: Vec<u32>,
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
    /// Tokens whose rows are picked for output, as indices among its new tokens, ascending; empty for most graphs.
    pub selected: Vec<u32>,
    /// What cross-attention sees; `None` for graphs without.
    pub source: Option<Source>,
}

/// The packed batch: sequences stand behind each other without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    spans: Vec<Span>,
    tokens: usize,
    selected: usize,
}

impl Layout {
    /// A layout of the given sequences, in their order.
    ///
    /// # Errors
    /// An empty sequence, pages that are too few for past and new tokens, or a selected token that is not there.
    pub fn new(mut spans: Vec<Span>) -> Result<Layout, LayoutError> {
        let (mut tokens, mut selected) = (0, 0);
        for (sequence, span) in spans.iter_mut().enumerate() {
            if span.tokens == 0 {
                return Err(LayoutError::Empty(sequence));
            }
            let held = span.past.saturating_add(span.tokens);
            if (span.past > 0 || !span.pages.is_empty()) && span.pages.len().saturating_mul(PAGE_TOKENS) < held {
                return Err(LayoutError::Pages { sequence, pages: span.pages.len(), tokens: held });
            }
            if let Some(Source { tokens, pages }) = &span.source
                && pages.len().saturating_mul(PAGE_TOKENS) < *tokens
            {
                return Err(LayoutError::Pages { sequence, pages: pages.len(), tokens: *tokens });
            }
            let mut least = 0;
            for &token in &span.selected {
                if token < least || token as usize >= span.tokens {
                    return Err(LayoutError::Selected { sequence, token, tokens: span.tokens });
                }
                least = token.saturating_add(1);
            }
            span.start = tokens;
            tokens += span.tokens;
            selected += span.selected.len();
        }
        Ok(Layout { spans, tokens, selected })
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

    /// The packed rows of all selected tokens, in order.
    pub fn selected(&self) -> impl Iterator<Item = usize> {
        self.spans.iter().flat_map(|span| span.selected.iter().map(|&token| span.start + token as usize))
    }

    /// Tokens of the longest sequence.
    pub fn longest(&self) -> usize {
        self.spans.iter().map(|span| span.tokens).max().unwrap_or(0)
    }

    /// The symbols of a packed graph for this batch. `Sequence` is the length that all sequences are padded to where an op
    /// asks for it.
    pub fn bindings(&self) -> Bindings {
        let sequences = self.spans.len();
        let (tokens, sequence, selected) = (self.tokens, self.longest(), self.selected);
        Bindings { tokens, sequences, sequence, selected, ..Bindings::default() }
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

    #[test]
    fn selected_tokens_are_rows_of_the_batch() -> Result<(), LayoutError> {
        let span = |tokens, selected: &[u32]| Span { tokens, selected: selected.to_vec(), ..Span::default() };
        let layout = Layout::new(vec![span(3, &[0, 2]), span(2, &[]), span(4, &[1])])?;
        assert_eq!(layout.selected().collect::<Vec<_>>(), [0, 2, 6]);
        assert_eq!(layout.bindings().selected, 3);
        for wrong in [&[3][..], &[1, 0], &[2, 2], &[u32::MAX]] {
            assert!(Layout::new(vec![span(3, wrong)]).is_err(), "{wrong:?}");
        }
        Ok(())
    }
}
