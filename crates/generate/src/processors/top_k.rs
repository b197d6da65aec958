//! `top_k`: the likeliest tokens, and those that are as likely as the last of them.

use super::Warper;
use crate::Candidates;
use crate::candidates::largest_with_equals;

pub(super) struct TopK(pub(super) usize);

impl Warper for TopK {
    fn warp(&self, candidates: &mut Candidates<'_>) {
        let few = match candidates {
            Candidates::All(scores) if self.0 >= scores.len() => return,
            Candidates::All(scores) => largest_with_equals(scores, self.0),
            Candidates::Few(few) => match few.get(self.0.saturating_sub(1)) {
                Some(last) => few.iter().filter(|candidate| candidate.score >= last.score).copied().collect(),
                None => return,
            },
        };
        *candidates = Candidates::Few(few);
    }
}
