//! The tokens that may come next: all of a vocabulary, or the few that a filter has left.

use std::cmp::Ordering;

use crate::numbers;

/// A token and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub token: u32,
    /// Its logit, or log-probability, after all that processed it.
    pub score: f32,
}

/// Larger scores first, of equal ones the smaller token.
pub(crate) fn likelier_first(left: &Candidate, right: &Candidate) -> Ordering {
    right.score.partial_cmp(&left.score).unwrap_or(Ordering::Equal).then(left.token.cmp(&right.token))
}

/// Tokens that may come next, with their scores. Tokens that are not there have the score minus infinity.
#[derive(Debug)]
pub enum Candidates<'a> {
    /// One score per token of the vocabulary.
    All(&'a mut [f32]),
    /// Some tokens, the likeliest first.
    Few(Vec<Candidate>),
}

impl Candidates<'_> {
    /// All tokens that are there, the likeliest first.
    pub fn sorted(&self) -> Vec<Candidate> {
        match self {
            Candidates::All(scores) => {
                let mut all: Vec<Candidate> =
                    of_row(scores).filter(|candidate| candidate.score > f32::NEG_INFINITY).collect();
                all.sort_unstable_by(likelier_first);
                all
            }
            Candidates::Few(few) => few.clone(),
        }
    }

    /// The `count` likeliest tokens, the likeliest first.
    pub fn largest(&self, count: usize) -> Vec<Candidate> {
        match self {
            Candidates::All(scores) => largest(scores, count),
            Candidates::Few(few) => few.iter().take(count).copied().collect(),
        }
    }

    /// One score per token, for a vocabulary of `tokens`.
    pub fn dense(&self, tokens: usize) -> Vec<f32> {
        match self {
            Candidates::All(scores) => scores.to_vec(),
            Candidates::Few(few) => {
                let mut dense = vec![f32::NEG_INFINITY; tokens];
                for candidate in few {
                    if let Some(score) = dense.get_mut(candidate.token as usize) {
                        *score = candidate.score;
                    }
                }
                dense
            }
        }
    }

    /// Changes each score.
    pub(crate) fn map(&mut self, change: impl Fn(f32) -> f32) {
        match self {
            Candidates::All(scores) => scores.iter_mut().for_each(|score| *score = change(*score)),
            Candidates::Few(few) => few.iter_mut().for_each(|candidate| candidate.score = change(candidate.score)),
        }
    }

    /// The largest score, minus infinity if there is no token.
    pub(crate) fn best(&self) -> f32 {
        match self {
            Candidates::All(scores) => numbers::maximum(scores).unwrap_or(f32::NEG_INFINITY),
            Candidates::Few(few) => few.first().map_or(f32::NEG_INFINITY, |candidate| candidate.score),
        }
    }

    /// The sum of `exp(score - best)`.
    pub(crate) fn mass(&self, best: f32) -> f64 {
        match self {
            Candidates::All(scores) => numbers::sum_of_exps(scores, best),
            Candidates::Few(few) => few.iter().map(|candidate| f64::from(numbers::exp(candidate.score - best))).sum(),
        }
    }

    /// Leaves the likeliest tokens that together have the probability `mass`, and at least `least` tokens.
    pub(crate) fn keep_mass(&mut self, mass: f64, least: usize) {
        let best = self.best();
        let wanted = mass * self.mass(best);
        let mut few = self.largest(FEW.max(least));
        if let Some(kept) = reach(&few, best, wanted).map(|kept| kept.max(least)) {
            few.truncate(kept);
        } else if let Candidates::All(scores) = self {
            return keep_dense(scores, best, wanted);
        }
        *self = Candidates::Few(few);
    }

    /// Leaves the tokens of which `keep` says so by their score, and the `least` likeliest. Nothing below `floor` is asked for.
    pub(crate) fn keep_by_score(&mut self, least: usize, floor: f32, keep: impl Fn(f32) -> bool) {
        match self {
            Candidates::All(scores) => {
                let mut kept = Vec::new();
                for (block, values) in scores.chunks(BLOCK).enumerate().filter(|(_, values)| above(values, floor) > 0) {
                    let block = values.iter().zip((block * BLOCK) as u32..);
                    let asked = block.filter(|(score, _)| **score > floor && keep(**score));
                    kept.extend(asked.map(|(score, token)| Candidate { token, score: *score }));
                }
                if kept.len() < least {
                    kept = largest(scores, least);
                }
                if kept.len() > MANY {
                    // So many are sooner looked through than sorted.
                    scores.fill(f32::NEG_INFINITY);
                    for candidate in kept {
                        if let Some(score) = scores.get_mut(candidate.token as usize) {
                            *score = candidate.score;
                        }
                    }
                    return;
                }
                kept.sort_unstable_by(likelier_first);
                *self = Candidates::Few(kept);
            }
            Candidates::Few(few) => {
                let mut place = 0..;
                few.retain(|candidate| place.next().is_some_and(|place: usize| place < least) || keep(candidate.score));
            }
        }
    }
}

/// Tokens that are sorted one by one before all are sorted roughly.
const FEW: usize = 256;
/// More tokens than this are not sorted if they needn't be.
const MANY: usize = 1024;

/// How many of sorted candidates together reach a weight; `None` if they don't.
fn reach(sorted: &[Candidate], best: f32, wanted: f64) -> Option<usize> {
    let mut sum = 0.0;
    let kept = sorted.iter().position(|candidate| {
        let reached = sum >= wanted;
        sum += f64::from(numbers::exp(candidate.score - best));
        reached
    });
    kept.or_else(|| (sum >= wanted).then_some(sorted.len()))
}

/// Forbids all but the likeliest tokens that together reach a weight. Sorts into narrow ranges of scores, and only the range in which
/// the weight is reached one by one.
fn keep_dense(scores: &mut [f32], best: f32, wanted: f64) {
    const RANGES: usize = 4096;
    const WIDTH: f32 = 1.0 / 128.0;
    // Adding this leaves the nearest whole number in the low bits; larger numbers have larger ones.
    const ROUND: f32 = 8_388_608.0;
    let range = |score: f32| {
        let distance = (best - score) / WIDTH;
        let bounded = if distance < (RANGES - 1) as f32 { distance } else { (RANGES - 1) as f32 };
        ((bounded + ROUND).to_bits() & 0xFFF) as usize
    };
    let mut weights = vec![0.0; RANGES];
    for part in scores.chunks(BLOCK) {
        let (mut exps, mut ranges) = ([0.0; BLOCK], [0; BLOCK]);
        exps.iter_mut().zip(part).for_each(|(exp, score)| *exp = numbers::exp(score - best));
        ranges.iter_mut().zip(part).for_each(|(place, score)| *place = range(*score));
        for (place, exp) in ranges.iter().zip(exps).take(part.len()) {
            if let Some(weight) = weights.get_mut(*place) {
                *weight += f64::from(exp);
            }
        }
    }
    let mut sum = 0.0;
    let last = weights.iter().position(|weight| {
        sum += weight;
        sum >= wanted
    });
    let Some(last) = last else { return };
    let before = sum - weights.get(last).copied().unwrap_or(0.0);
    let (near, far) = (best - (last as f32 - 1.0) * WIDTH, best - (last as f32 + 1.0) * WIDTH);
    let close = of_row(scores).filter(|candidate| candidate.score >= far && candidate.score <= near);
    let mut sorted: Vec<Candidate> = close.filter(|candidate| range(candidate.score) == last).collect();
    sorted.sort_unstable_by(likelier_first);
    let kept = reach(&sorted, best, wanted - before).unwrap_or(sorted.len()).max(1);
    let Some(limit) = sorted.get(kept - 1).map(|candidate| candidate.score) else { return };
    for score in scores.iter_mut() {
        *score = if *score < limit { f32::NEG_INFINITY } else { *score };
    }
    for candidate in sorted.iter().skip(kept) {
        if let Some(score) = scores.get_mut(candidate.token as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

fn of_row(scores: &[f32]) -> impl Iterator<Item = Candidate> {
    scores.iter().enumerate().map(|(token, score)| Candidate { token: token as u32, score: *score })
}

/// Scores that are compared with the least one wanted at once.
const BLOCK: usize = 64;

/// The `count` largest scores, the largest first, of equal ones the smaller token. Mostly one comparison per score.
pub(crate) fn largest(scores: &[f32], count: usize) -> Vec<Candidate> {
    let count = count.min(scores.len());
    if count == 0 {
        return Vec::new();
    }
    let capacity = count.saturating_mul(2).max(2 * BLOCK).min(scores.len().max(count));
    let mut found = Vec::with_capacity(capacity.saturating_add(BLOCK));
    let mut least = None;
    for (block, values) in scores.chunks(BLOCK).enumerate() {
        if least.is_some_and(|least| above(values, least) == 0) {
            continue;
        }
        for (lane, score) in values.iter().enumerate() {
            if least.is_none_or(|least| *score > least) {
                found.push(Candidate { token: (block * BLOCK + lane) as u32, score: *score });
            }
        }
        if found.len() >= capacity {
            found.select_nth_unstable_by(count - 1, likelier_first);
            found.truncate(count);
            least = found.last().map(|candidate| candidate.score);
        }
    }
    found.sort_unstable_by(likelier_first);
    found.truncate(count);
    found
}

/// How many scores are above a limit.
fn above(scores: &[f32], limit: f32) -> u32 {
    scores.iter().map(|score| u32::from(*score > limit)).sum()
}

/// The `count` largest scores and all that equal the last of them.
pub(crate) fn largest_with_equals(scores: &[f32], count: usize) -> Vec<Candidate> {
    let mut found = largest(scores, count);
    let Some(last) = found.last().map(|candidate| candidate.score) else { return found };
    let equals: u32 = scores.iter().map(|score| u32::from(*score == last)).sum();
    if equals as usize > found.iter().filter(|candidate| candidate.score == last).count() {
        found.retain(|candidate| candidate.score > last);
        found.extend(of_row(scores).filter(|candidate| candidate.score == last));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Vec<f32>> {
        let score = prop_oneof![4 => (-40..40_i32).prop_map(|score| score as f32 / 8.0), 1 => Just(f32::NEG_INFINITY)];
        proptest::collection::vec(score, 0..1500)
    }

    proptest! {
        #[test]
        fn selection_is_sorting(scores in values(), count in 0..700_usize) {
            let mut sorted: Vec<Candidate> = of_row(&scores).collect();
            sorted.sort_by(likelier_first);
            let with_equals = match sorted.get(count.wrapping_sub(1)) {
                _ if count == 0 => Vec::new(),
                None => sorted.clone(),
                Some(last) => sorted.iter().filter(|candidate| candidate.score >= last.score).copied().collect(),
            };
            sorted.truncate(count);
            prop_assert_eq!(largest(&scores, count), sorted);
            prop_assert_eq!(largest_with_equals(&scores, count), with_equals);
        }

        #[test]
        fn mass_is_kept_as_if_all_were_sorted(scores in values(), mass in 0.0..1.0_f64, flat in any::<bool>()) {
            let mut scores: Vec<f32> = scores.iter().map(|score| if flat { score / 50.0 } else { *score }).collect();
            let mut all: Vec<Candidate> = of_row(&scores).filter(|few| few.score > f32::NEG_INFINITY).collect();
            prop_assume!(!all.is_empty());
            all.sort_by(likelier_first);
            let total: f64 = all.iter().map(|candidate| f64::from(candidate.score).exp()).sum();
            let sum = |count: usize| all[..count].iter().map(|few| f64::from(few.score).exp()).sum::<f64>() / total;
            let mut candidates = Candidates::All(&mut scores);
            candidates.keep_mass(mass, 1);
            let kept = candidates.sorted();
            prop_assert_eq!(&kept, &all[..kept.len()]);
            prop_assert!(kept.len() == all.len() || sum(kept.len()) > mass - 1e-6);
            prop_assert!(kept.len() == 1 || sum(kept.len() - 1) < mass + 1e-6);
        }

        #[test]
        fn what_is_kept_by_score_is_kept(scores in values(), limit in -6.0..6.0_f32, least in 1..5_usize) {
            let mut sorted: Vec<Candidate> = of_row(&scores).collect();
            sorted.sort_by(likelier_first);
            let mut place = 0..;
            sorted.retain(|candidate| place.next().is_some_and(|place| place < least) || candidate.score > limit);
            sorted.retain(|candidate| candidate.score > f32::NEG_INFINITY);
            let mut few = Candidates::Few(sorted.clone());
            few.keep_by_score(least, limit, |score| score > limit);
            prop_assert_eq!(few.sorted(), &sorted[..]);
            let mut scores = scores;
            let mut all = Candidates::All(&mut scores);
            all.keep_by_score(least, limit, |score| score > limit);
            let mut kept = all.sorted();
            kept.retain(|candidate| candidate.score > f32::NEG_INFINITY);
            prop_assert_eq!(kept, sorted);
        }

        #[test]
        fn ascending_scores_are_selected_too(length in 1..20_000_usize, count in 1..200_usize) {
            let scores: Vec<f32> = (0..length).map(|index| index as f32).collect();
            let found = largest(&scores, count);
            prop_assert_eq!(found.len(), count.min(length));
            prop_assert!(found.iter().enumerate().all(|(place, candidate)| candidate.score == (length - 1 - place) as f32));
        }
    }
}
