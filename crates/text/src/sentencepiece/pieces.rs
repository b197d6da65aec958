//! The pieces of a model by what they are written as.

/// Pieces in the order of their bytes.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<(Box<[u8]>, u32)>);

impl Pieces {
    /// Of pieces with the same text, the first counts.
    pub(super) fn new<'a>(pieces: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut all: Vec<_> = pieces.filter(|(text, _)| !text.is_empty()).collect();
        all.sort_by_key(|(text, _)| text.as_bytes());
        all.dedup_by_key(|(text, _)| *text);
        Self(all.into_iter().map(|(text, id)| (text.as_bytes().into(), id)).collect())
    }

    pub(super) fn get(&self, text: &str) -> Option<u32> {
        let place = self.0.binary_search_by_key(&text.as_bytes(), |(bytes, _)| bytes).ok()?;
        self.0.get(place).map(|(_, id)| *id)
    }

    /// Every piece that the text begins with: its length in bytes and its id, shortest first.
    pub(super) fn beginning(&self, text: &[u8]) -> impl Iterator<Item = (usize, u32)> {
        let mut range = self.0.as_slice();
        let narrow = move |(depth, byte): (usize, &u8)| {
            // Pieces of the range share `depth` bytes; one that has no more comes first.
            let next = |(bytes, _): &(Box<[u8]>, u32)| bytes.get(depth).copied();
            let (_, from) = range.split_at(range.partition_point(|piece| next(piece) < Some(*byte)));
            (range, _) = from.split_at(from.partition_point(|piece| next(piece) == Some(*byte)));
            let (bytes, id) = range.first()?;
            Some((bytes.len() == depth + 1).then_some((depth + 1, *id)))
        };
        text.iter().enumerate().map_while(narrow).flatten()
    }

    /// The longest piece that the text begins with, in bytes.
    pub(super) fn longest(&self, text: &[u8]) -> Option<usize> {
        self.beginning(text).last().map(|(length, _)| length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_found_shortest_first() {
        let pieces = Pieces::new([("ab", 1), ("a", 2), ("abd", 3), ("b", 4), ("ab", 5), ("", 6)].into_iter());
        let beginning = |text: &str| pieces.beginning(text.as_bytes()).collect::<Vec<_>>();
        assert_eq!(beginning("abc"), [(1, 2), (2, 1)]);
        assert_eq!(beginning("abdd"), [(1, 2), (2, 1), (3, 3)]);
        assert_eq!((beginning("c"), beginning("")), (vec![], vec![]));
        assert_eq!((pieces.get("ab"), pieces.get("abc"), pieces.longest(b"abdx")), (Some(1), None, Some(3)));
    }
}
