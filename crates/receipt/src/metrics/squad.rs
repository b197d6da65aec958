//! Answers as SQuAD 1.1 compares them (Rajpurkar et al. 2016, arXiv:1606.05250): in lower case, without ASCII
//! punctuation, without the English articles, with single spaces.

/// The words of an answer that count.
pub(super) fn words(answer: &str) -> Vec<String> {
    let lower = answer.to_lowercase();
    let kept: String = lower.chars().filter(|character| !character.is_ascii_punctuation()).collect();
    without_articles(&kept).split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A text with a space for each `a`, `an` and `the` that stands as a word: between characters that are neither
/// letters nor digits.
fn without_articles(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = first.is_alphanumeric();
        let end = rest.find(|character: char| character.is_alphanumeric() != in_word).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        kept.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = after;
    }
    kept
}

/// What Python's `str.split` splits at: also the four separators of ASCII that Unicode does not call white space.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Whether two answers are the same.
pub(super) fn equal(a: &str, b: &str) -> bool {
    words(a) == words(b)
}

/// The F1 of the words of two answers, as bags. 0 where one has no words, as in SQuAD 1.1 (2.0 differs).
pub(super) fn overlap(a: &str, b: &str) -> f64 {
    let (mut a, mut b) = (words(a), words(b));
    a.sort_unstable();
    b.sort_unstable();
    let (mut shared, mut i, mut j) = (0usize, 0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (shared, i, j) = (shared + 1, i + 1, j + 1),
        }
    }
    if shared == 0 { 0.0 } else { 2.0 * shared as f64 / (a.len() + b.len()) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_count() {
        assert!(equal("The  Eiffel-Tower!", "eiffeltower"));
        assert!(equal("an apple, a day", "Apple day"));
        assert!(!equal("theatre", "atre"));
        assert_eq!(words("the—end a\u{1c}b"), ["—end", "b"]);
        assert_eq!(words("«a» x_y"), ["«", "»", "xy"]);
        assert!(words("The, a. AN?").is_empty());
    }

    #[test]
    fn words_overlap_as_bags() {
        assert_eq!(overlap("b b c", "b d"), 2.0 / 5.0);
        assert_eq!(overlap("b b", "b b b"), 4.0 / 5.0);
        assert_eq!(overlap("the", "a"), 0.0);
    }
}
