//! Merges of vocabularies that have scores instead, as sentencepiece's.

use std::collections::HashMap;

use tokenizers::models::bpe::Merges;

/// A piece and its score.
pub(crate) type Scored = (String, f64);

/// The pairs of pieces that make pieces, best first. Of equal ones the order of `pieces` decides.
pub(crate) fn merges_of_scores<'a>(pieces: impl Iterator<Item = &'a str>, scored: &[Scored]) -> Merges {
    struct Merge<'a> {
        first: &'a str,
        second: &'a str,
        score: f64,
        lengths: (usize, usize),
    }

    let ids = pieces.zip(0usize..).collect::<HashMap<_, _>>();
    // A piece that is there twice counts where it is first, with its last score.
    let mut places = HashMap::new();
    let mut pieces: Vec<(&str, f64)> = Vec::with_capacity(scored.len());
    for (text, score) in scored {
        let place = *places.entry(text.as_str()).or_insert(pieces.len());
        match pieces.get_mut(place) {
            Some(piece) => piece.1 = *score,
            None => pieces.push((text, *score)),
        }
    }
    let mut merges = Vec::new();
    for (text, score) in pieces {
        // Zero has no sign here.
        let score = score + 0.0;
        let length = text.chars().count();
        let splits = text.char_indices().skip(1).zip(1..).map(|((byte, _), characters)| {
            let (first, second) = text.split_at(byte);
            Merge { first, second, score, lengths: (characters, length - characters) }
        });
        let known = |merge: &Merge<'_>| ids.contains_key(merge.first) && ids.contains_key(merge.second);
        let mut local = splits.filter(known).collect::<Vec<_>>();
        local.sort_by_key(|merge| (ids.get(merge.first).copied(), ids.get(merge.second).copied()));
        merges.extend(local);
    }
    merges.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| b.lengths.cmp(&a.lengths)));
    merges.into_iter().map(|merge| (merge.first.to_string(), merge.second.to_string())).collect()
}
