//! Speculative decoding without a second model: what followed the last tokens before may follow them again.

/// Up to `count` tokens that may come after `ids`: what came after the last tokens where they were before.
///
/// As many of the last tokens as possible must match, at most `longest`. Of several places the latest that has `count` tokens
/// behind it counts, or else the earliest. Nothing if there is none.
pub fn draft(ids: &[u32], longest: usize, count: usize) -> &[u32] {
    for size in (1..=longest.min(ids.len().saturating_sub(1))).rev() {
        let Some(last) = ids.get(ids.len() - size..) else { continue };
        let Some(before) = ids.get(..ids.len() - 1) else { continue };
        let mut places =
            before.windows(size).enumerate().filter(|(_, window)| *window == last).map(|(start, _)| start + size);
        let Some(earliest) = places.next() else { continue };
        let latest = places.take_while(|place| ids.len() - place >= count).last();
        let place = latest.unwrap_or(earliest);
        return ids.get(place..ids.len().min(place.saturating_add(count))).unwrap_or(&[]);
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::draft;

    #[test]
    fn drafts_what_followed_before() {
        assert_eq!(draft(&[1, 2, 3, 4, 1, 2], 2, 3), [3, 4, 1]);
        assert_eq!(draft(&[1, 2, 3, 9, 2, 5, 5, 1, 2], 2, 2), [3, 9]);
        assert_eq!(draft(&[7, 2, 3, 9, 2, 5, 5, 1, 2], 2, 2), [5, 5]);
        assert_eq!(draft(&[4, 4, 4], 2, 10), [4]);
        assert!(draft(&[1, 2, 3], 2, 10).is_empty());
        assert!(draft(&[1], 2, 10).is_empty());
        assert!(draft(&[], 2, 10).is_empty());
    }
}
