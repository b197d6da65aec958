//! How figures and verdicts are worded, the same in every face of the receipt.

use super::{Findings, Paired, Verdict};
use crate::Rung;
use crate::rung::RUNGS;

/// With so many decimals, and never as minus zero.
pub(super) fn decimal(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let zero = text.bytes().all(|byte| matches!(byte, b'-' | b'0' | b'.'));
    if zero { text.trim_start_matches('-').to_owned() } else { text }
}

/// Points of a metric.
pub(super) fn points(value: f64) -> String {
    decimal(value, 2)
}

/// A change in points, always with its sign.
pub(super) fn change(value: f64) -> String {
    let text = points(value);
    if value > 0.0 && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) { format!("+{text}") } else { text }
}

/// Three significant digits, for figures that spread over orders of magnitude.
pub(super) fn significant(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() || magnitude >= 1e6 || (magnitude < 1e-3 && magnitude > 0.0) {
        format!("{value:.1e}")
    } else if magnitude >= 100.0 {
        decimal(value, 0)
    } else if magnitude >= 10.0 {
        decimal(value, 1)
    } else if magnitude >= 1.0 || magnitude == 0.0 {
        decimal(value, 2)
    } else {
        decimal(value, (2.0 - magnitude.log10().floor()) as usize)
    }
}

/// `2.6x`.
pub(super) fn times(ratio: f64) -> String {
    let decimals = if ratio < 10.0 { 1 } else { 0 };
    format!("{}x", decimal(ratio, decimals))
}

/// In MiB or GiB.
pub(super) fn bytes(count: u64) -> String {
    let mebibytes = count as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 { format!("{mebibytes:.1} MiB") } else { format!("{:.2} GiB", mebibytes / 1024.0) }
}

/// Digits in groups of three.
pub(super) fn grouped(value: f64) -> String {
    let digits = decimal(value, 0);
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
    let mut text = sign.to_owned();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 && digits.is_ascii() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `95 % interval -0.12 to +0.05`.
pub(super) fn interval(paired: &Paired) -> String {
    format!("95 % interval {} to {}", change(paired.low), change(paired.high))
}

impl Verdict {
    /// In two words.
    pub(super) fn headline(self) -> &'static str {
        match self {
            Verdict::Met => "Within budget",
            Verdict::Over => "Over budget",
            Verdict::Unlabelled => "Not judged",
        }
    }
}

impl Findings {
    /// The verdict in one or two sentences.
    pub(super) fn sentence(&self) -> String {
        let measured = self.accuracy.as_ref().map(|accuracy| {
            let change = change(accuracy.paired.difference);
            format!("{} changes by {change} points ({})", accuracy.metric, interval(&accuracy.paired))
        });
        let labelled = self.dataset.as_ref().map(|dataset| dataset.labelled);
        let allowed = self.max_drop.map(|drop| format!("a loss of {} is allowed", points(drop)));
        let sentence = match (self.verdict, measured) {
            (Verdict::Met | Verdict::Over, Some(measured)) => match allowed {
                Some(allowed) => format!("{measured}; {allowed}."),
                None => format!("{measured}."),
            },
            (Verdict::Met | Verdict::Over, None) => "The metric was not recorded.".to_owned(),
            (Verdict::Unlabelled, measured) => {
                let why = match labelled {
                    Some(_) => "The examples have no labels to judge by.",
                    None => "No examples were given to judge by.",
                };
                measured.map_or_else(|| why.to_owned(), |measured| format!("{why} {measured}."))
            }
        };
        let mut chars = sentence.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
    }

    /// How many layers are on each rung, those without any left out: `68 w8a7, 4 f32`.
    pub(super) fn rungs(&self) -> String {
        let count = |rung| self.layers.iter().filter(|layer| layer.rung == rung).count();
        rung_counts(Rung::ALL.map(count))
    }

    /// How many layers the search promoted.
    pub(super) fn promoted(&self) -> usize {
        self.layers.iter().filter(|layer| layer.promoted_from.is_some()).count()
    }

    /// What was asked for and what it became.
    pub(super) fn precision_words(&self) -> String {
        let super::Precision { asked, chosen } = &self.precision;
        if asked == chosen { chosen.clone() } else { format!("{chosen} ({asked} was asked for)") }
    }

    /// The data in words, if there is any.
    pub(super) fn dataset_words(&self) -> Option<String> {
        let dataset = self.dataset.as_ref()?;
        let labels = if dataset.labelled { "" } else { ", without labels" };
        let (search, verdict) = (dataset.search_examples, dataset.verdict_examples);
        Some(format!("{}: {search} examples for the search, {verdict} for the verdict{labels}", dataset.name))
    }
}

/// `68 w8a7, 4 f32`.
pub(super) fn rung_counts(counts: [usize; RUNGS]) -> String {
    let named = Rung::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
    let named: Vec<String> = named.map(|(rung, count)| format!("{count} {}", rung.name())).collect();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

/// `text` without what could steer a terminal or reorder a line, and without what XML can't hold.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || STEERING.contains(&c) { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// Marks of bidirectional text, separators of lines and noncharacters.
const STEERING: [char; 16] = [
    '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{061c}', '\u{fffe}', '\u{ffff}',
];
