//! Stop strings in text that comes in pieces.

/// Watches text for strings that end it, and holds back what may become one.
///
/// What is found doesn't depend on how the text is cut: the stop string that is complete first ends it, of two that are complete
/// at the same character the longer one.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What can be said after a piece of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Text that is part of no stop string.
    pub text: String,
    /// The stop string that ended the text, if one did. Nothing after it counts.
    pub stop: Option<String>,
}

impl StopStrings {
    /// A watch for these strings; empty ones are passed over.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Whether there is no string to watch for.
    pub fn is_empty(&self) -> bool {
        self.stops.is_empty()
    }

    /// Length of the longest string, in bytes.
    pub fn longest(&self) -> usize {
        self.stops.iter().map(String::len).max().unwrap_or(0)
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, piece: &str) -> Scan {
        self.held.push_str(piece);
        if let Some((start, stop)) = self.first() {
            let mut text = std::mem::take(&mut self.held);
            text.truncate(start);
            return Scan { text, stop: Some(stop) };
        }
        let free = self.held.len() - self.pending();
        let rest = self.held.split_off(free);
        Scan { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// What was held back, at the end of the text.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the stop string that is complete first starts, and which it is.
    fn first(&self) -> Option<(usize, String)> {
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start, stop)));
        let (start, stop) = found.min_by_key(|(start, stop)| (start + stop.len(), *start))?;
        Some((start, stop.clone()))
    }

    /// Bytes of the longest end of the text that a stop string begins with.
    fn pending(&self) -> usize {
        let begins = |start: &usize| {
            self.held.get(*start..).is_some_and(|end| self.stops.iter().any(|stop| stop.starts_with(end)))
        };
        let from = self.held.len().saturating_sub(self.longest());
        let start = (from..self.held.len()).find(begins);
        start.map_or(0, |start| self.held.len() - start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, one character after the other.
    fn by_characters(stops: &[String], text: &str) -> (String, Option<String>) {
        for (end, character) in text.char_indices() {
            let so_far = &text[..end + character.len_utf8()];
            let found = stops.iter().filter(|stop| so_far.ends_with(stop.as_str())).max_by_key(|stop| stop.len());
            if let Some(stop) = found {
                return (so_far[..so_far.len() - stop.len()].to_owned(), Some(stop.clone()));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn cuts_of_the_text_change_nothing(
            stops in proptest::collection::vec("[aäb€]{1,4}", 0..4),
            pieces in proptest::collection::vec("[aäb€]{0,5}", 0..12),
        ) {
            let (text, stop) = by_characters(&stops, &pieces.concat());
            let mut watch = StopStrings::new(&stops);
            let (mut emitted, mut ended) = (String::new(), None);
            for piece in &pieces {
                let scan = watch.push(piece);
                emitted.push_str(&scan.text);
                prop_assert!(text.starts_with(&emitted), "part of a stop string came out");
                if scan.stop.is_some() {
                    ended = scan.stop;
                    break;
                }
            }
            if ended.is_none() {
                emitted.push_str(&watch.finish());
            }
            prop_assert_eq!((emitted, ended), (text, stop));
        }
    }

    #[test]
    fn text_is_held_no_longer_than_needed() {
        let mut watch = StopStrings::new(&["\n\nUser:".to_owned()]);
        assert_eq!(watch.push("Hello\n").text, "Hello");
        assert_eq!(watch.push("\nU").text, "");
        assert_eq!(watch.push("nless").text, "\n\nUnless");
        assert_eq!(watch.push("\n\nUser: x"), Scan { text: String::new(), stop: Some("\n\nUser:".to_owned()) });
    }
}
