//! The likeliest pieces of a text, where each has a probability of its own.

use super::pieces::Pieces;

/// What an unknown character costs beside the unlikeliest piece.
const UNKNOWN_PENALTY: f32 = 10.0;

/// A unigram model.
#[derive(Debug)]
pub(super) struct Unigram {
    pub(super) pieces: Pieces,
    /// By id, how likely a piece is; `None` if it is never used.
    pub(super) scores: Vec<Option<Score>>,
    pub(super) smallest: f32,
    pub(super) largest: f32,
}

/// How likely a piece is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Score {
    /// Logarithm of its probability.
    Probability(f32),
    /// It comes before all others.
    Always,
}

/// The best way to a place of the text.
#[derive(Clone, Copy)]
struct Best {
    score: f32,
    /// Where its last piece begins.
    start: usize,
}

impl Unigram {
    /// The ends of the pieces in a normalised text, as bytes.
    pub(super) fn ends(&self, text: &str) -> Vec<usize> {
        let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
        if let Some(first) = best.first_mut() {
            *first = Some(Best { score: 0.0, start: 0 });
        }
        for (start, character) in text.char_indices() {
            let Some(Best { score: before, .. }) = best.get(start).copied().flatten() else { continue };
            let mut reach = |length: usize, score: f32| {
                let Some(place) = best.get_mut(start + length) else { return };
                if place.is_none_or(|known| score > known.score) {
                    *place = Some(Best { score, start });
                }
            };
            let mut known = false;
            for (length, id) in self.pieces.beginning(text.as_bytes().get(start..).unwrap_or_default()) {
                let Some(score) = self.scores.get(id as usize).copied().flatten() else { continue };
                let score = match score {
                    Score::Probability(score) => score,
                    Score::Always => (f64::from(length as f32 * self.largest) - 0.1) as f32,
                };
                reach(length, score + before);
                known |= length == character.len_utf8();
            }
            if !known {
                reach(character.len_utf8(), self.smallest - UNKNOWN_PENALTY + before);
            }
        }
        let mut ends = Vec::new();
        let mut end = text.len();
        while end > 0 {
            ends.push(end);
            end = best.get(end).copied().flatten().map_or(0, |best| best.start);
        }
        ends.reverse();
        ends
    }
}
