//! Which tokens of a text that is too long are kept.

use std::ops::Range;

/// What happens to a text that has more tokens than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Truncation {
    /// Its end is cut off.
    #[default]
    Right,
    /// Its beginning is cut off.
    Left,
    /// It is an error.
    Refuse,
}

impl Truncation {
    /// The tokens to keep, out of `length`, when `keep` of them have room.
    pub(crate) fn range(self, length: usize, keep: usize) -> Range<usize> {
        let keep = keep.min(length);
        match self {
            Self::Right | Self::Refuse => 0..keep,
            Self::Left => length - keep..length,
        }
    }
}

/// Shares `room` among the two texts of a pair, taking tokens from the longer one first.
///
/// Where both must give way each gets half, and the longer one (of equals, the second) the odd token:
/// the lengths that Hugging Face tokenizers give under `longest_first`.
pub(crate) fn longest_first(first: usize, second: usize, room: usize) -> (usize, usize) {
    if first.saturating_add(second) <= room {
        return (first, second);
    }
    let shorter = first.min(second).min(room / 2);
    if first <= second { (shorter, room - shorter) } else { (room - shorter, shorter) }
}
