//! Which sequences each thread runs on its own, where that ends sooner than all threads together.

/// Most tokens that a thread runs at once on its own, the last sequence apart: what it keeps of them fits its caches, and
/// reading the weights for them takes no time that counts.
pub(crate) const LANE_TOKENS: usize = 1024;
/// Tokens per thread below which all threads together end sooner, since each then reads only a part of the weights.
const LEAST_TOKENS: usize = 48;
/// How much longer than the mean the last thread may take. Together, threads lose about as much by waiting for each other.
const MOST_UNEQUAL: f64 = 1.08;

/// Groups of sequences, as indices, for that many threads to claim in order; `None` where all threads together end sooner.
///
/// No group is longer than [`LANE_TOKENS`] and the longest sequence together.
pub(crate) fn groups(lengths: &[usize], threads: usize) -> Option<Vec<Vec<usize>>> {
    let tokens: usize = lengths.iter().sum();
    let longest = lengths.iter().copied().max()?;
    if threads < 2 || lengths.len() < threads || tokens < threads * LEAST_TOKENS || longest > LANE_TOKENS {
        return None;
    }
    let rounds = tokens.div_ceil(threads * LANE_TOKENS);
    // Longest first, each to the group that is shortest so far (Graham 1969).
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let mut groups = vec![(0, Vec::new()); threads * rounds];
    for index in order {
        let (length, members) = groups.iter_mut().min_by_key(|(length, _)| *length)?;
        *length += lengths[index];
        members.push(index);
    }
    let slowest = groups.iter().map(|(length, _)| *length).max()?;
    let equal = tokens as f64 / groups.len() as f64;
    (slowest as f64 <= MOST_UNEQUAL * equal).then(|| groups.into_iter().map(|(_, members)| members).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_sequences_are_dealt_out() {
        assert_eq!(groups(&[128; 4], 2), Some(vec![vec![0, 2], vec![1, 3]]));
    }

    #[test]
    fn few_or_unequal_sequences_stay_together() {
        for (lengths, threads) in
            [(vec![], 2), (vec![128], 2), (vec![16, 16], 2), (vec![128; 3], 2), (vec![128; 8], 1), (vec![2000; 4], 2)]
        {
            assert_eq!(groups(&lengths, threads), None, "{lengths:?}");
        }
    }

    proptest! {
        #[test]
        fn every_sequence_is_in_one_short_group(
            lengths in proptest::collection::vec(1usize..600, 0..80), threads in 1usize..9,
        ) {
            let Some(groups) = groups(&lengths, threads) else { return Ok(()) };
            let mut seen: Vec<usize> = groups.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            let longest = lengths.iter().max().unwrap();
            for group in &groups {
                prop_assert!(group.iter().map(|&index| lengths[index]).sum::<usize>() <= LANE_TOKENS + longest);
            }
        }
    }
}
