//! The pieces of a text that grow by merging neighbours, the best pair first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::pieces::Pieces;

/// A BPE model.
#[derive(Debug)]
pub(super) struct Merging {
    pub(super) pieces: Pieces,
    /// By id, how good a piece is.
    pub(super) scores: Vec<f32>,
}

/// A part of the text; one that was merged into its neighbour is empty.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: usize,
    end: usize,
    previous: Option<usize>,
    next: Option<usize>,
    /// Whether it is never merged.
    kept: bool,
}

/// Two neighbours that make a piece.
#[derive(Debug, Clone, Copy)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both, by which one is known that is there no more.
    bytes: usize,
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        // Zero has no sign here.
        (self.score + 0.0).total_cmp(&(other.score + 0.0)).then_with(|| other.left.cmp(&self.left))
    }
}

impl Merging {
    /// The ends of the pieces in a normalised text, as bytes; `kept` ones are not merged.
    pub(super) fn ends(&self, text: &str, kept: &Pieces) -> Vec<usize> {
        let mut symbols = split(text, kept);
        let mut pairs = BinaryHeap::new();
        for left in 0..symbols.len() {
            pairs.extend(self.pair(text, &symbols, Some(left)));
        }
        while let Some(Pair { left, right, bytes, .. }) = pairs.pop() {
            let (Some(first), Some(second)) = (symbols.get(left).copied(), symbols.get(right).copied()) else { break };
            let gone = first.start == first.end || second.start == second.end;
            if gone || second.end - first.start != bytes {
                continue;
            }
            if let Some(first) = symbols.get_mut(left) {
                (first.end, first.next) = (second.end, second.next);
            }
            if let Some(second) = symbols.get_mut(right) {
                second.start = second.end;
            }
            if let Some(after) = second.next.and_then(|next| symbols.get_mut(next)) {
                after.previous = Some(left);
            }
            pairs.extend(self.pair(text, &symbols, first.previous));
            pairs.extend(self.pair(text, &symbols, Some(left)));
        }
        symbols.iter().filter(|symbol| symbol.start < symbol.end).map(|symbol| symbol.end).collect()
    }

    /// A symbol and the one after it, if they make a piece.
    fn pair(&self, text: &str, symbols: &[Symbol], left: Option<usize>) -> Option<Pair> {
        let left = left?;
        let first = symbols.get(left)?;
        let right = first.next?;
        let second = symbols.get(right)?;
        if first.kept || second.kept {
            return None;
        }
        let id = self.pieces.get(text.get(first.start..second.end)?)?;
        let score = *self.scores.get(id as usize)?;
        Some(Pair { score, left, right, bytes: second.end - first.start })
    }
}

/// Characters and kept pieces.
fn split(text: &str, kept: &Pieces) -> Vec<Symbol> {
    let mut symbols = Vec::new();
    let mut start = 0;
    while let Some(rest) = text.get(start..).filter(|rest| !rest.is_empty()) {
        let whole = kept.longest(rest.as_bytes());
        let length = whole.unwrap_or_else(|| rest.chars().next().map_or(rest.len(), char::len_utf8));
        let (place, end) = (symbols.len(), start + length);
        let next = (end < text.len()).then_some(place + 1);
        symbols.push(Symbol { start, end, previous: place.checked_sub(1), next, kept: whole.is_some() });
        start = end;
    }
    symbols
}
