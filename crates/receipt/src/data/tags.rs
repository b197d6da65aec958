//! Entities from one tag per word: B-, I-, E-, S- and O.

use super::example::Span;

/// A tag that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{tag}` is no tag; tags are `O`, or `B`, `I`, `E` or `S` and `-` and a label")]
pub struct TagError {
    /// The tag.
    pub tag: String,
}

/// A tag in its two parts.
#[derive(Clone, Copy, PartialEq)]
struct Tag<'a> {
    prefix: u8,
    label: &'a str,
}

const OUTSIDE: Tag<'static> = Tag { prefix: b'O', label: "_" };

impl<'a> Tag<'a> {
    fn new(tag: &'a str) -> Option<Self> {
        if tag == "O" {
            return Some(OUTSIDE);
        }
        let (&prefix, _) = tag.as_bytes().split_first().filter(|(prefix, _)| b"BIES".contains(prefix))?;
        let label = match &tag[1..] {
            "" | "-" => "_",
            label => label.strip_prefix('-')?,
        };
        Some(Self { prefix, label })
    }

    /// Whether an entity begins here.
    fn begins_after(self, previous: Tag) -> bool {
        match self.prefix {
            b'O' => false,
            b'B' | b'S' => true,
            _ => matches!(previous.prefix, b'E' | b'S' | b'O') || previous.label != self.label,
        }
    }

    /// Whether an entity ends here.
    fn ends_before(self, next: Tag) -> bool {
        match self.prefix {
            b'O' => false,
            b'E' | b'S' => true,
            _ => matches!(next.prefix, b'B' | b'S' | b'O') || next.label != self.label,
        }
    }
}

/// The entities of tagged words; a span counts words here. Damaged sequences are read as seqeval does in its default
/// mode: an `I` or `E` without a beginning begins an entity, and a change of label ends one. A tag without a label has
/// the label `_`.
///
/// # Errors
/// A tag that is none.
pub fn tagged_spans<T: AsRef<str>>(tags: &[T]) -> Result<Vec<Span>, TagError> {
    let (mut spans, mut start, mut previous) = (Vec::new(), 0, OUTSIDE);
    for (word, tag) in tags.iter().map(AsRef::as_ref).chain(["O"]).enumerate() {
        let tag = Tag::new(tag).ok_or_else(|| TagError { tag: tag.to_owned() })?;
        if previous.ends_before(tag) {
            spans.push(Span { start, end: word, label: previous.label.to_owned() });
        }
        if tag.begins_after(previous) {
            start = word;
        }
        previous = tag;
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(tags: &str) -> Vec<(usize, usize, String)> {
        let tags: Vec<&str> = tags.split(' ').collect();
        let spans = tagged_spans(&tags).expect("tags");
        spans.into_iter().map(|Span { start, end, label }| (start, end, label)).collect()
    }

    fn expected(spans: &[(usize, usize, &str)]) -> Vec<(usize, usize, String)> {
        spans.iter().map(|&(start, end, label)| (start, end, label.to_owned())).collect()
    }

    #[test]
    fn entities_of_tags() {
        assert_eq!(spans("B-PER I-PER O B-LOC"), expected(&[(0, 2, "PER"), (3, 4, "LOC")]));
        assert_eq!(spans("B-A B-A S-A E-A"), expected(&[(0, 1, "A"), (1, 2, "A"), (2, 3, "A"), (3, 4, "A")]));
        assert_eq!(spans("I-A I-B O I-B"), expected(&[(0, 1, "A"), (1, 2, "B"), (3, 4, "B")]));
        assert_eq!(spans("B-x-y I-x-y B I"), expected(&[(0, 2, "x-y"), (2, 4, "_")]));
        assert!(spans("O O").is_empty());
        assert_eq!(tagged_spans::<&str>(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_tag() {
        for tag in ["", "U-A", "PER", "BA", "o", "O-A", "é"] {
            assert_eq!(tagged_spans(&[tag]), Err(TagError { tag: tag.to_owned() }));
        }
    }
}
